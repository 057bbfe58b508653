"""The loss terms by name, and what each needs. A new term is a pure function, a line here and its test."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kd_distill.losses import terms
from kd_distill.losses.terms import Scalar

PAIR = ("image", "text")


@dataclass(frozen=True)
class Term:
    """How a term is computed and what it needs.

    Args:
        compute: From `Rows` if it has anchors, else from (`Embeddings`, `Options`).
        anchors: Modalities whose rows it sums over, block by block; the term is the mean over these.
        reads: What must be there: fields of `Side`, `Scales` and `Embeddings` by name.
        teacher: It needs a teacher.
        image: It reads images.
        text: It reads captions.
        patches: It reads patch tokens of student and teacher.
        bias: It needs a teacher with a bias.
    """

    compute: Callable[..., Scalar]
    anchors: tuple[str, ...] = ()
    reads: frozenset[str] = frozenset()
    teacher: bool = True
    image: bool = True
    text: bool = False
    patches: bool = False
    bias: bool = False


def _term(compute: Callable[..., Scalar], reads: str, **needs: Any) -> Term:
    return Term(compute, reads=frozenset(reads.split()), **needs)


TERMS: dict[str, Term] = {
    "task": _term(terms.task, "student", anchors=PAIR, teacher=False, text=True),
    "ckd": _term(terms.ckd, "student teachers", anchors=PAIR, text=True),
    "soft_ce": _term(terms.soft_ce, "student teachers", anchors=PAIR, text=True),
    "ensemble": _term(terms.ensemble, "student teachers", anchors=PAIR, text=True),
    "icl": _term(terms.icl, "projected teachers cross", anchors=PAIR, text=True),
    "cross_kd": _term(terms.cross_kd, "projected teachers cross", anchors=PAIR, text=True),
    "afd": _term(terms.afd, "fused", anchors=PAIR, text=True),
    "sigmoid_kd": _term(terms.sigmoid_kd, "student teachers", anchors=("image",), text=True, bias=True),
    "kl_image": _term(terms.kl_within, "student teachers", anchors=("image",)),
    "kl_text": _term(terms.kl_within, "student teachers", anchors=("text",), image=False, text=True),
    "fd": _term(terms.fd, "projected teachers", text=True),
    "fd_image": _term(terms.fd_image, "projected teachers"),
    "mfd": _term(terms.mfd, "masked teachers"),
    "mse": _term(terms.mse, "projected raw teachers", text=True),
    "gd": _term(terms.gd, "projected projected_all teachers", text=True),
    "cka": _term(terms.cka, "student teachers"),
    "standardised": _term(terms.standardised, "standardised"),
    "patch": _term(terms.patch, "patches", patches=True),
    "cka_patch": _term(terms.cka_patch, "plain_patches", patches=True),
    "standardised_patch": _term(terms.standardised_patch, "standardised_patches", patches=True),
}

TEACHER_TERMS = frozenset(name for name, term in TERMS.items() if term.teacher)
TEXT_TERMS = frozenset(name for name, term in TERMS.items() if term.text)
PATCH_TERMS = frozenset(name for name, term in TERMS.items() if term.patches)


def terms_named(names: Any) -> dict[str, Term]:
    """The terms of these names, in alphabetical order.

    Raises:
        ValueError: If a name is unknown.
    """
    if unknown := set(names) - set(TERMS):
        raise ValueError(f"Unknown loss terms {sorted(unknown)}. Known: {', '.join(TERMS)}.")
    return {name: TERMS[name] for name in sorted(set(names))}
