"""`data.yaml` of a study: its data sets, where they come from, what they hold."""

from pathlib import Path, PurePosixPath
from typing import Literal

from kd_distill.params import Params, load_section
from pydantic import Field, field_validator, model_validator

Kind = Literal["shards", "conversations", "classes", "captions", "benchmarks"]
COUNTED: dict[str, frozenset[str]] = {  # what is counted of each kind
    "shards": frozenset({"shards", "pairs"}),
    "conversations": frozenset({"rows", "text_only", "pictures"}),
    "classes": frozenset({"classes", "pictures"}),
    "captions": frozenset({"rows"}),
    "benchmarks": frozenset({"benchmarks", "items"}),
}
ORIGINS = ("hub", "url", "hand", "benchmarks", "captions_of", "shards_of")
BELONGS = {  # options that go with one origin only
    "files": "hub",
    "revision": "hub",
    "drop": "hub",
    "sha256": "url",
    "bytes": "url",
    "save_as": "url",
    "last": "shards_of",
    "all_but_last": "shards_of",
}


class Source(Params):
    """One place that files come from; exactly one of hub, url, hand, benchmarks, captions_of and shards_of is given."""

    hub: str | None = Field(None, description="A data set of the Hugging Face hub, `owner/name`.")
    files: tuple[str, ...] = Field((), description="Patterns of its files.")
    revision: str | None = Field(
        None, description="A commit; without one the first fetch takes the newest, and pins it."
    )
    drop: str = Field("", description="What the path of its files loses at its start.")
    url: str | None = Field(None, description="A file by HTTP.")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="Of that file.")
    bytes: int | None = Field(None, gt=0, description="Of that file.")
    save_as: str = Field("", description="Its name here; the last part of the URL where none is given.")
    unpack: str | None = Field(None, description="The files are (parts of) one archive, unpacked in this folder.")
    hand: str | None = Field(None, description="What a person has to do, step by step.")
    benchmarks: tuple[str, ...] | None = Field(None, description="Keys of `evalsuite list`; or all.")
    captions_of: str | None = Field(None, description="A data set of conversations, written as a table of captions.")
    shards_of: str | None = Field(None, description="A data set of shards, some of which are linked here.")
    last: int | None = Field(None, gt=0, description="So many of its last shards.")
    all_but_last: int | None = Field(None, gt=0, description="All shards but so many.")

    @property
    def origin(self) -> str:
        """Which of the six it is."""
        return next(name for name in ORIGINS if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one_origin(self) -> "Source":
        given = [name for name in ORIGINS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(ORIGINS)}, got {' and '.join(given) or 'none'}")
        for option, origin in BELONGS.items():
            if option in self.model_fields_set and origin != given[0]:
                raise ValueError(f"{option} goes with {origin}, not with {given[0]}")
        if self.unpack is not None and given[0] not in ("hub", "url"):
            raise ValueError(f"unpack goes with hub and url, not with {given[0]}")
        if self.hub is not None and not self.files:
            raise ValueError("hub needs the patterns of its files")
        if self.shards_of is not None and (self.last is None) == (self.all_but_last is None):
            raise ValueError("shards_of needs last or all_but_last")
        return self

    @field_validator("url")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("expected http:// or https://")
        return url


class Holds(Params):
    """What a folder must hold. Counts that stand here are required; the others are counted and written down."""

    kind: Kind
    file: str = Field("", description="Of conversations, the JSON; of captions, the table.")
    pictures: str = Field("", description="Of conversations, the folder below which pictures are named.")
    counts: dict[str, int] = Field({}, description="By what is counted of this kind.")
    may_lack: int = Field(0, ge=0, description="So many pictures may be missing or damaged.")
    complete: bool = Field(True, description="Benchmarks must have as many items as the public ones.")

    @model_validator(mode="after")
    def _fitting(self) -> "Holds":
        if strange := sorted(self.counts.keys() - COUNTED[self.kind]):
            raise ValueError(
                f"{self.kind} are counted in {', '.join(sorted(COUNTED[self.kind]))}, not in {strange[0]!r}"
            )
        if self.kind in ("conversations", "captions") and not self.file:
            raise ValueError(f"{self.kind} need the name of their file")
        return self


class Dataset(Params):
    """One folder of a study's data."""

    folder: str = Field(description="Below the root.")
    what: str
    licence: str
    needed_for: str = ""
    gigabytes: float | None = Field(None, gt=0, description="About how large it is, for planning.")
    sources: tuple[Source, ...] = Field(min_length=1)
    holds: Holds
    at: Path | None = Field(None, description="An existing folder: it is linked, verified and never written to.")

    @field_validator("folder")
    @classmethod
    def _below(cls, folder: str) -> str:
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError("expected a path below the root")
        return folder

    @property
    def base(self) -> str | None:
        """The data set that this one is made of."""
        return next((s.captions_of or s.shards_of for s in self.sources if s.captions_of or s.shards_of), None)


class DataFile(Params):
    """The section `data`."""

    root: Path = Field(description="The folder of all data sets; may be a link to another disk.")
    manifests: Path = Field(description="One small JSON a data set, to be committed.")
    datasets: dict[str, Dataset]

    @model_validator(mode="after")
    def _bases(self) -> "DataFile":
        seen: set[str] = set()
        for name, dataset in self.datasets.items():
            if dataset.base is not None and dataset.base not in seen:
                raise ValueError(f"{name} is made of {dataset.base!r}, which does not stand before it")
            seen.add(name)
        return self

    def folder(self, name: str) -> Path:
        """Where a data set is."""
        return self.root / self.datasets[name].folder

    def state(self, name: str) -> Path:
        """What this machine knows of a data set: pins, digests of files, archives."""
        return self.root / ".kd-data" / name

    def manifest(self, name: str) -> Path:
        """The manifest of a data set."""
        return self.manifests / f"{name}.json"


def read_spec(file: Path, overrides: list[str] | None = None) -> DataFile:
    """The data sets of a study.

    Raises:
        ParamsError: With the line and the nearest name of what is wrong.
    """
    return load_section(file, "data", DataFile, overrides or [])
