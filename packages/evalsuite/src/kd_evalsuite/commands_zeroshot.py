"""What `evalsuite zeroshot` does: find the set and the encoders, classify, show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_evalsuite import view
from kd_evalsuite.config import ZeroshotParams
from kd_evalsuite.finding import find_model, require_device, use_threads
from kd_evalsuite.items import DataError
from kd_evalsuite.records import ModelRef, Scores

if TYPE_CHECKING:
    from kd_evalsuite.tracking import Model


SHARED = ("data", "limit", "batch_size")  # options of `run` that an encoder has, too, in its own section
USED = {*SHARED, "tasks", "device"}


def refuse_idle(asked: Mapping[str, Any], *, blind: bool, replace: bool, shard: bool) -> None:
    """Refuse options of `run` that mean nothing to an encoder.

    Args:
        asked: The options by parameter, those of a section in a mapping; None where not given.
        blind: Whether `--blind` was given.
        replace: Whether `--replace` was.
        shard: Whether this is a share, by `--shard` or torchrun's.

    Raises:
        DataError: With the names of all of them.
    """
    given = {key: value for key, value in asked.items() if value is not None and key not in USED}
    idle = [name for key, value in given.items() for name in (value if isinstance(value, Mapping) else [key])]
    switches = {"blind": blind, "replace": replace, "shard (or torchrun)": shard}
    if idle := [*idle, *(name for name, on in switches.items() if on)]:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise DataError(
            f"Zero-shot classification asks no questions and runs in one process, so it has no {listed}. Leave that "
            "out; --data, --limit, --batch-size and --device apply."
        )


def zeroshot(
    given: ZeroshotParams,
    models: Sequence["str | Model"],
    out: Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    dry_run: bool = False,
) -> None:
    """Classify with each encoder, named or already found; scores go to `out/<name>/`."""
    from kd_evalsuite.score import write_scores
    from kd_evalsuite.zeroshot.config import check_config
    from kd_evalsuite.zeroshot.imagenet import shared_names
    from kd_evalsuite.zeroshot.sets import open_set

    data = open_set(given.data, names=given.names, templates=given.templates)
    if shared := shared_names(data.names):
        view.err.print(f"names of several classes, which nothing can tell apart: {view.plain(', '.join(shared))}")
    found = [find_model(model) if isinstance(model, str) else model for model in models]
    if repeated := {m.name for m in found if sum(n.name == m.name for n in found) > 1}:
        raise DataError(f"Models of one name would share a folder: {', '.join(sorted(repeated))}.")
    for model in found:
        check_config(model.path)
        if dry_run:
            what = f"{len(data.names)} classes ({data.layout}, {len(data.templates)} templates)"
            view.out.print(f"would classify {what} with {model.name} into {out / model.name}")
    if dry_run:
        return
    require_device(device)
    from kd_evalsuite.zeroshot.classify import Encoder, classify

    use_threads(threads)
    with view.bars() as progress:
        for model in found:
            with view.one_bar(progress, model.name, None) as advance:
                encoder = Encoder(model.path, device)
                kept = f"{model.sha256[:16]}-{data.fingerprint[:16]}-{given.limit or 'all'}.npz"
                scores, rows = classify(
                    encoder,
                    data,
                    batch_size=given.batch_size,
                    limit=given.limit,
                    workers=given.workers,
                    advance=advance,
                    cache=given.cache / kept if given.cache else None,
                )
            ref = ModelRef(kind=model.kind, name=model.name, sha256=model.sha256)
            result = Scores(schema="kd-scores/1", model=ref, blind=False, scores=scores)
            write_scores(out / model.name, result, rows)
            view.out.print(view.score_table(result))
