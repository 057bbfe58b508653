"""Recipes as files: every choice of two training stages, by name. `vlm recipes` lists and compares them.

The `-paper` recipes are what the paper prints, the `-repo` recipes what the frameworks' scripts do; where they cannot
both be right, the notes in the file say so.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from ruamel.yaml import YAML

BASE = "base"  # the key by which a recipe of params.yaml begins with a packaged one


def recipe_names() -> list[str]:
    """The packaged recipes, in alphabetical order."""
    return sorted(f.name.removesuffix(".yaml") for f in files(__name__).iterdir() if f.name.endswith(".yaml"))


def recipe_values(name: str) -> dict[str, Any]:
    """The fields of the packaged recipe `name`, as its file gives them.

    Raises:
        ValueError: If there is none.
    """
    if name not in recipe_names():
        raise ValueError(f"Unknown recipe {name!r}. Known: {', '.join(recipe_names())}.")
    return dict(YAML(typ="safe").load(files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")))


def with_base(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` laid over the packaged recipe that their key `base` names, mapping by mapping; as they are without one.

    Raises:
        ValueError: If there is no such recipe.
    """
    own = {key: value for key, value in values.items() if key != BASE}
    return _laid_over(recipe_values(values[BASE]), own) if BASE in values else own


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = _laid_over(both[key], value) if nested else value
    return both


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Each field by its dotted name in which two recipes differ: (one, other); None where it is missing."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys((*one, *other)):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found[f"{prefix}{key}"] = (a, b)
    return found
