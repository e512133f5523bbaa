"""One committed state of an index, opened: it is read once and passed on.

Everything that belongs to one answer (the query's row, the tree, the segments, the slides) is taken from one
`State`, so no commit can come between two reads. Its files stay mapped while it is held, even if a writer
unlinks them meanwhile.

A damaged segment does not prevent the others from being opened. It is listed among them with its problem and,
where its table can be read, its slides. But no search leaves it out in silence: `State.segments` raises
IndexCorruptError until `sish.index.repair` has set it aside.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from sish.errors import IndexCorruptError
from sish.index.store.disk import corrupt, storage_errors
from sish.index.store.manifest import JSON, SEGMENTS, Manifest, SegmentRecord, read_manifest
from sish.index.store.segment import (
    DamagedSegment,
    Segment,
    check_no_links,
    open_segment,
    read_slides,
    reopened,
)
from sish.index.store.slide_row import SlideRow
from sish.index.store.snapshot import Snapshot, empty_snapshot, merge
from sish.index.store.tree_file import TreeFile, open_tree

SMALL_BYTES = 1 << 26
"""Arrays of at most this many bytes in all are compared with their checksums when a search maps them."""


@dataclass(frozen=True, eq=False)
class State:
    """One committed state, opened; two states are equal only if they are the same object."""

    folder: Path
    """The index."""
    manifest: Manifest
    """What was committed."""
    parts: tuple[Segment | DamagedSegment, ...]
    """Its segments, oldest slides first, damaged ones among them."""
    tree_file: TreeFile | None
    """The file of the texture tree that made the keys, if one did."""

    @property
    def name(self) -> str:
        """Where the index is, in words."""
        return str(self.folder)

    @property
    def header(self) -> Mapping[str, JSON]:
        """The header that `Store.create` was given, as JSON gives it back (tuples are lists)."""
        return MappingProxyType(dict(self.manifest.header))

    @property
    def generation(self) -> int:
        """The number of commits since the index was created."""
        return self.manifest.generation

    @property
    def measured(self) -> Mapping[str, JSON]:
        """The facts that a writer measured on the patches (`Store.keep_measured`)."""
        return MappingProxyType(dict(self.manifest.measured))

    @cached_property
    def slides(self) -> tuple[SlideRow, ...]:
        """The live slides in insertion order; those of damaged segments too, where they are known."""
        return tuple(row for part in self.parts for row in part.slides)

    @cached_property
    def n_slides(self) -> int:
        """How many live slides are known."""
        return sum(len(it.slides) if isinstance(it, DamagedSegment) else it.n_slides for it in self.parts)

    @cached_property
    def n_patches(self) -> int:
        """How many patches they have."""
        damaged = (row.n_patches for part in self.damaged for row in part.slides)
        return sum(damaged) + sum(it.n_patches for it in self.parts if isinstance(it, Segment))

    def has(self, slide_id: str) -> bool:
        """Return whether a live slide has this id."""
        return any(
            slide_id in (row.slide_id for row in part.slides)
            if isinstance(part, DamagedSegment)
            else part.number_of(slide_id) is not None
            for part in self.parts
        )

    def row(self, slide_id: str) -> SlideRow | None:
        """Return the row of a live slide by its id, None if there is none; O(segments)."""
        for part in self.parts:
            if isinstance(part, DamagedSegment):
                found = next((row for row in part.slides if row.slide_id == slide_id), None)
            else:
                number = part.number_of(slide_id)
                found = None if number is None else part.patches.slides[number]
            if found is not None:
                return found
        return None

    def rows_with(self, column: str, value: str) -> list[SlideRow]:
        """Return the rows of the live slides that have a value in a column of text, such as ``path``."""
        found: list[SlideRow] = []
        for part in self.parts:
            if isinstance(part, DamagedSegment):
                found += [row for row in part.slides if getattr(row, column) == value]
            else:
                numbers = np.flatnonzero(part.patches.slides.has(column, value) & ~part.removed_mask)
                found += [part.patches.slides[number] for number in numbers.tolist()]
        return found

    def ids_and_paths(self) -> Iterator[tuple[str, str]]:
        """Yield the id and the path of each live slide in insertion order."""
        for part in self.parts:
            if isinstance(part, DamagedSegment):
                yield from ((row.slide_id, row.path) for row in part.slides)
            else:
                pairs = enumerate(part.patches.slides.ids_and_paths())
                yield from (pair for number, pair in pairs if number not in part.removed)

    @property
    def damaged(self) -> tuple[DamagedSegment, ...]:
        """The segments that cannot be used."""
        return tuple(part for part in self.parts if isinstance(part, DamagedSegment))

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, oldest slides first, mapped from their files; valid while they are held.

        Raises
        ------
        IndexCorruptError
            If one is damaged: without it an answer would silently lack slides.
        """
        sound = tuple(part for part in self.parts if isinstance(part, Segment))
        if len(sound) < len(self.parts):
            damaged = self.damaged[0]
            raise IndexCorruptError(damaged.reason, path=self.folder / SEGMENTS / damaged.record.name)
        return sound

    @property
    def tree(self) -> dict[str, npt.NDArray[Any]] | None:
        """The arrays that `Store.rekey` was given last; None if it never was.

        Raises
        ------
        IndexCorruptError
            If the file was missing when the state was opened, or is damaged.
        """
        return None if self.tree_file is None else self.tree_file.arrays()

    @property
    def format_version(self) -> int:
        """The oldest version of the format among its parts; `sish.Index.convert` makes it the newest."""
        old = any(isinstance(part, Segment) and part.is_old for part in self.parts)
        old = old or (self.tree_file is not None and self.tree_file.is_old)
        return 1 if old else self.manifest.version

    @property
    def is_whole(self) -> bool:
        """Whether every file was there when it was opened."""
        return not self.damaged and (self.tree_file is None or self.tree_file.data is not None)

    def check(self, *, every_byte: bool = False) -> None:
        """Compare all files with what was written; each segment is compared once.

        Without `every_byte` this is done only where the arrays and the tree are no larger than `SMALL_BYTES`
        in all, so that a large index opens at once.

        Parameters
        ----------
        every_byte : bool
            Compare a large index too.

        Raises
        ------
        IndexCorruptError
            If a segment or the tree is damaged, or two segments have a slide of one id.
        """  # noqa: DOC501  corrupt() makes that error
        segments = self.segments
        if not every_byte and sum(segment.nbytes for segment in segments) > SMALL_BYTES:
            return
        for segment in segments:
            segment.check(self.folder / SEGMENTS / segment.record.name)
        if self.tree_file is not None:
            self.tree_file.check()
        if self._has_twins:
            last = self.parts[-1].record
            where = self.folder / SEGMENTS / last.name / last.table
            raise corrupt(where, "or a table before it names a slide that is in the index already")

    @cached_property
    def _has_twins(self) -> bool:
        """Whether two live slides have one id."""
        tables = [(segment.patches.slides, segment.removed_mask) for segment in self.segments]
        live = [table.sorted_ids[~gone[table.id_order]] for table, gone in tables]
        return len(live) > 1 and len(np.unique(np.concatenate(live))) < sum(map(len, live))

    def snapshot(self) -> Snapshot:
        """Return all live patches in key order, after a `check`.

        One segment without removed slides is served straight from its mapped files; anything else is merged
        in memory.

        Returns
        -------
        Snapshot
            The patches, valid for as long as it is held; of an empty index with T = B = 1.
        """
        self.check()
        live = [segment.live() for segment in self.segments if segment.n_slides]
        return merge(live) if live else empty_snapshot()


