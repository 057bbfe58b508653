"""A small language model of the Qwen2 architecture with its own tokenizer, trained on lines of text."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from kd_vlm.evaluate import answers_right
from kd_vlm.loop import fit
from kd_vlm.optim import Group, Step
from kd_vlm.reading import FileError, parse_json
from kd_vlm.templates import END, IGNORE

SENTENCE = re.compile(r"(?:^|[ \n])(?!USER:|ASSISTANT:)[A-Z](?:(?!USER:|ASSISTANT:)[^\n.?]|\.(?!\s|$))*\.(?=\s|$)")
ANSWER = re.compile(r"ASSISTANT:(.*?" + re.escape(END) + ")", re.DOTALL)


@dataclass(frozen=True)
class Document:
    """Token ids of one line, and for each whether it belongs to an answer."""

    ids: tuple[int, ...]
    in_answer: tuple[bool, ...]


def read_text(path: Path) -> list[str]:
    """The texts of a file with one `{"text": ...}` a line.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line has another form.
    """
    if not path.is_file():
        raise FileNotFoundError(f'Expected lines of {{"text": ...}} at {path}, found no file.')
    texts = []
    for number, line in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), start=1):
        try:
            texts.append(str(parse_json(line, str(path))["text"]))
        except (FileError, KeyError, TypeError):
            raise ValueError(f'{path}:{number}: expected {{"text": ...}}, got {line[:80]!r}.') from None
    return texts


def train_tokenizer(texts: Sequence[str], vocab_size: int, n_phrases: int = 0) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocab_size` tokens: any text can be written, `<|endoftext|>` is token 0.

    Args:
        texts: What is counted.
        vocab_size: Tokens in all.
        n_phrases: So many of them are whole sentences that stand in many texts, such as the system prompt and the
            instructions of benchmarks. Read as one token each they cost a small model a tenth of the time.
    """
    phrases = frequent_phrases(texts, n_phrases)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(phrases),
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((text.replace(END, "\n") for text in texts), trainer)
    bpe.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END)


def frequent_phrases(texts: Sequence[str], n: int, least_words: int = 5, least_share: float = 0.005) -> list[str]:
    """The `n` statements of at least `least_words` words that stand in most texts, with the space before them.

    Only sentences in at least `least_share` of the texts count. Equal counts go by the alphabet.
    """
    if not n:
        return []
    counts = Counter(sentence for text in texts for sentence in set(SENTENCE.findall(text)))
    long = [(-count, s) for s, count in counts.items() if len(s.split()) >= least_words]
    return [sentence for count, sentence in sorted(long)[:n] if -count >= least_share * len(texts)]


def tokenise(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int) -> list[Document]:
    """Every text with an end token behind it, cut to `context` tokens; what follows `ASSISTANT:` is marked."""
    closed = [text if text.endswith(END) else text + END for text in texts]
    rows = tokenizer(closed, add_special_tokens=False, return_offsets_mapping=True)
    documents = []
    for text, ids, offsets in zip(closed, rows["input_ids"], rows["offset_mapping"], strict=True):
        inside = np.zeros(len(text) + 1, dtype=bool)
        for match in ANSWER.finditer(text):
            inside[match.start(1) : match.end(1)] = True
        documents.append(Document(tuple(ids[:context]), tuple(bool(inside[start]) for start, _ in offsets[:context])))
    return documents


def repeated(documents: Sequence[Document], share: float, context: int, rng: np.random.Generator) -> list[Document]:
    """The same documents, `share` of them written twice in a row, the second time marked as an answer.

    To predict the second copy a model must look things up in the first. That is what answering from a description
    takes, and a small model finds it far sooner where every token asks for it. Documents whose double does not fit
    `context` stay as they are.
    """
    chosen = rng.random(len(documents)) < share
    return [
        Document(d.ids * 2, (False,) * len(d.ids) + (True,) * len(d.ids)) if twice and 2 * len(d.ids) <= context else d
        for d, twice in zip(documents, chosen, strict=True)
    ]


def build_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    width: int,
    layers: int,
    heads: int,
    kv_heads: int,
    mlp_width: int,
    max_positions: int,
    generator: torch.Generator,
) -> Qwen2ForCausalLM:
    """An untrained model; its weights are drawn from `generator` alone (normal, deviation 0.02)."""
    end_id = tokenizer.eos_token_id
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=mlp_width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=max_positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_id,
        pad_token_id=end_id,
    )
    model = Qwen2ForCausalLM(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=config.initializer_range, generator=generator)
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=end_id, pad_token_id=end_id)
    return model


def pack(lengths: Sequence[int], context: int, order: Sequence[int]) -> list[list[int]]:
    """Rows of whole documents, each row at most `context` tokens, filled greedily in `order`."""
    rows: list[list[int]] = []
    room = 0
    for i in order:
        if lengths[i] > room:
            rows.append([])
            room = context
        rows[-1].append(i)
        room -= lengths[i]
    return rows


