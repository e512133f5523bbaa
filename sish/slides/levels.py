"""Where a slide's pixels come from: one small interface, three kinds of file.

A source has levels of falling size and hands out exact pixels of one level; it knows neither
micrometres nor resampling. It is safe in threads, and pickles as its path: the copy opens the file anew.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openslide
from PIL import Image, UnidentifiedImageError

from sish.errors import SlideOpenError, SlideReadError
from sish.slides.dicom import holds_ycbcr, is_dicom
from sish.slides.files import check_file
from sish.slides.limits import check_decoded, check_side
from sish.slides.pictures import is_deep, is_tiff, on_white, open_picture, plain
from sish.slides.pyramid import Pixels, Size, level_downsample, settle
from sish.slides.scale import is_generic
from sish.slides.tiff import (
    WANTED,
    TiffLevels,
    UnsuitedTiff,
    check_directories,
    check_pixels,
    contradicts_its_tiles,
    describe,
    is_deep_grey,
    main_page,
    odd_tags_refused,
    one_line,
    open_tiff,
    orientation_of,
    size_of,
)
from sish.slides.upright import UPRIGHT, upright_levels

__all__ = ["ArrayLevels", "Levels", "OpenSlideLevels", "Pixels", "Size", "TiffLevels", "open_levels"]


class Levels(Protocol):
    """A pyramid of pixels, level 0 the finest."""

    sizes: tuple[Size, ...]
    """(width, height) of each level."""
    downsamples: tuple[tuple[float, float], ...]
    """Level-0 pixels that a pixel of each level spans, in x and y."""
    properties: Mapping[str, str]
    """OpenSlide's names and values."""

    def read_level(self, level: int, xy: Size, size: Size) -> tuple[Pixels, tuple[float, float]]:
        """Pixels uint8 (h, w, 3) of a rectangle inside a level, and where in the level they begin.

        The place is ``xy`` itself, or beside it by a fraction of a pixel where the backend can only
        be asked in level-0 pixels. Raises SlideReadError.
        """
        ...

    def close(self) -> None:
        """Release the file; reading again fails."""
        ...


def open_levels(path: Path) -> Levels:
    """Open a file by OpenSlide, else as a plain TIFF, PNG or JPEG.

    Raises SlideOpenError on one line for a folder, a missing, empty, truncated or foreign file, one that asks
    for too much memory, and one whose pixels are no bright-field picture.
    """
    check_file(path)
    try:
        levels = OpenSlideLevels(path)
    except openslide.OpenSlideUnsupportedFormatError:
        reason = ""
    except openslide.OpenSlideError as error:
        reason = one_line(error)
    else:
        try:
            check_memory(levels, path)
            if is_shown_rightly(levels, path):
                return settle(levels, levels.tiles) if is_generic(levels.properties) else levels
        except Exception:
            levels.close()
            raise
        levels.close()
        reason = "OpenSlide shows other pixels than it holds"
    if not is_tiff(path):
        return picture_levels(path, reason or "neither OpenSlide nor Pillow knows this format")
    check_directories(path)
    check_pixels(path)
    try:
        return plain_tiff_levels(path)
    except UnsuitedTiff as error:
        return picture_levels(path, reason or one_line(error))


def check_memory(levels: "OpenSlideLevels", path: Path) -> None:
    """Refuse what OpenSlide has opened if reading it would burst memory, or if its end is missing."""
    check_side(levels.sizes[0], path)
    for tile in levels.tiles:
        check_decoded(tile or (0, 0), path)
    if is_tiff(path):
        check_pixels(path)


def is_shown_rightly(levels: "OpenSlideLevels", path: Path) -> bool:
    """Whether OpenSlide shows what a TIFF of no vendor holds; it refuses what no reader should show.

    OpenSlide takes the first page for the slide, believes a wrong tag of colours, turns tile by tile what is
    stored turned, and does not look into sub-IFDs.
    """
    if not is_generic(levels.properties):
        return True
    try:
        with open_tiff(path) as tiff, odd_tags_refused():
            page = main_page(tiff, path)
            if is_deep_grey(page):
                raise SlideOpenError(f"{path}: has {describe(page)}, more than 8 bits of grey; {WANTED}")
            return bool(
                size_of(page) == levels.sizes[0]
                and orientation_of(page) == UPRIGHT
                and not page.subifds
                and not contradicts_its_tiles(page, path)
            )
    except UnsuitedTiff:
        return True


def plain_tiff_levels(path: Path) -> Levels:
    """A TIFF by our own reader; raises UnsuitedTiff where Pillow may know more of it."""
    levels = TiffLevels(path)
    return upright_levels(settle(levels, levels.tiles), levels.orientation)


def picture_levels(path: Path, reason: str) -> Levels:
    """A plain picture, decoded now so that a truncated file fails at once; else refused for the reason."""
    try:
        with open_picture(path) as image:
            if is_deep(image):
                raise SlideOpenError(f"{path}: has pixels of more than 8 bits ({image.mode}); {WANTED}")
            return ArrayLevels(np.asarray(plain(image, path).convert("RGB")))
    except UnidentifiedImageError:
        raise SlideOpenError(f"{path}: not a readable slide or image: {reason}") from None


class OpenSlideLevels:
    """Levels of a file that OpenSlide reads."""

    def __init__(self, path: Path) -> None:
        """Open ``path``; raises openslide.OpenSlideError."""
        self._path = path.absolute()
        slide = openslide.OpenSlide(self._path)
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
        """The handle of this process: a forked child must not share its parent's file position."""
        slide = self._slide
        if slide is None:
            raise SlideReadError(f"{self._path}: is closed; open it again")
        if self._pid != os.getpid():
            self._slide = slide = openslide.OpenSlide(self._path)
            self._pid = os.getpid()
        return slide

    def _read_afresh(self, l0_xy: Size, level: int, size: Size) -> Image.Image:
        """Read by a new handle: one failure makes a handle dead for all later reads and for all threads."""
        try:
            slide = openslide.OpenSlide(self._path)
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


def stated_tile(properties: Mapping[str, str], level: int) -> Size | None:
    """Width and height of a level's tiles, where OpenSlide tells them."""
    names = (f"openslide.level[{level}].tile-{side}" for side in ("width", "height"))
    try:
        width, height = (int(properties[name]) for name in names)
    except (KeyError, ValueError):
        return None
    return width, height


def rgba_of_ycbcr(image: Image.Image) -> Image.Image:
    """An RGBA picture whose colours are really YCbCr."""
    *colours, alpha = image.split()
    return Image.merge("RGBA", (*Image.merge("YCbCr", colours).convert("RGB").split(), alpha))


class ArrayLevels:
    """One level in memory: decoded images, and pixels made by a program."""

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
