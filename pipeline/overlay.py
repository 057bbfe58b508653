"""Parameters laid over other parameters: a whole study at another size, by numbers alone."""

from collections.abc import Mapping, MutableMapping
from fnmatch import fnmatchcase
from typing import Any


def lay_over(base: MutableMapping[str, Any], top: Mapping[str, Any]) -> None:
    """Change `base` to hold what `top` says, mapping by mapping.

    A null removes a key. A key with `*` in it stands for every key of `base` that it matches, as the shell would.

    Raises:
        KeyError: If a pattern matches nothing, or a null removes what is not there.
    """
    for key, value in top.items():
        if "*" not in key:
            _set(base, key, value)
            continue
        matched = [name for name in base if fnmatchcase(name, key)]
        if not matched:
            raise KeyError(f"{key!r} matches none of {', '.join(base)}")
        for name in matched:
            _set(base, name, value)


def _set(base: MutableMapping[str, Any], key: str, value: Any) -> None:
    if value is None:
        del base[key]
    elif isinstance(value, Mapping) and isinstance(base.get(key), MutableMapping):
        lay_over(base[key], value)
    else:
        base[key] = value
