"""`make real`: the same stages on real data, where that is present."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from real import prepare, published, results, sources, steps


def main() -> int:
    """Prepare, run every step, print one table."""
    data = sources.folder()
    if absent := sources.missing(data):
        print(f"No real data: {data} lacks {', '.join(absent)}. Set KD_REAL_DATA to a folder that has them.")
        return 0
    start = time.monotonic()
    out = sources.ROOT / steps.OUT
    key = _prepare(data)
    for step in steps.steps():
        if step.name == "scores":
            published.write_predictions(data, out / "data" / "benchmarks", out / "predictions" / published.LLAVA)
        try:
            key = steps.run(step, key)
        except subprocess.CalledProcessError as error:
            print(f"{step.name} failed (exit code {error.returncode}); `make real` goes on where it stopped.")
            return error.returncode
    rows = results.collect(data, out)
    results.write(rows, steps.seconds(), out)
    _show(rows)
    minutes, rest = divmod(round(time.monotonic() - start), 60)
    print(f"Done in {minutes} min {rest} s. {steps.OUT}/results.md, results.json")
    wrong = results.check(rows)
    print("\n".join(wrong) or "The three published numbers came out: MIRA 82.65, CLIP's neighbours 90.1, LLaVA 54.33.")
    return 1 if wrong else 0


def _prepare(data: Path) -> str:
    """Convert the sources unless that was done; returns a key of what they are and of the code that converts them."""
    sizes = [
        [str(f.relative_to(data)), f.stat().st_size] for n in sources.NEEDED for f in sorted((data / n).rglob("*"))
    ]
    here = sources.ROOT / "real"
    code = steps.digest_of(
        here / f"{n}.py" for n in ("prepare", "sources", "mira", "packing", "chat", "questions", "stories")
    )
    key = hashlib.sha256(json.dumps([sizes, code]).encode()).hexdigest()
    out = sources.ROOT / steps.DATA
    if not prepare.is_done(out, key):
        prepare.prepare(data, out, lambda what: print(f"[runs]  {what}", flush=True))
        prepare.mark_done(out, key)
    return key


def _show(rows: list[results.Row]) -> None:
    table = Table("part", "who", "what", title="Real data: percent, ± standard error, chance", box=None)
    for name in ("%", "±", "n", "chance"):
        table.add_column(name, justify="right")
    last = ""
    for r in rows:
        chance = "" if r.chance is None else f"{r.chance:.1f}"
        part = r.part if r.part != last else ""
        last = r.part
        table.add_row(part, r.who, r.what, f"{r.value:.2f}", f"{r.stderr:.2f}", str(r.n), chance)
    Console(width=160).print(table)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