def load_state(folder: Path, before: State | None = None) -> State:
    """Open the state on the disk; if a writer unlinks files meanwhile, open the newer state instead.

    Parameters
    ----------
    folder : Path
        The index.
    before : State, optional
        An earlier state; its segments that did not change are taken from it.

    Returns
    -------
    State
        The state.
    """
    manifest = read_manifest(folder)
    while True:
        with storage_errors(folder, "read the index at"):
            parts = tuple(_open_parts(folder, manifest, before))
            tree = open_extras(folder, manifest, None if before is None else before.tree_file)
            state = State(folder, manifest, parts, tree)
        if state.is_whole:
            return state
        seen, manifest = manifest, read_manifest(folder)
        if manifest == seen:
            return state


def open_extras(folder: Path, manifest: Manifest, before: TreeFile | None) -> TreeFile | None:
    """Return the file of the tree that a manifest names; the one that is open already if it is the same."""
    for name, record in manifest.extras.items():
        if before is not None and before.data is not None and before.path == folder / name:
            return before
        return open_tree(folder / name, record)
    return None


def _open_parts(folder: Path, manifest: Manifest, before: State | None) -> Iterator[Segment | DamagedSegment]:
    known = {part.record.name: part for part in (before.parts if before else ()) if isinstance(part, Segment)}
    for record in manifest.segments:
        old = known.get(record.name)
        if old is not None and old.record == record:
            yield old
        else:
            yield _open(folder / SEGMENTS / record.name, record, manifest, old)


def _open(
    folder: Path, record: SegmentRecord, manifest: Manifest, old: Segment | None
) -> Segment | DamagedSegment:
    """Open a segment; a damaged one keeps the slides of its table, if that can be read."""
    check_no_links(folder, record)
    try:
        if old is not None and old.record.table == record.table:
            return reopened(old, folder, record)
        return open_segment(folder, record, manifest)
    except IndexCorruptError as error:
        reason = str(error)
    try:
        slides, removed = read_slides(folder, record)
    except IndexCorruptError:
        return DamagedSegment(record, reason, (), knows_slides=False)
    live = tuple(row for number, row in enumerate(slides) if number not in removed)
    return DamagedSegment(record, reason, live)
