"""A stock transformers vision-language checkpoint in a local folder. Runs no code from it, downloads nothing.

For the families in `ENCODED_ONCE` each distinct image is preprocessed, encoded and projected once; its features are put
in the places of its image tokens, which is what the model itself does with pixels. Other families get pixels and text
through their processor.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from kd_evalsuite.images import decode
from kd_evalsuite.items import DataError
from kd_evalsuite.models.base import Reply, Request, Shown

ENCODED_ONCE = {"llava", "fast_vlm"}  # families whose images all become one block of projected tokens
KEPT_BYTES = 2 << 30  # features of this many bytes are kept


class TransformersVlm:
    """Greedy answers of a checkpoint that `AutoModelForImageTextToText` and `AutoProcessor` load.

    Args:
        folder: The checkpoint.
        device: Where it runs.
        dtype: Of its weights; on the CPU float32, in which batches do not change answers.

    Raises:
        DataError: If the folder is not such a checkpoint, or has no chat template.
    """

    def __init__(self, folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(folder, **local)
            self.processor = AutoProcessor.from_pretrained(folder, **local)
            model = AutoModelForImageTextToText.from_pretrained(
                folder, config=config, dtype=dtype, use_safetensors=True, **local
            )
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"Expected a transformers image-text checkpoint in {folder}: {error}") from error
        if not getattr(self.processor, "chat_template", None):
            raise DataError(f"{folder}: expected a processor with a chat template, found none.")
        self.model = model.eval().requires_grad_(False).to(device)
        self.tokenizer = self.processor.tokenizer
        self.tokenizer.padding_side = "left"
        self.encodes_once = config.model_type in ENCODED_ONCE
        self._features: OrderedDict[str, Tensor] = OrderedDict()

    @torch.inference_mode()
    def answer(self, requests: Sequence[Request], max_new_tokens: int) -> list[Reply]:
        """One greedy reply a request; the batch is padded on the left and runs until every row has ended."""
        inputs = self._encoded_once(requests) if self.encodes_once else self._processed(requests)
        inputs = {k: v.to(self.model.device) for k, v in inputs.items()}
        out = self.model.generate(**inputs, generation_config=self._greedy(max_new_tokens))
        prompt_length = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        new = out[:, prompt_length:]
        ended = torch.tensor(self._ends(), device=new.device)
        lengths = (~torch.isin(new, ended)).cumprod(dim=1).sum(dim=1).tolist()
        texts = self.tokenizer.batch_decode(
            [row[:n] for row, n in zip(new.tolist(), lengths, strict=True)], skip_special_tokens=True
        )
        return [Reply(text.strip(), n) for text, n in zip(texts, lengths, strict=True)]

    def _greedy(self, max_new_tokens: int) -> GenerationConfig:
        pad = self.tokenizer.pad_token_id
        ends = self._ends()
        return GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=ends[0] if pad is None else pad,
        )

    def _ends(self) -> list[int]:
        ends = self.model.generation_config.eos_token_id
        ends = self.tokenizer.eos_token_id if ends is None else ends
        if ends is None:
            raise DataError("The checkpoint names no end-of-text token, so no reply would end.")
        return list(ends) if isinstance(ends, list | tuple) else [int(ends)]

    # ------------------------------------------------------------ text

    def _render(self, request: Request) -> str:
        """The chat as the checkpoint's template writes it, with one image token an image."""
        text = request.text
        if self._image_token:
            text = text.replace(self._image_token, "")  # a question cannot smuggle in an image
        content = [{"type": "image"}] * len(request.images) + [{"type": "text", "text": text}]
        chat = [{"role": "user", "content": content}]
        return str(self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))

    @property
    def _image_token(self) -> str:
        return str(getattr(self.processor, "image_token", "") or "")

    def _adds_special(self, texts: Sequence[str]) -> bool:
        """Whether the tokenizer should add its special tokens: not where the template already wrote the first."""
        bos = self.tokenizer.bos_token
        return not (bos and texts[0].startswith(bos))

    # ------------------------------------------------------------ images

    def _encoded_once(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        """Prompt embeddings with image features in place."""
        features = self._features_of([image for r in requests for image in r.images])
        texts = [self._placed(self._render(r), r, features) for r in requests]
        tokens = self.tokenizer(
            texts, padding=True, return_tensors="pt", add_special_tokens=self._adds_special(texts)
        ).to(self.model.device)
        embeddings = self.model.get_input_embeddings()(tokens["input_ids"])
        places = tokens["input_ids"] == self.model.config.image_token_id
        if features:
            rows = torch.cat([features[image.sha256] for r in requests for image in r.images])
            embeddings = embeddings.masked_scatter(places.unsqueeze(-1), rows.to(embeddings))
        return {"inputs_embeds": embeddings, "attention_mask": tokens["attention_mask"]}

    def _placed(self, text: str, request: Request, features: dict[str, Tensor]) -> str:
        """The text with as many image tokens in the place of each image as it has features."""
        pieces = text.split(self._image_token)
        if len(pieces) != len(request.images) + 1:
            raise DataError(f"The chat template wrote {len(pieces) - 1} image tokens for {len(request.images)} images.")
        blocks = [self._image_token * len(features[image.sha256]) for image in request.images]
        return "".join(piece + block for piece, block in zip(pieces, [*blocks, ""], strict=True))

    def _features_of(self, images: Sequence[Shown]) -> dict[str, Tensor]:
        """Projected features (tokens, width) of each distinct image by digest; new ones are encoded in one batch."""
        wanted = {image.sha256: image for image in images}
        found = {key: self._features[key] for key in wanted if key in self._features}
        new = [image for key, image in wanted.items() if key not in found]
        if new:
            pixels = self.processor.image_processor(
                images=[decode(image.picture.read()) for image in new], return_tensors="pt"
            )["pixel_values"]
            encoded = self.model.get_image_features(pixel_values=pixels.to(self.model.device, self.model.dtype))
            encoded = getattr(encoded, "pooler_output", encoded)
            found |= {image.sha256: row for image, row in zip(new, encoded, strict=True)}
        self._keep(found)
        return found

    def _keep(self, features: dict[str, Tensor]) -> None:
        """The features used last, up to `KEPT_BYTES`."""
        for key, value in features.items():
            self._features[key] = value
            self._features.move_to_end(key)
        size = next(iter(self._features.values())).nbytes if self._features else 1
        while len(self._features) * size > KEPT_BYTES:
            self._features.popitem(last=False)

    def _processed(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        """The processor's own inputs, for families whose images do not become one block of tokens."""
        texts = [self._render(r) for r in requests]
        images = [[decode(image.picture.read()) for image in r.images] for r in requests]
        options: dict[str, Any] = {"padding": True, "return_tensors": "pt", "padding_side": "left"}
        options["add_special_tokens"] = self._adds_special(texts)
        read = self.processor(text=texts, images=images, **options) if any(images) else self.tokenizer(texts, **options)
        return dict(read)
