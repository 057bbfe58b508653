"""Numbers and sentences for people. A sentence calls a difference real only where `Difference.ahead` does."""

import string
from collections.abc import Sequence

from kd_evalsuite.average import AVERAGE
from kd_evalsuite.compare import Comparison, Difference

MINUS = "\u2212"
TITLES = {
    "mme_perception": "MME-P",
    "mme_cognition": "MME-C",
    "mmbench_en": "MMBench",
    "seedbench_image": "SEED-I",
    "gqa": "GQA",
    "scienceqa": "ScienceQA",
    "scienceqa_img": "ScienceQA-IMG",
    "mmmu": "MMMU",
    "mathvista": "MathVista",
    "ai2d": "AI2D",
    "chartqa": "ChartQA",
    "ocrbench": "OCRBench",
    "textvqa": "TextVQA",
    "textvqa_no_ocr": "TextVQA (no OCR)",
    "docvqa": "DocVQA",
    "mmvp": "MMVP",
    "realworldqa": "RealWorldQA",
    "cvbench_2d": "CV-Bench 2D",
    "cvbench_3d": "CV-Bench 3D",
    "zeroshot": "Zero-shot",
    AVERAGE: "Average",
}


def title(what: str) -> str:
    """A benchmark's usual name; others, and groups, as they are."""
    return TITLES.get(what, what)


def letters(labels: Sequence[str]) -> dict[str, str]:
    """A short sign for each model: A, B, C …"""
    signs = string.ascii_uppercase if len(labels) <= 26 else [f"M{k + 1}" for k in range(len(labels))]
    return dict(zip(labels, signs, strict=False))


def number(value: float | None, digits: int = 1) -> str:
    """A number for the reader; `--` where there is none."""
    if value is None or value != value:  # NaN is unequal to itself
        return "--"
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) != 0 else text.removeprefix("-")


def signed(value: float | None, digits: int = 1) -> str:
    """The same with its sign; zero has none."""
    text = number(value, digits)
    return text if text[0] in f"{MINUS}-" or float(text) == 0 else f"+{text}"


def p_value(p: float | None) -> str:
    """A probability; `< .001` below that."""
    return "--" if p is None or p != p else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def interval(d: Difference) -> str:
    """Its interval, signed."""
    return f"{signed(d.low)} to {signed(d.high)}"


def verdict(d: Difference, names: dict[str, str]) -> str:
    """Who is ahead, or that it cannot be told."""
    if d.ahead:
        return f"{names[d.ahead]} ahead"
    return "no item differs" if d.only_first == d.only_second == 0 else "not resolvable"


def sentences(found: Comparison, pair: tuple[str, str], names: dict[str, str]) -> list[str]:
    """What was found about a pair of models, the Average first."""
    said = [_about(d, names) for d in found.averages if (d.first, d.second) == pair]
    tasks = [d for d in found.by_task if (d.first, d.second) == pair]
    if len(tasks) == 1:
        return [_about(tasks[0], names)]
    won = {label: [title(d.what) for d in tasks if d.ahead == label] for label in (pair[1], pair[0])}
    open_ = sum(d.ahead is None for d in tasks)
    parts = [f"{names[label]} is ahead on {len(some)} ({', '.join(some)})" for label, some in won.items() if some]
    parts += [f"{open_} cannot be told apart" if parts else "none can be told apart"] if open_ else []
    said.append(f"Of {len(tasks)} tasks {'; '.join(parts)}, adjusted for their number.")
    return said


def summary(found: Comparison, names: dict[str, str]) -> list[str]:
    """The Average (or the only task) in as few sentences as there are models to stand against."""
    wholes = found.averages or found.by_task
    if len(found.pairs) == 1:
        return [_about(wholes[0], names)] if found.averages or len(wholes) == 1 else []
    if not found.averages and len(found.tasks) > 1:
        return []
    what = "the Average" if found.averages else title(wholes[0].what)
    said = []
    for first in dict.fromkeys(d.first for d in wholes):
        mine = [d for d in wholes if d.first == first]
        told = [
            f"{names[d.second]} is {'ahead' if d.ahead == d.second else 'behind'} "
            f"({signed(d.value)}, {interval(d)}, p {_is(d.p_holm)})"
            for d in mine
            if d.ahead
        ]
        open_ = [f"{names[d.second]} ({signed(d.value)})" for d in mine if not d.ahead]
        told += [f"not resolvable for {', '.join(open_)}"] if open_ else []
        said.append(f"Against {names[first]} on {what}: {'; '.join(told)}.")
    return said


def _about(d: Difference, names: dict[str, str]) -> str:
    first, second = names[d.first], names[d.second]
    what = "the Average" if d.what == AVERAGE else title(d.what)
    size = f"{second} {MINUS} {first} = {signed(d.value)} points ({interval(d)})"
    if d.ahead:
        return f"On {what} {names[d.ahead]} is ahead: {size}, p {_is(d.p_holm)}."
    if d.only_first == d.only_second == 0:
        return f"On {what} the two score the same on every item."
    return (
        f"On {what} the difference is not resolvable: {size}; a true difference of {number(d.detectable)} points would "
        "have been found four times out of five."
    )


def _is(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"
