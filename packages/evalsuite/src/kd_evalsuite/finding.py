"""What every command begins with: parameters, models, threads."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kd_evalsuite.config import SECTION, EvalParams
from kd_evalsuite.items import DataError
from kd_evalsuite.params import load_section

if TYPE_CHECKING:
    from kd_evalsuite.tracking import Model


def load_params(path: Path, overrides: Sequence[str]) -> EvalParams:
    """The section `evalsuite` of a parameter file."""
    return load_section(path, SECTION, EvalParams, overrides)


def find_model(model: str) -> "Model":
    """The verified folder of a model, fetched from the Hub where it is `hf:owner/name`.

    Raises:
        DataError: If the Hub does not give it.
        FileNotFoundError: If there is no such file, folder or registered model.
        IntegrityError: If its files are not the ones that a reference or the registry names.
    """
    from kd_evalsuite import tracking

    if not model.startswith("hf:"):
        return tracking.resolve(model)
    from kd_evalsuite.models.hub import fetch

    name, folder = fetch(model.removeprefix("hf:"))
    kind = "encoder" if (folder / "open_clip_config.json").is_file() else "transformers"
    return tracking.Model(folder, kind, name, tracking.digest(folder))


def require_device(name: str) -> None:
    """Refuse a device that is not there, before anything is loaded.

    Args:
        name: cpu, mps, cuda (the first one) or cuda:N, N counted from 0.

    Raises:
        DataError: With the devices that there are.
    """
    import torch

    if name == "mps" and not torch.backends.mps.is_available():
        raise DataError(f"Expected the device mps, torch {torch.__version__} finds none. Use --device cpu.")
    if not name.startswith("cuda"):
        return
    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(name.partition(":")[2] or 0)
    if number >= n:
        there = ", ".join(f"cuda:{k}" for k in range(n)) or "no GPU"
        raise DataError(
            f"Expected the device {name}, torch {torch.__version__} finds {there}. "
            f"Use {'one of these or ' if n else ''}--device cpu."
        )


def use_threads(n: int | None) -> None:
    """CPU threads of torch; None leaves its default."""
    import torch

    if n is not None:
        torch.set_num_threads(n)
