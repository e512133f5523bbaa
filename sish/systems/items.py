"""Items from files: slides or images, with what a labels file says of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sish.errors import LabelsError, SlideOpenError
from sish.labels import LabelRow, Labels, read_labels, slide_id_of
from sish.slide import find_slides
from sish.systems.item import Item

__all__ = ["item_of", "read_items"]

_NO_FINDING = "No Finding"
_GROUPS = ("patient_id", "lesion_id", "source_tile")


def read_items(
    given: Iterable[str | os.PathLike[str]],
    labels: str | os.PathLike[str] | None = None,
    *,
    mpp: float | None = None,
) -> tuple[Item, ...]:
    """The slides and images of files and folders, in order.

    Parameters
    ----------
    given : iterable of path-like
        Files, or folders that are searched for them.
    labels : path-like, optional
        CSV with ``path`` or ``slide_id``, and any of ``label`` (or ``labels``, joined by a bar), ``patient``,
        ``patient_id``, ``lesion_id``, ``source_tile``, ``mask`` and ``mpp``. Pictures that it names as masks
        are no items.
    mpp : float, optional
        Scale of files that do not tell theirs; a row of ``labels`` comes first.

    Raises SlideOpenError where a folder holds none, LabelsError where the file does not fit.
    """
    rows = None if labels is None else read_labels(labels)
    masks = _masks(rows)
    found: dict[Path, Item] = {}
    for each in given:
        paths = [path for path in find_slides(each) if path.resolve() not in masks]
        if not paths:
            raise SlideOpenError(f"{each}: got a folder without slides or images in it; want at least one")
        for path in paths:
            row = None if rows is None else rows.find(path, slide_id_of(path))
            found.setdefault(path.resolve(), item_of(path, row, rows, mpp))
    return tuple(found.values())


def _masks(rows: Labels | None) -> set[Path]:
    if rows is None:
        return set()
    said = [row.metadata["mask"] for row in rows.rows if "mask" in row.metadata]
    return {(rows.path.parent / mask).resolve() for mask in said}


def item_of(path: Path, row: LabelRow | None, rows: Labels | None, mpp: float | None = None) -> Item:
    """A file with what its row of a labels file says; LabelsError where the mask that it names is missing."""
    if row is None or rows is None:
        return Item(slide_id_of(path), path, mpp=mpp)
    said = row.metadata.get("labels", row.label or "").split("|")
    mask = row.metadata.get("mask")
    if mask is not None and not (rows.path.parent / mask).is_file():
        raise LabelsError(f"{rows.path}, line {row.line}: there is no mask {mask}; correct the line")
    return Item(
        item_id=row.slide_id or slide_id_of(path),
        path=path,
        labels=frozenset(label.strip() for label in said) - {"", _NO_FINDING},
        group=row.patient or next((row.metadata[name] for name in _GROUPS if name in row.metadata), ""),
        mpp=row.mpp or mpp,
        mask=None if mask is None else rows.path.parent / mask,
    )
