"""What the pipeline reads: the parameters and costs of a study, and references."""

from pathlib import Path

from kd_distill.tracking import read_ref

from contract.fuzz.harness import Target
from pipeline.plan import plan

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "studies" / "sound"
PARAMS, COSTS = (STUDY / "params.yaml").read_bytes(), (STUDY / "costs.yaml").read_bytes()


def refused(error: Exception) -> bool:
    """Whether `make plan` says the error and exits with 2."""
    return isinstance(error, ValueError)


def planned(path: Path) -> None:
    plan(path.parent, path.parent / "models")


TARGETS = (
    Target("study_params", "study/params.yaml", planned, (PARAMS,), refused, {"study/costs.yaml": COSTS}, seconds=4.0),
    Target("study_costs", "study/costs.yaml", planned, (COSTS,), refused, {"study/params.yaml": PARAMS}, seconds=4.0),
    Target("reference", "ref.json", read_ref, ((ROOT / "contract" / "golden" / "ref.json").read_bytes(),), refused),
)
