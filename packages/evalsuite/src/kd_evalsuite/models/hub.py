"""A checkpoint from the Hugging Face Hub, asked for as `hf:owner/name[@revision]`. Needs the extra `hub`."""

import os
import re
from pathlib import Path

from kd_evalsuite.items import DataError

DATA_ONLY = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken"]  # no code, no pickle
OFFLINE = "HF_HUB_OFFLINE"
_ours = False


def stay_offline() -> None:
    """Nothing asks the Hub unless a command names it."""
    global _ours
    if OFFLINE not in os.environ:
        os.environ[OFFLINE], _ours = "1", True


def fetch(text: str) -> tuple[str, Path]:
    """Name with commit, and folder, of `owner/name` or `owner/name@revision`.

    Raises:
        DataError: If it is not such a name, or the Hub does not give it.
    """
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", text)
    if not found:
        raise DataError(f"Expected hf:owner/name or hf:owner/name@revision, got hf:{text}.")
    if _ours:
        os.environ[OFFLINE] = "0"
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(found[1], revision=found[2], allow_patterns=DATA_ONLY))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise DataError(f"The Hub gave no {text}: {type(error).__name__}: {error}") from error
    return f"{found[1].replace('/', '--')}@{folder.name[:12]}", folder
