"""What the commands about benchmarks do: find, check, fetch, show."""

from collections.abc import Sequence
from pathlib import Path

from kd_evalsuite import view, view_data
from kd_evalsuite.data import folder_of, load_folder
from kd_evalsuite.finding import load_params
from kd_evalsuite.items import DataError
from kd_evalsuite.predictions import read_manifest, read_predictions
from kd_evalsuite.tasks import EVERY, TASKS, prompts_of, task_named


def data_root(data: Path | None, params: Path, overrides: Sequence[str]) -> Path:
    """Where the benchmarks are: as given, or as the parameters say.

    Raises:
        DataError: If neither says it.
    """
    if data is not None:
        return data
    if not params.is_file():
        raise DataError(f"Expected --data, or a parameter file with a section `evalsuite`; there is no {params}.")
    return load_params(params, overrides).data


def chosen(tasks: str, root: Path) -> list[str]:
    """The benchmarks named with commas between, or all of the sixteen that have a folder in `root`.

    Raises:
        DataError: If none has.
    """
    if tasks != "all":
        return [task_named(key.strip()).key for key in tasks.split(",") if key.strip()]
    found = [key for key in TASKS if (root / folder_of(root, key)).is_dir()]
    if not found:
        raise DataError(f"Expected folders of benchmarks ({', '.join(list(TASKS)[:3])}, …) in {root}, found none.")
    return found


def doctor(root: Path, tasks: str, *, complete: bool, pictures: bool, as_json: bool) -> None:
    """What is wrong with the data of each benchmark.

    Raises:
        DataError: If anything is.
    """
    from kd_evalsuite.checks import examine

    findings = [examine(root, key, complete=complete, pictures=pictures) for key in chosen(tasks, root)]
    if as_json:
        view_data.print_json([f.as_json() for f in findings])
    else:
        view.out.print(view_data.findings_table(findings))
    if bad := [f.task for f in findings if f.problems]:
        raise DataError(f"{len(bad)} of {len(findings)} benchmarks cannot be used as they are: {', '.join(bad)}.")


def show_baselines(root: Path, tasks: str, protocol: str, blind: Path | None, *, as_json: bool) -> None:
    """The baselines of each benchmark."""
    from kd_evalsuite.baselines import baselines

    prompts_of(protocol)
    if blind is not None and not read_manifest(blind).blind:
        raise DataError(f"{blind}: expected predictions made with --blind, these were made with the images.")
    rows = []
    for key in chosen(tasks, root):
        data = load_folder(root, key, pictures=False)
        said = read_predictions(blind / f"{key}.jsonl") if blind is not None else {}
        rows.append(baselines(data, protocol, said or None))
    if as_json:
        view_data.print_json([row.as_json() for row in rows])
    else:
        view.out.print(view_data.baseline_table(rows))


def fetch(keys: Sequence[str], root: Path, *, revision: str | None, dataset: str | None, dry_run: bool) -> None:
    """Bring benchmarks from the hub."""
    from kd_evalsuite.hub import fetch as bring
    from kd_evalsuite.hub import read_source

    names = list(TASKS) if list(keys) == ["all"] else [task_named(key).key for key in keys]
    if dataset is not None and len(names) != 1:
        raise DataError(f"--dataset goes with one benchmark, got {len(names)}.")
    for key in names:
        hub = EVERY[key].hub
        wanted = revision or hub.revision or "its newest commit, which is then kept"
        if dry_run:
            view.out.print(f"would fetch {key}: {dataset or hub.dataset}, {', '.join(hub.files)}, at {wanted}")
            continue
        with view.err.status(f"fetching {key} from {dataset or hub.dataset}"):
            folder = bring(key, root, revision=revision, dataset=dataset)
        source = read_source(folder)
        view.out.print(f"{key}: {source.dataset}@{source.revision}, {len(source.files)} files in {folder}")


def show_tasks(*, as_json: bool = False) -> None:
    """The table of benchmarks."""
    if as_json:
        view_data.print_json([view_data.task_row(task) for task in EVERY.values()])
    else:
        view.out.print(view_data.task_table(EVERY.values()))


def show_item(key: str, root: Path, protocol: str, item_id: str | None) -> None:
    """One item as the model sees it."""
    data = load_folder(root, task_named(key).key)
    found = next((i for i in data.items if item_id in (None, i.id)), None)
    if found is None:
        raise DataError(f"{key}: expected an item {item_id!r}, found none; the first is {data.items[0].id!r}.")
    view_data.show(data, found, protocol)
