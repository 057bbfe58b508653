"""`vlm sweep`: one VLM for every encoder of a distillation schedule."""

from pathlib import Path
from typing import Annotated

import typer

from kd_vlm.console import DryRun, Fork, Out, Overrides, ParamsFile, Requeue, Runs, errors, load

EXAMPLE = (
    "Example: vlm sweep student-vit--small--clip-kd --lm refs/lms/lm-small.json --recipe tinyllava "
    "--out models/sweep --refs refs/sweep"
)


def sweep(
    encoder: Annotated[str, typer.Argument(help="A registered encoder; its NAME-e<epoch> are swept with it.")],
    lm: Annotated[str, typer.Option(help="refs/NAME.json, models:/NAME, hf-hub:OWNER/NAME or a folder.")],
    recipe: Annotated[str, typer.Option(help="A recipe of the parameter file, or a packaged one.")],
    seed: Annotated[int | None, typer.Option(help="Without it, the recipe's.")] = None,
    refs: Annotated[Path | None, typer.Option(help="Register each VLM and write its reference there.")] = None,
    params: ParamsFile = Path("params.yaml"),
    out: Out = Path("models"),
    runs: Runs = Path("runs"),
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
    fork: Fork = False,
    requeue: Requeue = False,
) -> None:
    """Train a VLM for every epoch of a distillation that is registered: does a better encoder make a better VLM?

    Called again it goes on where it was; finished ones are kept.
    """
    with errors(requeue=requeue):
        section = load(params, overrides)
        chosen = section.recipe(recipe)
        from kd_vlm.names import lm_name, vlm_name
        from kd_vlm.sweep import schedule_of

        names = schedule_of(encoder)
        if dry_run:
            for name in names:
                typer.echo(f"{name} + {lm}, recipe {recipe}")
            return
        from kd_vlm.job import Job
        from kd_vlm.journal import register
        from kd_vlm.run import Habits, run_vlm
        from kd_vlm.sources import resolve

        language_model = resolve(lm)
        for name in names:
            title = vlm_name(name, lm_name(language_model.name), recipe)
            given = chosen.seed if seed is None else seed
            job = Job(title, resolve(f"models:/{name}"), language_model, recipe, chosen, given)
            habits = Habits(**section.habits)
            folder = run_vlm(job, section.data, out=out / title, runs=runs, habits=habits, fork=fork)
            if refs:
                register(folder, refs / f"{title}.json")
            typer.echo(str(folder))
