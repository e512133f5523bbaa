"""Opening a file by the reader that shows it rightly: OpenSlide, our own of TIFF, or Pillow.

OpenSlide comes first. A file that it refuses, or shows wrongly, is read by our own reader if it is a TIFF,
else as a plain picture.
"""

from pathlib import Path

import numpy as np
import openslide
from PIL import UnidentifiedImageError

from sish.errors import SlideOpenError
from sish.slides.formats.checks import check_decoded, check_file, check_side, one_line
from sish.slides.formats.levels import ArrayLevels, Levels, is_generic
from sish.slides.formats.openslide_levels import OpenSlideLevels
from sish.slides.formats.pictures import is_deep, is_tiff, open_picture, plain
from sish.slides.formats.pyramid import settle
from sish.slides.formats.tiff import TiffLevels
from sish.slides.formats.tiff_pages import (
    WANTED,
    UnsuitedTiff,
    check_directories,
    check_pixels,
    is_shown_rightly,
)
from sish.slides.formats.upright import upright_levels


def open_levels(path: Path) -> Levels:
    """Open a file by the reader that shows it rightly.

    Parameters
    ----------
    path : Path
        A slide or a plain picture.

    Returns
    -------
    Levels
        Its pixels.

    Raises
    ------
    SlideNotFoundError
        If there is no such file.
    SlideOpenError
        If it is a folder, empty, truncated, of another format, asks for too much memory, or holds pixels that
        are no bright-field picture.
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
            if not is_generic(levels.properties):
                return levels
            if is_shown_rightly(path, levels.sizes[0]):
                return settle(levels, levels.tiles)
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


def check_memory(levels: OpenSlideLevels, path: Path) -> None:
    """Refuse what OpenSlide has opened if reading it would burst memory, or if its end is missing."""
    check_side(levels.sizes[0], path)
    for tile in levels.tiles:
        check_decoded(tile or (0, 0), path)
    if is_tiff(path):
        check_pixels(path)


def plain_tiff_levels(path: Path) -> Levels:
    """Open a TIFF by our own reader; raise UnsuitedTiff where Pillow may know more of it."""
    levels = TiffLevels(path)
    return upright_levels(settle(levels, levels.tiles), levels.orientation)


def picture_levels(path: Path, reason: str) -> Levels:
    """Open a plain picture; it is decoded now, so that a truncated file fails at once.

    Parameters
    ----------
    path : Path
        The file.
    reason : str
        Why no other reader took it.

    Returns
    -------
    Levels
        One level in memory.

    Raises
    ------
    SlideOpenError
        With the reason, if it is no picture; or if its pixels have more than 8 bits or are broken.
    """
    try:
        with open_picture(path) as image:
            if is_deep(image):
                raise SlideOpenError(f"{path}: has pixels of more than 8 bits ({image.mode}); {WANTED}")
            return ArrayLevels(np.asarray(plain(image, path).convert("RGB")))
    except UnidentifiedImageError:
        raise SlideOpenError(f"{path}: not a readable slide or image: {reason}") from None
