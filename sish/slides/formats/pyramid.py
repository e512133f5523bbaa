"""Downsamples: the level-0 pixels that a pixel of each level spans, where sizes do not tell them plainly.

OpenSlide divides the size of level 0 by that of the level. This is wrong where a program filled the smaller
levels up to whole tiles: 3000 px halved twice are 750, stored as 1024 in tiles of 512, and 3000 / 1024 is
not 4. ``settle`` looks for the factors that explain a level's size in both directions. Several factors may do
so, such as 2 and 1.95 for a level that was filled up, or was really scaled, to whole tiles. Then pixels
decide: the level is compared with a finer one. A level that no factor explains is left out, which costs time
only.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sish.errors import SlideReadError
from sish.slides.formats.levels import Levels, Pixels, Size

Pair = tuple[float, float]

FACTORS = (*(2**power for power in range(1, 21)), 3, 5, 6, 7, 9, 10)
"""Factors by which programs make levels, the likely ones first."""

MAX_STEP = 16
"""Largest step from one level to the next, where a size fits several factors."""

SAME_SHAPE = 0.02
"""Ratios of width and height that differ by a smaller share belong to one scaled picture."""

SQUARE_PX = 32
GRID = 8
COMPARED = 12
"""A level is compared in 12 squares of 32 px: those with most texture out of 8 x 8."""

MIN_TEXTURE = 3.0
"""A square whose standard deviation is lower, in grey levels, is glass, and fits everywhere."""


def level_downsample(level0: Size, level: Size, stated: float) -> Pair:
    """Return the level-0 pixels that a pixel of a level spans, in x and y.

    OpenSlide states the mean of the two ratios of sizes. Pyramids are made by whole factors, and their odd
    last pixels are dropped or completed, so the whole factor is the true one where it explains both sizes. At
    the far end of a 100,000 px slide the difference is tens of pixels.

    Parameters
    ----------
    level0, level : tuple of int
        Width and height of level 0 and of the level.
    stated : float
        What OpenSlide states.

    Returns
    -------
    tuple of float
        Downsample in x and y.

    Examples
    --------
    >>> level_downsample((4443, 3567), (2221, 1783), 2.0005)
    (2.0, 2.0)
    >>> level_downsample((1500, 1000), (450, 300), 3.3333)
    (3.3333333333333335, 3.3333333333333335)
    """
    whole = whole_factor(level0, level, stated)
    if whole is not None:
        return float(whole), float(whole)
    if stated.is_integer():
        return stated, stated
    x, y = ratio(level0, level)
    # Ratios that disagree come from levels padded to whole tiles; there the vendor's number is better.
    return (x, y) if abs(x - y) < SAME_SHAPE * stated else (stated, stated)


def settle(levels: Levels, tiles: Sequence[Size | None]) -> Levels:
    """Return the levels whose downsample is known, with it.

    Parameters
    ----------
    levels : Levels
        A pyramid with downsamples that may be wrong.
    tiles : sequence of tuple of int or None
        Width and height of the tiles of each level, None where it has none.

    Returns
    -------
    Levels
        The same object where nothing changes.
    """
    numbers, downsamples = [0], [(1.0, 1.0)]
    for number in range(1, len(levels.sizes)):
        level0, size = levels.sizes[0], levels.sizes[number]
        found = candidates(level0, size, tiles[number], downsamples[-1])
        if len(found) > 1:
            finer = numbers[-1], downsamples[-1]
            found = decide(levels, number, found, finer) or plain_halves(level0, size, found)
        if found:
            numbers.append(number)
            downsamples.append(found[0])
    chosen = ChosenLevels(levels, numbers, downsamples)
    is_same = chosen.sizes == levels.sizes and chosen.downsamples == tuple(levels.downsamples)
    return levels if is_same else chosen


class ChosenLevels:
    """Some levels of a pyramid with their true downsamples, without what fills them up beyond the slide."""

    def __init__(self, levels: Levels, numbers: Sequence[int], downsamples: Sequence[Pair]) -> None:
        """Wrap ``levels``: which of them, and the downsample of each."""
        self._levels, self._numbers = levels, tuple(numbers)
        self.downsamples = tuple(downsamples)
        self.sizes: tuple[Size, ...] = tuple(
            true_size(levels.sizes[0], levels.sizes[number], down)
            for number, down in zip(numbers, downsamples, strict=True)
        )
        self.properties: Mapping[str, str] = levels.properties

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with what it wraps."""
        return ChosenLevels, (self._levels, self._numbers, self.downsamples)

    def read_level(self, level: int, xy: Size, size: Size) -> tuple[Pixels, Pair]:
        """See Levels."""
        return self._levels.read_level(self._numbers[level], xy, size)

    def close(self) -> None:
        """See Levels."""
        self._levels.close()


