"""How benchmarks, their checks and scores of single files are shown."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from kd_evalsuite.errata import errata_of
from kd_evalsuite.items import Item
from kd_evalsuite.tasks import PROTOCOLS, prompts_of, task_named
from kd_evalsuite.tasks.base import Task
from kd_evalsuite.view import out, plain

if TYPE_CHECKING:
    from kd_evalsuite.baselines import Baselines
    from kd_evalsuite.checks import Finding
    from kd_evalsuite.data import TaskData


def print_json(value: object) -> None:
    """A value as JSON on standard output, and nothing else."""
    out.print(json.dumps(value, indent=1), markup=False, highlight=False, soft_wrap=True)


def _table(*columns: str, title: str | None = None, right: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name in right)
    return table


def task_row(task: Task) -> dict[str, Any]:
    """A task as a JSON object."""
    return {
        "task": task.key,
        "group": task.group,
        "source": task.source,
        "items": task.size,
        "other_editions": {str(n): name for n, name in task.other_sizes.items()},
        "hub": {"dataset": task.hub.dataset, "files": list(task.hub.files), "revision": task.hub.revision},
        "max_new_tokens": task.max_new_tokens,
        "scorer": task.scorer,
        "metrics": {protocol: [m.name for m in task.metrics_of(protocol)] for protocol in PROTOCOLS},
        "protocols_of_its_own": sorted(task.metrics),
        "errata": len(known.labels) if (known := errata_of(task.key)) else 0,
    }


def task_table(tasks: Iterable[Task]) -> Table:
    """Key, group, source, number of items, metrics; and which protocol has another main metric than `paper`."""
    table = _table("task", "group", "public source", "items", "metrics, the main one first", right=("items",))
    for task in tasks:
        names = [m.name for m in task.metrics["paper"]]
        others = {p: task.metrics_of(p)[0].name for p in PROTOCOLS if task.metrics_of(p)[0].name != names[0]}
        more = "".join(f"; {p}: {name}" for p, name in others.items())
        table.add_row(task.key, task.group, task.source, f"{task.size}", ", ".join(names) + more)
    table.caption = f"protocols: {', '.join(PROTOCOLS)}; the last three tasks are asked only when named"
    return table


def report_table(report: dict[str, Any]) -> Table:
    """The score of one file, its categories below."""
    title = f"{report['task']} under {report['protocol']}: {plain(report['metric'])} in {report['unit']}"
    columns = ("value", "±", "n", "chance", "unread", "top")
    table = _table("", *columns, title=title, right=columns)
    top = f"{report['top_answer_share']:.0%}"
    table.add_row("all", *_cells(report), top, style="bold")
    for other in report["metrics"]:
        table.add_row(plain(other["metric"]), *_cells(other), f"{other['top_answer_share']:.0%}")
    for name, part in report["categories"].items():
        table.add_row(f"  {plain(name)}", *_cells(part), "")
    table.caption = _caption(report)
    return table


def _cells(part: dict[str, Any]) -> tuple[str, ...]:
    chance = "" if part["chance"] is None else f"{part['chance']:.2f}"
    return f"{part['value']:.2f}", f"{part['stderr']:.2f}", str(part["n"]), chance, str(part["unparsed"])


def _caption(report: dict[str, Any]) -> str:
    said, data, lines = report["predictions"], report["data"], [f"scorer {report['scorer']}"]
    if not data["complete"]:
        lines.append(f"{data['items']} items, the public data set has {data['public_items']}")
    if said["blind"]:
        lines.append("asked without the images")
    if said["blank"] or said["of_no_item"]:
        lines.append(f"{said['blank']} blank replies, {said['of_no_item']} predictions of no item")
    if report["favourite"]["degenerate"]:
        lines.append(f"[red]the model says {plain(report['favourite']['answer'][:40])!r} nearly always[/red]")
    if applied := report["errata"]["applied"]:
        lines.append(f"labels corrected: {', '.join(applied)}")
    return "; ".join(lines)


def protocol_table(reports: Sequence[Sequence[dict[str, Any]]], asked: str = "") -> Table:
    """One row a task and protocol: the main metric, unread replies, and whose prompts the protocol asks with.

    Args:
        reports: By task, the report under each protocol.
        asked: Whose prompts these predictions were asked with, where that is known.
    """
    table = _table("task", "protocol", "metric", "value", "±", "unread", "prompts", right=("value", "±", "unread"))
    for task in reports:
        for r in task:
            own = "" if r["protocol"] in task_named(r["task"]).metrics else " (as paper)"
            value, error = f"{r['value']:.2f}", f"{r['stderr']:.2f}"
            name = r["task"] if r is task[0] else ""
            table.add_row(name, r["protocol"] + own, r["metric"], value, error, str(r["unparsed"]), r["prompts"])
    if asked:
        table.caption = f"asked with the prompts of {plain(asked)}; other protocols would have asked with theirs"
    return table


def findings_table(findings: Sequence["Finding"]) -> Table:
    """One row a benchmark: items, what is wrong, what is worth knowing."""
    table = _table("task", "items", "public", "found", right=("items", "public"))
    for f in findings:
        lines = [f"[red]{plain(p)}[/red]" for p in f.problems] + [plain(note) for note in f.notes]
        table.add_row(f.task, str(f.items), str(f.public), "\n".join(lines) or "[green]whole[/green]")
    return table


def baseline_table(rows: Sequence["Baselines"]) -> Table:
    """One row a benchmark."""
    columns = ("random", "constant", "most frequent", "blind")
    table = _table("task", "metric", *columns, right=columns)
    for row in rows:
        scale = "" if row.best == 100 else f" / {row.best:.0f}"
        table.add_row(
            row.task,
            f"{row.metric}{scale}",
            "" if row.random is None else f"{row.random:.1f}",
            f"{row.constant[1]:.1f} {plain(row.constant[0][:20])}",
            f"{row.frequent[1]:.1f} {plain(row.frequent[0][:20])}",
            "" if row.blind is None else f"{row.blind[0]:.1f} ± {row.blind[1]:.1f}",
        )
    return table


def show(data: "TaskData", item: Item, protocol: str) -> None:
    """A benchmark and one of its items as a model sees it."""
    task = task_named(data.key)
    prompt = task.prompts[prompts_of(protocol)](item)
    out.print(f"[bold]{task.key}[/bold] {plain(task.source)}: {len(data.items)} items, data {data.sha256[:8]}")
    out.print(f"hub {plain(task.hub.dataset)}, {plain(', '.join(task.hub.files))}; public items {task.size}")
    out.print(f"item {plain(item.id)}, cluster {plain(item.cluster or 'its picture')}, {len(prompt.pictures)} pictures")
    out.print(plain(prompt.marked), style="cyan", soft_wrap=True)
    out.print(f"gold: {plain(' | '.join(item.gold))}")
    for name in PROTOCOLS:
        if name in task.metrics:
            judge = task.metrics[name][0].judge.__doc__ or ""
            first = judge.strip().split("\n")[0]
            out.print(f"{name}: {', '.join(m.name for m in task.metrics[name])}. {plain(first)}", soft_wrap=True)
    main = task.metrics_of(protocol)[0].name
    out.print(f"metric: {main}, scorer version {task.scorer}, at most {task.max_new_tokens} new tokens")
    if known := errata_of(task.key):
        out.print(f"labels known to be wrong ({', '.join(known.labels)}): {plain(known.about)}", soft_wrap=True)
        out.print(f"  {plain('; '.join(known.source))}; corrected only with --errata", soft_wrap=True)
