"""A causal language model of transformers with its tokenizer, ready to stand behind a connector."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kd_vlm.templates import IMAGE, end_token_id

LOCAL: dict[str, Any] = {  # nothing is fetched, no code of a folder runs, and nobody is asked whether it may
    "local_files_only": True,
    "trust_remote_code": False,
}


@dataclass(frozen=True)
class LanguageModel:
    """Attributes:
    model: The causal language model in float32, with a row for the image token.
    tokenizer: Knows the image token; pads on the left.
    image_id: The image token.
    end_id: The token that ends an answer.
    """

    model: Any
    tokenizer: Any
    image_id: int
    end_id: int


def load_language_model(folder: Path, template: str = "qwen2_base") -> LanguageModel:
    """The language model in `folder`, to which `<image>` is added.

    The embeddings grow only if the table is full: Qwen2 has unused rows behind its vocabulary, SmolLM has none. A row
    that is added, of a tied or an untied head, begins as the mean of the others. A tied head that stock VLMs cannot
    tie (GPT-2, OPT, Falcon: their embeddings have other names) becomes a copy.

    Args:
        folder: A causal language model of transformers with its tokenizer.
        template: How conversations are written; it says which token ends an answer.

    Raises:
        FileNotFoundError: If the folder has no configuration or no safetensors.
        ValueError: If the template cannot be written with this tokenizer, or a weight is missing.
    """
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for file in folder.glob("*.bin"))
        hint = f"{pickles[0]} is a pickle, which is not loaded; save it again as safetensors." if pickles else ""
        raise FileNotFoundError(
            f"Expected a language model (config.json, safetensors, tokenizer) in {folder}, found none. {hint}".strip()
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL, padding_side="left")
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, **LOCAL, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):  # transformers would go on with random ones
        raise ValueError(f"{folder}: {len(missing)} weights are missing, such as {missing[0]}; fetch the model again.")
    model.config.name_or_path = ""  # where it was loaded from would make equal models differ
    end_id = end_token_id(tokenizer, template)
    tokenizer.add_special_tokens({"extra_special_tokens": [IMAGE]})
    image_id = int(tokenizer.get_vocab()[IMAGE])
    _make_room(model, image_id)
    if not hasattr(model.base_model, "embed_tokens"):  # stock VLMs tie a head to this name alone
        model.config.tie_word_embeddings = False
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.convert_ids_to_tokens(end_id)
    return LanguageModel(model, tokenizer, image_id, end_id)


def _make_room(model: Any, image_id: int) -> None:
    n_rows = model.get_input_embeddings().num_embeddings
    if image_id < n_rows:
        return
    model.resize_token_embeddings(image_id + 1, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[n_rows:] = layer.weight[:n_rows].mean(dim=0)


def check_taken_over(lm: Any, vlm: Any) -> None:
    """Whether the stock VLM gives the language model's logits, bit for bit but for the order of sums, on text alone.

    A language model that scales or caps its logits, or has a bias at its head, does something that no stock VLM does.

    Raises:
        ValueError: If the logits differ.
    """
    ids = torch.arange(3, 11)[None] % lm.config.vocab_size
    with torch.no_grad():
        expected, got = (model.eval()(input_ids=ids).logits for model in (lm, vlm))
    difference = float((expected - got).abs().max())
    if not difference <= 1e-6 * float(expected.abs().max()):
        raise ValueError(
            f"{type(lm).__name__}: in {type(vlm).__name__} its logits differ by {difference:.2g}. It does more after "
            "its last layer than a linear head (a scale, a cap, a bias), and no stock VLM does; take another one."
        )