def candidates(level0: Size, level: Size, tile: Size | None, above: Pair) -> list[Pair]:
    """Return the downsamples that explain a level's size, the likely one first.

    Parameters
    ----------
    level0, level : tuple of int
        Width and height of level 0 and of the level.
    tile : tuple of int or None
        Width and height of the level's tiles.
    above : tuple of float
        Downsample of the next finer level.

    Returns
    -------
    list of tuple of float
        Downsamples in x and y; none for another picture.

    Examples
    --------
    >>> candidates((3000, 2048), (1500, 1024), (512, 512), (1.0, 1.0))
    [(2.0, 2.0)]
    >>> candidates((3000, 2048), (1024, 512), (512, 512), (2.0, 2.0))
    [(4.0, 4.0), (5.0, 5.0)]
    >>> candidates((3000, 2048), (900, 900), (256, 256), (2.0, 2.0))
    []
    """
    x, y = ratio(level0, level)
    whole = whole_factor(level0, level, (x + y) / 2)
    factors = list(filled_up(level0, level, tile, above))
    if whole is not None and whole > above[0]:
        factors.insert(0, whole)
    found = [(float(factor), float(factor)) for factor in dict.fromkeys(factors)]
    if whole is None and abs(x - y) < SAME_SHAPE * (x + y) / 2:
        found.append((x, y))
    elif whole is None and is_rounded(level0, level, (x + y) / 2):
        found.append(((x + y) / 2,) * 2)
    return found


def plain_halves(level0: Size, level: Size, found: list[Pair]) -> list[Pair]:
    """Return the power of two among the candidates that explains a level without filling, or none."""
    x, y = ratio(level0, level)
    whole = whole_factor(level0, level, (x + y) / 2)
    return [pair for pair in found if whole == pair[0] and whole & (whole - 1) == 0]


