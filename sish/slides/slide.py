"""Whole slides and plain images as one thing: pixels by level-0 place and micrometres per pixel.

``open_slide`` reads everything OpenSlide reads (DICOM included) and plain TIFF, PNG and JPEG;
``slide_from_array`` makes a slide of pixels in memory. A slide is safe in threads, and pickles as its
path and scale, so it may be sent to worker processes.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError, errors_about
from sish.slides.formats.checks import check_read
from sish.slides.formats.dicom import dicom_slide_id
from sish.slides.formats.levels import ArrayLevels, Levels, Pixels
from sish.slides.formats.opening import open_levels
from sish.slides.resample import read_box
from sish.slides.scale import Scale, find_scale

__all__ = ["Slide", "open_slide", "slide_from_array"]


class Slide:
    """An open slide. Get one from ``open_slide`` or ``slide_from_array``."""

    def __init__(self, levels: Levels, scale: Scale, name: str, path: Path | None) -> None:
        """Put a source of pixels and a scale together."""
        self._levels = levels
        self._scale = scale
        self._name = name
        self._path = path

    @property
    def name(self) -> str:
        """The file's name without folder and ending, of a DICOM series its slide's id; or the name given."""
        return self._name

    @property
    def path(self) -> Path | None:
        """The file as it was given; None for pixels in memory."""
        return self._path

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height of level 0 in pixels."""
        return self._levels.sizes[0]

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """The part of level 0 that was scanned: x, y, width, height in level-0 pixels."""
        names = ("bounds-x", "bounds-y", "bounds-width", "bounds-height")
        width, height = self.dimensions
        try:
            x, y, w, h = (int(self._levels.properties[f"openslide.{name}"]) for name in names)
        except (KeyError, ValueError):
            return 0, 0, width, height
        left, top = max(0, x), max(0, y)
        right, bottom = min(width, x + w), min(height, y + h)
        if right <= left or bottom <= top:
            return 0, 0, width, height
        return left, top, right - left, bottom - top

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 pixel."""
        return self._scale.mpp

    @property
    def mpp_source(self) -> str:
        """Who says so: "override", "vendor", "ome-xml", "tiff-resolution", "objective-power" or "given"."""
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
        """Read a rectangle at a scale: uint8 (height, width, 3).

        l0_xy: its top left corner in level-0 pixels; may be fractional, negative, or outside.
        size_px: its side, or (width, height), in pixels of the result.
        mpp: micrometres per pixel of the result; finer than level 0 is interpolated.

        What lies outside the slide or its bounds, or is transparent, is white.
        Raises SlideReadError where the file's pixels fail, ParameterError for a size or mpp that is none.
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
        """All of ``bounds`` at a (low) scale: uint8 (H, W, 3); the last row and column may be part white."""
        x, y, width, height = self.bounds
        step = mpp / self.mpp
        return self.read((x, y), (max(1, math.ceil(width / step)), max(1, math.ceil(height / step))), mpp)

    def close(self) -> None:
        """Release the file; later reads raise SlideReadError."""
        self._levels.close()

    def __enter__(self) -> "Slide":
        """Use as a context manager that closes."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Say what it is in one line."""
        width, height = self.dimensions
        return f"Slide({self.name!r}, {width} x {height} px, {self.mpp:g} um/px ({self.mpp_source}))"


def open_slide(
    path: str | os.PathLike[str], *, mpp: float | None = None, override_mpp: float | None = None
) -> Slide:
    """Open a slide or a plain image.

    mpp: micrometres per level-0 pixel, used where the file tells nothing that can be believed.
    override_mpp: the same, used whatever the file tells.

    Raises SlideOpenError (not a readable slide), MissingMppError (no scale in the file that can be believed,
    none given) and ParameterError (what is given is out of range).
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


def slide_from_array(pixels: NDArray[np.uint8], mpp: float, name: str) -> Slide:
    """Make a slide of pixels in memory, uint8 (H, W, 3) at ``mpp``.

    >>> slide_from_array(np.zeros((30, 40, 3), np.uint8), 0.5, "black")
    Slide('black', 40 x 30 px, 0.5 um/px (given))
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ParameterError(f"{name}: pixels are {pixels.dtype} {pixels.shape}; give uint8 (h, w, 3)")
    return Slide(ArrayLevels(pixels), find_scale({}, name, mpp=mpp), name, None)
