"""Pictures as a viewer shows them: turned or mirrored as the orientation tag of TIFF and EXIF says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sish.slides.formats.levels import Levels, Size

T = TypeVar("T", int, float)

UPRIGHT = 1
"""The orientation of a picture that is stored as it is shown."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Steps from a stored picture to the shown one: rows and columns are exchanged, then axes reversed."""

    swap: bool
    flip_x: bool
    flip_y: bool


TURNS = {
    2: Turn(False, True, False),
    3: Turn(False, True, True),
    4: Turn(False, False, True),
    5: Turn(True, False, False),
    6: Turn(True, True, False),
    7: Turn(True, True, True),
    8: Turn(True, False, True),
}
"""By the number of the tag (TIFF 6.0, section 8, Orientation; EXIF has the same)."""


def turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return stored pixels as they are shown.

    Parameters
    ----------
    pixels : uint8 (h, w, 3)
        Pixels as stored.
    orientation : int
        The tag; of another value than 2 to 8 it means nothing.

    Returns
    -------
    uint8 (h, w, 3) or (w, h, 3)
        A view.

    Examples
    --------
    >>> turn(np.array([[[1], [2]]], np.uint8), 6)[..., 0]
    array([[1],
           [2]], dtype=uint8)
    """
    how = TURNS.get(orientation)
    if how is None:
        return pixels
    if how.swap:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if how.flip_y else 1, :: -1 if how.flip_x else 1]


class TurnedLevels:
    """A pyramid that is stored turned or mirrored, as it is shown."""

    def __init__(self, levels: Levels, orientation: int) -> None:
        """Wrap the stored levels; ``orientation`` is 2 to 8."""
        self._levels, self._orientation = levels, orientation
        swap = TURNS[orientation].swap
        self.sizes: tuple[Size, ...] = tuple(_swapped(size, swap) for size in levels.sizes)
        self.downsamples = tuple(_swapped(pair, swap) for pair in levels.downsamples)
        self.properties: Mapping[str, str] = levels.properties

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with what it wraps."""
        return TurnedLevels, (self._levels, self._orientation)

    def read_level(self, level: int, xy: Size, size: Size) -> tuple[NDArray[np.uint8], tuple[float, float]]:
        """See Levels."""
        how, shown = TURNS[self._orientation], self.sizes[level]
        corner = _reversed(xy, size, shown, how)
        pixels, begin = self._levels.read_level(level, _swapped(corner, how.swap), _swapped(size, how.swap))
        return turn(pixels, self._orientation), _reversed(_swapped(begin, how.swap), size, shown, how)

    def close(self) -> None:
        """See Levels."""
        self._levels.close()


def upright_levels(levels: Levels, orientation: int) -> Levels:
    """Return levels as they are shown: the same object where they are stored so, or the tag means nothing."""
    return TurnedLevels(levels, orientation) if orientation in TURNS else levels


def _swapped(pair: tuple[T, T], swap: bool) -> tuple[T, T]:
    """Return a pair with x and y exchanged."""
    return (pair[1], pair[0]) if swap else pair


def _reversed(corner: tuple[T, T], size: Size, shown: Size, how: Turn) -> tuple[T, T]:
    """Return the corner of a rectangle on axes that run the other way where they are flipped."""
    x, y = corner
    return (shown[0] - size[0] - x if how.flip_x else x, shown[1] - size[1] - y if how.flip_y else y)
