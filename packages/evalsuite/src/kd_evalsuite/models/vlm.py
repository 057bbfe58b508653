"""A stock transformers vision-language checkpoint in a local folder. Runs no code from it, downloads nothing.

For the families in `ENCODED_ONCE` each distinct image is preprocessed, encoded and projected once, and the decoder
reads chat head and image once for all questions on it (`models/greedy.py`). Other families get pixels and text through
their processor and answer by `generate`, in batches; `how` says which of the two it is, and why.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from kd_evalsuite.images import decode
from kd_evalsuite.items import DataError
from kd_evalsuite.models.base import Reply, Request, Shown
from kd_evalsuite.models.chat import Chat, Tokens
from kd_evalsuite.models.features import Memory
from kd_evalsuite.models.greedy import Decoder, KeysValues, Prefixes
from kd_evalsuite.models.vision_cache import VisionCache, about

ENCODED_ONCE = {"llava", "fast_vlm"}  # families whose images all become one block of projected tokens
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PREFILLED_AT_ONCE = 64  # prefixes


class TransformersVlm:
    """Greedy answers of a checkpoint that `AutoModelForImageTextToText` and `AutoProcessor` load.

    Args:
        folder: The checkpoint.
        device: Where it runs.
        dtype: Of its weights; in float32 batches do not change answers.
        features: A folder where the encoder's features of images are kept for other runs.

    Raises:
        DataError: If the folder is not such a checkpoint, lacks weights, or has no chat template.
    """

    def __init__(self, folder: Path, device: str = "cpu", dtype: str = "float32", features: Path | None = None) -> None:
        config, self.processor, model = _load(folder, dtype)
        self.model = model.eval().requires_grad_(False).to(device)
        self.chat = Chat(self.processor, folder)
        self.ends = self.chat.ends(model.generation_config.eos_token_id)
        self.model.generation_config = GenerationConfig()  # nothing of the checkpoint's own changes plain greedy choice
        self.why_plain = _why_plain(config)
        self.decoder = Decoder(self.model, self.ends)
        self.memory = Memory()
        self._prefixes: Prefixes | None = None
        self.disk: VisionCache | None = None
        if features and not self.why_plain:
            self.disk = VisionCache(features, about(self.model, self.processor.image_processor), DTYPES[dtype])

    @property
    def how(self) -> dict[str, str]:
        """Class, device and precision, and by which path answers are got."""
        path = f"plain batched generate, since {self.why_plain}" if self.why_plain else "one prefix an image"
        return {
            "class": type(self.model).__name__,
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "answers": path,
        }

    @torch.inference_mode()
    def answer(self, requests: Sequence[Request], max_new_tokens: int) -> list[Reply]:
        """One greedy reply a request; none of them depends on the others."""
        with self._memory_let_go():
            if self.why_plain:
                return self._generated(requests, max_new_tokens)
            replies: dict[int, Reply] = {}
            for rows, start, texts in self._parts(requests):
                for row, ids in zip(rows, self.decoder.generate(start, texts, max_new_tokens), strict=True):
                    replies[row] = self._reply(ids)
        return [replies[row] for row in range(len(requests))]

    @torch.inference_mode()
    def answer_plainly(self, request: Request, max_new_tokens: int) -> Reply:
        """One reply by processor and `generate`, as the model's card says: nothing kept, nothing shared."""
        return self._generated([request], max_new_tokens)[0]

    @torch.inference_mode()
    def choose(self, requests: Sequence[Request]) -> list[Reply]:
        """The option with the highest log-likelihood behind the prompt, summed over its tokens; the first of equals.

        Raises:
            DataError: If the checkpoint answers by plain `generate`.
        """
        if self.why_plain:
            raise DataError(f"mode loglikelihood is not there for this checkpoint, since {self.why_plain}.")
        best: dict[int, Reply] = {}
        with self._memory_let_go():
            for rows, start, texts in self._parts(requests):
                for row, option in zip(rows, self._best(start, texts, [requests[r] for r in rows]), strict=True):
                    best[row] = Reply(option, 0)
        return [best[row] for row in range(len(requests))]

    def close(self) -> None:
        """Write the features that are held for the disk."""
        if self.disk:
            self.disk.flush()

    def _best(
        self, start: list[KeysValues] | None, texts: Sequence[Tensor], requests: Sequence[Request]
    ) -> Iterator[str]:
        ids = [[self.chat.continuation(request, option) for option in request.options] for request in requests]
        if all(len(option) == 1 for options in ids for option in options):
            for logits, options, request in zip(self.decoder.next_logits(start, texts), ids, requests, strict=True):
                yield request.options[int(logits[[option[0] for option in options]].argmax())]
            return
        for row, (options, request) in enumerate(zip(ids, requests, strict=True)):
            n = len(options)
            mine = [
                (k[row : row + 1].expand(n, -1, -1, -1), v[row : row + 1].expand(n, -1, -1, -1)) for k, v in start or ()
            ]
            scores = self.decoder.log_likelihoods(mine or None, [texts[row]] * n, options)
            yield request.options[int(scores.argmax())]

    def _reply(self, ids: Sequence[int]) -> Reply:
        return Reply(str(self.chat.tokenizer.decode(ids, skip_special_tokens=True)).strip(), len(ids))

    def _memory_let_go(self) -> "_LetGo":
        return _LetGo(self)

    # ------------------------------------------------------------ one prefix an image

    def _parts(self, requests: Sequence[Request]) -> Iterator[tuple[list[int], list[KeysValues] | None, list[Tensor]]]:
        """Rows whose prefixes are equally long and whose texts nearly are: row numbers, prefixes, embedded texts."""
        features = self.memory.of([image for r in requests for image in r.images], self._features_of)
        tokens = self.chat.tokens(requests, {key: len(value) for key, value in features.items()})
        order = sorted(range(len(requests)), key=lambda row: (len(tokens[row].prefix), len(tokens[row].text)))
        embed = self.model.get_input_embeddings()
        for length, same in groupby(order, key=lambda row: len(tokens[row].prefix)):
            rows = list(same)
            kept = self._prefilled([tokens[row] for row in rows], features) if length else None
            for part in self._alike(rows, [len(tokens[row].text) for row in rows]):
                start = kept.select([tokens[row].key for row in part]) if kept else None
                texts = [embed(torch.tensor(tokens[row].text, device=self.model.device)) for row in part]
                yield part, start, texts

    def _alike(self, rows: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows in parts that are padded little. On an accelerator a step costs the same for few rows as for many."""
        least, first = (16 if self.model.device.type == "cpu" else len(rows)), 0
        for k, length in enumerate(lengths):
            if k - first >= least and length > 1.2 * lengths[first] + 2:
                yield list(rows[first:k])
                first = k
        yield list(rows[first:])

    def _prefilled(self, tokens: Sequence[Tokens], features: dict[str, Tensor]) -> Prefixes:
        """Keys and values of all distinct prefixes; those of the batch before are still there."""
        wanted = {t.key: t for t in tokens}
        old = self._prefixes if self._prefixes and self._prefixes.length == len(tokens[0].prefix) else None
        have = [key for key in wanted if old and key in old.rows]
        new = [t for key, t in wanted.items() if not old or key not in old.rows]
        parts = [old.select(have)] if old and have else []
        for start in range(0, len(new), PREFILLED_AT_ONCE):
            embedded = [self._embedded(t, features) for t in new[start : start + PREFILLED_AT_ONCE]]
            parts.append(self.decoder.prefill(torch.stack(embedded)))
        layers = [tuple(map(torch.cat, zip(*pairs, strict=True))) for pairs in zip(*parts, strict=True)]
        rows = {key: row for row, key in enumerate([*have, *(t.key for t in new)])}
        self._prefixes = Prefixes(rows, [(k, v) for k, v in layers], len(tokens[0].prefix))
        return self._prefixes

    def _embedded(self, tokens: Tokens, features: dict[str, Tensor]) -> Tensor:
        """Embeddings (p, w) of a prefix, with image features in their places."""
        ids = torch.tensor(tokens.prefix, device=self.model.device)
        embeddings = self.model.get_input_embeddings()(ids)
        rows = torch.cat([features[key] for key in tokens.images]).to(embeddings)
        return embeddings.masked_scatter((ids == self.chat.image_id).unsqueeze(-1), rows)

    def _features_of(self, images: list[Shown]) -> list[Tensor]:
        """Projected features (tokens, width) of each image, from the disk or encoded in one batch."""
        on_disk = {i.sha256: value for i in images if self.disk and (value := self.disk.read(i.sha256)) is not None}
        found = {key: self._projected(value) for key, value in on_disk.items()}
        if new := [image for image in images if image.sha256 not in found]:
            pixels = self.processor.image_processor(
                images=[decode(image.picture.read()) for image in new], return_tensors="pt"
            )["pixel_values"].to(self.model.device, self.model.dtype)
            raw: list[Tensor] = []
            with _Inputs(self.model.model.multi_modal_projector, raw.append):
                encoded = self.model.get_image_features(pixel_values=pixels)
            encoded = getattr(encoded, "pooler_output", encoded)
            found |= {image.sha256: row for image, row in zip(new, encoded, strict=True)}
            if self.disk:
                self.disk.write({image.sha256: before for image, before in zip(new, raw[0], strict=True)})
        return [found[image.sha256] for image in images]

    def _projected(self, features: Tensor) -> Tensor:
        value: Tensor = self.model.model.multi_modal_projector(features.to(self.model.device, self.model.dtype)[None])
        return value[0]

    # ------------------------------------------------------------ plain generate

    def _generated(self, requests: Sequence[Request], max_new_tokens: int) -> list[Reply]:
        """Through the processor and `generate`; the batch is padded on the left and runs until every row has ended."""
        inputs = {k: v.to(self.model.device) for k, v in self._processed(requests).items()}
        pad = self.chat.tokenizer.pad_token_id
        greedy = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.ends,
            pad_token_id=self.ends[0] if pad is None else pad,
        )
        new = self.model.generate(**inputs, generation_config=greedy)[:, inputs["input_ids"].shape[1] :]
        ended = torch.tensor(self.ends, device=new.device)
        lengths = (~torch.isin(new, ended)).cumprod(dim=1).sum(dim=1).tolist()
        return [self._reply(row[:n]) for row, n in zip(new.tolist(), lengths, strict=True)]

    def _processed(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        """The processor's own inputs."""
        texts = [self.chat.rendered(r) for r in requests]
        images = [[decode(image.picture.read()) for image in r.images] for r in requests]
        options: dict[str, Any] = {"padding": True, "return_tensors": "pt", "padding_side": "left"}
        options["add_special_tokens"] = self.chat.adds_special(texts[0])
        if any(images):
            return dict(self.processor(text=texts, images=images, **options))
        return dict(self.chat.tokenizer(texts, **options))


def _load(folder: Path, dtype: str) -> tuple[Any, Any, Any]:
    """Config, processor and model. Raises DataError."""
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        processor = AutoProcessor.from_pretrained(folder, **local)
        if not _why_plain(config):
            # Pillow's resampling, as trainings have it: torchvision's is a level of 255 off here and there, and what
            # the tower makes of it would lie beside theirs in the cache of features
            processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **local)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder, config=config, dtype=DTYPES[dtype], use_safetensors=True, output_loading_info=True, **local
        )
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"Expected a transformers image-text checkpoint in {folder}: {error}") from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):  # transformers would go on with random ones
        raise DataError(f"{folder}: {len(missing)} weights are missing, such as {missing[0]}; get the model again.")
    return config, processor, model


def _why_plain(config: Any) -> str:
    """Why a checkpoint cannot keep a prefix; empty where it can."""
    if config.model_type not in ENCODED_ONCE:
        return f"images of a {config.model_type} do not all become one block of tokens"
    if not Decoder.suits(config):
        return "its language model does not attend to all that came before"
    return ""


class _Inputs:
    """Gives each input of a module to `seen` while it runs."""

    def __init__(self, module: Any, seen: Callable[[Tensor], None]) -> None:
        self._hook = module.register_forward_pre_hook(lambda _, args: seen(args[0]))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._hook.remove()


class _LetGo:
    """Lets go of all that is kept when memory runs out, so that the smaller batch has it."""

    def __init__(self, vlm: TransformersVlm) -> None:
        self._vlm = vlm

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._vlm.memory.clear()
            self._vlm._prefixes = None
            if self._vlm.model.device.type == "cuda":
                torch.cuda.empty_cache()
