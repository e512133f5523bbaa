"""The files of indexed slides, opened again for their pixels."""

from __future__ import annotations

from pathlib import Path

from sish.errors import SlideOpenError
from sish.identity import Standing, compare
from sish.index.store import SlideRow
from sish.slides.slide import Slide, open_slide


def open_indexed(row: SlideRow) -> Slide:
    """Open the file of an indexed slide at the scale at which it was encoded.

    Parameters
    ----------
    row : SlideRow
        The slide; it has a path.

    Returns
    -------
    Slide
        The open slide.

    Raises
    ------
    SlideOpenError
        If the file is gone, cannot be read, or is another file now.
    """
    check_is_slide(Path(row.path), row)
    return open_slide(row.path, override_mpp=row.mpp)


def check_is_slide(path: Path, row: SlideRow) -> None:
    """Refuse a file that is not the indexed slide, or not any more (SlideOpenError)."""
    if compare(path, row) is not Standing.SAME:
        raise SlideOpenError(
            f"{path}: is another file now than when it was added as {row.slide_id!r}: put the file back, "
            "or add the slide again (--replace, replace=True)",
            path=path,
            slide_id=row.slide_id,
        )
