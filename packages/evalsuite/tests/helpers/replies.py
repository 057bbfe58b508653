"""Files of replies that follow from the items."""

from kd_evalsuite.data import load_all, load_task
from kd_evalsuite.predict import manifest_of
from kd_evalsuite.predictions import open_folder
from kd_evalsuite.records import ModelRef

from packages.evalsuite.tests.helpers.benchmarks import write_jsonl


def items_of(root, key):
    return load_task(root, key, pictures=False).items


def told(root, key, folder, rule=lambda item: item.gold[0], *, name="p.jsonl", line=None):
    """A file of replies by a rule; `line` is what a row of it looks like."""
    line = line or (lambda item, said: {"id": item.id, "prediction": said})
    write_jsonl(folder / name, [line(item, rule(item)) for item in items_of(root, key)])
    return folder / name


def predicted(root, key, folder, rule=lambda item: item.gold[0], *, blind=False, limit=None, **changes):
    """A folder with a manifest, some fields of it changed, and beside it the file of replies, which is given back."""
    tasks = load_all(root, [key], limit=limit)
    ref = ModelRef(kind="vlm", name=folder.name, sha256="0" * 64)
    manifest = manifest_of(ref, tasks, protocol="paper", blind=blind, limit=limit)
    open_folder(folder, manifest.model_copy(update=changes))
    write_jsonl(folder / f"{key}.jsonl", [{"id": i.id, "prediction": rule(i)} for i in tasks[0].items])
    return folder / f"{key}.jsonl"
