"""One committed state of an index, opened: it is read once and passed on.

Everything that belongs to one answer (the query's row, the tree, the segments, the slides) is taken from one
`State`, so no commit can come between two reads. Its files stay mapped while it is held, even if a writer
unlinks them meanwhile.

A damaged segment does not prevent the others from being opened. It is listed among them with its problem and,
where its table can be read, its slides. But no search leaves it out in silence: `State.segments` raises
IndexCorruptError until `sish.index.repair` has set it aside.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from sish.errors import IndexCorruptError
from sish.index.store.disk import storage_errors
from sish.index.store.manifest import JSON, SEGMENTS, Manifest, SegmentRecord, read_manifest
from sish.index.store.segment import (
    DTYPES,
    DamagedSegment,
    Segment,
    array_shapes,
    check_no_links,
    open_segment,
    read_slides,
)
from sish.index.store.snapshot import SlideRow, Snapshot, merge
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
    def tree(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        """The arrays that `Store.rekey` was given last; None if it never was.

        Raises
        ------
        IndexCorruptError
            If the file was missing when the state was opened, or is damaged.
        """
        return None if self.tree_file is None else self.tree_file.arrays()

    @property
    def is_whole(self) -> bool:
        """Whether every file was there when it was opened."""
        return not self.damaged and (self.tree_file is None or self.tree_file.data is not None)

    def check(self, *, every_byte: bool = False) -> None:
        """Compare the mapped arrays with what was written; each check is done once.

        Counts and the order of keys are always checked, and so are the checksums of arrays that are no larger
        than `SMALL_BYTES`.

        Parameters
        ----------
        every_byte : bool
            Check the checksums of larger arrays too.

        Raises
        ------
        IndexCorruptError
            If a segment is damaged; the message names the file.
        """
        segments = self.segments
        thorough = every_byte or sum(segment.nbytes for segment in segments) <= SMALL_BYTES
        for segment in segments:
            segment.check(self.folder / SEGMENTS / segment.record.name, every_byte=thorough)

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
        live = [segment.live() for segment in self.segments if segment.slides]
        if live:
            return merge(live)
        arrays = {name: np.empty(shape, DTYPES[name]) for name, shape in array_shapes(0, 1, 1).items()}
        return Snapshot((), **arrays)


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
            parts = tuple(_unique(folder, _open_parts(folder, manifest, before)))
            trees = (open_tree(folder / name, record) for name, record in manifest.extras.items())
            state = State(folder, manifest, parts, next(trees, None))
        if state.is_whole:
            return state
        seen, manifest = manifest, read_manifest(folder)
        if manifest == seen:
            return state


def _open_parts(folder: Path, manifest: Manifest, before: State | None) -> Iterator[Segment | DamagedSegment]:
    known = {part.record.name: part for part in (before.parts if before else ()) if isinstance(part, Segment)}
    for record in manifest.segments:
        old = known.get(record.name)
        if old is not None and old.record == record:
            yield old
        else:
            yield _open(folder / SEGMENTS / record.name, record, manifest)


def _open(folder: Path, record: SegmentRecord, manifest: Manifest) -> Segment | DamagedSegment:
    """Open a segment; a damaged one keeps the slides of its table, if that can be read."""
    check_no_links(folder, record)
    try:
        return open_segment(folder, record, manifest.key_orders or 1, manifest.barcode_bytes or 1)
    except IndexCorruptError as error:
        reason = str(error)
    try:
        slides, removed = read_slides(folder, record)
    except IndexCorruptError:
        return DamagedSegment(record, reason, (), knows_slides=False)
    live = tuple(row for number, row in enumerate(slides) if number not in removed)
    return DamagedSegment(record, reason, live)


def _unique(folder: Path, parts: Iterable[Segment | DamagedSegment]) -> Iterator[Segment | DamagedSegment]:
    """Yield the segments; one that names a slide for the second time counts as damaged."""
    seen: set[str] = set()
    for part in parts:
        ids = [row.slide_id for row in part.slides]
        before = len(seen)
        seen.update(ids)
        if len(seen) == before + len(ids) or isinstance(part, DamagedSegment):
            yield part
        else:
            path = folder / SEGMENTS / part.record.name / part.record.table
            reason = f"{path} names a slide that is in the index already: see sish index repair"
            yield DamagedSegment(part.record, reason, part.slides)
