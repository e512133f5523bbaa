"""Whether a file is a slide that an index holds: by what is in it, never by its name alone.

While a drive is away, another drive may hold another patient's ``1.svs``; a file may be replaced in place; an
archive may move. The index keeps a digest of each slide's file (:func:`file_digest`), and that decides.
"""

import hashlib
import math
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path

from sish.errors import SlideError, SlideOpenError, about_its_path
from sish.feature_files import is_feature_file, read_features
from sish.index.store.snapshot import SlideRow
from sish.slides.formats.checks import unreadable
from sish.slides.formats.dicom import is_same_series, series_files
from sish.slides.scale import GIVEN, OVERRIDE
from sish.slides.slide import open_slide

__all__ = ["Standing", "compare", "file_digest", "find_row"]

_BLOCK = 64 << 10
_BLOCKS = 5


class Standing(Enum):
    """What a file is to a slide of the index."""

    SAME = "same"
    """It is the slide: where it was, moved, or a copy."""
    CHANGED = "changed"
    """It is where the slide was, and another file than the one that was added."""
    OTHER = "other"
    """It is another slide."""


@about_its_path
def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 in hex of a file's length and of five blocks of 64 KiB.

    The blocks are spread evenly over the file, its ends included; a file of up to 320 KiB is read whole. The
    middle tells slides apart whose ends are headers and white glass. A slide of several files (MIRAX,
    DICOM) has the digest of the one that is opened, the first of a series. SlideOpenError if the file cannot
    be read, or is none: a pipe would be waited for.
    """
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
    """Return what a file is to an indexed slide.

    Rows of older indexes have no digest. Their file is the one at their path or, if nothing is there any
    more, one of their size in pixels and their scale: it is opened to know. SlideError if it cannot be read.
    """
    here = _is_at(path, row)
    if row.file_digest is None:
        moved = here or (not Path(row.path).exists() and _measures_the_same(path, row))
        return Standing.SAME if moved else Standing.OTHER
    if file_digest(path) == row.file_digest:
        return Standing.SAME
    return Standing.CHANGED if here else Standing.OTHER


def find_row(path: Path, slide_id: str, rows: Sequence[SlideRow]) -> SlideRow | None:
    """Return the row of the slide that a file is, whatever its name; None if it is none of them.

    Of several rows of the same file, the one of its path comes first, then the one of its id.
    """
    path = series_files(path)[0]  # by which a DICOM series is added
    with suppress(SlideError):
        digest = file_digest(path)
        found = [row for row in rows if row.file_digest == digest]
        found += [
            row
            for row in rows
            if row.file_digest is None
            and (
                row.path == str(path)
                or is_same_series(path, Path(row.path))
                or (row.slide_id == slide_id and compare(path, row) is Standing.SAME)
            )
        ]
        return min(found, key=lambda row: (row.path != str(path), row.slide_id != slide_id), default=None)
    return None


def _is_at(path: Path, row: SlideRow) -> bool:
    """Whether the slide was added from this file, by any name of it, or from another of its DICOM series."""
    there = Path(row.path)
    if path == there or is_same_series(path, there):
        return True
    return path.exists() and there.exists() and path.samefile(there)


def _measures_the_same(path: Path, row: SlideRow) -> bool:
    """Whether a file has the size of an indexed slide, and its scale unless a user gave that."""
    given = row.mpp_source in (GIVEN, OVERRIDE)
    override_mpp = row.mpp if given else None
    if is_feature_file(path):
        file = read_features(path, encoder="any", override_mpp=override_mpp)
        dimensions, mpp = file.dimensions, file.mpp
    else:
        with open_slide(path, override_mpp=override_mpp) as slide:
            dimensions, mpp = slide.dimensions, slide.mpp
    return dimensions == (row.width, row.height) and math.isclose(mpp, row.mpp, rel_tol=1e-3)
