"""The shape of EfficientNet-lite0, as torch builds it (`sish.vqvae.lite0`) and others read its output."""

from typing import NamedTuple


class Stage(NamedTuple):
    """Blocks of one scale."""

    channels: int
    """Channels of their outputs."""
    blocks: int
    """Number of blocks."""
    kernel: int
    """Side of the depthwise filters."""
    stride: int
    """Stride of the first block."""
    expansion: int
    """Channels inside of a block, as a multiple of those of its input."""


STAGES = (
    Stage(16, 1, 3, 1, 1),
    Stage(24, 2, 3, 2, 6),
    Stage(40, 2, 5, 2, 6),
    Stage(80, 3, 3, 2, 6),
    Stage(112, 3, 5, 1, 6),
    Stage(192, 4, 5, 2, 6),
    Stage(320, 1, 3, 1, 6),
)
"""The stages of EfficientNet-B0, which lite0 keeps."""

FIRST_KEPT = 1
"""Place of the first stage whose output is kept; that before it shows edges and colours only."""

KEPT_CHANNELS = tuple(stage.channels for stage in STAGES[FIRST_KEPT:])
"""Channels of the outputs that are kept."""

STRIDE = 32
"""The sides of an image must be multiples of it."""
