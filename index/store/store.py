"""The durable index: a folder of immutable segments behind one manifest that is replaced atomically.

    archive.sish/
        manifest.json           the only commit point (`sish.index.store.manifest`)
        lock                    the writer's process number (`sish.index.store.lock`)
        tree.00000012.safetensors   the texture tree that made the keys, if one did
        segments/00000001/      keys, barcodes, ... and the slides (`sish.index.store.segment`)

A commit writes new files, flushes them, and then replaces the manifest. A crash at any moment leaves the old
index or the new one. After the commit the files that the new manifest does not name are unlinked. Readers
keep theirs mapped, so a snapshot stays valid while a writer goes on.
"""

import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt

from sish.errors import (
    IndexCorruptError,
    IndexFormatError,
    ParameterError,
    ParameterTypeError,
    StoreError,
)
from sish.index.store.admission import LOCK, check_ids, check_rows, check_vacant, check_widths
from sish.index.store.disk import make_folder, replace_file, storage_errors, sync
from sish.index.store.leftovers import count_bytes, delete_unnamed, find_leftovers, sweep
from sish.index.store.lock import WriterLock
from sish.index.store.manifest import (
    FORMAT_VERSION,
    JSON,
    MANIFEST,
    SEGMENTS,
    Manifest,
    encode_json,
    is_deep,
    manifest_stamp,
    read_manifest,
)
from sish.index.store.segment import Segment, save_changes, write_segment
from sish.index.store.slide_row import SlideRow
from sish.index.store.snapshot import Snapshot, merge, merge_into, slide_snapshot
from sish.index.store.state import State, load_state, open_extras
from sish.index.store.tree_file import write_tree
from sish.index.store.verify import damaged_files, verify

_LOG = logging.getLogger(__name__)

