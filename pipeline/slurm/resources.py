"""What each stage asks the cluster for: the section `slurm` of a YAML file."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import Field

from contract.shared.params import Params, load_section


class Resources(Params):
    """Of one job."""

    gpus: int = Field(0, ge=0, description="Of a node.")
    cpus: int = Field(4, ge=1, description="Of a node.")
    mem_gb: int = Field(16, ge=1, description="Of a node.")
    hours: float = Field(4.0, gt=0, allow_inf_nan=False, description="Then it is asked to save, and queued again.")
    nodes: int = Field(1, ge=1, description="More than one need a launcher in the stage's command.")
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None


class Cluster(Params):
    """How a study uses the cluster."""

    stages: dict[str, Resources] = Field(description="By pattern of a stage's name (`student@*`); the first that fits.")
    setup: list[str] = Field([], description="Shell lines before each job: modules, environment variables.")
    save_seconds: int = Field(120, ge=10, description="Between being asked to save and being killed.")
    again: int = Field(20, ge=0, description="How often a stage may be preempted, run out of hours, or end with 75.")
    lost: int = Field(2, ge=0, description="How often its job may vanish, with its node or by a kill.")
    pause_seconds: float = Field(30.0, ge=0, description="Before a stage is submitted again.")

    def of(self, stage: str) -> Resources:
        """What `stage` asks for.

        Raises:
            ValueError: If no pattern fits.
        """
        name = stage.rpartition(":")[2]
        for pattern, resources in self.stages.items():
            if fnmatchcase(name, pattern):
                return resources
        raise ValueError(f"{name}: none of the patterns {list(self.stages)} fits; end them with '*'.")


def read_cluster(file: Path, **changes: Any) -> Cluster:
    """The section `slurm` of a file; `changes` that are not None take the place of what all of its stages say.

    `gpus` changes only stages that have any.

    Raises:
        ParamsError: If a key, type or range is wrong.
    """
    cluster = load_section(file, "slurm", Cluster)
    given = {key: value for key, value in changes.items() if value is not None}

    def changed(resources: Resources) -> Resources:
        own = given if resources.gpus else {key: value for key, value in given.items() if key != "gpus"}
        return Resources.model_validate(resources.model_dump() | own)

    return cluster.model_copy(update={"stages": {name: changed(r) for name, r in cluster.stages.items()}})
