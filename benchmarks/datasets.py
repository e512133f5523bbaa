"""Read a data set: a folder of images with a `labels.csv` that says which are queries and which are searched.

The header has `path` (relative to the folder), and `label` or `labels`. A row of `labels` joins several
findings by a bar; `No Finding` means none. Optional columns are `mask`, `mpp`, `override_mpp`, `site`,
`split`, and the groups `patient`, `patient_id`, `lesion_id` and `source_tile`: a query never finds an image
that shares a group with it. With a split, `train` is the database and `valid` are the queries. Without that
column, the first component of the paths is the split if every path begins with `train` or `valid`; else every
image is a query among all others.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sish.errors import LabelsError, ParameterError
from sish.labels import LabelRow, Labels, read_labels
from sish.slides.scale import check_given
from sish.slides.tables import posix_path
from sish.systems.item import Item
from sish.systems.items import groups_of, item_of

SPLITS = {
    "train": "database",
    "database": "database",
    "valid": "queries",
    "val": "queries",
    "validation": "queries",
    "test": "queries",
    "query": "queries",
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images to search for, and the ones to find."""

    name: str
    """The folder's name."""
    queries: tuple[Item, ...]
    """Images to search for; each has a label, or may have none if images may have several."""
    database: tuple[Item, ...]
    """Images that can be found; without a split the queries and the images without a label."""
    multi_label: bool
    """Whether an image may have several labels, or none."""
    within_site: bool = False
    """Whether a query finds only images of its own site."""

    @property
    def leave_one_out(self) -> bool:
        """Return whether queries are images of the database."""
        known = {item.item_id for item in self.database}
        return any(query.item_id in known for query in self.queries)

    @property
    def items(self) -> tuple[Item, ...]:
        """Return every image once: the database, then the queries that are not in it."""
        known = {item.item_id for item in self.database}
        return self.database + tuple(query for query in self.queries if query.item_id not in known)

    def of_own_site(self) -> Dataset:
        """Return the same images, where a query finds only images of its own site.

        Returns
        -------
        Dataset
            The data set.

        Raises
        ------
        LabelsError
            If a query has no site.
        """
        bare = [query.item_id for query in self.queries if not query.site]
        if bare:
            raise LabelsError(
                f"{self.name}: {len(bare)} of {len(self.queries)} queries have no site ({bare[0]}, ...), so "
                "there is no searching within it; give every line of labels.csv a site"
            )
        return replace(self, within_site=True)

    def sample(self, n: int, *, queries: int | None = None, seed: int = 0) -> Dataset:
        """Draw a smaller data set.

        Whole groups are drawn, so that a search still leaves out the same share of images. Queries that are
        images of the database are drawn from the images that stay in it.

        Parameters
        ----------
        n : int
            Images of the database at most.
        queries : int, optional
            Queries at most; `n` if None.
        seed : int
            Seed of the draw.

        Returns
        -------
        Dataset
            The sample.

        Raises
        ------
        ParameterError
            If fewer than 2 images or no query are asked for.
        """
        if n < 2 or (queries is not None and queries < 1):
            raise ParameterError(f"got a sample of {n} images and {queries} queries; want 2 and 1 at least")
        database = _drawn(self.database, n, seed)
        asked = self.queries
        if self.leave_one_out:
            kept = {item.item_id for item in database}
            asked = tuple(query for query in self.queries if query.item_id in kept)
        return replace(
            self, database=database, queries=_drawn(asked, n if queries is None else queries, seed)
        )


