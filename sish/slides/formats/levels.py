"""The source of a slide's pixels: one small interface, and the source for pixels in memory.

A source has levels of falling size and returns exact pixels of one level; it knows neither micrometres nor
resampling. It is safe in threads, and pickles as its path: the copy opens the file anew.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sish.errors import SlideReadError

Size = tuple[int, int]
"""Width and height in pixels."""

Pixels = NDArray[np.uint8]
"""Shape (H, W, 3) where nothing else is said."""


class Levels(Protocol):
    """A pyramid of pixels, level 0 the finest."""

    sizes: tuple[Size, ...]
    """(width, height) of each level."""
    downsamples: tuple[tuple[float, float], ...]
    """Level-0 pixels that a pixel of each level spans, in x and y."""
    properties: Mapping[str, str]
    """OpenSlide's names and values."""

    def read_level(self, level: int, xy: Size, size: Size) -> tuple[Pixels, tuple[float, float]]:
        """Read a rectangle inside a level.

        It begins at `xy`, or beside it by a fraction of a pixel where the backend can only be asked in
        level-0 pixels.

        Parameters
        ----------
        level : int
            Number of the level.
        xy : tuple of int
            Top left corner in pixels of the level.
        size : tuple of int
            Width and height in pixels of the level.

        Returns
        -------
        pixels : uint8 (height, width, 3)
            RGB pixels.
        begin : tuple of float
            Where in the level they begin, x and y.

        Raises
        ------
        SlideReadError
            If the file's pixels fail, or it is closed.
        """

    def close(self) -> None:
        """Release the file; reading again fails."""


class ArrayLevels:
    """One level in memory: a decoded image, or pixels made by a program."""

    def __init__(self, pixels: Pixels) -> None:
        """Wrap uint8 (H, W, 3)."""
        self._pixels: Pixels | None = pixels
        self.sizes: tuple[Size, ...] = ((pixels.shape[1], pixels.shape[0]),)
        self.downsamples: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
        self.properties: Mapping[str, str] = {}

    def read_level(self, level: int, xy: Size, size: Size) -> tuple[Pixels, tuple[float, float]]:
        """See Levels."""
        pixels = self._pixels
        if pixels is None:
            raise SlideReadError("the slide is closed; open it again")
        (x, y), (width, height) = xy, size
        return pixels[y : y + height, x : x + width], (float(x), float(y))

    def close(self) -> None:
        """See Levels."""
        self._pixels = None


def is_generic(properties: Mapping[str, str]) -> bool:
    """Return whether OpenSlide knows no vendor of a TIFF: the mpp that it tells is then the tags'."""
    return properties.get("openslide.vendor") == "generic-tiff"
