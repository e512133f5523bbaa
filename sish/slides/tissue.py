"""The tissue of a slide: what differs in colour from its own glass at low power, cleaned by morphology.

Stain is coloured, glass is not (the paper, Methods, "segmentation" as in CLAM: HSV saturation and a
threshold). Colours are compared with the slide's own glass (:mod:`sish.slides.glass`), so a tinted or dim
slide gives the mask of a white one. The threshold depends on the glass alone, so a pale piece is kept
whatever lies beside it. It takes the place of Otsu's: that splits any picture in two, also one that is all
glass or all tissue.

Morphology and connected pieces are scipy's, which is needed anyway. scikit-image would be one more
dependency, and its `remove_small_objects` does not know the rule for fragments.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sish.slides.formats.levels import Pixels
from sish.slides.glass import (
    BLACK,
    UNSEEN,
    Glass,
    beside,
    block_px,
    blocks_of,
    glass_of,
    pixel_px,
    shows,
    shrink,
)
from sish.slides.ink import ink_of
from sish.slides.slide import Slide

Mask = NDArray[np.bool_]

MIN_SATURATION = 0.03
"""Lowest threshold: clean glass stays below it, and walls of fat cells lie above."""

MAX_SATURATION = 0.07
"""Highest threshold, on a slide with the noisiest glass: stained cells lie above it."""

UNSEEN_SATURATION = 0.04
"""Threshold where no glass is seen."""

TIMES_GLASS = 3.0
"""The threshold is so many times the median saturation of the glass, which is that of its noise."""

GREY_CHROMA = 2
"""An image whose channels nowhere differ by more is greyscale: it has no saturation to split. A camera's
picture of grey glass differs by more, from noise alone."""

GLASS_GREY = 235
"""Brighter than this, beside white glass, is background where colour cannot tell (the paper's limit for
patches)."""

NOISE_UM = 2.4
"""Standard deviation of the blur before the threshold, where pixels are finer than 8 um: it leaves as little
noise as those have. A wider blur loses the walls of fat cells, and turns brown beside blue into grey."""

CLOSE_UM = 24.0
"""Gaps narrower than about twice this are closed: clefts and small vessels belong to tissue."""

OPEN_UM = 12.0
"""Threads narrower than about twice this are no tissue: fibres and dust."""

MIN_MASK_PX = 64
"""Small images are looked at more closely, so that the mask's shorter side has this many pixels."""

MAX_MASK_AREA_PX = 16_000_000
"""Huge slides are looked at more coarsely: memory stays below about 600 MB."""

SMALL_SHARE = 0.02
"""A piece of a larger share of the image is kept, however small it is."""

SMALL_HOLE_SHARE = 0.1
"""A hole of a larger share of the image is left open, however small it is."""

MIN_SPECK_UM2 = 20_000.0
"""Pieces of less are dropped beside larger ones: as wide as 160 um."""

FRAGMENT_UM2 = 5_000.0
"""Pieces of less are dropped even where there are no larger ones: as wide as 80 um."""

SMALLER_SPECK_UM2 = 1_000.0
"""Advised where no piece was large enough: as wide as 36 um."""

FRAGMENT_SHARE = 0.25
"""Fragments that are at least this share of the largest piece are kept."""

CROSS = ndimage.generate_binary_structure(2, 1)
SQUARE = ndimage.generate_binary_structure(2, 2)


