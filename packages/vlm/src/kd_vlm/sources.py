"""Where a model is asked for: what `tracking.resolve` finds, and `hf-hub:owner/name[@revision]`."""

import hashlib
import re
from fnmatch import fnmatch
from pathlib import Path

from kd_vlm import tracking

HUB = "hf-hub:"
FILES = ("*.json", "*.safetensors", "*.jinja", "merges.txt", "tokenizer.model")  # no pickles, no code


def resolve(model: str) -> tracking.Model:
    """The folder of a reference file, `models:/name`, a plain folder, or a repository of the Hugging Face hub.

    A hub repository is downloaded once to the hub's own cache (`HF_HOME`) and read from there afterwards, so it also
    works with `HF_HUB_OFFLINE=1` when it is there. Only safetensors and JSON are fetched.

    Raises:
        FileNotFoundError: If there is no such thing.
        IntegrityError: If a registered model's files are not the ones that were registered.
    """
    return _from_hub(model.removeprefix(HUB)) if model.startswith(HUB) else tracking.resolve(model)


def _from_hub(address: str) -> tracking.Model:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, _, revision = address.partition("@")
    try:
        folder = Path(snapshot_download(repo, revision=revision or None, allow_patterns=list(FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"{HUB}{address}: neither in the hub's cache nor to be downloaded ({error}). With HF_HUB_OFFLINE=1 it must "
            "have been downloaded before; or download it elsewhere and name its folder."
        ) from None
    kind = "encoder" if (folder / "open_clip_config.json").exists() else "transformers"
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", repo.rpartition("/")[2])
    return tracking.Model(folder, kind, name, _digest(folder))


def _digest(folder: Path) -> str:
    """`tracking.digest` over the files named above; the cache may hold others that somebody else fetched."""
    lines = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and any(fnmatch(p.name, f) for f in FILES)):
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        lines.append(f"{sha256}  {file.relative_to(folder).as_posix()}\n")
    if not any(line.endswith(".safetensors\n") for line in lines):
        raise FileNotFoundError(f"{folder} holds no safetensors; convert its weights first, pickles are not loaded.")
    return hashlib.sha256("".join(lines).encode()).hexdigest()
