"""What the study downloads, small, in the hub's own store: teachers with random weights, language models, a student.

`HF_HOME` names the store, so `distill fetch` and `hf-hub:Qwen/Qwen2-0.5B` find these as they would the real ones.
"""

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pipeline.rehearsal.towers  # noqa: F401  timm then knows the small towers

CONTEXT = 128  # tokens of a packed row
REVISION = "0" * 40
PIECES = "\u2581abcdefghijklmnopqrstuvwxyz0123456789'._"


def app(arguments: Sequence[str], prog_name: str) -> None:
    """The command `hub PARAMS TEXTS MODELS STORE`: what the study downloads, made from lines of text."""
    if len(arguments) != 4:
        raise SystemExit(f"usage: {prog_name} PARAMS TEXTS MODELS STORE")
    params, texts, models, store = map(Path, arguments)
    write_teachers(store, models / "teachers.yaml")
    lines = [json.loads(line)["text"] for line in texts.open()]
    write_language_models(store, json.loads(params.read_text())["hub"], lines)
    write_released(store / "ViT-T-16.pt", str(models / "vit-t-16.json"))


def put(store: Path, repo: str, write: Callable[[Path], None]) -> None:
    """A repository of the hub as `huggingface_hub` keeps it in `store`; `write` fills the folder."""
    home = store / "hub" / f"models--{repo.replace('/', '--')}"
    folder = home / "snapshots" / REVISION
    folder.mkdir(parents=True)
    write(folder)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(REVISION)


def write_teachers(store: Path, table: Path) -> None:
    """The teachers of a table, each under its hub id."""
    from kd_distill import models
    from kd_distill.teachers import teachers_of

    for seed, (name, teacher) in enumerate(teachers_of(table).items()):
        model = models.build(teacher.config, seed=seed)
        model.logit_scale.data.fill_(math.log(teacher.scale or 100.0))

        def write(folder: Path, model: Any = model, teacher: Any = teacher) -> None:
            own = bool(teacher.config["text_cfg"].get("hf_tokenizer_name"))
            if own:
                _unigram(folder, teacher.config["text_cfg"]["vocab_size"])
            _copyless_save(folder, model, teacher)

        put(store, teacher.hub, write)
        print(f"  {name}: {sum(p.numel() for p in model.parameters()):,} parameters as {teacher.hub}", flush=True)


def _copyless_save(folder: Path, model: Any, teacher: Any) -> None:
    """The open_clip folder; a tokenizer of its own lies there already."""
    from kd_distill import models
    from safetensors.torch import save_file

    view = teacher.preprocessing
    preprocess = {name: getattr(view, name) for name in ("mean", "std", "interpolation", "resize_mode")}
    (folder / models.CONFIG).write_text(json.dumps({"model_cfg": teacher.config, "preprocess_cfg": preprocess}))
    save_file({n: t.detach().clone().contiguous() for n, t in model.state_dict().items()}, folder / models.WEIGHTS)


def _unigram(folder: Path, vocab_size: int) -> None:
    """SigLIP's kind of tokenizer: sentencepiece's pieces, an end token that also pads."""
    from tokenizers import Tokenizer
    from tokenizers.models import Unigram
    from tokenizers.pre_tokenizers import Metaspace
    from tokenizers.processors import TemplateProcessing

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((c, -6.0) for c in PIECES)]
    pieces += [(f"<extra_{i}>", -99.0) for i in range(vocab_size - len(pieces))]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "right"}
    settings |= {"pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_language_models(store: Path, shapes: Mapping[str, Mapping[str, Any]], texts: Sequence[str]) -> None:
    """Language models and their tokenizers, trained on `texts` for as long as it takes to answer in words.

    Args:
        store: Of the hub.
        shapes: By hub id: `architecture` (qwen2 or llama), `vocab_size`, `spare_rows` of the embeddings behind the
            vocabulary, `width`, `layers`, `heads`, `kv_heads`, `mlp_width`, `epochs`.
        texts: With dialogues among them.
    """
    import torch
    from kd_vlm.lm import train_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    kinds = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
    for seed, (repo, shape) in enumerate(shapes.items()):
        tokenizer = train_tokenizer(texts, shape["vocab_size"])
        make_config, make_model = kinds[shape["architecture"]]
        config = make_config(
            vocab_size=len(tokenizer) + shape["spare_rows"],
            hidden_size=shape["width"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["kv_heads"],
            intermediate_size=shape["mlp_width"],
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # noqa: TID251  layers draw their initial weights from the global generator
            model = make_model(config)
        _train(model, tokenizer, texts, shape["epochs"])

        def write(folder: Path, model: Any = model, tokenizer: Any = tokenizer) -> None:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

        put(store, repo, write)
        print(f"  {repo}: {model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)


def _train(model: Any, tokenizer: Any, texts: Sequence[str], epochs: float) -> None:
    from kd_vlm.lm import fit_lm, tokenise

    with tempfile.TemporaryDirectory() as folder:
        fit_lm(
            model,
            tokenise(tokenizer, texts, CONTEXT),
            context=CONTEXT,
            batch_size=8,
            epochs=epochs,
            lr=3e-3,
            warmup_share=0.05,
            weight_decay=0.05,
            clip=1.0,
            beta2=0.98,
            precision="fp32",
            answer_weight=10.0,
            seed=0,
            checkpoint=Path(folder),
            save_every=10_000,
            on_step=lambda step: None,
        )


def write_released(weights: Path, architecture: str) -> None:
    """What somebody published of a student: torch's file of tensors, named as DistributedDataParallel names them."""
    import torch
    from kd_distill import models

    model = models.build(models.read_architecture(architecture), seed=9)
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in model.state_dict().items()}}, weights)
