"""Names of registered models, built in one place (see the contract)."""

import re

_ID = re.compile(r"[A-Za-z0-9_-]+")


def lm_name(lm_id: str) -> str:
    """`lm-<id>`; an id that already has the prefix is left as it is.

    Raises:
        ValueError: If the id holds anything but letters, digits, `-` and `_`.
    """
    return _checked(lm_id if lm_id.startswith("lm-") else f"lm-{lm_id}")


def vlm_name(encoder: str, lm: str, recipe: str) -> str:
    """`vlm-<encoder>--<lm id>--<recipe>`; `--` within the encoder's registered name becomes `-`.

    Raises:
        ValueError: If a part holds anything but letters, digits, `-` and `_`.
    """
    return _checked(f"vlm-{encoder.replace('--', '-')}--{lm.removeprefix('lm-')}--{recipe}")


def _checked(name: str) -> str:
    if not _ID.fullmatch(name):
        raise ValueError(f"Expected a name of letters, digits, - and _, got {name!r}.")
    return name
