"""One rectangle of a pyramid, at any scale, with its geometry kept to a fraction of a pixel.

Shrinking is done in two steps: by the whole part of the factor with exact means, block by block so
that memory does not grow with the factor, then by the rest (less than 2) with a triangle filter over
a box with fractional corners. A whole factor at a whole place therefore is an exact mean, and a factor
of 1 an exact copy.

Pixel i covers [i, i + 1) on every plane, so level-0 place x is place x / d of a level of downsample d.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sish.slides.formats.levels import Levels, Pixels

LEVEL_TOLERANCE = 1.05
"""A level up to 5 % coarser than asked still serves: 0.2525 um/px slides are meant as 0.25."""

EXACT_PX = 1 / 64
"""Places that agree to this many pixels are the same place."""

BLOCK_PX = 2048
"""Side of what is decoded at once when shrinking: 16 MB."""

MARGIN = 2
"""Reduced pixels around the box that the triangle filter (support below 2) may reach."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a rectangle on one level."""

    start: float
    """Its begin, level pixels."""
    step: float
    """Level pixels per output pixel."""
    size: int
    """Output pixels."""
    factor: int
    """Whole factor to shrink by means first."""
    first: int
    """Begin of the canvas, level pixels."""
    count: int
    """Length of the canvas, pixels after shrinking."""


def plan_axis(start: float, step: float, size: int) -> Axis:
    """Choose the whole factor and the canvas of one axis.

    Parameters
    ----------
    start : float
        Where the rectangle begins, level pixels.
    step : float
        Level pixels per output pixel.
    size : int
        Output pixels.

    Returns
    -------
    Axis
        What to read, and how to shrink it.

    Examples
    --------
    >>> plan_axis(10.0, 2.0, 5)
    Axis(start=10.0, step=2.0, size=5, factor=2, first=10, count=5)
    >>> plan_axis(10.5, 2.5, 4)
    Axis(start=10.5, step=2.5, size=4, factor=2, first=6, count=10)
    """
    factor = max(1, math.floor(step + 1e-6))
    if abs(step - factor) * size < EXACT_PX and abs(start - round(start)) < EXACT_PX:
        return Axis(start, step, size, factor, round(start), size)
    first = math.floor(start) - MARGIN * factor
    count = math.ceil((start + size * step - first) / factor) + MARGIN
    return Axis(start, step, size, factor, first, count)


def choose_level(levels: Levels, step: float) -> int:
    """Return the coarsest level at least as fine as ``step`` level-0 pixels per output pixel."""
    fine = [i for i, (x, y) in enumerate(levels.downsamples) if (x + y) / 2 <= step * LEVEL_TOLERANCE]
    return max(fine, key=lambda i: sum(levels.downsamples[i]), default=0)


def read_box(
    levels: Levels,
    bounds: tuple[int, int, int, int],
    l0_xy: tuple[float, float],
    size: tuple[int, int],
    step: float,
) -> Pixels:
    """Read a rectangle of a pyramid at any scale.

    What lies outside the bounds or outside the slide is white.

    Parameters
    ----------
    levels : Levels
        The pyramid.
    bounds : tuple of int
        x, y, width and height of the part that counts, level-0 pixels.
    l0_xy : tuple of float
        Top left corner, level-0 pixels.
    size : tuple of int
        Width and height of the result in pixels.
    step : float
        Level-0 pixels per pixel of the result.

    Returns
    -------
    uint8 (height, width, 3)
        RGB pixels.
    """
    level = choose_level(levels, step)
    down = levels.downsamples[level]
    x, y = (plan_axis(place / d, step / d, n) for place, d, n in zip(l0_xy, down, size, strict=True))
    limits = level_limits(levels, level, bounds)
    canvas, begin = read_canvas(levels, level, limits, x, y)
    return resize(canvas, begin, x, y)


def level_limits(levels: Levels, level: int, bounds: tuple[int, int, int, int]) -> NDArray[np.int64]:
    """Return the bounds in pixels of a level, inside it: [[left, top], [right, bottom]]."""
    corners = np.array([bounds[:2], (bounds[0] + bounds[2], bounds[1] + bounds[3])])
    inside = np.rint(corners / levels.downsamples[level]).astype(np.int64)
    if bounds == (0, 0, *levels.sizes[0]):
        # An odd last pixel may be dropped or completed in a level: all that is there counts.
        inside[1] = levels.sizes[level]
    return np.clip(inside, 0, levels.sizes[level])


def read_canvas(
    levels: Levels, level: int, limits: NDArray[np.int64], x: Axis, y: Axis
) -> tuple[Pixels, tuple[float, float]]:
    """Return the canvas of two axes, shrunk, uint8 (y.count, x.count, 3), and where it begins."""
    canvas = np.full((y.count, x.count, 3), 255, np.uint8)
    begin = (float(x.first), float(y.first))
    # Without shrinking the canvas itself is no larger than about what was asked: one read, one place.
    wide, tall = (axis.count if axis.factor == 1 else max(1, BLOCK_PX // axis.factor) for axis in (x, y))
    for top in range(0, y.count, tall):
        for left in range(0, x.count, wide):
            place = canvas[top : top + tall, left : left + wide]
            corner = (x.first + left * x.factor, y.first + top * y.factor)
            shift = fill_block(levels, level, limits, corner, (x.factor, y.factor), place)
            if top == left == 0:
                begin = (begin[0] + shift[0], begin[1] + shift[1])
    return canvas, begin


def fill_block(
    levels: Levels,
    level: int,
    limits: NDArray[np.int64],
    corner: tuple[int, int],
    factor: tuple[int, int],
    out: Pixels,
) -> tuple[float, float]:
    """Fill ``out`` with the means of ``factor`` pixels from ``corner`` on; return the backend's shift."""
    extent = np.array([out.shape[1] * factor[0], out.shape[0] * factor[1]])
    low = np.maximum(corner, limits[0])
    high = np.minimum(np.add(corner, extent), limits[1])
    if (high <= low).any():
        return 0.0, 0.0
    xy = (int(low[0]), int(low[1]))
    pixels, begin = levels.read_level(level, xy, (int(high[0] - low[0]), int(high[1] - low[1])))
    if pixels.shape[:2] != (extent[1], extent[0]):
        part, pixels = pixels, np.full((extent[1], extent[0], 3), 255, np.uint8)
        left, top = low - corner
        pixels[top : top + part.shape[0], left : left + part.shape[1]] = part
    out[:] = pixels if factor == (1, 1) else np.asarray(Image.fromarray(pixels).reduce(factor))
    return begin[0] - xy[0], begin[1] - xy[1]


def resize(canvas: Pixels, begin: tuple[float, float], x: Axis, y: Axis) -> Pixels:
    """Return the output from the canvas, by a factor below 2 and a fractional shift: the last step."""
    low_x, low_y = (x.start - begin[0]) / x.factor, (y.start - begin[1]) / y.factor
    wide, tall = x.size * x.step / x.factor, y.size * y.step / y.factor
    is_exact = (
        canvas.shape[:2] == (y.size, x.size)
        and max(abs(low_x), abs(low_y), abs(wide - x.size), abs(tall - y.size)) < EXACT_PX
    )
    if is_exact:
        return canvas
    box = (max(0.0, low_x), max(0.0, low_y), min(low_x + wide, x.count), min(low_y + tall, y.count))
    return np.asarray(Image.fromarray(canvas).resize((x.size, y.size), Image.Resampling.BILINEAR, box=box))
