"""Whole slides and plain images as one thing: pixels by level-0 place and micrometres per pixel.

``open_slide`` reads all that OpenSlide reads (DICOM included) and plain pictures; ``slide_from_array`` makes
a slide of pixels in memory. A slide is safe in threads. It pickles as its path and scale, so it may be sent
to worker processes.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError, about_its_path, errors_about
from sish.slides.formats.checks import check_read
from sish.slides.formats.dicom import dicom_slide_id
from sish.slides.formats.levels import ArrayLevels, Levels, Pixels
from sish.slides.formats.opening import open_levels
from sish.slides.resample import read_box
from sish.slides.scale import Scale, find_scale

Bounds = tuple[int, int, int, int]
"""A part of level 0: x, y, width, height in level-0 pixels."""


class Slide:
    """An open slide; `open_slide` and `slide_from_array` make it.

    Parameters
    ----------
    levels : Levels
        The source of its pixels.
    scale : Scale
        The size of a level-0 pixel.
    name : str
        What errors call it.
    path : Path or None
        Its file, as it was given; None for pixels in memory.

    Examples
    --------
    >>> with slide_from_array(np.zeros((30, 40, 3), np.uint8), mpp=0.5) as slide:
    ...     slide.read((0, 0), size_px=10, mpp=1.0).shape
    (10, 10, 3)
    """

    def __init__(self, levels: Levels, scale: Scale, name: str, path: Path | None) -> None:
        """Put a source of pixels and a scale together."""
        self._levels = levels
        self._scale = scale
        self._name = name
        self._path = path

    @property
    def name(self) -> str:
        """File name without folder and ending, of a DICOM series its slide's id; or the name given."""
        return self._name

    @property
    def path(self) -> Path | None:
        """Its file, as it was given; None for pixels in memory."""
        return self._path

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height of level 0 in pixels."""
        return self._levels.sizes[0]

    @property
    def bounds(self) -> Bounds:
        """The part of level 0 that was scanned: x, y, width, height in level-0 pixels."""
        return _bounds_of(self._levels)

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 pixel."""
        return self._scale.mpp

    @property
    def mpp_source(self) -> str:
        """Source of `mpp`: override, vendor, ome-xml, tiff-resolution, objective-power or given."""
        return self._scale.source

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Level-0 pixels per pixel of each level (the mean of x and y)."""
        return tuple((x + y) / 2 for x, y in self._levels.downsamples)

    @property
    def properties(self) -> Mapping[str, str]:
        """OpenSlide's properties; of a plain TIFF its resolution and description under the same names."""
        return MappingProxyType(dict(self._levels.properties))

    def read(self, l0_xy: tuple[float, float], size_px: int | tuple[int, int], mpp: float) -> Pixels:
        """Read a rectangle at a scale, in time proportional to its area on the level that serves.

        What lies outside the slide or its bounds, or is transparent, is white. A scale finer than level 0 is
        interpolated.

        Parameters
        ----------
        l0_xy : tuple of float
            Top left corner in level-0 pixels, x first; it may be fractional, negative, or outside.
        size_px : int or tuple of int
            Side, or width and height, in pixels of the result.
        mpp : float
            Micrometres per pixel of the result.

        Returns
        -------
        uint8 (height, width, 3)
            RGB pixels.

        Raises
        ------
        ParameterError
            If the size or `mpp` is none.
        SlideReadError
            If the file's pixels fail.
        """
        size = (size_px, size_px) if isinstance(size_px, int | np.integer) else size_px
        width, height = (int(side) for side in size)
        if min(width, height) < 1:
            raise ParameterError(f"size_px is {width} x {height}; give at least 1 x 1")
        check_read((width, height))
        if not (math.isfinite(mpp) and mpp > 0):
            raise ParameterError(f"mpp is {mpp}; give micrometres per pixel above 0")
        place = (float(l0_xy[0]), float(l0_xy[1]))
        with errors_about(self._path):
            return read_box(self._levels, self.bounds, place, (width, height), mpp / self.mpp)

    def overview(self, mpp: float) -> Pixels:
        """Return all of ``bounds`` at a low scale, uint8 (H, W, 3); the last row and column may be white."""
        x, y, width, height = self.bounds
        step = mpp / self.mpp
        return self.read((x, y), (max(1, math.ceil(width / step)), max(1, math.ceil(height / step))), mpp)

    def close(self) -> None:
        """Release the file; later reads raise SlideReadError."""
        self._levels.close()

    def __enter__(self) -> "Slide":
        """Return the slide; leaving the context closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the slide."""
        self.close()

    def __repr__(self) -> str:
        """Return the slide in one line."""
        width, height = self.dimensions
        return f"Slide({self.name!r}, {width} x {height} px, {self.mpp:g} um/px ({self.mpp_source}))"