def packing_plan(
    lengths: Sequence[int], context: int, batch_size: int, epochs: float, seed: int
) -> list[list[list[int]]]:
    """Batches of packed rows for `epochs` epochs; a function of its arguments and of nothing else."""
    plan: list[list[list[int]]] = []
    n_steps = 0
    for epoch in range(int(-(-epochs // 1))):
        rows = pack(lengths, context, np.random.default_rng([seed, epoch]).permutation(len(lengths)).tolist())
        cut = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        n_steps += round(min(1.0, epochs - epoch) * len(cut))
        plan += cut
    return plan[: max(1, n_steps)]


def packed_batch(documents: Sequence[Document], rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids, labels, positions and answer marks, each (b, t).

    Positions start at 0 in every document: from them alone the stock model sees that documents must not attend to each
    other. The first token of a document is not predicted from the one before it.
    """
    longest = max(sum(len(documents[i].ids) for i in row) for row in rows)
    ids, labels = torch.zeros(len(rows), longest, dtype=torch.long), torch.full((len(rows), longest), IGNORE)
    positions = torch.arange(longest).repeat(len(rows), 1)
    marks = torch.zeros(len(rows), longest, dtype=torch.bool)
    for r, row in enumerate(rows):
        at = 0
        for i in row:
            n = len(documents[i].ids)
            ids[r, at : at + n] = torch.tensor(documents[i].ids)
            labels[r, at + 1 : at + n] = ids[r, at + 1 : at + n]
            positions[r, at : at + n] = torch.arange(n)
            marks[r, at : at + n] = torch.tensor(documents[i].in_answer)
            at += n
        positions[r, at:] = torch.arange(longest - at)
    return ids, labels, positions, marks


def packed_logits(model: Qwen2ForCausalLM, ids: Tensor, positions: Tensor) -> Tensor:
    """Logits (b, t, v) with documents kept apart; this needs no mask given and no cache."""
    return model(input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False).logits


def packed_loss(
    model: Qwen2ForCausalLM,
    documents: Sequence[Document],
    rows: Sequence[Sequence[int]],
    answer_weight: float,
    precision: str,
) -> Tensor:
    """Cross-entropy in nats over the tokens of packed rows, an answer's tokens weighed by `answer_weight`."""
    ids, labels, positions, marks = packed_batch(documents, rows)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits = packed_logits(model, ids, positions)
    target = labels[:, 1:].reshape(-1)
    loss = nn.functional.cross_entropy(
        logits[:, :-1].reshape(len(target), -1).float(), target, ignore_index=IGNORE, reduction="none"
    )
    weight = torch.where(marks[:, 1:].reshape(-1), answer_weight, 1.0) * (target != IGNORE)
    return (loss * weight).sum() / weight.sum()


def held_out_lm(
    model: Qwen2ForCausalLM, documents: Sequence[Document], context: int, batch_size: int
) -> dict[str, float]:
    """`loss` in nats per token, and `answer_accuracy`: the share of answers that greedy decoding gives exactly."""
    rows = pack([len(d.ids) for d in documents], context, range(len(documents)))
    loss, n_tokens, right = 0.0, 0, []
    for start in range(0, len(rows), batch_size):
        ids, labels, positions, marks = packed_batch(documents, rows[start : start + batch_size])
        with torch.no_grad():
            logits = packed_logits(model, ids, positions)[:, :-1]
        target, kept = labels[:, 1:], marks[:, 1:]
        loss += float(nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum"))
        n_tokens += int((target != IGNORE).sum())
        if kept.any():
            right.append(answers_right(kept, (logits.argmax(-1) == ids[:, 1:])[kept]))
    answers = torch.cat(right).float() if right else torch.zeros(0)
    accuracy = {"answer_accuracy": float(answers.mean())} if len(answers) else {}
    return {"loss": loss / n_tokens, **accuracy}


def fit_lm(
    model: Qwen2ForCausalLM,
    documents: Sequence[Document],
    *,
    context: int,
    batch_size: int,
    epochs: float,
    lr: float,
    warmup_share: float,
    weight_decay: float,
    clip: float,
    beta2: float,
    precision: str,
    answer_weight: float,
    seed: int,
    checkpoint: Path,
    save_every: int,
    on_step: Callable[[Step], None],
) -> int:
    """Train to the end, from `checkpoint` where there is one; returns the number of steps. See `loop.fit`."""
    plan = packing_plan([len(d.ids) for d in documents], context, batch_size, epochs, seed)
    model.train()
    fit(
        [Group(dict(model.named_parameters()), lr)],
        plan,
        lambda rows: packed_loss(model, documents, rows, answer_weight, precision),
        checkpoint=checkpoint,
        save_every=save_every,
        warmup_share=warmup_share,
        weight_decay=weight_decay,
        clip=clip,
        beta2=beta2,
        on_step=on_step,
    )
    model.eval()
    return len(plan)
