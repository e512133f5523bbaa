"""Levels of a file that OpenSlide reads: the formats of scanners' vendors, DICOM, and tiled TIFF."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openslide
from PIL import Image

from sish.errors import SlideReadError
from sish.slides.formats.checks import one_line
from sish.slides.formats.dicom import holds_ycbcr, is_dicom
from sish.slides.formats.levels import Pixels, Size
from sish.slides.formats.pictures import on_white
from sish.slides.formats.pyramid import level_downsample

CACHE_BYTES = 64 << 20
"""Bytes of decoded tiles that are kept for all open slides together; OpenSlide would keep 32 MB for each."""

_CACHES: dict[int, openslide.OpenSlideCache] = {}  # by process


class OpenSlideLevels:
    """Levels of a file that OpenSlide reads."""

    def __init__(self, path: Path) -> None:
        """Open ``path``; raise openslide.OpenSlideError where OpenSlide does not."""
        self._path = path.absolute()
        slide = _opened(self._path)
        # Closed when nobody holds it any more: to close it while a thread reads from it aborts the process.
        self._slide: openslide.OpenSlide | None = slide
        self._pid = os.getpid()
        self._stated = slide.level_downsamples
        self.sizes: tuple[Size, ...] = slide.level_dimensions
        self.downsamples = tuple(
            level_downsample(self.sizes[0], size, stated)
            for size, stated in zip(self.sizes, self._stated, strict=True)
        )
        self.properties: Mapping[str, str] = dict(slide.properties)
        self.tiles = tuple(stated_tile(self.properties, level) for level in range(len(self.sizes)))
        # The tag of some DICOM files says RGB of pixels that are YCbCr, and OpenSlide believes it.
        self._is_ycbcr = is_dicom(path) and holds_ycbcr(path, self.properties)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a path."""
        return OpenSlideLevels, (self._path,)

    def read_level(self, level: int, xy: Size, size: Size) -> tuple[Pixels, tuple[float, float]]:
        """See Levels. OpenSlide takes level-0 places and shifts by the remaining fraction itself."""
        stated = self._stated[level]
        l0_xy = (round(xy[0] * stated), round(xy[1] * stated))
        begin = (l0_xy[0] / stated, l0_xy[1] / stated)
        try:
            image = self._handle().read_region(l0_xy, level, size)
        except openslide.OpenSlideError:
            image = self._read_afresh(l0_xy, level, size)
        return on_white(rgba_of_ycbcr(image) if self._is_ycbcr else image), begin

    def _handle(self) -> openslide.OpenSlide:
        """Return the handle of this process: a forked child must not share its parent's file position."""
        slide = self._slide
        if slide is None:
            raise SlideReadError(f"{self._path}: is closed; open it again")
        if self._pid != os.getpid():
            self._slide = slide = _opened(self._path)
            self._pid = os.getpid()
        return slide

    def _read_afresh(self, l0_xy: Size, level: int, size: Size) -> Image.Image:
        """Read by a new handle: one failure makes a handle dead for all later reads and for all threads."""
        try:
            slide = _opened(self._path)
            image = slide.read_region(l0_xy, level, size)
        except openslide.OpenSlideError as error:
            where = f"{size[0]} x {size[1]} px of level {level} at {l0_xy[0]}, {l0_xy[1]}"
            raise SlideReadError(f"{self._path}: cannot read {where}: {one_line(error)}") from error
        if self._slide is not None:
            self._slide = slide
        return image

    def close(self) -> None:
        """See Levels. Reads that are running in other threads end well; the last of them closes the file."""
        self._slide = None


def _opened(path: Path) -> openslide.OpenSlide:
    """Return a handle that shares the cache of decoded tiles with all others of this process."""
    slide = openslide.OpenSlide(path)
    if os.getpid() not in _CACHES:  # a forked child has one of its own: its parent's may be locked
        _CACHES[os.getpid()] = openslide.OpenSlideCache(CACHE_BYTES)
    slide.set_cache(_CACHES[os.getpid()])
    return slide


def stated_tile(properties: Mapping[str, str], level: int) -> Size | None:
    """Return the width and height of a level's tiles, None where OpenSlide does not tell them."""
    names = (f"openslide.level[{level}].tile-{side}" for side in ("width", "height"))
    try:
        width, height = (int(properties[name]) for name in names)
    except (KeyError, ValueError):
        return None
    return width, height


def rgba_of_ycbcr(image: Image.Image) -> Image.Image:
    """Return an RGBA picture of one whose colours are really YCbCr."""
    *colours, alpha = image.split()
    return Image.merge("RGBA", (*Image.merge("YCbCr", colours).convert("RGB").split(), alpha))
