"""From tissue to tiles, and from tiles to the few that stand for the slide (the mosaic).

Chen et al. 2022, Methods, "mosaic": tiles without overlap on tissue, k-means on their colours, then
k-means on their places inside each colour. Each tile is read once at low power. This one look serves the rule
against background and the colour histogram, which is kept with the tiles.

An image no larger than a patch (a tile of a public data set, a crop) is not tiled: it is one patch of its own
size, at the same scale as all others (`only_patch`, `read_patch`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sish.errors import ParameterError
from sish.slides.clusters import assign, kmeans
from sish.slides.glass import Glass
from sish.slides.region import Box, Region, clip, grid, plain
from sish.slides.slide import Slide
from sish.slides.tissue import TissueMask

Places = NDArray[np.int64]

COLOUR_MPP = 2.0
"""Scale of the look at low power: 5x, where the paper takes its histograms."""

MAX_LOOK_PX = 256
"""Largest side of a patch in that look: the paper's size for the rule against background."""

BACKGROUND_GREY = 235
BACKGROUND_SHARE = 0.9
"""A tile is dropped if more than this share of it is brighter than this grey (the paper, Methods)."""

_BLANK_SHARE = 0.99
"""The same share for a piece of tissue that no other tile meets, and for an image that is one patch."""

BACKGROUND_OF_GLASS = 0.96
"""Background is at least this bright beside the glass: the paper's 235 of usual glass, which has 245."""

BLOCK_LOOK_PX = 2048
"""Tiles are looked at in blocks of this side: 12 MB, and one read instead of hundreds."""

WHOLE = 1e-3
"""A size that lacks no more than this share of a pixel is whole: scales are not known more exactly."""

BINS = 256
"""Histogram bins of each of the three channels."""

KEEP_WHOLE = 20
"""A colour cluster of fewer tiles is kept whole, so small fields keep all of theirs."""


@dataclass(frozen=True, slots=True)
class Patches:
    """Squares of a slide that may be read as patches.

    Examples
    --------
    >>> len(Patches(np.array([[0, 0], [512, 0]]), size_px=256, mpp=1.0, l0_size=512.0))
    2
    """

    l0_xy: Places
    """Shape (N, 2), x first: top left corners in level-0 pixels; row by row where they are tiles."""
    size_px: int
    """Side in pixels at ``mpp``."""
    mpp: float
    """Scale to read them at, micrometres per pixel."""
    l0_size: float
    """Side in level-0 pixels."""
    histograms: NDArray[np.uint16] | None = None
    """Shape (N, 768): counts of red, green and blue at low power; None where not looked at yet."""

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.l0_xy)


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The patches that stand for a slide; `select_mosaic` makes it.

    Examples
    --------
    >>> corners, clusters = np.array([[512, 0]]), np.int32([3])
    >>> one = Mosaic(corners, clusters, size_px=256, mpp=1.0, l0_size=512.0, n_tiles=20)
    >>> len(one), one.n_tiles
    (1, 20)
    """

    l0_xy: Places
    """Shape (M, 2): top left corners in level-0 pixels, in the order of the tiles."""
    cluster: NDArray[np.int32]
    """Shape (M,): number of each patch's colour cluster."""
    size_px: int
    """Side in pixels at ``mpp``."""
    mpp: float
    """Scale to read them at, micrometres per pixel."""
    l0_size: float
    """Side in level-0 pixels."""
    n_tiles: int
    """Number of tiles that they were chosen from."""

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.l0_xy)


