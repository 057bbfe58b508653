"""The losses: pure functions, one concept a file, and the table of terms."""

from kd_distill.losses.augmented import augmented
from kd_distill.losses.cka import cka, cka_distance
from kd_distill.losses.contrastive import contrastive, pair_cross_entropy
from kd_distill.losses.feature import feature_distillation
from kd_distill.losses.gradient import contrastive_gradients, gradient_distillation
from kd_distill.losses.mixing import mix
from kd_distill.losses.patch import patch_distillation, resample
from kd_distill.losses.relational import mean_of_teachers, relational_kl, soft_cross_entropy, without_self
from kd_distill.losses.sigmoid import sigmoid_kl
from kd_distill.losses.standardised import Statistics, standardised_distance, sums_of
from kd_distill.losses.table import PATCH_TERMS, TEACHER_TERMS, TERMS, TEXT_TERMS, Term, terms_named

__all__ = [
    "PATCH_TERMS",
    "TEACHER_TERMS",
    "TERMS",
    "TEXT_TERMS",
    "Statistics",
    "Term",
    "augmented",
    "cka",
    "cka_distance",
    "contrastive",
    "contrastive_gradients",
    "feature_distillation",
    "gradient_distillation",
    "mean_of_teachers",
    "mix",
    "pair_cross_entropy",
    "patch_distillation",
    "relational_kl",
    "resample",
    "sigmoid_kl",
    "soft_cross_entropy",
    "standardised_distance",
    "sums_of",
    "terms_named",
    "without_self",
]
