"""Small models for versions and engines that are tried in an environment of their own."""

import timm
import torch
from kd_vlm.assembly import assemble, save_vlm
from kd_vlm.encoder import load_encoder
from kd_vlm.export import export
from timm.models import register_model


@register_model
def vit_siglip_seven(pretrained=False, **kwargs):
    """SigLIP's form with 6 x 6 tokens."""
    shape = {"img_size": 48, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
    return timm.models.vision_transformer.vit_base_patch16_siglip_224(pretrained, **{**shape, **kwargs})


@register_model
def vit_siglip_wide(pretrained=False, **kwargs):
    """The same, with heads of 32."""
    return vit_siglip_seven(pretrained, **{"embed_dim": 64, **kwargs})


def trunk(encoders, folder, name, size, **more):
    siglip = "siglip" in name
    head = {"timm_pool": "map", "timm_proj": "none"} if siglip else {"timm_pool": "", "timm_proj": "linear"}
    vision = {"timm_model_name": name, "timm_model_pretrained": False, "image_size": size, **head}
    encoders.write(folder, vision, **more)
    config = (folder / "open_clip_config.json").read_text()
    (folder / "open_clip_config.json").write_text(config.replace('"shortest"', '"squash"') if siglip else config)
    return folder


def exported(encoder, language_model, out, *, connector, factor, form):
    """The export of a lively VLM, with another rotary base than the default; what was trained stands beside it."""
    generator = torch.Generator().manual_seed(0)
    vlm = assemble(load_encoder(encoder), language_model, generator, connector=connector, factor=factor)
    with torch.no_grad():
        for p in (*vlm.model.model.language_model.parameters(), *vlm.projector.parameters()):
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    vlm.model.config.text_config.rope_parameters = {"rope_theta": 1e6, "rope_type": "default"}
    save_vlm(vlm, out / "trained")
    export(out / "trained", out / "exported", name="x", form=form)
    return out / "exported"
