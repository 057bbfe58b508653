"""Read one section of params.yaml into a frozen model; every mistake is reported with its line and the nearest name.

This file is the same in every package; its source is contract/shared/params.py.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.composer import Composer
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.scanner import RoundTripScanner

DEEPEST = 100  # brackets inside each other; what a scanner takes grows with the square of that
MOST_VALUES = 50_000  # of a section with its aliases written out: a few lines of aliases can mean billions


class Params(BaseModel):
    """Base of every section: frozen, unknown keys refused, no silent conversion of strings to numbers, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class ParamsError(ValueError):
    """The parameters are wrong; the message has one line for each mistake."""


Section = TypeVar("Section", bound=BaseModel)


def load_section(path: Path, section: str, model: type[Section], overrides: Sequence[str] = ()) -> Section:
    """The top-level `section` of the YAML 1.2 file `path`, validated.

    Args:
        path: params.yaml.
        section: Its top-level key.
        model: What the section must look like.
        overrides: `key.path=value` within the section, the value in YAML; applied before validation.

    Raises:
        ParamsError: If the file, the section, a key, a type or a range is wrong.
    """
    whole = _parse(path)
    if section not in whole:
        found = ", ".join(map(str, whole)) or "nothing"
        raise ParamsError(f"{path}: expected a top-level section {section!r}, found {found}.")
    data = whole[section]
    plain = _plain(data, f"{path}: {section}")
    for override in overrides:
        _apply(plain, override, section)
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        lines = [_explain(path, section, data, model, problem) for problem in error.errors()]
        raise ParamsError("\n".join(lines)) from None


class _Scanner(RoundTripScanner):
    """Stops at brackets that stand too deep in each other."""

    def fetch_flow_collection_start(self, *args: Any, **kwargs: Any) -> None:
        if self.flow_level == DEEPEST:
            raise ValueError(f"more than {DEEPEST} brackets inside each other")
        super().fetch_flow_collection_start(*args, **kwargs)


class _Composer(Composer):
    """Stops at keys that are mappings or lists; inside each other they would take a time exponential in their depth."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise ValueError(f"line {key.start_mark.line + 1}: expected a name for a key, got a mapping or a list")
        return node


def _parse(path: Path) -> CommentedMap:
    if not path.is_file():
        raise ParamsError(f"Expected a parameter file at {path}, found none. Pass --params FILE.")
    yaml = YAML(typ="rt")
    yaml.Scanner, yaml.Composer = _Scanner, _Composer
    try:
        whole = yaml.load(path.read_bytes().decode("utf-8-sig"))
    except Exception as error:  # beside YAMLError the library raises what it stumbles over: a date of no calendar, ...
        raise ParamsError(f"{path}: not valid YAML: {type(error).__name__}: {error}") from None
    if not isinstance(whole, CommentedMap):
        raise ParamsError(f"{path}: expected a mapping of sections at the top level.")
    return whole


def _apply(data: Any, override: str, section: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.removeprefix(f"{section}.").split(".")
    if not equals or not all(parts):
        raise ParamsError(f"--set expects key.path=value, got {override!r}.")
    node = data
    for depth, part in enumerate(parts):
        if not isinstance(node, Mapping) or (depth < len(parts) - 1 and part not in node):
            raise ParamsError(f"--set {key}: no such key{_nearest(part, node if isinstance(node, Mapping) else ())}")
        if depth < len(parts) - 1:
            node = node[part]
    try:
        found = YAML(typ="safe").load(value)
    except Exception as error:  # as in _parse
        raise ParamsError(f"--set {key}: not valid YAML: {type(error).__name__}: {error}") from None
    node[parts[-1]] = _plain(found, f"--set {key}")


def _plain(node: Any, where: str) -> Any:
    """The same data in builtin types, every alias a copy of its own."""
    left = MOST_VALUES

    def copied(node: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ParamsError(f"{where}: more than {MOST_VALUES} values with all aliases written out.")
        if isinstance(node, Mapping):
            return {str(k): copied(v) for k, v in node.items()}
        if isinstance(node, Sequence) and not isinstance(node, str | bytes):
            return [copied(v) for v in node]
        return float(node) if isinstance(node, float) else node

    try:
        return copied(node)
    except RecursionError:
        raise ParamsError(f"{where}: values nested too deeply, or an alias inside its own anchor.") from None


def _explain(path: Path, section: str, data: Any, model: type[BaseModel], problem: Any) -> str:
    loc = tuple(problem["loc"])
    name = ".".join([section, *map(str, loc)])
    where = f"{path}:{_line(data, loc)}: {name}"
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key{_nearest(str(loc[-1]), _known_keys(model, loc[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: missing; it has no default"
    return f"{where}: {problem['msg']} (got {problem['input']!r:.200})"


def _line(data: Any, loc: Sequence[Any]) -> int:
    """The line of the deepest node of `loc` that stands in the file."""
    node, line = data, 1
    for part in loc:
        if not isinstance(node, CommentedMap | CommentedSeq):
            break
        try:
            line = (node.lc.key(part) if isinstance(node, CommentedMap) else node.lc.item(part))[0] + 1
            node = node[part]
        except (KeyError, IndexError, TypeError):
            break
    return line


def _known_keys(model: Any, loc: Sequence[Any]) -> list[str]:
    """The field names of the model that `loc` leads to, through mappings, sequences and unions."""
    if not loc:
        return list(getattr(model, "model_fields", {}))
    head, *tail = loc
    fields = getattr(model, "model_fields", None)
    if fields is not None:
        return _known_keys(fields[head].annotation, tail) if head in fields else []
    inner = [a for a in get_args(model) if hasattr(a, "model_fields") or get_args(a)]
    return [key for a in inner for key in _known_keys(a, tail)]


def _nearest(word: str, known: Any) -> str:
    known = list(map(str, known))
    if close := difflib.get_close_matches(word, known, n=1, cutoff=0.5):
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
