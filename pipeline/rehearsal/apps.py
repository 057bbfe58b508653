"""The commands of a rehearsal, each imported when it is asked for, or all with what they use at once."""

# ruff: noqa: F401  imported for the processes that are forked after it

from collections.abc import Callable
from typing import Any

COMMANDS = ("distill", "vlm", "evalsuite", "analysis", "hub")


def app_of(command: str) -> Callable[..., Any]:
    """The typer app of one of `COMMANDS`, which knows the small towers."""
    import pipeline.rehearsal.towers  # registers them

    match command:
        case "distill":
            import kd_distill.cli

            return kd_distill.cli.app
        case "vlm":
            import kd_vlm.cli

            return kd_vlm.cli.app
        case "evalsuite":
            import kd_evalsuite.cli

            return kd_evalsuite.cli.app
        case "analysis":
            import kd_analysis.cli

            return kd_analysis.cli.app
        case _:
            import pipeline.rehearsal.hub

            return pipeline.rehearsal.hub.app


def import_all() -> None:
    """Everything that a command imports on its way, most of it late."""
    import kd_analysis.comparing
    import kd_analysis.report
    import kd_analysis.towers
    import kd_distill.journal
    import kd_distill.run
    import kd_distill.shipping
    import kd_evalsuite.commands
    import kd_evalsuite.models.vlm
    import kd_evalsuite.predict
    import kd_evalsuite.zeroshot.classify
    import kd_vlm.journal
    import kd_vlm.run
    import kd_vlm.sources
    import matplotlib.figure
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracking._model_registry.client
    import open_clip
    import pyarrow.parquet
    import scipy.stats

    for command in COMMANDS:
        app_of(command)