def open_slide(
    path: str | os.PathLike[str], *, mpp: float | None = None, override_mpp: float | None = None
) -> Slide:
    """Open a slide or a plain image.

    Parameters
    ----------
    path : path-like
        A file that OpenSlide reads, or a TIFF, PNG, JPEG, BMP or WebP.
    mpp : float, optional
        Micrometres per level-0 pixel, used where the file tells nothing that can be believed.
    override_mpp : float, optional
        Micrometres per level-0 pixel, whatever the file tells.

    Returns
    -------
    Slide
        It holds the file open until it is closed.

    Raises
    ------
    SlideNotFoundError
        If there is no such file.
    SlideOpenError
        If it is not a readable slide.
    MissingMppError
        If the file tells no scale that can be believed, and none is given.
    ParameterError
        If a given scale is out of range.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "black.png")
    ...     Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(file)
    ...     open_slide(file, mpp=0.5)
    Slide('black', 40 x 30 px, 0.5 um/px (given))
    """
    path = Path(path)
    with errors_about(path):
        levels = open_levels(path)
        try:
            scale = find_scale(levels.properties, str(path), mpp=mpp, override_mpp=override_mpp)
            return Slide(levels, scale, dicom_slide_id(path) or path.stem, path)
        except Exception:
            levels.close()
            raise


@about_its_path
def read_bounds(path: str | os.PathLike[str]) -> Bounds:
    """Return the `bounds` of a slide's file; unlike `open_slide`, it needs no scale.

    Parameters
    ----------
    path : path-like
        A slide or a plain image.

    Returns
    -------
    x, y, width, height
        The part of level 0 that was scanned, in level-0 pixels.

    Raises
    ------
    SlideOpenError
        If it is not a readable slide, or is not there.
    """
    levels = open_levels(Path(path))
    try:
        return _bounds_of(levels)
    finally:
        levels.close()


def _bounds_of(levels: Levels) -> Bounds:
    """Return the part of level 0 that was scanned; all of it where the file tells none."""
    names = ("bounds-x", "bounds-y", "bounds-width", "bounds-height")
    width, height = levels.sizes[0]
    try:
        x, y, w, h = (int(levels.properties[f"openslide.{name}"]) for name in names)
    except (KeyError, ValueError):
        return 0, 0, width, height
    left, top = max(0, x), max(0, y)
    right, bottom = min(width, x + w), min(height, y + h)
    if right <= left or bottom <= top:
        return 0, 0, width, height
    return left, top, right - left, bottom - top


def slide_from_array(pixels: NDArray[np.uint8], mpp: float, name: str = "image") -> Slide:
    """Make a slide of pixels in memory; they are not copied.

    Parameters
    ----------
    pixels : uint8 (H, W, 3)
        RGB pixels.
    mpp : float
        Micrometres per pixel.
    name : str
        What errors call it.

    Returns
    -------
    Slide
        It has one level.

    Raises
    ------
    ParameterError
        If the pixels are of another shape or type, or `mpp` is out of range.

    Examples
    --------
    >>> slide_from_array(np.zeros((30, 40, 3), np.uint8), 0.5, "black")
    Slide('black', 40 x 30 px, 0.5 um/px (given))
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ParameterError(f"{name}: pixels are {pixels.dtype} {pixels.shape}; give uint8 (h, w, 3)")
    return Slide(ArrayLevels(pixels), find_scale({}, name, mpp=mpp), name, None)