@dataclass(frozen=True, slots=True)
class TissueMask:
    """Mask of a slide's tissue at low power.

    Examples
    --------
    >>> mask = TissueMask(np.zeros((2, 3), bool), l0_xy=(0, 0), l0_per_px=32.0, mpp=8.0)
    >>> mask.is_empty, mask.coverage(np.array([[0, 0]]), np.array([64.0, 64.0])).tolist()
    (True, [0.0])
    """

    mask: Mask
    """Shape (H, W), true where tissue is."""
    l0_xy: tuple[int, int]
    """Level-0 place of the mask's top left corner."""
    l0_per_px: float
    """Level-0 pixels that one mask pixel spans."""
    mpp: float
    """Micrometres that one mask pixel spans."""
    glass: Glass = UNSEEN
    """The glass that it was judged by."""
    threshold: float = UNSEEN_SATURATION
    """Saturation beside the glass from which on a pixel is stained."""
    min_speck_um2: float = MIN_SPECK_UM2
    """Smaller pieces were dropped."""
    leave_out_ink: bool = True
    """Whether marks of ink were left out."""

    @property
    def is_empty(self) -> bool:
        """Whether no tissue was found."""
        return not self.mask.any()

    @property
    def hint(self) -> str:
        """Why a slide gave no tile, and what to try that was not tried, on one line."""
        if not self.is_empty:
            return "no tile found: nearly all of each is as bright as the glass"
        why = (
            f"no tissue found: the slide shows {self.glass}, and nothing large differs from it by more than "
            f"{self.threshold:.2f} in saturation"
        )
        options = []
        if self.min_speck_um2 > SMALLER_SPECK_UM2:
            options.append(f"--recipe.min_speck_um2 {SMALLER_SPECK_UM2:.0f} for smaller pieces")
        if self.leave_out_ink:
            options.append("--recipe.leave_out_ink false for what was taken for ink")
        return f"{why}; try {', '.join(options)}" if options else why

    def coverage(self, l0_xy: NDArray[np.int64], l0_size: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the tissue's share of rectangles, exact for fractions of mask pixels.

        Pixels outside the mask count as no tissue. Takes O(N) time after one pass over the mask.

        Parameters
        ----------
        l0_xy : int64 (N, 2)
            Top left corners in level-0 pixels, x first.
        l0_size : float64 (N, 2) or (2,)
            Widths and heights in level-0 pixels.

        Returns
        -------
        float64 (N,)
            Shares from 0 to 1.

        Examples
        --------
        >>> half = TissueMask(np.array([[True, False]]), (0, 0), 10.0, 5.0)
        >>> half.coverage(np.array([[0, 0], [5, 0]]), np.array([10.0, 10.0])).tolist()
        [1.0, 0.5]
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

    def pieces_apart(self, l0_xy: NDArray[np.int64], l0_size: float) -> NDArray[np.float64]:
        """Return the centres of the pieces of tissue that no square of a list meets.

        Parameters
        ----------
        l0_xy : int64 (N, 2)
            Top left corners of the squares in level-0 pixels.
        l0_size : float
            Their side in level-0 pixels.

        Returns
        -------
        float64 (M, 2)
            Centres of the pieces' bounding boxes in level-0 pixels.
        """
        labels, _ = ndimage.label(self.mask, SQUARE)
        height, width = self.mask.shape
        low = (l0_xy - np.array(self.l0_xy)) / self.l0_per_px
        first = np.clip(np.floor(low).astype(int), 0, (width, height))
        last = np.clip(np.ceil(low + l0_size / self.l0_per_px).astype(int), 0, (width, height))
        met = np.unique(labels[inside_boxes(first, last, self.mask.shape)])
        boxes = [box for number, box in enumerate(ndimage.find_objects(labels), 1) if number not in met]
        centres = [[(side.start + side.stop) / 2 for side in reversed(box)] for box in boxes]
        return np.array(centres, np.float64).reshape(-1, 2) * self.l0_per_px + self.l0_xy


def inside_boxes(first: NDArray[np.intp], last: NDArray[np.intp], shape: tuple[int, ...]) -> Mask:
    """Return the pixels in any box from ``first`` to ``last``, each (N, 2), x first; bool of ``shape``."""
    steps = np.zeros(np.add(shape, 1), np.int32)
    for x, y, step in ((first, first, 1), (last, last, 1), (first, last, -1), (last, first, -1)):
        np.add.at(steps, (y[:, 1], x[:, 0]), step)
    covered: Mask = steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
    return covered


def find_tissue(
    slide: Slide,
    *,
    mpp: float = 8.0,
    min_speck_um2: float = MIN_SPECK_UM2,
    min_hole_um2: float = 40_000.0,
    leave_out_ink: bool = True,
) -> TissueMask:
    """Find the tissue of a slide, in time proportional to its area at `mpp`.

    A slide without tissue has an empty mask: that is an outcome, not an error.

    Parameters
    ----------
    slide : Slide
        The slide.
    mpp : float
        Scale to look at, micrometres per pixel; finer for small images, coarser for huge ones.
    min_speck_um2 : float
        Smaller pieces are dirt. Where no piece is much larger, pieces down to 5,000 um2 are kept.
    min_hole_um2 : float
        Smaller holes belong to the tissue around them.
    leave_out_ink : bool
        Leave out smooth marks of blue, green, red or black ink.

    Returns
    -------
    TissueMask
        The mask, its place on level 0, and what it was judged by.

    Raises
    ------
    SlideReadError
        If the slide's pixels fail.

    Examples
    --------
    >>> from sish.slides.slide import slide_from_array
    >>> pixels = np.full((500, 500, 3), 240, np.uint8)
    >>> pixels[100:400, 100:400] = (200, 90, 160)
    >>> tissue = find_tissue(slide_from_array(pixels, mpp=2.0))
    >>> tissue.mask.shape, round(float(tissue.mask.mean()), 2), tissue.l0_per_px
    ((125, 125), 0.36, 4.0)
    """
    mpp = mask_mpp(slide, mpp)
    pixels = slide.overview(mpp)
    blocks = blocks_of(pixels, mpp)
    glass = glass_of(blocks)
    mask, threshold = stained(beside(pixels, glass), mpp, shows(blocks, glass))
    if leave_out_ink and (ink := ink_of(blocks, glass)).any():
        mask &= ~enlarge(ink, block_px(mpp), mask.shape)
    mask = clean(mask, mpp, min_speck_um2, min_hole_um2)
    return TissueMask(
        mask, slide.bounds[:2], mpp / slide.mpp, mpp, glass, threshold, min_speck_um2, leave_out_ink
    )


def all_tissue(slide: Slide) -> TissueMask:
    """Return a mask that covers the whole image."""
    mpp = mask_mpp(slide, slide.mpp)
    _, _, width, height = slide.bounds
    shape = math.ceil(height * slide.mpp / mpp), math.ceil(width * slide.mpp / mpp)
    return TissueMask(np.ones(shape, bool), slide.bounds[:2], mpp / slide.mpp, mpp)


def mask_mpp(slide: Slide, mpp: float) -> float:
    """Return the scale at which a slide's mask is neither too small nor too large."""
    _, _, width, height = slide.bounds
    closest = max(slide.mpp, min(width, height) * slide.mpp / MIN_MASK_PX)
    farthest = math.sqrt(width * height / MAX_MASK_AREA_PX) * slide.mpp
    return max(min(mpp, closest), farthest)


def stained(pixels: Pixels, mpp: float, bare: Mask) -> tuple[Mask, float]:
    """Return the stained pixels of an overview, bool (H, W), and the threshold on their saturation.

    Parameters
    ----------
    pixels : uint8 (H, W, 3)
        The overview, balanced so that its glass is white.
    mpp : float
        Its scale.
    bare : bool (h, w)
        The blocks that show the glass.

    Returns
    -------
    is_stained : bool (H, W)
        True on stain.
    threshold : float
        Saturation from which on a pixel is stained.
    """
    high, low = extremes(pixels)
    is_lit = high >= BLACK
    if (high - low).max(initial=0) <= GREY_CHROMA:
        return is_lit & (high <= GLASS_GREY), 0.0
    # Noise has a saturation of its own: colours are blurred before it is taken.
    if pixel_px(mpp) > 1:
        high, low = extremes(blurred(pixels, NOISE_UM / mpp))
    saturation: NDArray[np.float32] = np.divide(high - low, np.maximum(high, 1), dtype=np.float32)
    threshold = UNSEEN_SATURATION
    if bare.any():
        usual = np.median(shrink(saturation, block_px(mpp))[bare])
        threshold = float(np.clip(TIMES_GLASS * usual, MIN_SATURATION, MAX_SATURATION))
    return is_lit & (saturation > threshold), threshold


def blurred(pixels: Pixels, sigma_px: float) -> Pixels:
    """Return pixels (H, W, 3) after a Gaussian blur of each channel."""
    smooth = np.empty_like(pixels)
    for channel in range(3):
        ndimage.gaussian_filter(pixels[..., channel], sigma_px, output=smooth[..., channel])
    return smooth


def extremes(pixels: Pixels) -> tuple[Pixels, Pixels]:
    """Return the largest and smallest of the three channels, uint8 (H, W); faster than along the axis."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)


def enlarge(marks: Mask, side_px: int, shape: tuple[int, ...]) -> Mask:
    """Return blocks of ``side_px`` pixels as a mask of ``shape``; the last ones reach to its edge."""
    large = marks.repeat(side_px, axis=0).repeat(side_px, axis=1)
    return np.pad(large, [(0, side - own) for side, own in zip(shape, large.shape, strict=True)], mode="edge")


def clean(mask: Mask, mpp: float, min_speck_um2: float, min_hole_um2: float) -> Mask:
    """Close gaps, fill holes, remove threads, then specks.

    Holes are filled before threads are removed: the walls of fat cells are threads, and fat is tissue.

    Parameters
    ----------
    mask : bool (H, W)
        The stained pixels.
    mpp : float
        Its scale.
    min_speck_um2, min_hole_um2 : float
        As of `find_tissue`.

    Returns
    -------
    bool (H, W)
        The tissue.
    """
    hole_px = min(SMALL_HOLE_SHARE * mask.size, min_hole_um2 / mpp**2)
    closed = ~grow(~grow(mask, CLOSE_UM / mpp), CLOSE_UM / mpp)
    opened = grow(~grow(~fill(closed, hole_px), OPEN_UM / mpp), OPEN_UM / mpp)
    speck_px = min(SMALL_SHARE * mask.size, min_speck_um2 / mpp**2)
    return fill(drop_small(opened, speck_px, FRAGMENT_UM2 / mpp**2), hole_px)


def fill(mask: Mask, min_px: float) -> Mask:
    """Return a mask whose holes of fewer than ``min_px`` pixels are filled."""
    return ~drop_small(~mask, min_px)


def grow(mask: Mask, radius: float) -> Mask:
    """Return all within about ``radius`` pixels of a mask: octagons, by crosses and squares in turn."""
    for turn in range(round(radius)):
        mask = ndimage.binary_dilation(mask, SQUARE if turn % 2 else CROSS)
    return mask


def drop_small(mask: Mask, min_px: float, fragment_px: float = math.inf) -> Mask:
    """Return a mask without its connected pieces of fewer than `min_px` pixels.

    Parameters
    ----------
    mask : bool (H, W)
        The pieces.
    min_px : float
        Smaller pieces go.
    fragment_px : float
        Smaller pieces, down to this, stay if they are no specks beside the largest one.

    Returns
    -------
    bool (H, W)
        The pieces that stay.
    """
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    keep = sizes >= max(1, min(min_px, max(fragment_px, FRAGMENT_SHARE * sizes.max())))
    kept: Mask = keep[labels]
    return kept