def tile(
    slide: Slide,
    tissue: TissueMask,
    size_px: int = 256,
    mpp: float = 1.0,
    region: Region | Box | None = None,
    min_tissue: float = 0.25,
) -> Patches:
    """Cover the tissue by a grid of tiles without overlap.

    The last column and row may hang over the edge by up to half a tile, to be read white there; a slide
    smaller than a tile is one tile. Tiles on tissue are dropped if more than 90 % of them is background. A
    piece of tissue that no tile meets gets a tile of its own, centred on it and listed after the grid's, so
    small fragments count wherever they lie on the grid. Such tiles may overlap others.

    Parameters
    ----------
    slide : Slide
        The slide; each tile on tissue is read once at low power, so time grows with the area of the tissue.
    tissue : TissueMask
        Where its tissue is.
    size_px : int
        Side of a tile in pixels at `mpp`.
    mpp : float
        Scale at which the tiles will be read, micrometres per pixel.
    region : tuple of int or Box, optional
        x, y, width and height in level-0 pixels: the grid begins at its corner and stays in it. A side
        shorter than a tile gives one tile centred on it. The grid of a turned box runs along its sides, and
        tiles whose centres are off the slide are left out.
    min_tissue : float
        Share of a tile, or of its part on the slide, that must be tissue.

    Returns
    -------
    Patches
        The tiles, row by row, with their colour histograms.

    Raises
    ------
    ParameterError
        If a number is out of range, or the region is none or outside the slide.
    SlideReadError
        If the slide's pixels fail.

    Examples
    --------
    >>> from sish.slides.slide import slide_from_array
    >>> from sish.slides.tissue import find_tissue
    >>> pixels = np.full((500, 500, 3), 240, np.uint8)
    >>> pixels[100:400, 100:400] = (200, 90, 160)
    >>> slide = slide_from_array(pixels, mpp=1.0)
    >>> tile(slide, find_tissue(slide), size_px=100).l0_xy[[0, -1]].tolist()
    [[100, 100], [300, 300]]
    """
    if size_px < 1 or not mpp > 0 or not 0 <= min_tissue <= 1:
        raise ParameterError(
            f"got size_px={size_px}, mpp={mpp}, min_tissue={min_tissue}; "
            "want at least 1 px, an mpp above 0, and a share in [0, 1]"
        )
    l0_size = size_px * mpp / slide.mpp
    region = plain(region)
    l0_xy = grid(slide, l0_size, region)
    low, high = inside(slide, l0_xy, l0_size)
    share = tissue.coverage(low, (high - low).astype(np.float64))
    l0_xy = l0_xy[(share >= min_tissue) & (share > 0)]
    own = own_tiles(slide, tissue, l0_xy, l0_size, region)
    most = np.repeat([BACKGROUND_SHARE, _BLANK_SHARE], [len(l0_xy), len(own)])
    l0_xy = np.concatenate([l0_xy, own])
    histograms, background = look(slide, l0_xy, size_px * mpp, background_grey(tissue.glass))
    keep = background <= most
    return Patches(l0_xy[keep], size_px, mpp, l0_size, histograms[keep])


def own_tiles(
    slide: Slide, tissue: TissueMask, l0_xy: Places, l0_size: float, region: Region | Box | None
) -> Places:
    """Return the corners of tiles on the pieces of tissue that no tile at `l0_xy` meets.

    Each is centred on its piece, as far as the slide's bounds (or the region) allow. A piece whose centre
    lies in the tile of another gets none.

    Parameters
    ----------
    slide : Slide
        The slide.
    tissue : TissueMask
        Where its tissue is.
    l0_xy : int64 (N, 2)
        Corners of the grid's tiles, level-0 pixels.
    l0_size : float
        Side of a tile, level-0 pixels.
    region : tuple of int, Box or None
        As of `tile`; a box that is turned.

    Returns
    -------
    int64 (M, 2)
        Top left corners, level-0 pixels.
    """
    box = region if isinstance(region, Box) else None
    x, y, width, height = slide.bounds if region is None or isinstance(region, Box) else clip(slide, region)
    low, high = np.array([x, y], np.float64), np.array([x + width, y + height], np.float64)
    corners: list[NDArray[np.float64]] = []
    for centre in tissue.pieces_apart(l0_xy, l0_size):
        is_taken = any(((corner <= centre) & (centre < corner + l0_size)).all() for corner in corners)
        corner = np.maximum(np.minimum(centre - l0_size / 2, high - l0_size), low)
        is_inside = ((low <= centre) & (centre < high)).all()
        if not is_taken and is_inside and (box is None or box.contains(corner + l0_size / 2)):
            corners.append(corner)
    return np.rint(corners).astype(np.int64).reshape(-1, 2)


def is_one_patch(slide: Slide, size_px: int, mpp: float) -> bool:
    """Return whether an image is no larger than one patch: neither wider nor higher."""
    return max(slide.bounds[2:]) * slide.mpp <= (size_px + WHOLE) * mpp


def only_patch(slide: Slide, size_px: int, mpp: float) -> Mosaic:
    """Return the mosaic of an image no larger than a patch: all of it, or nothing where it is blank.

    A crop was chosen by someone, so sparse tissue is kept; only an image over 99 % bright is blank. (Tiles of
    a slide are dropped from 90 % on.)

    Parameters
    ----------
    slide : Slide
        The image.
    size_px : int
        Side of a patch in pixels at `mpp`.
    mpp : float
        Scale at which patches are read, micrometres per pixel.

    Returns
    -------
    Mosaic
        One patch or none.
    """
    l0_xy = np.array([slide.bounds[:2]], np.int64)
    _, background = look(slide, l0_xy, size_px * mpp)
    kept = l0_xy[background <= _BLANK_SHARE]
    return Mosaic(kept, np.zeros(len(kept), np.int32), size_px, mpp, size_px * mpp / slide.mpp, 1)


