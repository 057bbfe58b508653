"""Models of other packages, named by entry point: the one way of naming code.

A package offers one in its pyproject.toml:

    [project.entry-points."kd_evalsuite.models"]
    mine = "my_package.models:Mine"

`--model plugin:mine` calls `Mine()`, `--model plugin:mine=large` calls `Mine("large")`; what comes back has
`answer(requests, max_new_tokens) -> [Reply]` (`models/base.py`).
"""

import hashlib
from importlib.metadata import EntryPoint, entry_points

from kd_evalsuite.items import DataError
from kd_evalsuite.models.base import Answerer
from kd_evalsuite.records import ModelRef

GROUP = "kd_evalsuite.models"


def find_plugin(text: str) -> tuple[EntryPoint, str]:
    """The entry point of `NAME` or `NAME=ARGUMENT`, and the argument.

    Raises:
        DataError: If no installed package has one of this name, or several have.
    """
    name, _, argument = text.partition("=")
    found = entry_points(group=GROUP, name=name)
    if len(found) != 1:
        known = ", ".join(sorted({e.name for e in entry_points(group=GROUP)})) or "none"
        raise DataError(f"Expected one plugin {name!r} among installed packages, found {len(found)}; known: {known}.")
    return next(iter(found)), argument


def plugin_ref(point: EntryPoint, argument: str) -> ModelRef:
    """Name and digest of package, version, entry point and argument; of its weights nothing is known."""
    package = f"{point.dist.name}=={point.dist.version}" if point.dist else ""
    digest = hashlib.sha256("\n".join((package, point.value, argument)).encode()).hexdigest()
    return ModelRef(kind="plugin", name=point.name + (f"={argument}" if argument else ""), sha256=digest)


def load_plugin(point: EntryPoint, argument: str) -> Answerer:
    """The model.

    Raises:
        DataError: If what the entry point makes cannot answer.
    """
    make = point.load()
    model: Answerer = make(argument) if argument else make()
    if not callable(getattr(model, "answer", None)):
        raise DataError(f"{point.value}: expected a model with `answer(requests, max_new_tokens)`, got {type(model)}.")
    return model
