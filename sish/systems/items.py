"""Make items of slides, images and folders, with their rows of a labels file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from sish.errors import LabelsError, SlideOpenError
from sish.labels import LabelRow, Labels, read_labels
from sish.slides.files import find_slides, slide_id_of
from sish.slides.scale import check_given, is_unused
from sish.slides.slide import Slide, open_slide
from sish.slides.tables import posix_path
from sish.systems.item import Item

_NO_FINDING = "No Finding"
_GROUPS = {"patient_id": "patient", "lesion_id": "lesion", "source_tile": "source tile"}


def read_items(
    given: Iterable[str | os.PathLike[str]],
    labels: str | os.PathLike[str] | None = None,
    *,
    mpp: float | None = None,
    override_mpp: float | None = None,
) -> tuple[Item, ...]:
    r"""Make items of files and folders, in order.

    Parameters
    ----------
    given : iterable of path-like
        Slides and images, or folders that are searched for them.
    labels : path-like, optional
        CSV with ``path`` or ``slide_id``, and any of ``label`` (or ``labels``, joined by a bar), ``patient``,
        ``patient_id``, ``lesion_id``, ``source_tile``, ``mask``, ``mpp`` and ``override_mpp``. Pictures that
        it names as masks are left out.
    mpp : float, optional
        Micrometres per pixel of files that do not tell their scale. A row of ``labels`` takes precedence.
    override_mpp : float, optional
        Micrometres per pixel of all files, whatever they tell. A row of ``labels`` takes precedence.

    Returns
    -------
    tuple of Item
        One for each file.

    Raises
    ------
    SlideOpenError
        If a folder holds no slides or images.

    Warns
    -----
    UserWarning
        If fields of the labels file are taken as missing.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("a.png", "b.png"):
    ...     (folder / name).touch()
    >>> _ = (folder / "labels.csv").write_text("path,label,patient\na.png,benign,p1\nb.png,tumour,p2\n")
    >>> [(item.item_id, item.label, item.group) for item in read_items([folder], folder / "labels.csv")]
    [('a', 'benign', 'patient p1'), ('b', 'tumour', 'patient p2')]
    """
    check_given(mpp, override_mpp)
    rows = None if labels is None else read_labels(labels)
    for note in rows.notes if rows else ():
        warnings.warn(note, stacklevel=2)
    masks = _masks(rows)
    groups = {} if rows is None else groups_of(rows)
    found: dict[Path, Item] = {}
    for each in given:
        paths = [path for path in find_slides(each) if path.resolve() not in masks]
        if not paths:
            raise SlideOpenError(
                f"{each}: got a folder or list without slides in it; want at least one", path=each
            )
        for path in paths:
            row = None if rows is None else rows.find(path, slide_id_of(path))
            found.setdefault(path.resolve(), item_of(path, row, rows, groups, mpp, override_mpp))
    return tuple(found.values())


def _masks(rows: Labels | None) -> set[Path]:
    if rows is None:
        return set()
    said = [row.metadata["mask"] for row in rows.rows if "mask" in row.metadata]
    return {(rows.path.parent / posix_path(mask)).resolve() for mask in said}


def item_of(
    path: Path,
    row: LabelRow | None,
    rows: Labels | None,
    groups: Mapping[int, str],
    mpp: float | None = None,
    override_mpp: float | None = None,
) -> Item:
    """Make an item of a file and its row of a labels file.

    Parameters
    ----------
    path : Path
        The slide or image.
    row : LabelRow or None
        Its row; None if there is none.
    rows : Labels or None
        The labels file.
    groups : mapping of int to str
        The group of each row of the file by its line, from `groups_of`.
    mpp, override_mpp : float, optional
        Scales, if the row gives none.

    Returns
    -------
    Item
        The file with its id, labels, group, scale and mask.
    """
    if row is None or rows is None:
        return Item(slide_id_of(path), path, mpp=mpp, override_mpp=override_mpp)
    said = row.metadata.get("labels", row.label or "").split("|")
    return Item(
        item_id=row.slide_id or slide_id_of(path),
        path=path,
        labels=frozenset(label.strip() for label in said) - {"", _NO_FINDING},
        group=groups[row.line],
        mpp=row.mpp or mpp,
        mask=_mask(row, rows),
        override_mpp=row.override_mpp or override_mpp,
        site=row.site or "",
    )


class ScaleWarning(UserWarning):
    """A warning: a file tells its own scale, so the item's ``mpp`` was not used."""


def open_item(item: Item) -> Slide:
    """Open an item's file at the item's scale, as :func:`sish.open_slide` does.

    Parameters
    ----------
    item : Item
        A slide or image.

    Returns
    -------
    Slide
        To be closed by the caller.

    Warns
    -----
    ScaleWarning
        If the file tells its own scale and the item's ``mpp`` is another. Python shows it once for all items.
    """
    slide = open_slide(item.path, mpp=item.mpp, override_mpp=item.override_mpp)
    if item.override_mpp is None and is_unused(item.mpp, slide.mpp):
        warnings.warn(
            "some files tell their own scale, so the given mpp was not used; override_mpp replaces it",
            ScaleWarning,
            stacklevel=1,
        )
    return slide


def _mask(row: LabelRow, rows: Labels) -> Path | None:
    mask = row.metadata.get("mask")
    if mask is None:
        return None
    file = rows.path.parent / posix_path(mask)
    if not file.is_file():
        raise LabelsError(f"{rows.path}, line {row.line}: there is no mask {mask}; correct the line")
    return file


def groups_of(rows: Labels) -> dict[int, str]:
    """Return the group of each row of a labels file: rows of one patient, lesion or source tile.

    Rows that share any of these are one group, also by way of other rows: two lesions of one patient are in
    the same group.

    Parameters
    ----------
    rows : Labels
        The labels file.

    Returns
    -------
    dict of int to str
        Group by the row's line. Its name is the alphabetically first of the group; empty for a row that gives
        none.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    said = {row.line: _said(row) for row in rows.rows}
    for names in said.values():
        for name in names[1:]:
            first, second = sorted((root(name), root(names[0])))
            parent[second] = first
    return {line: root(names[0]) if names else "" for line, names in said.items()}


def _said(row: LabelRow) -> list[str]:
    """Return the names that a row belongs to: ``patient 7``, ``lesion 7``, ``source tile 7``."""
    patient = [f"patient {row.patient}"] if row.patient else []
    return patient + [
        f"{kind} {row.metadata[column]}" for column, kind in _GROUPS.items() if column in row.metadata
    ]