def read_patch(
    slide: Slide, l0_xy: tuple[float, float], size_px: int, mpp: float, *, step_px: int | None = None
) -> NDArray[np.uint8]:
    """Read one patch as an encoder sees it.

    An image narrower (or lower) than a patch gives as many columns (rows) as it has at `mpp`, then mirrored
    ones up to the next multiple of `step_px`, which the encoder needs. The scale is exact whatever the size,
    and there are no margins. The part of a patch that hangs over the edge of a larger slide is white.

    Parameters
    ----------
    slide : Slide
        An open slide.
    l0_xy : tuple of float
        Top left corner, level-0 pixels.
    size_px : int
        Side of a patch in pixels at `mpp`.
    mpp : float
        Scale, micrometres per pixel.
    step_px : int, optional
        Sides of a smaller image's patch are multiples of it. Default: `size_px`.

    Returns
    -------
    uint8 (h, w, 3)
        RGB pixels, usually with h = w = `size_px`.

    Raises
    ------
    SlideReadError
        If the slide's pixels fail.

    Examples
    --------
    A square of 96 px at 0.97 um/px has 93 px at 1.0 um/px, and 3 mirrored.

    >>> from sish.slides.slide import slide_from_array
    >>> slide = slide_from_array(np.zeros((96, 96, 3), np.uint8), mpp=0.97)
    >>> read_patch(slide, (0, 0), 256, 1.0, step_px=16).shape
    (96, 96, 3)
    """
    _, _, width, height = slide.bounds
    whole = [max(1, math.floor(side * slide.mpp / mpp + WHOLE)) for side in (width, height)]
    if min(whole) >= size_px:
        return slide.read(l0_xy, size_px, mpp)
    own = [side < size_px for side in whole]
    corner = [
        start if is_own else place for start, place, is_own in zip(slide.bounds, l0_xy, own, strict=False)
    ]
    columns, rows = (min(side, size_px) for side in whole)
    pixels = slide.read((corner[0], corner[1]), (columns, rows), mpp)
    step = step_px or size_px
    lacking = [min(size_px, math.ceil(side / step) * step) - side for side in (rows, columns)]
    return np.pad(pixels, ((0, lacking[0]), (0, lacking[1]), (0, 0)), mode="symmetric")


def inside(slide: Slide, l0_xy: Places, l0_size: float) -> tuple[Places, Places]:
    """Return the corners (top left, bottom right), each (N, 2), of the parts of squares on the slide."""
    x, y, width, height = slide.bounds
    low = np.clip(l0_xy, (x, y), (x + width - 1, y + height - 1))
    high = np.clip(np.rint(l0_xy + l0_size).astype(np.int64), low + 1, (x + width, y + height))
    return low, high


def background_grey(glass: Glass) -> float:
    """Return the grey from which on a pixel is background: the paper's, or a little below dimmer glass."""
    return min(BACKGROUND_GREY, BACKGROUND_OF_GLASS * glass.grey) if glass.is_seen else BACKGROUND_GREY


def look(
    slide: Slide, l0_xy: Places, size_um: float, bright: float = BACKGROUND_GREY
) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Look at patches at low power, each only where it lies on the slide.

    Parameters
    ----------
    slide : Slide
        The slide.
    l0_xy : int64 (N, 2)
        Top left corners, level-0 pixels.
    size_um : float
        Side of a patch, micrometres.
    bright : float
        Pixels brighter than this grey are background.

    Returns
    -------
    histograms : uint16 (N, 768)
        Counts of each value of red, green and blue.
    background : float64 (N,)
        Share of background in each patch.
    """
    histograms = np.zeros((len(l0_xy), 3 * BINS), np.uint16)
    background = np.zeros(len(l0_xy))
    mpp = max(COLOUR_MPP, size_um / MAX_LOOK_PX)
    step = mpp / slide.mpp
    low, high = inside(slide, l0_xy, size_um / slide.mpp)
    for members in blocks(low, BLOCK_LOOK_PX * step):
        corner = low[members].min(axis=0)
        width, height = np.ceil((high[members].max(axis=0) - corner) / step).astype(int)
        pixels = slide.read((corner[0], corner[1]), (int(width), int(height)), mpp)
        grey = np.asarray(Image.fromarray(pixels).convert("L"))
        first = np.rint((low[members] - corner) / step).astype(int)
        last = np.maximum(np.rint((high[members] - corner) / step).astype(int), first + 1)
        for member, (left, top), (right, below) in zip(members, first, last, strict=True):
            place = np.s_[top:below, left:right]
            histograms[member] = histogram(pixels[place])
            background[member] = (grey[place] > bright).mean()
    return histograms, background


def blocks(l0_xy: Places, l0_block: float) -> Iterator[NDArray[np.intp]]:
    """Yield the numbers of the patches of each square block of the slide, block by block."""
    if not len(l0_xy):
        return
    _, block = np.unique(np.floor(l0_xy / l0_block), axis=0, return_inverse=True)
    order = np.argsort(block.ravel(), kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(block.ravel()[order])) + 1)


def histogram(pixels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the counts of each value of red, green and blue, one after another, uint16 (768,)."""
    channels = pixels.reshape(-1, 3) + np.arange(0, 3 * BINS, BINS)
    # A full 256 x 256 look of one colour is one more than a uint16 holds.
    counts = np.bincount(channels.ravel(), minlength=3 * BINS)
    return np.minimum(counts, np.iinfo(np.uint16).max).astype(np.uint16)


