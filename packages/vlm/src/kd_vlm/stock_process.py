"""What a stranger gets from an exported folder: run as a script, in a process that cannot import this project.

    python -I stock_process.py FOLDER_WITH_REQUEST

It reads request.json and the pictures and arrays beside it, loads the model by `AutoModelForImageTextToText` and by
`pipeline`, and writes reply.json and one reply-<i>.npz a conversation. It runs under transformers 4.57 and 5.
"""

import json
import sys
from pathlib import Path
from typing import Any


class NothingOfThisProject:
    """An import hook that finds none of this project's packages."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0].startswith("kd_"):
            raise ImportError(f"{name}: an exported folder must load without it")


def main(exchange: Path) -> None:
    sys.meta_path.insert(0, NothingOfThisProject())  # type: ignore[arg-type]
    import transformers
    from transformers import AutoModelForImageTextToText, AutoProcessor

    request = json.loads((exchange / "request.json").read_text())
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        request["model"], local_files_only=True, trust_remote_code=False, dtype="float32", output_loading_info=True
    )
    model, report = loaded
    processor = AutoProcessor.from_pretrained(request["model"], local_files_only=True, trust_remote_code=False)
    model.eval()
    texts = [_answer(exchange, i, sample, model, processor, request) for i, sample in enumerate(request["samples"])]
    reply = {
        "transformers": transformers.__version__,
        "class": type(model).__name__,
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
        "generated": texts,
        "pipeline": [_pipeline(exchange, sample, request) for sample in request["samples"][:1]],
    }
    if found := sorted(name for name in sys.modules if name.startswith("kd_")):
        raise RuntimeError(f"imported {found}")
    (exchange / "reply.json").write_text(json.dumps(reply))


def _answer(exchange: Path, i: int, sample: Any, model: Any, processor: Any, request: Any) -> str:
    """Arrays for conversation `i`; gives the text that the stock processor and model answer its first question with."""
    import numpy as np
    import torch

    given = np.load(exchange / f"request-{i}.npz")
    pictures = _pictures(exchange, sample["images"])
    text = processor.apply_chat_template(sample["messages"])
    own = processor(text=[text], images=pictures or None, return_tensors="pt", add_special_tokens=False)
    arrays: dict[str, Any] = {"ids": own["input_ids"][0].numpy()}
    if pictures:
        arrays["pixels"] = own["pixel_values"].numpy()
    ids, labels = (torch.from_numpy(given[name])[None] for name in ("ids", "labels"))
    pixels = {"pixel_values": torch.from_numpy(given["pixels"])} if pictures else {}
    with torch.no_grad():
        out = model(input_ids=ids, labels=labels, **pixels)
        kept = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:] != -100
        arrays |= {"logits": out.logits[kept].float().numpy(), "loss": np.float64(out.loss.item())}
        prompt = ids[:, : int(given["prompt"])]
        n_places = int((prompt == int(given["image_id"])).sum())
        shown = {} if not pictures or not n_places else {"pixel_values": pixels["pixel_values"][: int(given["shown"])]}
        new = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), **shown, max_new_tokens=request["new_tokens"]
        )
    arrays["generated"] = new[0, prompt.shape[1] :].numpy()
    np.savez(exchange / f"reply-{i}.npz", **arrays)
    first = sample["messages"][:1]
    asked = processor.apply_chat_template(first, add_generation_prompt=True)
    inputs = processor(
        text=[asked], images=pictures[: sample["first_images"]] or None, return_tensors="pt", add_special_tokens=False
    )
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        reply = model.generate(**inputs, max_new_tokens=request["new_tokens"])
    return str(processor.decode(reply[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def _pipeline(exchange: Path, sample: Any, request: Any) -> str:
    """The pipeline's own answer to the first question, from the folder's name alone."""
    from transformers import pipeline

    pictures = _pictures(exchange, sample["images"])[: sample["first_images"]]
    content = [{"type": "image", "image": picture} for picture in pictures]
    content += [part for part in sample["messages"][0]["content"] if part["type"] == "text"]
    pipe: Any = pipeline("image-text-to-text", model=request["model"])
    asked = [{"role": "user", "content": content}]
    out = pipe(text=asked, max_new_tokens=request["new_tokens"], return_full_text=False)
    return str(out[0]["generated_text"])


def _pictures(exchange: Path, names: Any) -> list[Any]:
    from PIL import Image

    return [Image.open(exchange / name).convert("RGB") for name in names]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
