"""Tell whether a file is a slide of an index, by its bytes and never by its name alone.

Another drive may hold another patient's ``1.svs``. A file may be replaced by another one. An archive may
move. So the index keeps a digest of each slide's file (:func:`file_digest`), and compares that.
"""

import hashlib
import math
import os
import stat
from contextlib import suppress
from enum import Enum
from pathlib import Path

from sish.errors import SlideError, SlideOpenError, about_its_path
from sish.feature_files import is_feature_file, read_features
from sish.index.store import SlideRow, State
from sish.slides.formats.checks import unreadable
from sish.slides.formats.dicom import is_same_series, series_files
from sish.slides.scale import GIVEN, OVERRIDE
from sish.slides.slide import open_slide

_BLOCK = 64 << 10
_BLOCKS = 5


class Standing(Enum):
    """The relation of a file to a slide of the index."""

    SAME = "same"
    """The file is the slide: in its place, moved, or a copy."""
    CHANGED = "changed"
    """The file is in the slide's place, but has other bytes than the file that was added."""
    OTHER = "other"
    """The file is another slide."""


@about_its_path
def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 in hex of a file's length and of five blocks of 64 KiB.

    The blocks are spread evenly over the file, its ends included; a file of up to 320 KiB is read whole. The
    middle distinguishes slides whose ends are headers and white glass. A slide of several files (MIRAX,
    DICOM) has the digest of the one that is opened, which is the first of a series.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    SlideOpenError
        If it cannot be read, or is not a regular file: reading a pipe would wait for its writer.
    """  # noqa: DOC501  unreadable() makes that error
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise SlideOpenError(f"{path}: cannot be read: it is not a regular file; give a slide file")
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.sha256(str(size).encode())
            for number in range(_BLOCKS):
                file.seek(max(0, size - _BLOCK) * number // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()


def compare(path: Path, row: SlideRow) -> Standing:
    """Return the relation of a file to an indexed slide.

    Rows of older indexes have no digest. Then the file at the row's path is the slide. If that file is gone,
    another file is the slide if it has the size in pixels and the scale of the row.

    Parameters
    ----------
    path : Path
        The file; SlideError if it cannot be read.
    row : SlideRow
        The slide.

    Returns
    -------
    Standing
        The relation.
    """
    here = _is_at(path, row)
    if row.file_digest is None:
        moved = here or (not Path(row.path).exists() and _measures_the_same(path, row))
        return Standing.SAME if moved else Standing.OTHER
    if file_digest(path) == row.file_digest:
        return Standing.SAME
    return Standing.CHANGED if here else Standing.OTHER


def find_row(path: Path, slide_id: str, state: State) -> SlideRow | None:
    """Find the slide that a file is, whatever its name.

    If several rows have the same file, the one of its path is preferred, then the one of its id.

    Parameters
    ----------
    path : Path
        The file.
    slide_id : str
        The id that its name gives.
    state : State
        The slides of the index.

    Returns
    -------
    SlideRow or None
        The slide's row; None if the file is no slide of the index, or cannot be read.
    """
    series = series_files(path)  # a DICOM series is added by its first file
    path = series[0]
    with suppress(SlideError):
        found = state.rows_with("file_digest", file_digest(path))
        old = [row for file in {*series, path} for row in state.rows_with("path", str(file))]
        named = state.row(slide_id)
        if named is not None and named.file_digest is None and compare(path, named) is Standing.SAME:
            old.append(named)
        found += [row for row in old if row.file_digest is None]
        return min(found, key=lambda row: (row.path != str(path), row.slide_id != slide_id), default=None)
    return None


def _is_at(path: Path, row: SlideRow) -> bool:
    """Return whether the slide was added from this file or link, or from another file of its DICOM series."""
    there = Path(row.path)
    if path == there or is_same_series(path, there):
        return True
    return path.exists() and there.exists() and path.samefile(there)


def _measures_the_same(path: Path, row: SlideRow) -> bool:
    """Return whether a file has an indexed slide's size, and its scale unless a user gave the scale."""
    given = row.mpp_source in (GIVEN, OVERRIDE)
    override_mpp = row.mpp if given else None
    if is_feature_file(path):
        file = read_features(path, encoder="any", override_mpp=override_mpp)
        dimensions, mpp = file.dimensions, file.mpp
    else:
        with open_slide(path, override_mpp=override_mpp) as slide:
            dimensions, mpp = slide.dimensions, slide.mpp
    return dimensions == (row.width, row.height) and math.isclose(mpp, row.mpp, rel_tol=1e-3)