def whole_factor(level0: Size, level: Size, stated: float) -> int | None:
    """Return the whole factor near ``stated`` that explains a level's size, None if there is none."""
    pairs = tuple(zip(level0, level, strict=True))
    # The sizes of a small level fit several factors; the power of two is the likely one.
    for factor in (2 ** max(0, round(math.log2(stated))), max(1, round(stated))):
        if all(whole // factor <= part <= -(-whole // factor) for whole, part in pairs):
            return factor
    return None


def filled_up(level0: Size, level: Size, tile: Size | None, above: Pair) -> Iterator[int]:
    """Yield the whole factors after which a level has this size if it is filled up to whole tiles."""
    if tile is None or min(tile) < 1:
        return
    for factor in FACTORS:
        parts = (-(-whole // factor) for whole in level0)
        filled = tuple(-(-part // side) * side for part, side in zip(parts, tile, strict=True))
        if filled == level and above[0] < factor <= MAX_STEP * above[0]:
            yield factor


def is_rounded(level0: Size, level: Size, step: float) -> bool:
    """Return whether a level has this size by one factor, to a pixel."""
    return all(abs(whole / step - part) < 1 for whole, part in zip(level0, level, strict=True))


def ratio(level0: Size, level: Size) -> Pair:
    """Return level 0's sides by the level's."""
    return level0[0] / level[0], level0[1] / level[1]


def true_size(level0: Size, level: Size, down: Pair) -> Size:
    """Return the part of a level that holds the slide, in whole pixels: all of it where it is not filled up.

    Parameters
    ----------
    level0, level : tuple of int
        Width and height of level 0 and of the level.
    down : tuple of float
        The level's downsample.

    Returns
    -------
    tuple of int
        Width and height.

    Examples
    --------
    >>> true_size((3000, 2048), (1024, 512), (4.0, 4.0)), true_size((4443, 3567), (2221, 1783), (2.0, 2.0))
    ((750, 512), (2221, 1783))
    """
    width, height = (
        part if part - whole / step < 1 else max(1, math.floor(whole / step))
        for whole, part, step in zip(level0, level, down, strict=True)
    )
    return width, height


def decide(levels: Levels, number: int, found: list[Pair], finer: tuple[int, Pair]) -> list[Pair]:
    """Return the candidate by which pixels are those of a finer level; none where pixels do not tell."""
    level0 = levels.sizes[0]
    extent = [min(int(side / down[axis]) for down in found) for axis, side in enumerate(level0)]
    try:
        squares = textured(levels, number, (extent[0], extent[1]))
        if not squares:
            return []
        return [min(found, key=lambda down: difference(levels, squares, down, finer))]
    except SlideReadError:
        return []


def textured(levels: Levels, number: int, extent: Size) -> list[tuple[Size, Pixels]]:
    """Return the squares of a level with most texture, with their places."""
    side = min(SQUARE_PX, *extent)
    places = [np.unique(np.linspace(0, length - side, GRID).astype(int)) for length in extent]
    squares = []
    for x in places[0]:
        for y in places[1]:
            pixels, _ = levels.read_level(number, (int(x), int(y)), (side, side))
            squares.append(((int(x), int(y)), pixels))
    squares = [square for square in squares if texture(square[1]) >= MIN_TEXTURE]
    return sorted(squares, key=lambda square: -texture(square[1]))[:COMPARED]


def texture(pixels: Pixels) -> float:
    """Return the standard deviation of a square's green."""
    return float(pixels[..., 1].std())


def difference(
    levels: Levels, squares: list[tuple[Size, Pixels]], down: Pair, finer: tuple[int, Pair]
) -> float:
    """Return the mean difference, in grey levels, of squares and the same places of a finer level."""
    number, finer_down = finer
    step = (down[0] / finer_down[0], down[1] / finer_down[1])
    return float(
        np.mean(
            [np.abs(shrunk(levels, number, place, pixels, step) - pixels).mean() for place, pixels in squares]
        )
    )


def shrunk(levels: Levels, number: int, place: Size, like: Pixels, step: Pair) -> NDArray[np.float64]:
    """Return what a level shows at a square of a coarser one, ``step`` times smaller: float64 (h, w, 3)."""
    shape = (like.shape[1], like.shape[0])
    low = [corner * times for corner, times in zip(place, step, strict=True)]
    high = [(corner + side) * times for corner, side, times in zip(place, shape, step, strict=True)]
    first = [math.floor(value) for value in low]
    last = [min(math.ceil(value), size) for value, size in zip(high, levels.sizes[number], strict=True)]
    pixels, begin = levels.read_level(number, (first[0], first[1]), (last[0] - first[0], last[1] - first[1]))
    box = [value - start for value, start in zip((*low, *high), (*begin, *begin), strict=True)]
    box = [min(max(0.0, value), side) for value, side in zip(box, (*pixels.shape[1::-1],) * 2, strict=True)]
    picture = Image.fromarray(pixels).resize(
        shape, Image.Resampling.BOX, box=(box[0], box[1], box[2], box[3])
    )
    return np.asarray(picture, np.float64)
