"""Check what comes into a store: a vacant folder, slides of the index's widths, ids that are free."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sish.errors import (
    IndexExistsError,
    IndexFormatError,
    ParameterError,
    SlideExistsError,
    UnknownSlideError,
)
from sish.index.store.disk import NEW
from sish.index.store.manifest import MANIFEST, SEGMENTS, Manifest
from sish.index.store.slide_row import SlideRow
from sish.index.store.snapshot import Snapshot

LOCK = "lock"
"""The file that a writer holds."""


def check_vacant(folder: Path) -> None:
    """Refuse a folder that holds anything but what an interrupted `Store.create` left.

    Parameters
    ----------
    folder : Path
        Where an index is to be made.

    Raises
    ------
    IndexExistsError
        If it holds an index.
    IndexFormatError
        If it holds something else, or segments that have lost their manifest.
    """
    names = {path.name for path in folder.iterdir()}
    if MANIFEST in names:
        raise IndexExistsError(f"there is an index at {folder} already: open it, or give another path")
    if names - {LOCK, SEGMENTS, MANIFEST + NEW}:
        raise IndexFormatError(
            f"{folder} is not empty (it holds {sorted(names)[0]}) and no index: give a new or an empty folder"
        )
    if SEGMENTS in names and (segment := next((folder / SEGMENTS).iterdir(), None)):
        raise IndexFormatError(
            f"{folder} holds {SEGMENTS}/{segment.name} and no {MANIFEST}: "
            "restore the whole folder from a backup, or give a new or an empty one"
        )


def check_widths(new: Sequence[Snapshot], manifest: Manifest) -> None:
    """Refuse slides whose arrays have another width than those of the index, or of the first slide."""
    want = manifest.widths
    if manifest.key_orders is None:
        want = new[0].widths
    for part in new:
        got = part.widths
        if got != want:
            raise ParameterError(
                f"slide {part.slides[0].slide_id} has {got[0]} keys, {got[1]} barcode bytes and "
                f"{got[2] or 0} bytes of a vector a patch, wanted {want[0]}, {want[1]} and {want[2] or 0} as "
                "in the index: encode it with the settings of the index",
                slide_id=part.slides[0].slide_id,
            )


def check_ids(place: object, ids: Sequence[str], is_taken: Callable[[str], bool]) -> None:
    """Refuse a slide that is in the index already, and two slides of one id."""
    seen: set[str] = set()
    for slide_id in ids:
        if slide_id in seen or is_taken(slide_id):
            raise SlideExistsError(
                f"slide {slide_id} is in {place} already: ask to replace it", slide_id=slide_id
            )
        seen.add(slide_id)


def check_rows(place: object, rows: Mapping[str, SlideRow], row_of: Callable[[str], SlideRow | None]) -> None:
    """Refuse new rows of slides that an index does not hold, or of other slides than their ids name."""
    for slide_id, row in rows.items():
        old = row_of(slide_id)
        if old is None:
            raise UnknownSlideError(f"slide {slide_id} is not in {place}: add it first", slide_id=slide_id)
        if (row.slide_id, row.n_patches) != (slide_id, old.n_patches):
            raise ParameterError(
                f"the new row of {slide_id} has id {row.slide_id} and {row.n_patches} patches, "
                f"wanted the same id and {old.n_patches}: append it with replace=True",
                slide_id=slide_id,
            )