MERGE_RATIO = 2
"""A segment joins an append if it weighs at most this many times what is merged so far.

So every segment weighs more than twice the next one, and n appends leave O(log n) segments. A patch is
rewritten O(log n) times, because the segment that holds it grows by half or more each time.
"""


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Counts of one state of the index."""

    generation: int
    """Commits since it was created."""
    format_version: int
    """Version of the format on disk."""
    slides: int
    """Live slides."""
    patches: int
    """Their patches."""
    removed_slides: int
    """Removed or replaced slides whose patches still take space; `Store.compact` frees it."""
    removed_patches: int
    """Their patches."""
    segments: int
    """Segments."""
    damaged_segments: int
    """Damaged segments among them; `sish index repair` tells what is wrong."""
    bytes: int
    """Bytes of all files that belong to the index."""
    leftovers: int
    """Files and folders that interrupted writers left, or that a writer makes at this moment."""
    leftover_bytes: int
    """Their bytes; the next writer frees them."""
    measured: Mapping[str, JSON]
    """Facts that a writer measured on the patches, by name."""
    partitions: Mapping[str, str] = field(default_factory=dict)
    """Where the partitions of an archive in PostgreSQL are, by name; none of a folder."""


@dataclass(frozen=True, slots=True)
class _Rekeying:
    """A change of all keys, and the tree that makes them."""

    tree: Mapping[str, npt.NDArray[Any]] | None
    change: Callable[[Snapshot], Snapshot]
    facts: Callable[[Snapshot], Mapping[str, JSON]] | None = None


class Store:
    """An index folder, open for reading or for writing.

    A reader stays at the state that it opened until `refresh`. Methods may be called from several threads,
    and one process at a time may write. A store is a context manager; closing it gives the lock back.
    Snapshots stay valid after that.

    Every method that writes raises IndexCorruptError if a segment is damaged, and StoreError if the store is
    not open for writing or the disk fails. The index is then as it was.
    """

    def __init__(self, path: Path, state: State, lock: WriterLock | None) -> None:
        """Use `create` or `open`."""
        self.path = path
        self._state = state
        self._lock = lock
        self._stamp: tuple[int, ...] | None = None  # of the manifest's file, once it was read and is not new
        self._thread_lock = threading.RLock()

    @classmethod
    def create(cls, path: str | os.PathLike[str], header: Mapping[str, JSON]) -> "Store":
        """Make an empty index and open it for writing.

        Parameters
        ----------
        path : path-like
            A folder that is missing or empty; missing parents are made too.
        header : mapping
            The facts on every key and barcode of the index; kept verbatim.

        Returns
        -------
        Store
            The index, open for writing.

        Raises
        ------
        ParameterError
            If the header is not JSON, or is nested too deep.
        IndexExistsError
            If there is an index already.
        IndexFormatError
            If the path is a file, or the folder holds something else.
        IndexLockedError
            If another process makes an index there.
        StoreError
            If the folder cannot be written.
        """
        folder = Path(path)
        _check_header(header)
        with storage_errors(folder, "create an index at"):
            if folder.exists() and not folder.is_dir():
                raise IndexFormatError(f"{folder} is a file, wanted a folder that is missing or empty")
            make_folder(folder)
            check_vacant(folder)
            lock = WriterLock.acquire(folder / LOCK)
            try:
                check_vacant(folder)
                (folder / SEGMENTS).mkdir(exist_ok=True)
                replace_file(folder / MANIFEST, Manifest(dict(header)).to_bytes())
                return cls(folder, load_state(folder), lock)
            except BaseException:
                lock.release()
                raise

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, write: bool = False) -> "Store":
        """Open an index; a reader writes nothing at all.

        A writer deletes the files that interrupted writers left behind. An index with a damaged segment or
        tree can be opened. Methods that need the damaged part raise IndexCorruptError until
        `sish.index.repair` has set it aside.

        Parameters
        ----------
        path : path-like
            The index.
        write : bool
            Open it for writing.

        Returns
        -------
        Store
            The index.

        Raises
        ------
        IndexNotFoundError
            If there is none.
        IndexFormatError
            If it is of another format, or a file.
        IndexCorruptError
            If the manifest is damaged.
        IndexLockedError
            If `write` is asked and another writer is at work.
        StoreError
            If `write` is asked and the folder cannot be written.
        """
        folder = Path(path)
        state = load_state(folder)
        if not write:
            return cls(folder, state, None)
        with storage_errors(folder, "write to"):
            lock = WriterLock.acquire(folder / LOCK)
        try:
            state = load_state(folder, state)
            sweep(folder, state.manifest)
            return cls(folder, state, lock)
        except BaseException:
            lock.release()
            raise

    def writer(self) -> "Store":
        """Open the index once more, for writing (`open`)."""
        return Store.open(self.path, write=True)

    def close(self) -> None:
        """Give the writer's lock back; from then on it is a reader."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> "Store":
        """Return the store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def __contains__(self, slide_id: object) -> bool:
        """Return whether a slide of this id is in the index."""
        return isinstance(slide_id, str) and self._state.has(slide_id)

    def __len__(self) -> int:
        """Return the number of live slides."""
        return self._state.n_slides

    @property
    def header(self) -> Mapping[str, JSON]:
        """The header that `create` was given, as JSON gives it back (tuples are lists)."""
        return self._state.header

    @property
    def generation(self) -> int:
        """The number of commits since the index was created."""
        return self._state.generation

    @property
    def slides(self) -> tuple[SlideRow, ...]:
        """The live slides in insertion order (a replaced slide counts as new)."""
        return self._state.slides

    @property
    def segments(self) -> tuple[Segment, ...]:
        """`State.segments` of the state at hand."""
        return self._state.segments

    @property
    def state(self) -> State:
        """The state at hand; a refresh replaces it, so take it once for everything that belongs together."""
        return self._state

    def current(self) -> State:
        """Go on to the state that is on the disk now, and return it."""
        self.refresh()
        return self._state

    def snapshot(self) -> Snapshot:
        """Return `State.snapshot` of the state at hand."""
        return self._state.snapshot()

    def refresh(self) -> bool:
        """Go on to the state that is on the disk now.

        Files that were damaged or missing are opened anew, because they may have been restored.

        Returns
        -------
        bool
            Whether it is another state than before.
        """
        with self._thread_lock:
            stamp, before = manifest_stamp(self.path), self._state
            if before.is_whole and stamp is not None and stamp == self._stamp:
                return False
            changed = not before.is_whole or read_manifest(self.path) != before.manifest
            if changed:
                self._state = load_state(self.path, before)
            self._stamp = stamp  # now that all was read
            return changed and (self._state.manifest != before.manifest or self._state.is_whole)

    def append(
        self,
        row: SlideRow,
        keys: npt.ArrayLike,
        barcodes: npt.ArrayLike,
        l0_xy: npt.ArrayLike,
        *,
        replace: bool = False,
    ) -> None:
        """Add one slide; when this returns it is on the disk.

        Parameters
        ----------
        row : SlideRow
            The slide; its `n_patches` is N, 0 for a slide without tissue.
        keys : array-like of int, shape (N, T)
            The keys of each patch; the first column orders the index.
        barcodes : array-like of uint8, shape (N, B)
            The barcode of each patch.
        l0_xy : array-like of int, shape (N, 2)
            The top left corner of each patch in level-0 pixels.
        replace : bool
            Remove the slide of that id, if there is one, in the same commit.

        Raises
        ------
        SlideExistsError
            If the id is taken and `replace` is off.
        ParameterError
            If shapes or types do not fit the slide or the index.
        """
        self.append_many([slide_snapshot(row, keys, barcodes, l0_xy)], replace=replace)

    def append_many(
        self,
        new: Sequence[Snapshot],
        *,
        replace: bool = False,
        header: Mapping[str, JSON] | None = None,
    ) -> None:
        """Add several slides in one commit: all of them, or none.

        The commit flushes as many files as that of one slide.

        Parameters
        ----------
        new : sequence of Snapshot
            The slides in insertion order, each as `slide_snapshot` gives it.
        replace : bool
            Remove the slides of these ids, where there are any, in the same commit.
        header : mapping, optional
            Replaces the header in the same commit. What it says must be true of all slides.

        Raises
        ------
        SlideExistsError
            If an id is taken and `replace` is off, or two of the slides have one id.
        ParameterError
            If shapes do not fit the index, or the header is not JSON.
        """
        _check_header(header)
        with self._writing() as state:
            if not new:
                return
            check_widths(new, state.manifest)
            ids = [row.slide_id for part in new for row in part.slides]
            check_ids(self.path, ids, (lambda _: False) if replace else state.has)
            segments = [segment.without(frozenset(ids)) for segment in state.segments]
            weight, kept = sum(len(part) + len(part.slides) for part in new), len(segments)
            while kept and segments[kept - 1].weight <= MERGE_RATIO * weight:
                kept -= 1
                weight += segments[kept].weight
            self._commit(state, segments[:kept], segments[kept:], new, header=header)

    def remove(self, slide_ids: Collection[str]) -> int:
        """Remove slides in one commit; ids that are not in the index are ignored.

        Parameters
        ----------
        slide_ids : collection of str
            Their ids.

        Returns
        -------
        int
            How many slides were removed.

        Raises
        ------
        ParameterTypeError
            If it is one string.
        """
        if isinstance(slide_ids, str):
            raise ParameterTypeError(f"slide_ids is the string {slide_ids!r}, wanted a list of ids")
        doomed = frozenset(slide_ids)
        with self._writing() as state:
            count = sum(map(state.has, doomed))
            if count:
                self._commit(state, [segment.without(doomed) for segment in state.segments])
            return count

    def relabel(self, rows: Mapping[str, SlideRow]) -> None:
        """Replace the rows of some slides in one commit; patches and insertion order stay.

        Parameters
        ----------
        rows : mapping of str to SlideRow
            The new row of each slide id, with the same `slide_id` and `n_patches` as before.

        Raises
        ------
        UnknownSlideError
            If an id is not in the index.
        ParameterError
            If a row is not of that slide.
        """
        with self._writing() as state:
            check_rows(self.path, rows, state.row)
            segments = [segment.relabelled(rows) for segment in state.segments]
            if any(segment.unsaved for segment in segments):
                self._commit(state, segments)

    def compact(self) -> None:
        """Write all live slides into one segment of the newest format and delete leftovers."""
        with self._writing() as state:
            old = state.manifest.version < FORMAT_VERSION
            if old or len(state.segments) > 1 or any(it.removed or it.is_old for it in state.segments):
                self._commit(state, [], state.segments)
            sweep(self.path, self._state.manifest)

    def rekey(
        self,
        tree: Mapping[str, npt.NDArray[Any]] | None,
        change: Callable[[Snapshot], Snapshot],
        facts: Callable[[Snapshot], Mapping[str, JSON]] | None = None,
    ) -> None:
        """Give all patches new keys, in one commit and one segment, and keep the tree that made them.

        Parameters
        ----------
        tree : mapping of str to array, or None
            The arrays to keep with the keys, which the property `tree` returns; None if no tree made them.
        change : callable
            It returns a copy of the patches with their new keys, sorted by these.
        facts : callable, optional
            It returns facts on these (as `keep_measured` takes them), which are kept in the same commit.
        """
        with self._writing() as state:
            self._commit(state, [], state.segments, rekeying=_Rekeying(tree, change, facts))

    def replace_all(self, other: State, header: Mapping[str, JSON]) -> None:
        """Hold the slides of another index in place of all others, in one commit.

        Parameters
        ----------
        other : State
            The other index. Its tree and its facts come with its slides.
        header : mapping
            The header that is true of them.

        Raises
        ------
        IndexCorruptError
            If the other index is damaged.
        ParameterError
            If the header is not JSON, or nested too deep.
        """
        _check_header(header)
        other.check(every_byte=True)
        with self._writing() as state:
            tree = _Rekeying(other.tree, lambda patches: patches)
            new = [other.snapshot()] if other.n_slides else []
            facts = other.manifest.measured
            self._commit(state, [], [], new, rekeying=tree, header=header, measured=facts)

    def keep_measured(self, facts: Mapping[str, JSON]) -> None:
        """Keep facts that were measured on the patches, in one commit that writes the manifest alone.

        Later commits keep them too. They are a cache of what the patches say, so a writer may lose them.

        Parameters
        ----------
        facts : mapping of str to JSON
            The facts by name; they replace those of the same names. A fact of None is forgotten.

        Raises
        ------
        ParameterError
            If they are not JSON, or nested too deep.
        """
        self._replace_facts(None, facts)

    def measure(self, facts: Callable[[State], Mapping[str, JSON]]) -> None:
        """Keep the facts that a function returns of the state, if any (`keep_measured`)."""
        if found := facts(self.state):
            self.keep_measured(found)

    def replace_header(self, header: Mapping[str, JSON], facts: Mapping[str, JSON]) -> None:
        """Replace the header and keep facts (`keep_measured`), in one commit that writes the manifest alone.

        Parameters
        ----------
        header : mapping
            The new header. What it says of keys and barcodes must still be true.
        facts : mapping of str to JSON
            As of `keep_measured`.

        Raises
        ------
        ParameterError
            If they are not JSON, or nested too deep.
        """
        _check_header(header)
        self._replace_facts(header, facts)

    def _replace_facts(self, header: Mapping[str, JSON] | None, facts: Mapping[str, JSON]) -> None:
        """Commit a manifest with another header, if one is given, and with more facts."""
        encode_json(dict(facts), "what was measured")
        with self._writing() as state:
            old = state.manifest
            measured = _with_facts(old.measured, facts)
            if is_deep(measured):
                raise ParameterError("what was measured is nested too deep to be read again: keep less")
            new = replace(old, header=dict(old.header if header is None else header), measured=measured)
            if new == old:
                return
            manifest = replace(new, generation=old.generation + 1)
            replace_file(self.path / MANIFEST, manifest.to_bytes())
            self._state = State(self.path, manifest, state.parts, state.tree_file)

    @property
    def tree(self) -> dict[str, npt.NDArray[Any]] | None:
        """`State.tree` of the state at hand."""
        return self._state.tree

    def set_aside(self, names: Collection[str], target: Path) -> None:
        """Move some segments into another folder and go on without them, in one commit.

        Their folders are moved first. A crash in between leaves an index that lacks them and says so.

        Parameters
        ----------
        names : collection of str
            The names of the segments.
        target : Path
            The folder that they are moved into.

        Raises
        ------
        IndexCorruptError
            If another segment is damaged; the index is as it was.
        StoreError
            If it is not open for writing, or the disk failed; the index is as it was, or lacks files.
        """
        with self._writing() as state:
            kept = replace(
                state, parts=tuple(it for it in state.parts if it.record.name not in names)
            ).segments
            for name in sorted(names):
                if (folder := self.path / SEGMENTS / name).exists():
                    os.replace(folder, target / name)  # noqa: PTH105  as in replace_file
            sync(target)
            sync(self.path / SEGMENTS)
            self._commit(state, kept)

    def verify(self) -> list[str]:
        """Return the problems of the index as it is on the disk now, one line for each (`verify.verify`)."""
        return verify(self.path)

    def leftovers(self) -> list[str]:
        """Return the harmless files and folders of interrupted writers, which the next writer deletes."""
        manifest = read_manifest(self.path)
        return [path.relative_to(self.path).as_posix() for path in find_leftovers(self.path, manifest)]

    def info(self) -> StoreInfo:
        """Return counts of the state at hand."""
        state = self._state
        manifest = state.manifest
        segments = [part for part in state.parts if isinstance(part, Segment)]
        files = [file.size for record in manifest.segments for file in record.files.values()]
        files += [file.size for file in manifest.extras.values()]
        left = find_leftovers(self.path, read_manifest(self.path))
        return StoreInfo(
            generation=manifest.generation,
            format_version=state.format_version,
            slides=state.n_slides,
            patches=state.n_patches,
            removed_slides=sum(len(segment.removed) for segment in segments),
            removed_patches=sum(segment.removed_patches for segment in segments),
            segments=len(state.parts),
            damaged_segments=len(state.damaged),
            bytes=sum(files) + len(manifest.to_bytes()),
            leftovers=len(left),
            leftover_bytes=count_bytes(left),
            measured=manifest.measured,
        )

    @contextmanager
    def _writing(self) -> Iterator[State]:
        """Hold the right to write; after any failure, go on from the state on the disk."""
        with self._thread_lock:
            if self._lock is None or not self._lock.held:
                raise StoreError(
                    f"{self.path} is not open for writing: open it with write=True", path=self.path
                )
            before = self._state
            try:
                with storage_errors(self.path, "write to"):
                    yield before
            except BaseException:
                self._recover(before)
                raise

    def _recover(self, before: State) -> None:
        """Take the state on the disk and delete half-written files; a renamed manifest is a commit."""
        if read_manifest(self.path) != before.manifest:
            # The rename was perhaps not flushed: the old files must stay until a later commit is.
            self._state = load_state(self.path, before)
            return
        sweep(self.path, before.manifest)

    def _commit(
        self,
        state: State,
        kept: Sequence[Segment],
        merged: Sequence[Segment] = (),
        new_slides: Sequence[Snapshot] = (),
        rekeying: "_Rekeying | None" = None,
        header: Mapping[str, JSON] | None = None,
        measured: Mapping[str, JSON] | None = None,
    ) -> None:
        """Make the index of ``kept`` segments and, after them, one of the ``merged`` and the new slides."""
        parts = [self._sound(segment).live() for segment in merged if segment.n_slides]
        parts += [merge(new_slides)] if new_slides else []
        old = state.manifest
        generation = old.generation + 1
        segments = [
            save_changes(self._folder(segment), segment, generation) for segment in kept if segment.n_slides
        ]
        number, widths = old.next_segment, old.widths
        extras, facts = old.extras, old.measured if measured is None else measured
        if rekeying:
            extras = write_tree(self.path, generation, rekeying.tree) if rekeying.tree else {}
        if parts:
            new = merge_into(self.path, parts)
            new = rekeying.change(new) if rekeying else new
            if rekeying and rekeying.facts:
                facts = _with_facts(facts, rekeying.facts(new))
            while os.path.lexists(folder := self.path / SEGMENTS / f"{number:08d}"):
                number += 1
            segments.append(write_segment(folder, new))
            sync(folder.parent)
            number, widths = number + 1, new.widths
        records = tuple(segment.record for segment in segments)
        told = old.header if header is None else dict(header)
        manifest = Manifest(told, generation, number, *widths, records, extras, facts)
        tree = open_extras(self.path, manifest, state.tree_file)
        replace_file(self.path / MANIFEST, manifest.to_bytes())
        self._state = State(self.path, manifest, tuple(segments), tree)
        _LOG.debug("%r: commit %d, %d segments", str(self.path), generation, len(segments))
        delete_unnamed(self.path, old, manifest)

    def _sound(self, segment: Segment) -> Segment:
        """Return the segment if its bytes are as written; else a copy would hide the damage."""
        for problem in damaged_files(self._folder(segment), segment.record.files):
            raise IndexCorruptError(
                f"{problem}: nothing was changed; restore the index from a backup, or see sish index repair"
            )
        return segment

    def _folder(self, segment: Segment) -> Path:
        return self.path / SEGMENTS / segment.record.name


def _with_facts(before: Mapping[str, JSON], facts: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return facts with some replaced, and without those that are None now."""
    return {name: fact for name, fact in {**before, **facts}.items() if fact is not None}


def _check_header(header: Mapping[str, JSON] | None) -> None:
    """Refuse a header that cannot be written, or not be read again (ParameterError)."""
    encode_json(None if header is None else dict(header), "the header")
    if header is not None and is_deep(dict(header)):
        raise ParameterError("the header is nested too deep to be read again: give a flatter one")
