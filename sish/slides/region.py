"""Parts of a slide: boxes in level-0 pixels, upright or turned, and the tiles that cover them.

An upright box is four numbers (`Region`) or a `Box` turned by a multiple of 90 degrees. The tiles of another
box are upright, too: an encoder sees no turned pixels. Their centres lie on a grid along the sides of the
box, so that a narrow box is covered from end to end whatever its angle. Neighbours of such a grid overlap a
little at their corners.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.slides.slide import Slide

Region = tuple[int, int, int, int]
"""A part of a slide: x, y, width, height in level-0 pixels."""

_FAR = 1 << 40  # pixels: places nearer than this are exact to a thousandth of a pixel
_WHOLE = 6  # decimals of a corner: a box turned by 90 degrees has whole corners


@dataclass(frozen=True, slots=True)
class Box:
    """A box in level-0 pixels of a slide, turned clockwise about its centre.

    Raises
    ------
    ParameterError
        If a field is no number below 2 ** 40, or a side is not above 0.

    Examples
    --------
    >>> Box(100, 100, 40, 20, angle=90).around
    (110, 90, 20, 40)
    """

    x: float
    """Left side of the box before it is turned."""
    y: float
    """Top side of the box before it is turned."""
    width: float
    """Width before it is turned."""
    height: float
    """Height before it is turned."""
    angle: float = 0.0
    """Degrees, clockwise."""

    def __post_init__(self) -> None:
        """Refuse what is no box."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not _is_number(value) or (field.name in ("width", "height") and not value > 0):
                raise ParameterError(
                    f"got {field.name}={value!r} in a box; want numbers below 2 ** 40: x, y, width "
                    "and height in level-0 pixels, sides above 0, and an angle in degrees"
                )

    @property
    def is_turned(self) -> bool:
        """Whether its sides are not along those of the slide."""
        return self.angle % 90 != 0

    @property
    def centre(self) -> NDArray[np.float64]:
        """Its centre, level-0 pixels, float64 (2,)."""
        return np.array([self.x + self.width / 2, self.y + self.height / 2])

    @property
    def corners(self) -> NDArray[np.float64]:
        """Its corners clockwise from the one that was top left, level-0 pixels, float64 (4, 2)."""
        half = np.array([self.width, self.height]) / 2
        return self.centre + self._turned(np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half)

    @property
    def around(self) -> Region:
        """The least upright box of whole pixels around it."""
        places = np.round(self.corners, _WHOLE)
        x, y = (int(side) for side in np.floor(places.min(axis=0)))
        right, below = (int(side) for side in np.ceil(places.max(axis=0)))
        return x, y, right - x, below - y

    def contains(self, l0_xy: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return which points (N, 2) lie in it, bool (N,)."""
        own = (l0_xy - self.centre) @ self._axes.T
        return np.asarray((np.abs(own) <= np.array([self.width, self.height]) / 2).all(axis=-1))

    def tiles(self, l0_size: float, within: Region) -> NDArray[np.int64]:
        """Return the corners of the tiles of this side whose centres lie on its grid and in `within`."""
        x, y, width, height = within
        ends = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
        own = (ends - self.centre) @ self._axes.T  # a box may be far larger than its slide
        columns, rows = (
            _middles(side, l0_size, ends.min(), ends.max())
            for side, ends in zip((self.width, self.height), own.T, strict=True)
        )
        across, down = np.meshgrid(columns, rows)
        places = self.centre + self._turned(np.stack([across.ravel(), down.ravel()], axis=1))
        l0_xy = np.rint(places - l0_size / 2).astype(np.int64)
        inside = l0_xy + l0_size / 2 - (x, y)
        return np.asarray(l0_xy[((inside >= 0) & (inside < (width, height))).all(axis=1)])

    def to_dict(self) -> dict[str, float]:
        """Return plain values for JSON."""
        return dict(zip(("x", "y", "width", "height", "angle"), astuple(self), strict=True))

    @property
    def _axes(self) -> NDArray[np.float64]:
        """Its two axes in the slide, a row each; y points down, so a positive angle is clockwise."""
        turn = math.radians(self.angle)
        return np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])

    def _turned(self, own: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return places (N, 2) along its axes as places along those of the slide."""
        return np.asarray(own @ self._axes)


def plain(region: Region | Box | None) -> Region | Box | None:
    """Return a part of a slide; a box whose sides are along those of the slide as four numbers."""
    if not isinstance(region, Box) or region.is_turned:
        return region
    if region.angle % 180:  # width and height change places
        return region.around
    return region.x, region.y, region.width, region.height  # type: ignore[return-value]  # as in a tuple


def grid(slide: Slide, l0_size: float, region: Region | Box | None) -> NDArray[np.int64]:
    """Return the corners of all tiles of a slide's bounds or of a part of it, int64 (N, 2), row by row.

    Parameters
    ----------
    slide : Slide
        The slide.
    l0_size : float
        Side of a tile, level-0 pixels.
    region : Region or Box, optional
        The part.

    Returns
    -------
    int64 (N, 2)
        Top left corners, level-0 pixels; at least one.

    Raises
    ------
    ParameterError
        If the part does not meet the slide.
    """
    if isinstance(region, Box):
        return _turned_grid(slide, l0_size, region)
    x, y, width, height = slide.bounds if region is None else clip(slide, region)
    columns = line(x, width, l0_size, centred=region is not None)
    rows = line(y, height, l0_size, centred=region is not None)
    across, down = np.meshgrid(columns, rows)
    return np.rint(np.stack([across.ravel(), down.ravel()], axis=1)).astype(np.int64)


def _turned_grid(slide: Slide, l0_size: float, box: Box) -> NDArray[np.int64]:
    """Return the corners of the tiles of a turned box whose centres lie on the slide."""
    l0_xy = box.tiles(l0_size, slide.bounds)
    if not len(l0_xy):
        raise ParameterError(
            f"{slide.name}: {box} does not meet the slide; give a box in level-0 pixels inside {slide.bounds}"
        )
    return l0_xy


def line(start: float, length: float, l0_size: float, *, centred: bool) -> NDArray[np.float64]:
    """Return the starts of the tiles along one axis: those whose centre lies inside, at least one."""
    if length < l0_size:
        return np.array([start + (length - l0_size) / 2 if centred else float(start)])
    return start + l0_size * np.arange(int(length / l0_size + 0.5), dtype=np.float64)


def _middles(side: float, l0_size: float, low: float, high: float) -> NDArray[np.float64]:
    """Return the middles of the tiles along a side, from that of the side; those from `low` to `high`."""
    if side < l0_size:
        return np.zeros(1)
    first, last = ((end + side / 2) / l0_size for end in (low, high))
    numbers = np.arange(max(0, math.floor(first) - 1), min(int(side / l0_size + 0.5), math.ceil(last) + 1))
    return np.asarray(l0_size * (numbers + 0.5) - side / 2)


def clip(slide: Slide, region: Region) -> Region:
    """Return the part of a region that lies in the slide's bounds; ParameterError if there is none."""
    if len(region) != 4 or not all(isinstance(n, int | float | np.number) for n in region):
        raise ParameterError(f"{slide.name}: got region {region}; want four numbers: x, y, width, height")
    left, top, width, height = slide.bounds
    x, y = max(region[0], left), max(region[1], top)
    right = min(region[0] + region[2], left + width)
    below = min(region[1] + region[3], top + height)
    if right <= x or below <= y:
        raise ParameterError(
            f"{slide.name}: region {region} does not meet the slide; "
            f"give x, y, width, height in level-0 pixels inside {slide.bounds}"
        )
    return x, y, right - x, below - y


def _is_number(value: object) -> bool:
    """Return whether a value is a number that may be a place; True and False are none."""
    return (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool)
        and bool(-_FAR < value < _FAR)
    )