def load_dataset(folder: Path, *, mpp: float | None = None, override_mpp: float | None = None) -> Dataset:
    """Read a data set; the module's docstring describes its `labels.csv`.

    An image without a label stays in the database and is no query.

    Parameters
    ----------
    folder : Path
        Folder of the `labels.csv`.
    mpp : float, optional
        Micrometres per pixel of images whose file and row have no scale.
    override_mpp : float, optional
        Micrometres per pixel of every image whose row has none, whatever its file says.

    Returns
    -------
    Dataset
        The data set.

    Raises
    ------
    LabelsError
        If the folder or its table cannot be used: no labels, a missing image, an unknown split, no queries,
        or nothing to search.
    ParameterError
        If a scale is out of range.
    """
    check_given(mpp, override_mpp)
    folder = Path(folder)
    if not folder.is_dir():
        raise LabelsError(f"{folder} is not a folder; give one that holds a labels.csv and its images")
    table = read_labels(folder / "labels.csv")
    for note in table.notes:
        warnings.warn(note, stacklevel=2)
    multi_label = any("labels" in row.metadata for row in table.rows)
    if not multi_label and not any(row.label for row in table.rows):
        raise LabelsError(f"{table.path} has no labels; add a column label, or labels joined by a bar")
    groups = groups_of(table)
    items = [_item(table, row, groups, (mpp, override_mpp), multi_label) for row in table.rows]
    splits = _splits(table)
    if splits is None:
        database = tuple(items)
        queries = database
    else:
        database = tuple(item for item, split in zip(items, splits, strict=True) if split == "database")
        queries = tuple(item for item, split in zip(items, splits, strict=True) if split == "queries")
    queries = tuple(query for query in queries if query.labels or multi_label)
    _check_searchable(table, queries, database)
    return Dataset(folder.resolve().name, queries, database, multi_label)


def may_find(query: Item, item: Item) -> bool:
    """Return whether an image may be an answer: it is neither the query nor of its group."""
    return query.item_id != item.item_id and not (query.group and query.group == item.group)


def _item(
    table: Labels,
    row: LabelRow,
    groups: Mapping[int, str],
    given: tuple[float | None, float | None],
    multi_label: bool,
) -> Item:
    """Return the image of one line as systems read it, with its path as its id."""
    if row.path is None:
        raise LabelsError(f"{table.path}, line {row.line}: {row.name} has no path; say which image it is")
    item = item_of(_file(table, row, row.path), row, table, groups, *given)
    one_label = frozenset([row.label] if row.label else [])
    return replace(
        item,
        item_id=str(posix_path(row.path)),
        labels=item.labels if multi_label else one_label,
    )


def _file(table: Labels, row: LabelRow, path: str) -> Path:
    """Return the file that a line names, or raise LabelsError."""
    file = table.path.parent / posix_path(path)
    if not file.is_file():
        raise LabelsError(
            f"{table.path}, line {row.line}: there is no file {file}; correct the line or delete it"
        )
    return file


def _splits(table: Labels) -> list[str] | None:
    """Return `database` or `queries` for each row, or None without a split."""
    said = [row.metadata.get("split") for row in table.rows]
    if not any(said):
        first = [posix_path(row.path or "").parts[:1] for row in table.rows]
        if set(first) != {("train",), ("valid",)}:
            return None
        said = [parts[0] for parts in first]
    for row, split in zip(table.rows, said, strict=True):
        if (split or "").lower() not in SPLITS:
            raise LabelsError(
                f"{table.path}, line {row.line}: split is {split!r}; want train (searched) or valid (queries)"
            )
    return [SPLITS[(split or "").lower()] for split in said]


def _check_searchable(table: Labels, queries: Sequence[Item], database: Sequence[Item]) -> None:
    """Raise LabelsError if a search could find nothing at all."""
    if not queries:
        raise LabelsError(f"{table.path} names no queries; label some images (and set them to split valid)")
    if not database:
        raise LabelsError(f"{table.path} names no images to find; set some to split train")
    if len({item.group or item.item_id for item in (*queries, *database)}) < 2:
        raise LabelsError(
            f"{table.path}: all images are of one group, which is left out of its own searches; add another"
        )


def _drawn(items: tuple[Item, ...], n: int, seed: int) -> tuple[Item, ...]:
    """Draw whole groups in a random order until there are `n` items; return those in their own order."""
    if len(items) <= n:
        return items
    members: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        members.setdefault(item.group or f"item {item.item_id}", []).append(number)
    names = list(members)
    kept: list[int] = []
    for number in np.random.default_rng(seed).permutation(len(names)):
        kept += members[names[number]]
        if len(kept) >= n:
            break
    return tuple(items[number] for number in sorted(kept[:n]))
