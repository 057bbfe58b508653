"""Every connector computes what it says, trains what it says, and loads in a stock class with equal logits."""

import pytest
import timm
import torch
from kd_vlm.assembly import assemble, save_vlm, standardise_input
from kd_vlm.connectors import projected
from kd_vlm.corpus import prepare
from kd_vlm.data import read_conversations
from kd_vlm.encoder import load_encoder, visual_tokens
from kd_vlm.features import cache_features
from kd_vlm.loading import load_vlm, tower_tokens
from kd_vlm.watching import NEW_TOKENS, answers
from PIL import Image
from timm.models import register_model
from transformers import AutoModelForImageTextToText


@register_model
def vit_siglip_six(pretrained=False, **kwargs):
    """SigLIP's form with 6 x 6 tokens of 32 channels, as wide as the tests' language model."""
    shape = {"img_size": 48, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
    return timm.models.vision_transformer.vit_base_patch16_siglip_224(pretrained, **{**shape, **kwargs})


@pytest.fixture(scope="module")
def siglip_folder(encoders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "siglip"
    vision = {"timm_model_name": "vit_siglip_six", "timm_model_pretrained": False, "image_size": 48}
    encoders.write(folder, {**vision, "timm_pool": "map", "timm_proj": "none"}, embed_dim=32)
    config = (folder / "open_clip_config.json").read_text()
    (folder / "open_clip_config.json").write_text(config.replace('"shortest"', '"squash"'))
    return folder


STOCK = {
    ("clip", "mlp2x_gelu", None): ("LlavaForConditionalGeneration", 16, 4),
    ("clip", "linear", None): ("LlavaForConditionalGeneration", 16, 2),
    ("clip", "identity", None): ("LlavaForConditionalGeneration", 16, 0),
    ("clip", "pixel_shuffle", 2): ("AyaVisionForConditionalGeneration", 4, 6),
    ("siglip", "mlp2x_gelu", None): ("LlavaForConditionalGeneration", 36, 4),
    ("siglip", "pixel_shuffle", 3): ("AyaVisionForConditionalGeneration", 4, 6),
    ("siglip", "avg_pool", 2): ("PerceptionLMForConditionalGeneration", 9, 4),
    ("siglip", "avg_pool", 3): ("PerceptionLMForConditionalGeneration", 4, 4),
    ("map", "mlp2x_gelu", None): ("FastVlmForConditionalGeneration", 4, 4),
    ("map", "linear", None): ("FastVlmForConditionalGeneration", 4, 2),
}


@pytest.fixture(scope="module", params=STOCK, ids=lambda row: "-".join(map(str, row)))
def built(request, vit_folder, siglip_folder, resnet_folder, lm_folder):
    kind, connector, factor = request.param
    encoder = load_encoder({"clip": vit_folder, "siglip": siglip_folder, "map": resnet_folder}[kind])
    vlm = assemble(encoder, lm_folder, torch.Generator().manual_seed(0), connector=connector, factor=factor)
    return encoder, vlm, STOCK[request.param]


def inputs(encoder, vlm, n=2):
    pixels = torch.randn(n, 3, encoder.size, encoder.size, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[5, *[vlm.image_id] * vlm.tokens_per_image, 6, 7, 8]] * n)
    return ids, pixels, pixels[:, None] if vlm.connector == "avg_pool" else pixels


def test_class_tokens_and_trained_parameters_are_as_declared(built):
    _, vlm, (name, n_tokens, n_trained) = built
    assert (type(vlm.model).__name__, vlm.tokens_per_image) == (name, n_tokens)
    trained = vlm.connector_parameters()
    assert len(trained) == n_trained
    named = dict(vlm.model.named_parameters())
    assert all(named[key] is value for key, value in trained.items())


def test_tokens_computed_apart_give_the_logits_of_the_pixel_path(built):
    encoder, vlm, _ = built
    ids, pixels, shaped = inputs(encoder, vlm)
    with torch.no_grad():
        expected = vlm.model(input_ids=ids, pixel_values=shaped).logits
        ours = vlm.model(input_ids=ids, mm_encoder_outputs=projected(vlm.model, visual_tokens(encoder, pixels))).logits
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(tower_tokens(vlm.model, shaped), visual_tokens(encoder, pixels), atol=1e-5, rtol=0)


def test_the_saved_model_is_the_same_in_the_stock_class(built, tmp_path):
    encoder, vlm, (name, n_tokens, _) = built
    save_vlm(vlm, tmp_path / "vlm")
    stock = AutoModelForImageTextToText.from_pretrained(tmp_path / "vlm", local_files_only=True).eval()
    ids, _, shaped = inputs(encoder, vlm)
    with torch.no_grad():
        assert torch.equal(
            stock(input_ids=ids, pixel_values=shaped).logits, vlm.model(input_ids=ids, pixel_values=shaped).logits
        )
    again = load_vlm(tmp_path / "vlm")
    assert (type(again.model).__name__, again.tokens_per_image, again.connector) == (name, n_tokens, vlm.connector)


def features(encoder, n=2):
    return torch.randn(n, encoder.n_tokens, encoder.width, generator=torch.Generator().manual_seed(2))


def tokens(vlm, x):
    out = projected(vlm.model, x)["image"].pooler_output
    return torch.stack(out) if isinstance(out, list) else out


def assembled(folder, lm_folder, connector, factor=None):
    encoder = load_encoder(folder)
    vlm = assemble(encoder, lm_folder, torch.Generator().manual_seed(0), connector=connector, factor=factor)
    return encoder, vlm, vlm.projector


def test_linear_is_one_linear_layer_to_the_bit(vit_folder, lm_folder):
    encoder, vlm, layers = assembled(vit_folder, lm_folder, "linear")
    x = features(encoder)
    with torch.no_grad():
        assert torch.equal(tokens(vlm, x), layers.linear_1(x))


def test_identity_hands_the_towers_tokens_on_to_the_bit(vit_folder, lm_folder):
    encoder, vlm, _ = assembled(vit_folder, lm_folder, "identity")
    x = features(encoder)
    with torch.no_grad():
        assert torch.equal(tokens(vlm, x), x)


def test_avg_pool_is_the_mean_of_blocks_after_the_layers(siglip_folder, lm_folder):
    encoder, vlm, layers = assembled(siglip_folder, lm_folder, "avg_pool", 3)
    x = features(encoder)
    with torch.no_grad():
        y = layers.linear_2(torch.nn.functional.gelu(layers.linear_1(x))).reshape(2, 2, 3, 2, 3, -1)
        torch.testing.assert_close(tokens(vlm, x), y.mean(dim=(2, 4)).flatten(1, 2), atol=1e-6, rtol=1e-5)


def test_pixel_shuffle_reads_whole_blocks_of_neighbours(siglip_folder, lm_folder):
    """A change in one token reaches the output token of its own block of 3 x 3, and no other."""
    encoder, vlm, _ = assembled(siglip_folder, lm_folder, "pixel_shuffle", 3)
    x = features(encoder, 1)
    with torch.no_grad():
        before = tokens(vlm, x)
        for row in range(6):
            for column in range(6):
                other = x.clone()
                other[0, row * 6 + column] += 1
                moved = (tokens(vlm, other) != before).any(dim=-1)[0].nonzero().flatten().tolist()
                assert moved == [row // 3 * 2 + column // 3]


@pytest.mark.parametrize(
    ("kind", "connector", "factor", "says"),
    [
        ("clip", "pixel_shuffle", 3, "divides the grid of 4 x 4"),
        ("clip", "pixel_shuffle", None, "expected a factor"),
        ("clip", "avg_pool", 2, "take pixel_shuffle"),
        ("clip", "linear", 2, "takes no factor"),
        ("clip", "mlp3x", None, "known: mlp2x_gelu"),
        ("map", "identity", None, "take linear"),
        ("map", "pixel_shuffle", 2, "no stock class"),
    ],
)
def test_a_connector_that_no_stock_class_holds_is_refused(
    vit_folder, resnet_folder, lm_folder, kind, connector, factor, says
):
    with pytest.raises(ValueError, match=says):
        assembled(vit_folder if kind == "clip" else resnet_folder, lm_folder, connector, factor)


def test_a_class_token_that_is_kept_leaves_no_grid_to_shuffle(vit_folder, lm_folder):
    encoder = load_encoder(vit_folder, **{"class_token": "keep"})
    with pytest.raises(ValueError, match="whole grid"):
        assemble(encoder, lm_folder, torch.Generator().manual_seed(0), connector="pixel_shuffle", factor=2)
    vlm = assemble(encoder, lm_folder, torch.Generator().manual_seed(0))
    assert vlm.tokens_per_image == 17


def test_standardising_an_identity_is_refused_and_a_layer_norm_does_it_already(vit_folder, lm_folder):
    encoder, identity, _ = assembled(vit_folder, lm_folder, "identity")
    rows = features(encoder).numpy()
    with pytest.raises(ValueError, match="standardise: false"):
        standardise_input(identity, rows)
    _, shuffle, layers = assembled(vit_folder, lm_folder, "pixel_shuffle", 2)
    before = layers.linear_1.weight.clone()
    standardise_input(shuffle, rows)
    assert torch.equal(layers.linear_1.weight, before)


def test_the_table_of_answers_is_what_the_stock_model_says_to_pixels(built, world, tmp_path):
    encoder, vlm, _ = built
    options = {"template": "qwen2_base", "least_supervised_share": 0.001}
    corpus = prepare(vlm, read_conversations(world / "mix.json"), world / "images", **options)
    paths = list(dict.fromkeys(path for pictures in corpus.pictures for path in pictures))
    seen = cache_features(encoder, paths, root=tmp_path, memory_limit=10**9, on_batch=lambda n: None)
    rows = answers(vlm, corpus, seen, "qwen2_base", 4)
    assert [row["question"] for row in rows][3] == "Say green."
    pixels = encoder.processor(Image.open(corpus.pictures[0][0]), return_tensors="pt")["pixel_values"]
    n_answer = sum(label >= 0 for label in corpus.encoded[0].labels)
    ids = torch.tensor([corpus.encoded[0].ids[:-n_answer]])
    shaped = pixels[:, None] if vlm.connector == "avg_pool" else pixels
    asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": shaped}
    out = vlm.model.generate(**asked, max_new_tokens=NEW_TOKENS, do_sample=False)[0, ids.shape[1] :]
    assert rows[0]["prediction"] == vlm.processor.tokenizer.decode(out, skip_special_tokens=True).strip()
    assert rows[0]["prediction"]
