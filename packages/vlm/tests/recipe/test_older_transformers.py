"""The older form under transformers 4.57, in an environment of its own: `make compat` makes it and runs this file."""

import os
from pathlib import Path

import pytest
from kd_vlm.verify import example_conversations, verify_export

from packages.vlm.tests.recipe.older import exported, trunk

pytestmark = [pytest.mark.recipe, pytest.mark.faults]
PYTHON = os.environ.get("KD_TRANSFORMERS_4")


@pytest.mark.skipif(PYTHON is None, reason="KD_TRANSFORMERS_4 names no interpreter with transformers 4.57: make compat")
@pytest.mark.parametrize(
    ("kind", "connector", "factor"),
    [
        ("clip", "mlp2x_gelu", None),
        ("clip", "linear", None),
        ("clip", "pixel_shuffle", 2),
        ("siglip", "mlp2x_gelu", None),
        ("siglip", "pixel_shuffle", 3),
        ("siglip", "avg_pool", 3),
        ("swin", "mlp2x_gelu", None),
    ],
)
def test_the_older_form_is_the_trained_model_there_too(
    encoders, vit_folder, lm_folder, tmp_path, kind, connector, factor
):
    """No tensor missing, equal tokens, logits, loss, answers; the pipeline's too."""
    folder = vit_folder
    if kind == "siglip":
        folder = trunk(encoders, tmp_path / "siglip", "vit_siglip_seven", 48, embed_dim=32)
    if kind == "swin":
        folder = trunk(encoders, tmp_path / "swin", "swin_tiny_patch4_window7_224", 224)
    model = exported(folder, lm_folder, tmp_path, connector=connector, factor=factor, form="legacy")
    checks = verify_export(tmp_path / "trained", model, example_conversations(), python=str(Path(PYTHON)))
    assert "transformers 4.57" in checks[0].note
    assert all(check.ok for check in checks), checks
