"""The model card of an exported folder: what the model is, what went in, how it was trained, what it scored.

The same model gives the same bytes: no time, no machine, no path. All that comes from outside is escaped.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from kd_vlm.journal import read_journal
from kd_vlm.reading import read_json
from kd_vlm.tracking import JOURNAL

NAME, MLMODEL = "README.md", "MLmodel"
VERSIONS = {
    "stock": "Loads with transformers 5.",
    "legacy": "Loads with transformers 4.57 and 5; tensor names have the prefix vision_model. where towers had it.",
}


@dataclass(frozen=True)
class Facts:
    """What a training's journal says. Empty where there is none."""

    name: str
    recipe: tuple[tuple[str, str], ...] = ()
    inputs: tuple[Mapping[str, str], ...] = ()
    held_out: tuple[tuple[str, str], ...] = ()


def read_facts(folder: Path, name: str) -> Facts:
    """The facts of the model in `folder`, from the journal beside its weights, or from the tags of its registration.

    A model that comes from the registry has no journal: the card then says what it is, not every parameter.
    """
    if not (folder / JOURNAL).is_file():
        return Facts(name, recipe=_registered_tags(folder / MLMODEL))
    events = read_journal(folder / JOURNAL)
    start = events[0]
    metrics = {k: v for e in events if e["event"] == "metrics" for k, v in e["values"].items() if k.startswith("val/")}
    inputs = [{"what": m["kind"], "name": m["name"], "sha256": m["sha256"]} for m in start["models"]]
    inputs += [{"what": "data", "name": d["name"], "sha256": d["digest"]} for d in start["datasets"]]
    return Facts(
        name=start["name"],
        recipe=tuple(sorted((k, str(v)) for k, v in start["params"].items())),
        inputs=tuple(inputs),
        held_out=tuple(sorted((k, _number(v)) for k, v in metrics.items())),
    )


def _registered_tags(file: Path) -> tuple[tuple[str, str], ...]:
    if not file.is_file():
        return ()
    from ruamel.yaml import YAML

    try:
        tags = YAML(typ="safe").load(file.read_bytes().decode())["flavors"]["kd"]
        return tuple(sorted((str(key), str(value)) for key, value in tags.items() if str(key).startswith("kd.")))
    except KeyError:
        return ()  # of another kind of model
    except Exception as error:  # beside YAMLError the library raises what it stumbles over
        raise ValueError(f"{file}: expected MLflow's MLmodel: {type(error).__name__}: {error}") from None


def read_scores(path: Path) -> list[dict[str, Any]]:
    """The scores of an evaluation (`scores.json`, contract/README.md).

    Raises:
        ValueError: If it is not such a file.
    """
    try:
        content = read_json(path)
        if content["schema"] != "kd-scores/1":
            raise ValueError(f"schema {content['schema']!r}")
        keys = ("benchmark", "metric", "value", "best", "stderr", "n", "chance")
        rows = [{key: row[key] for key in keys} for row in content["scores"]]
        numbers = ("value", "best", "stderr", "n", "chance")
        tidy = [{**row, **{key: _number(row[key]) for key in numbers}} for row in rows]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: expected scores of schema kd-scores/1: {error!r}") from None
    return sorted(tidy, key=lambda row: (str(row["benchmark"]), str(row["metric"])))


def card(folder: Path, facts: Facts, *, form: str, scores: Sequence[Mapping[str, Any]] = ()) -> str:
    """The card of the stock checkpoint in `folder`, as Markdown."""
    from jinja2 import Environment, StrictUndefined

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    environment.filters["md"] = escaped
    template = environment.from_string(files("kd_vlm").joinpath("card.md.jinja").read_text(encoding="utf-8"))
    return template.render(
        facts=facts,
        architecture=config["architectures"][0],
        tower=config["vision_config"]["model_type"],
        language_model=config["text_config"]["model_type"],
        connector=_connector(config),
        tokens=_tokens(folder, config),
        millions=_millions(folder),
        versions=VERSIONS[form],
        scores=scores,
    )


def escaped(text: Any) -> str:
    """`text` as Markdown that shows it and does nothing: one line, no markup, no HTML, no control characters."""
    plain = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in str(text))
    return re.sub(r"([\\`*_{}\[\]()#+!|~$<>&\"'-])", r"\\\1", plain).replace("\\&", "&amp;").replace("\\<", "&lt;")


def _number(value: Any) -> str:
    return "" if value is None else f"{float(value):.6g}"


def _connector(config: Mapping[str, Any]) -> str:
    reducing = {"aya_vision": "downsample_factor", "perception_lm": "projector_pooling_ratio"}
    if (kind := config["model_type"]) in reducing:
        factor = config[reducing[kind]]
        return f"{'pixel shuffle' if kind == 'aya_vision' else 'average pool'} {factor} x {factor}"
    return "linear" if config.get("projector_hidden_act") == "linear" else "of two layers with GELU"


def _tokens(folder: Path, config: Mapping[str, Any]) -> int:
    processor = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    if "image_seq_length" in config:
        return int(config["image_seq_length"])
    image = processor.get("image_processor") or json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    edge = image["crop_size"]["height"] if image.get("crop_size") else image["tile_size"]
    return int((edge // processor["patch_size"]) ** 2)


def _millions(folder: Path) -> str:
    from safetensors import safe_open

    total = 0
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys() if "position_index" not in name]  # noqa: SIM118
        for shape in shapes:
            n = 1
            for edge in shape:
                n *= edge
            total += n
    return f"{total / 1e6:.2f}"
