"""What a run leaves on disk and on the screen: keys, digests, journal entries, progress, output written in one move."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from torch.nn import Module

    from kd_vlm.journal import Journal
    from kd_vlm.optim import Step

console = Console(stderr=True)


def key_of(*parts: Any) -> str:
    """A sha256 over JSON values: the same inputs give the same key, on every machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file_digest(paths: Iterable[Path]) -> str:
    """The sha256 over the contents of files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


@contextmanager
def progress(*, show: bool = True) -> Iterator[Progress]:
    """Bars on stderr, with steps done, time and time to go; under torchrun, those of the first rank are shown."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console, disable=not show
    ) as bars:
        yield bars


def on_step(
    journal: "Journal | None",
    bars: Progress,
    title: str,
    n_steps: int,
    first: int,
    *,
    done: int = 0,
    every: int = 10,
    more: Callable[["Step"], Mapping[str, float]] = lambda step: {},
) -> Callable[["Step"], None]:
    """A callback for a training that moves a bar and writes metrics to the journal every `every` steps.

    Args:
        first: Steps of earlier stages; the journal counts on from there.
        done: Steps of this stage that an earlier try has done.
        more: Further values of a step for the journal.
    """
    bar = bars.add_task(title, total=n_steps, completed=done, note="")
    began = time.monotonic()

    def act(step: "Step") -> None:
        rate = (step.number - done) / max(time.monotonic() - began, 1e-9)
        bars.update(bar, completed=step.number, note=f"loss {step.loss:.3f}  {rate:.1f} steps/s")
        if journal and (step.number % every == 0 or step.number == n_steps):
            values = {"loss": step.loss, "lr": step.lr, "grad_norm": step.grad_norm, "step_seconds": step.seconds}
            values |= more(step)
            journal.metrics(first + step.number, {f"train/{name}": value for name, value in values.items()})

    return act


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested parameters as one level: `{"a": {"b": 1}}` to `{"a.b": 1}`."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def millions(model: "Module") -> str:
    """How many million parameters."""
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}"
