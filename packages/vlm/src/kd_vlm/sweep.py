"""The encoders that one distillation left behind: its end, and the epochs before it that it registered."""

import re

from kd_vlm import tracking


def schedule_of(name: str) -> list[str]:
    """The registered encoders of the distillation `name`, by epoch: `<name>-e<epoch>` ..., then `<name>`.

    Raises:
        FileNotFoundError: If none is registered.
    """
    found = tracking.client().search_registered_models(filter_string=f"name LIKE '{name}%'", max_results=1000)
    epochs = {model.name: re.fullmatch(rf"{re.escape(name)}(?:-e(\d+))?", model.name) for model in found}
    matched = {each: match for each, match in epochs.items() if match}
    if not matched:
        raise FileNotFoundError(
            f"{tracking.uri()} has no encoder {name} or {name}-e<epoch>. A recipe of kd-distill with export_epochs "
            "leaves some behind; `distill register` makes MLflow hold them."
        )
    return sorted(matched, key=lambda each: int(matched[each].group(1) or 10**9))