def select_mosaic(
    slide: Slide, patches: Patches, *, n_clusters: int = 9, fraction: float = 0.05, seed: int = 0
) -> Mosaic:
    """Choose the patches that stand for a slide (Chen et al. 2022, Methods, "mosaic").

    k-means finds `n_clusters` by colour histogram. Inside each cluster, k-means by place finds `fraction` of
    its size, and the tile nearest each centre, among those that belong to it, is chosen: no tile twice. A
    cluster of fewer than 20 tiles is kept whole. The same seed gives the same mosaic. Time grows with the
    number of patches.

    Parameters
    ----------
    slide : Slide
        The slide; it is read only for patches without histograms.
    patches : Patches
        What to choose from, as `tile` returns it.
    n_clusters : int
        Largest number of colour clusters.
    fraction : float
        Share of each cluster to keep, above 0.
    seed : int
        Of the random starts of k-means.

    Returns
    -------
    Mosaic
        The chosen patches, in the order of `patches`.

    Raises
    ------
    ParameterError
        If `n_clusters` or `fraction` is out of range.
    SlideReadError
        If the slide's pixels fail.

    Examples
    --------
    >>> from sish.slides.slide import slide_from_array
    >>> from sish.slides.tissue import find_tissue
    >>> slide = slide_from_array(np.full((1000, 1000, 3), (200, 90, 160), np.uint8), mpp=1.0)
    >>> patches = tile(slide, find_tissue(slide), size_px=100)
    >>> len(patches), len(select_mosaic(slide, patches))
    (100, 5)
    """
    if n_clusters < 1 or not 0 < fraction <= 1:
        raise ParameterError(
            f"got n_clusters={n_clusters}, fraction={fraction}; want at least 1 cluster and a share in (0, 1]"
        )
    histograms = patches.histograms
    if histograms is None:
        histograms, _ = look(slide, patches.l0_xy, patches.size_px * patches.mpp)
    cluster = colour_clusters(histograms, n_clusters, seed)
    order = representatives(patches.l0_xy, cluster, fraction, seed)
    return Mosaic(
        patches.l0_xy[order], cluster[order], patches.size_px, patches.mpp, patches.l0_size, len(patches)
    )


def colour_clusters(histograms: NDArray[np.uint16], k: int, seed: int) -> NDArray[np.int32]:
    """Return the number of each tile's colour cluster, int32 (N,): stage 1."""
    shares = histograms / np.maximum(histograms.sum(axis=1, keepdims=True, dtype=np.float32), 1)
    return assign(shares, kmeans(shares, k, seed))


def representatives(
    l0_xy: Places, cluster: NDArray[np.int32], fraction: float, seed: int
) -> NDArray[np.intp]:
    """Choose the tiles that stand for a slide inside each cluster: stage 2.

    Parameters
    ----------
    l0_xy : int64 (N, 2)
        Places of the tiles.
    cluster : int32 (N,)
        Number of each tile's cluster.
    fraction : float
        Share of each cluster to keep.
    seed : int
        Of the random starts of k-means.

    Returns
    -------
    int64 (M,)
        Numbers of the chosen tiles, ascending.
    """
    chosen = [np.zeros(0, np.intp)]
    for number in np.unique(cluster):
        members = np.flatnonzero(cluster == number)
        chosen.append(members[nearest_tiles(l0_xy[members], fraction, seed)])
    return np.sort(np.concatenate(chosen))


def nearest_tiles(l0_xy: Places, fraction: float, seed: int) -> NDArray[np.intp]:
    """Return the numbers of the tiles of one colour that are nearest the centres of their places."""
    if len(l0_xy) < KEEP_WHOLE:
        return np.arange(len(l0_xy))
    places = l0_xy.astype(np.float32)
    # The small addend keeps 0.05 * 60 from being 2.9999...
    centres = kmeans(places, max(1, int(len(l0_xy) * fraction + 1e-9)), seed)
    nearest = assign(places, centres)
    distance = np.linalg.norm(places - centres[nearest], axis=1)
    # By centre, then by distance; the first of each centre is its tile.
    order = np.lexsort((distance, nearest))
    first = np.flatnonzero(np.diff(nearest[order], prepend=-1))
    return order[first]
