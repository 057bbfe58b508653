"""A convolutional or hybrid timm trunk as a `TimmWrapperModel`; its tokens are the last feature map.

timm has no argument that ends such a trunk earlier (a ConvNeXt always builds four stages, MobileViT's blocks are
fixed), and a wrapper's list of maps fits no stock VLM. So an earlier map is refused.
"""

import torch
from torch import Tensor
from transformers import TimmWrapperConfig, TimmWrapperModel

from kd_vlm.open_clip_config import TimmCfg
from kd_vlm.towers.common import Built, load


def build(vision: TimmCfg, weights: dict[str, Tensor], layer: int | str | None) -> Built:
    """The tower of `visual.trunk.*`, the prefix removed.

    Raises:
        ValueError: If the trunk gives no square map of channels first, or an earlier map is asked for.
    """
    name = vision.timm_model_name
    if layer not in (None, "last", -1):
        raise ValueError(f"feature.layer: no stock class stops {name} before its last map; take last. (Swin can.)")
    config = TimmWrapperConfig.from_dict(
        {"architecture": name, "do_pooling": False, "num_classes": 0, "hidden_size": 1}
    )
    tower = TimmWrapperModel(config).eval()
    classifier = tower.timm_model.pretrained_cfg.get("classifier") or ()
    classifier = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    kept = {k: v for k, v in weights.items() if not k.startswith(tuple(f"{c}." for c in classifier))}
    load(tower, {f"timm_model.{key}": value for key, value in kept.items()})
    with torch.no_grad():
        features = tower(torch.zeros(1, 3, vision.image_size, vision.image_size)).last_hidden_state
    if features.ndim != 4 or features.shape[2] != features.shape[3]:
        raise ValueError(
            f"{name}: expected a square feature map (b, channels, h, w), got {tuple(features.shape)} "
            f"({tower.timm_model.num_features} features). Take a convolutional or hybrid trunk, Swin, SigLIP or a "
            "native open_clip ViT."
        )
    config.hidden_size = features.shape[1]
    return Built(tower, features.shape[1], features.shape[2], n_class=0, layer=-1)
