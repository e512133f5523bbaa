"""The slide's own glass: its colour, estimated from the overview, and pixels as they look beside it.

Bare glass is bright and has no texture: over 40 um its brightness varies by less than 1 %, and that of
stained tissue nearly always by more. So the overview is cut into blocks of that side. The brightest colour
that enough smooth blocks share is the glass, whatever the tint of the slide or the strength of the lamp.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sish.slides.formats.levels import Pixels

PIXEL_UM = 8.0
"""Texture is measured at this scale: finer pixels are averaged first, so that their noise does not count."""

BLOCK_SIDE = 5
"""Side of a block in pixels of ``PIXEL_UM``: 40 um."""

SMOOTH = 0.01
"""Largest standard deviation in a block of glass, as a share of its brightness."""

STAIN_GREEN = 0.9
"""Stain absorbs green first, a lamp does not: a block whose green is below this share of both red and blue
must be three times as smooth to count as glass."""

MIN_CHANNEL = 0.7
"""The weakest channel of glass has at least this share of the strongest: no lamp is more coloured."""

MIN_LEVEL = 128
"""Glass is at least this bright: mean of the channels, out of 255."""

BLACK = 40
"""A pixel darker than this in all channels lies outside the scan, or is black ink."""

PADDING = 254
"""A pixel as bright in all channels lies outside the scan, or was too bright for the camera to measure."""

WINDOW = 6.0
"""Blocks whose brightness differs by less have one colour."""

MIN_POPULATION = 0.01
"""Share of the scanned blocks that must be glass, for its colour to be believed."""

MIN_BLOCKS = 3
"""Number of blocks that must be glass."""

MAX_BRIGHTER = 0.04
"""Only dirt is brighter than glass: a colour with a larger share of brighter blocks is not the glass."""

SHADE = 0.8
"""Glass in the shade has at least this share of the brightness of the brightest glass."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """An overview in square blocks of 40 um; incomplete ones at its right and lower edge are left out."""

    mean: NDArray[np.float32]
    """Shape (h, w, 3): mean colour of each block."""
    roughness: NDArray[np.float32]
    """Shape (h, w): standard deviation of its brightness as a share of its brightness."""

    @property
    def level(self) -> NDArray[np.float32]:
        """Brightness of each block, (h, w)."""
        level: NDArray[np.float32] = self.mean.mean(axis=-1)
        return level


@dataclass(frozen=True, slots=True)
class Glass:
    """The bare glass of a slide."""

    colour: tuple[float, float, float] = (255.0, 255.0, 255.0)
    """Red, green and blue, 0 to 255."""
    is_seen: bool = True
    """True where the slide shows any; if not, white is assumed."""

    @property
    def grey(self) -> float:
        """Luma of its colour (ITU-R 601), as Pillow's mode L has it."""
        return float(np.dot(self.colour, (0.299, 0.587, 0.114)))

    def __str__(self) -> str:
        """Return its colour in words, as in ``glass of colour (240, 235, 215)``."""
        colour = tuple(round(channel) for channel in self.colour)
        return f"glass of colour {colour}" if self.is_seen else "no glass, so that white was assumed"


UNSEEN = Glass(is_seen=False)
"""Assumed where a slide shows no glass."""


def blocks_of(pixels: Pixels, mpp: float) -> Blocks:
    """Cut an overview, uint8 (H, W, 3) at ``mpp``, into blocks."""
    factor = pixel_px(mpp)
    coarse = pixels if factor == 1 else shrink(pixels, factor)
    level = np.add(coarse[..., 0], coarse[..., 1], dtype=np.float32) + coarse[..., 2]
    mean, square = shrink(level, BLOCK_SIDE), shrink(level * level, BLOCK_SIDE)
    deviation = np.sqrt(np.maximum(square - mean * mean, 0))
    roughness: NDArray[np.float32] = np.divide(deviation, np.maximum(mean, 1), dtype=np.float32)
    return Blocks(shrink(coarse, BLOCK_SIDE), roughness)


