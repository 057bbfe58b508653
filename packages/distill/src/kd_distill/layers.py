"""Where in an image tower patch tokens are read."""

from typing import Literal

PatchLayer = Literal["penultimate", "last"]
"""`penultimate`: what goes into a vision transformer's last block, without a norm: what LLaVA-style models read
(transformers' `hidden_states[-2]`). `last`: what comes after its last norm. Of a convolutional or hierarchical tower
both are its last feature map before any pooling, which is what those models read there."""
