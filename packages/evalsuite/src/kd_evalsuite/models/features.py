"""Features of images, each made once: the ones used last, in memory."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor

from kd_evalsuite.models.base import Shown

KEPT_BYTES = 2 << 30


class Memory:
    """Features by image, up to `KEPT_BYTES` of them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def of(self, images: Sequence[Shown], make: Callable[[list[Shown]], list[Tensor]]) -> dict[str, Tensor]:
        """Features of each distinct image by digest; those that are not kept are made in one call."""
        wanted = {image.sha256: image for image in images}
        found = {key: self._kept[key] for key in wanted if key in self._kept}
        if new := [image for key, image in wanted.items() if key not in found]:
            found |= {image.sha256: row for image, row in zip(new, make(new), strict=True)}
        for key, value in found.items():
            if key not in self._kept:
                self._bytes += value.nbytes
            self._kept[key] = value
            self._kept.move_to_end(key)
        while self._bytes > KEPT_BYTES:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return found

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._bytes = 0
