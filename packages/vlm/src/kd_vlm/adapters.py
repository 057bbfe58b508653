"""LoRA adapters as PEFT's own folders: written with the connector that was trained beside them, and merged back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from kd_vlm.assembly import Vlm
from kd_vlm.loading import load_vlm

CONNECTOR = "multi_modal_projector"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save_adapter(adapted: Any, folder: Path, *, base: str) -> None:
    """Write adapters and connector, and nothing of the base, as PEFT reads them.

        model = AutoModelForImageTextToText.from_pretrained(BASE)
        model = PeftModel.from_pretrained(model, FOLDER)

    The connector is trained whole, so it stands in PEFT's `modules_to_save` and replaces the base's on loading. The
    bytes depend on the weights and `base` alone.

    Args:
        adapted: PEFT's view of a stock VLM.
        folder: Where to; made if missing.
        base: Name of the stock VLM that the adapters belong to.
    """
    adapted.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)
    tensors = load_file(folder / WEIGHTS)
    for name, value in adapted.base_model.model.state_dict().items():
        if f".{CONNECTOR}." in f".{name}" and "modules_to_save" not in name and "original_module" not in name:
            tensors[f"base_model.model.{name}"] = value.detach().cpu().contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((folder / CONFIG).read_text())
    config |= {"base_model_name_or_path": base, "modules_to_save": [CONNECTOR], "inference_mode": True}
    ordered = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
    (folder / CONFIG).write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n")


def merge_adapter(base: Path, adapter: Path) -> Vlm:
    """The stock VLM in `base` with the adapter in `adapter` added to its weights.

    Raises:
        FileNotFoundError: If one of the folders is not what it should be.
        ValueError: If the adapter does not fit the base.
    """
    for name in (CONFIG, WEIGHTS):
        if not (adapter / name).is_file():
            raise FileNotFoundError(f"Expected a PEFT adapter with {name} in {adapter}, found none.")
    from peft import PeftModel

    vlm = load_vlm(base)
    try:
        adapted: Any = PeftModel.from_pretrained(vlm.model, adapter, local_files_only=True)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"The adapter in {adapter} does not fit the model in {base}: {error}") from None
    return replace(vlm, model=adapted.merge_and_unload().eval())
