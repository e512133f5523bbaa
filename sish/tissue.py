"""Where the tissue is: Otsu's threshold on saturation at low power, cleaned by morphology.

Glass is white whatever the lamp's brightness, stain is coloured, so saturation separates them (the paper,
Methods, "segmentation" as in CLAM: HSV saturation and a threshold). Otsu splits anything, also a field
that is all tissue or all glass, so its threshold is held inside a range that is true of stained tissue.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sish.levels import Pixels
from sish.slide import Slide

__all__ = ["TissueMask", "all_tissue", "find_tissue"]

Mask = NDArray[np.bool_]

MIN_SATURATION = 0.04
"""Glass with its noise and compression stays below: Otsu on an empty slide would split that noise."""

MAX_SATURATION = 0.07
"""Even fat lies above: Otsu on a field without glass would split nuclei from stroma, or stroma from fat."""

MIN_BRIGHTNESS = 40
"""Of 255: what is darker in all channels is a scanner's border or ink; its saturation is noise."""

GREY_CHROMA = 2
"""An image whose channels nowhere differ by more is greyscale: it has no saturation to split. A camera's
picture of grey glass differs by more, from noise alone."""

GLASS_GREY = 235
"""Brighter than this is background where colour cannot tell (the paper's own limit for patches)."""

SMOOTH_UM = 8.0
"""Standard deviation of the blur before the threshold: about a nucleus, larger than noise."""

CLOSE_UM = 24.0
"""Gaps narrower than about twice this are closed: clefts and small vessels belong to tissue."""

OPEN_UM = 12.0
"""Threads narrower than about twice this are no tissue: fibres and dust."""

MIN_MASK_PX = 64
"""Small images are looked at more closely, so that the mask's shorter side has this many pixels."""

MAX_MASK_AREA_PX = 16_000_000
"""Huge slides are looked at more coarsely: memory stays below about 600 MB."""

SMALL_SHARE = 0.02
"""No speck or hole that is a larger share of the image than this is too small to count."""


CROSS = ndimage.generate_binary_structure(2, 1)
SQUARE = ndimage.generate_binary_structure(2, 2)


