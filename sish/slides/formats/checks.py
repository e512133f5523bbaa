"""Checks before anything is decoded: that a file is one, and how much memory it asks for.

============================  ===============================  ========================================
what                          limit                            why
============================  ===============================  ========================================
side of a slide               1,048,576 px                     four times the largest scan of a slide
pixels decoded at once        Pillow's, 89,478,485 by default  a tile, a strip or a whole plain picture
pixels of one read            268,435,456                      800 MB in one array
pages of a TIFF               10,000                           a slide has tens
============================  ===============================  ========================================
"""

import os
import stat
from pathlib import Path

from PIL import Image

from sish.errors import ParameterError, SlideNotFoundError, SlideOpenError

MAX_SIDE_PX = 1 << 20
MAX_READ_PX = 1 << 28
MAX_PAGES = 10_000


def check_side(size: tuple[int, int], path: Path) -> None:
    """Refuse a slide whose width or height no microscope makes (SlideOpenError)."""
    if not 0 < min(size) <= max(size) <= MAX_SIDE_PX:
        raise SlideOpenError(
            f"{path}: says that it is {size[0]} x {size[1]} px; want sides from 1 to {MAX_SIDE_PX} px: "
            "its header is broken, copy or export it again"
        )


def check_decoded(size: tuple[int, int], path: Path) -> None:
    """Refuse to decode at once more pixels than Pillow holds for safe (SlideOpenError)."""
    limit, pixels = Image.MAX_IMAGE_PIXELS, size[0] * size[1]
    if limit is not None and pixels > limit:
        raise SlideOpenError(
            f"{path}: would decode {size[0]} x {size[1]} px at once, {pixels} pixels and more than {limit}; "
            "convert it to a pyramidal TIFF with tiles of 256 or 512 px"
        )


def check_read(size_px: tuple[int, int]) -> None:
    """Refuse to read more pixels at once than memory should hold (ParameterError)."""
    width, height = size_px
    if width * height > MAX_READ_PX:
        raise ParameterError(
            f"size_px is {width} x {height}; give at most {MAX_READ_PX} pixels at once, or a larger mpp"
        )


def check_file(path: Path) -> None:
    """Refuse what is not a file with something in it (SlideOpenError)."""
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    if stat.S_ISDIR(found.st_mode):
        raise SlideOpenError(f"{path}: is a folder; give a slide file, or list its slides with find_slides")
    if not stat.S_ISREG(found.st_mode):
        raise SlideOpenError(f"{path}: is not a regular file; give a slide file")
    if found.st_size == 0:
        raise SlideOpenError(f"{path}: is empty; copy it again")


def unreadable(path: str | os.PathLike[str], error: OSError) -> SlideOpenError:
    """Return the error for a file that the operating system does not let us read."""
    kind = SlideNotFoundError if isinstance(error, FileNotFoundError) else SlideOpenError
    return kind(f"{path}: cannot be read: {error.strerror}; check the path", path=path)


def one_line(error: BaseException) -> str:
    """Return an error's message without line breaks."""
    return " ".join(str(error).split())
