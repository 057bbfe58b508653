"""Small SigLIP and Swin for timm's registry, which has none below 86 and 28 million parameters.

The commands of a rehearsal import this first, so that `timm_model_name` finds them as it finds timm's own.
"""

from typing import Any

import timm
from timm.models import register_model
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer


@register_model
def vit_siglip_rehearsal(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """SigLIP's form at 70 pixels: 5 x 5 patches of 14, attention pooling, no class token."""
    shape = {"img_size": 70, "patch_size": 14, "embed_dim": 48, "depth": 3, "num_heads": 3}
    return timm.models.vision_transformer.vit_base_patch16_siglip_224(pretrained, **{**shape, **kwargs})


@register_model
def swin_rehearsal(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """Swin's four stages at 64 pixels: 16 x 16 patches of 4 in windows of 2, then 8 x 8, 4 x 4, 2 x 2."""
    shape = {"img_size": 64, "window_size": 2, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
    return timm.models.swin_transformer.swin_tiny_patch4_window7_224(pretrained, **{**shape, **kwargs})
