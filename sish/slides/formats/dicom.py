"""DICOM files: the ones that make one slide, the slide's name, and whether its colours are tagged rightly.

A slide is a series of files, one for each level or part of a level. OpenSlide opens them together from any of
them. Tags are looked for in explicit little-endian form, the one that whole-slide images use.
"""

import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sish.errors import SlideOpenError
from sish.slides.formats.jpeg import read_jpeg_header

HEAD_BYTES = 1 << 16
"""Number of bytes in which the tags that name a slide are looked for."""

SERIES_TAG = b"\x20\x00\x0e\x00UI"
"""Series Instance UID (0020,000E)."""

CONTAINER_TAG = b"\x40\x00\x12\x05LO"
"""Container Identifier (0040,0512): the laboratory's name of the glass slide."""

PIXEL_TAGS = (b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff", b"\xe0\x7f\x10\x00OW\0\0\xff\xff\xff\xff")
"""Pixel Data (7FE0,0010) in fragments, as compressed frames are stored."""

ITEM_TAG = b"\xfe\xff\x00\xe0"
JPEG_HEADER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Head:
    """The names of its slide in the head of a DICOM file; empty where it has none."""

    series: bytes
    """Series Instance UID."""
    container: str
    """Container Identifier."""


def is_dicom(path: Path) -> bool:
    """Return whether a file's name ends as DICOM."""
    return path.suffix.lower() == ".dcm"


def dicom_series(path: Path) -> bytes | None:
    """Return a DICOM file's Series Instance UID, None if it has none in its first 64 KiB."""
    return _head(path).series or None


def series_files(path: Path) -> list[Path]:
    """Return the files of a DICOM file's series in its folder, sorted; of any other file the file itself."""
    heads = _heads_beside(path)
    own = heads.get(path.name)
    if own is None or not own.series:
        return [path]
    return [path.parent / name for name, head in heads.items() if head.series == own.series]


def series_folder(path: Path) -> Path | None:
    """Return the folder of a DICOM file if it holds its series of several files and no other, else None."""
    heads = _heads_beside(path)
    own = heads.get(path.name)
    alone = own is not None and own.series and {head.series for head in heads.values()} == {own.series}
    return path.absolute().parent if alone and len(heads) > 1 else None


def names_of_series(path: Path) -> list[Path]:
    """Return the paths that name the slide of a file: itself, and of a DICOM series its files and folder."""
    files = series_files(path)
    if len(files) < 2:
        return [path]
    folder = series_folder(path)
    return [path, *(file for file in files if file != path), *([folder] if folder is not None else [])]


def is_same_series(path: Path, other: Path) -> bool:
    """Return whether two DICOM files of one folder belong to one series."""
    return (
        is_dicom(path) and path.absolute().parent == other.absolute().parent and other in series_files(path)
    )


def dicom_slide_id(path: Path) -> str | None:
    """Return the id of the slide that a DICOM file belongs to, the same for each file of its series.

    It is the Container Identifier. Without one, a series of several files has their folder's name, or the
    Series Instance UID where the folder holds other series, too.

    Parameters
    ----------
    path : Path
        Any file.

    Returns
    -------
    str or None
        None where the file's own name says as much, or it is no DICOM file.
    """
    if not is_dicom(path):
        return None
    own = _head(path)
    if own.container:
        return own.container
    if len(series_files(path)) < 2:
        return None
    folder = series_folder(path)
    return folder.name if folder is not None and folder.name else own.series.decode("ascii", "replace")


def holds_ycbcr(path: Path, properties: Mapping[str, str]) -> bool:
    """Return whether a DICOM slide's JPEG frames hold YCbCr, although its tag says RGB.

    Parameters
    ----------
    path : Path
        A file of the series.
    properties : mapping of str to str
        OpenSlide's.

    Returns
    -------
    bool
        True where colours have to be converted.

    Raises
    ------
    SlideOpenError
        If frames are RGB and the tag says YCbCr, which cannot be mended, or if the files of the series
        differ.
    """
    stated = properties.get("dicom.PhotometricInterpretation", "")
    found = {_frame_colours(file) for file in series_files(path)} - {None}
    if len(found) > 1:
        raise SlideOpenError(f"{path}: some files of its series hold RGB, some YCbCr; convert it again")
    if found == {"RGB"} and stated.startswith("YBR"):
        raise SlideOpenError(
            f"{path}: is tagged {stated}, and its frames hold RGB; correct the tag (0028,0004)"
        )
    return found == {"YCbCr"} and stated == "RGB"


def _frame_colours(path: Path) -> str | None:
    """Return the colours that the first JPEG frame of a file tells, None where it does not."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            place = next((place for place in map(data.find, PIXEL_TAGS) if place >= 0), -1)
            if place < 0:
                return None
            place += len(PIXEL_TAGS[0])
            for _ in range(2):  # the table of offsets, then the first fragment
                if data[place : place + 4] != ITEM_TAG:
                    return None
                begin, length = place + 8, int.from_bytes(data[place + 4 : place + 8], "little")
                place = begin + length
            header = read_jpeg_header(data[begin : begin + min(length, JPEG_HEADER_BYTES)])
    except (OSError, ValueError):
        return None
    return None if header is None else header.colours


def _heads_beside(path: Path) -> Mapping[str, Head]:
    """Return the heads of the DICOM files in a file's folder, by name, sorted."""
    if not is_dicom(path):
        return {}
    folder = path.absolute().parent
    try:
        return _heads_in(str(folder), folder.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=64)
def _heads_in(folder: str, changed_ns: int) -> Mapping[str, Head]:
    """Return the heads of a folder's DICOM files, read again when the folder has changed."""
    names = sorted(name for name in os.listdir(folder) if is_dicom(Path(name)) and not name.startswith("."))  # noqa: PTH208
    return {name: _head(Path(folder, name)) for name in names}


def _head(path: Path) -> Head:
    """Read a file's head; it is empty where the file cannot be read or is no DICOM file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            return Head(b"", "")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        head = b""
    container = _value(head, CONTAINER_TAG).decode("utf-8", "replace")
    return Head(_value(head, SERIES_TAG), "".join(filter(str.isprintable, container)).strip())


def _value(head: bytes, tag: bytes) -> bytes:
    """Return the value of a tag with a length of two bytes, without the filling; empty without the tag."""
    place = head.find(tag)
    if place < 0:
        return b""
    begin = place + len(tag) + 2
    return head[begin : begin + int.from_bytes(head[begin - 2 : begin], "little")].rstrip(b"\0 ")
