"""The state of a data set in a word, without a look at its files."""

from pipeline.data.spec import DataFile


def state_of(spec: DataFile, name: str) -> str:
    """In a word; from the manifest and whether the folder exists."""
    there = spec.folder(name).is_dir()
    if spec.manifest(name).is_file():
        return "verified" if there else "elsewhere"  # verified on another machine
    if there:
        return "unverified"
    return "by hand" if all(source.hand for source in spec.datasets[name].sources) else "to fetch"