@dataclass(frozen=True, slots=True)
class TissueMask:
    """Tissue of a slide at low power."""

    mask: Mask
    """Shape (H, W), true where tissue is."""
    l0_xy: tuple[int, int]
    """Level-0 place of the mask's top left corner."""
    l0_per_px: float
    """Level-0 pixels that one mask pixel spans."""
    mpp: float
    """Micrometres that one mask pixel spans."""

    @property
    def is_empty(self) -> bool:
        """Whether no tissue was found."""
        return not self.mask.any()

    def coverage(self, l0_xy: NDArray[np.int64], l0_size: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tissue's share of rectangles, float64 (N,).

        l0_xy: their top left corners, (N, 2). l0_size: their widths and heights, (N, 2) or (2,); level-0
        pixels.
        Exact for fractions of mask pixels; what lies outside the mask counts as no tissue.
        """
        low = (l0_xy - np.array(self.l0_xy)) / self.l0_per_px
        high = low + l0_size / self.l0_per_px
        total = np.zeros(np.add(self.mask.shape, 1))
        total[1:, 1:] = self.mask.cumsum(axis=0, dtype=np.int32).cumsum(axis=1)

        def up_to(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            # The integral of a mask of constant pixels is bilinear between their corners.
            values: NDArray[np.float64] = ndimage.map_coordinates(total, (y, x), order=1, mode="nearest")
            return values

        (left, top), (right, below) = low.T, high.T
        inside = up_to(right, below) - up_to(left, below) - up_to(right, top) + up_to(left, top)
        share: NDArray[np.float64] = inside / np.prod(high - low, axis=1)
        return share


def find_tissue(
    slide: Slide, *, mpp: float = 8.0, min_speck_um2: float = 20_000.0, min_hole_um2: float = 40_000.0
) -> TissueMask:
    """Find the tissue of a slide. One without any has an empty mask: that is an outcome, not an error.

    mpp: scale to look at; finer for small images, coarser for huge ones.
    min_speck_um2: smaller pieces are dirt. min_hole_um2: smaller holes belong to the tissue around them.

    Raises SlideReadError where the slide's pixels fail.
    """
    mpp = mask_mpp(slide, mpp)
    mask = stained(slide.overview(mpp), mpp)
    mask = clean(mask, mpp, min_speck_um2, min_hole_um2)
    return TissueMask(mask, slide.bounds[:2], mpp / slide.mpp, mpp)


def all_tissue(slide: Slide) -> TissueMask:
    """The mask of an image that is not asked where its tissue is: all of it."""
    mpp = mask_mpp(slide, slide.mpp)
    _, _, width, height = slide.bounds
    shape = math.ceil(height * slide.mpp / mpp), math.ceil(width * slide.mpp / mpp)
    return TissueMask(np.ones(shape, bool), slide.bounds[:2], mpp / slide.mpp, mpp)


def mask_mpp(slide: Slide, mpp: float) -> float:
    """The scale at which a slide's mask is neither too small nor too large."""
    _, _, width, height = slide.bounds
    closest = max(slide.mpp, min(width, height) * slide.mpp / MIN_MASK_PX)
    farthest = math.sqrt(width * height / MAX_MASK_AREA_PX) * slide.mpp
    return max(min(mpp, closest), farthest)


def stained(pixels: NDArray[np.uint8], mpp: float) -> Mask:
    """Pixels (H, W, 3) with the colour of stain, bool (H, W)."""
    high, low = extremes(pixels)
    is_lit = high >= MIN_BRIGHTNESS
    if (high - low).max(initial=0) <= GREY_CHROMA:
        grey: Mask = is_lit & (high <= GLASS_GREY)
        return grey
    # Colours are blurred before their saturation is taken: noise has a saturation of its own.
    smooth = np.empty_like(pixels)
    for channel in range(3):
        ndimage.gaussian_filter(pixels[..., channel], SMOOTH_UM / mpp, output=smooth[..., channel])
    high, low = extremes(smooth)
    saturation: NDArray[np.float32] = np.divide(high - low, np.maximum(high, 1), dtype=np.float32)
    mask: Mask = is_lit & (saturation > np.clip(otsu(saturation[is_lit]), MIN_SATURATION, MAX_SATURATION))
    return mask


def extremes(pixels: Pixels) -> tuple[Pixels, Pixels]:
    """Largest and smallest of the three channels, each uint8 (H, W); far faster than along the axis."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)


def otsu(values: NDArray[np.float32], bins: int = 256) -> float:
    """Otsu's threshold of values in [0, 1]: the cut with the largest variance between its two sides.

    Otsu, IEEE Trans SMC 9 (1979), eq. 18.

    >>> round(otsu(np.array([0.1, 0.1, 0.12, 0.7, 0.8], np.float32)), 2)
    0.12
    """
    counts, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    weight = counts.cumsum() / max(1, counts.sum())
    mean = (counts * (edges[:-1] + edges[1:]) / 2).cumsum() / max(1, counts.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean[-1] * weight - mean) ** 2 / (weight * (1 - weight))
    return float(edges[1 + np.nan_to_num(between, nan=0.0, posinf=0.0).argmax()])


def clean(mask: Mask, mpp: float, min_speck_um2: float, min_hole_um2: float) -> Mask:
    """Close gaps, remove threads, then specks and holes by area."""
    closed = ~grow(~grow(mask, CLOSE_UM / mpp), CLOSE_UM / mpp)
    opened = grow(~grow(~closed, OPEN_UM / mpp), OPEN_UM / mpp)
    limit = SMALL_SHARE * mask.size
    pieces = drop_small(opened, min(limit, min_speck_um2 / mpp**2))
    return ~drop_small(~pieces, min(limit, min_hole_um2 / mpp**2))


def grow(mask: Mask, radius: float) -> Mask:
    """Everything within about ``radius`` pixels of a mask: octagons, by crosses and squares in turn."""
    for turn in range(round(radius)):
        mask = ndimage.binary_dilation(mask, SQUARE if turn % 2 else CROSS)
    return mask


def drop_small(mask: Mask, min_px: float) -> Mask:
    """A mask without its connected pieces of fewer than ``min_px`` pixels."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    keep = sizes >= min_px
    keep[0] = False
    kept: Mask = keep[labels]
    return kept
