"""Files of replies that follow from the items."""

from kd_evalsuite.data import load_task

from packages.evalsuite.tests.helpers.benchmarks import write_jsonl


def items_of(root, key):
    return load_task(root, key, pictures=False).items


def told(root, key, folder, rule=lambda item: item.gold[0], *, name="p.jsonl", line=None):
    """A file of replies by a rule; `line` is what a row of it looks like."""
    line = line or (lambda item, said: {"id": item.id, "prediction": said})
    write_jsonl(folder / name, [line(item, rule(item)) for item in items_of(root, key)])
    return folder / name