def pixel_px(mpp: float) -> int:
    """Return how many pixels of ``mpp`` make one of ``PIXEL_UM``, at least 1."""
    return max(1, round(PIXEL_UM / mpp))


def block_px(mpp: float) -> int:
    """Return the side of a block in pixels of ``mpp``."""
    return BLOCK_SIDE * pixel_px(mpp)


def shrink(values: NDArray[np.uint8] | NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Return the means over squares of ``factor`` pixels, float32; incomplete squares are left out."""
    height, width = (side // factor for side in values.shape[:2])
    whole = values[: height * factor, : width * factor]
    total = np.zeros((height, width, *values.shape[2:]), np.float32)
    for row in range(factor):
        for column in range(factor):
            total += whole[row::factor, column::factor]
    total /= factor**2
    return total


def glass_of(blocks: Blocks) -> Glass:
    """Estimate the glass of a slide; UNSEEN where it shows none, as in a field full of tissue."""
    level, low = blocks.level, blocks.mean.min(axis=-1)
    is_padding = low >= PADDING
    # Blocks beside padding are half of it.
    is_scanned = (blocks.mean.max(axis=-1) >= BLACK) & ~ndimage.binary_dilation(is_padding, np.ones((3, 3)))
    is_glass = is_scanned & looks_like_glass(blocks)
    top = brightest(level[is_glass], max(MIN_BLOCKS, MIN_POPULATION * is_scanned.sum()))
    if top is None or (level[is_scanned] > top + WINDOW).mean() > MAX_BRIGHTER:
        return Glass() if is_padding.any() else UNSEEN
    red, green, blue = np.median(
        blocks.mean[is_glass & (level > top - WINDOW) & (level <= top)], axis=0
    ).tolist()
    return Glass((red, green, blue))


def looks_like_glass(blocks: Blocks) -> NDArray[np.bool_]:
    """Return which blocks are as smooth, bright and colourless as glass may be, bool (h, w)."""
    red, green, blue = np.moveaxis(blocks.mean, -1, 0)
    high, low = blocks.mean.max(axis=-1), blocks.mean.min(axis=-1)
    limit = np.where(green < STAIN_GREEN * np.minimum(red, blue), SMOOTH / 3, SMOOTH)
    is_glass: NDArray[np.bool_] = (blocks.roughness <= limit) & (low >= MIN_CHANNEL * high)
    return is_glass & (blocks.level >= MIN_LEVEL)


def brightest(levels: NDArray[np.float32], population: float) -> float | None:
    """Return the highest level that enough levels share, None if there is none.

    Parameters
    ----------
    levels : float32 (N,)
        Brightness of blocks.
    population : float
        So many levels, the returned one included, must lie no more than `WINDOW` below it.

    Returns
    -------
    float or None
        One of the levels.

    Examples
    --------
    >>> brightest(np.array([200, 201, 202, 240], np.float32), 3)
    202.0
    """
    levels = np.sort(levels)
    held = 1 + np.arange(len(levels)) - np.searchsorted(levels, levels - WINDOW, side="right")
    populated = levels[held >= population]
    return float(populated[-1]) if len(populated) else None


def shows(blocks: Blocks, glass: Glass) -> NDArray[np.bool_]:
    """Return which blocks show the glass, in light or in shade, bool (h, w); none where it is not seen."""
    level = blocks.level / np.mean(glass.colour)
    is_near = (level > SHADE) & (level < 1 + WINDOW / 255)
    return is_near & (blocks.roughness <= SMOOTH) & glass.is_seen


def beside(pixels: Pixels, glass: Glass) -> Pixels:
    """Return pixels as they would be if their glass were white, uint8; what is brighter than it is white."""
    if min(glass.colour) == 255:
        return pixels
    balanced = np.empty_like(pixels)
    for channel, bright in enumerate(glass.colour):
        table = np.minimum(np.rint(np.arange(256) * (255 / bright)), 255).astype(np.uint8)
        balanced[..., channel] = table[pixels[..., channel]]
    return balanced
