"""One index of the shards of a list of slides (:mod:`sish.shards`).

The slides are added in the order of their ids, as one :meth:`sish.Index.add` of the whole list adds them, and
their codes are read from the shards. So slides, barcodes, places, the learnt tree, keys and answers are those
of one add. A commit follows another, and memory holds the slides of one commit. A merge that was killed goes
on where it stopped, and ends with the same index.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import TypeAlias

import numpy as np

from sish.archives import folder_of, is_there
from sish.encode import SlideCodes
from sish.errors import IndexNotFoundError, ParameterError, SlideExistsError
from sish.header import IndexHeader
from sish.index.store import SlideRow, State, Store
from sish.index.store.manifest import JSON
from sish.index.store.segment import Segment
from sish.printing import counted
from sish.progress import progress
from sish.results import Skipped
from sish.shards import ShardRecord
from sish.slide_writer import SlideWriter

_LOG = logging.getLogger(__name__)

_NAMED = 5  # shards that an error names

_Places: TypeAlias = dict[str, tuple["_Part", Segment, int]]
"""Where each slide is: its shard, its segment, and its number in the segment's table."""


@dataclass(frozen=True, slots=True)
class MergeReport:
    """The report of a merge."""

    merged: int
    """Number of slides that were written."""
    already: int
    """Number of slides that an interrupted merge had written before."""
    failed: tuple[Skipped, ...]
    """Slides that failed in their shard, and are in no index."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A finished shard."""

    path: Path
    state: State
    record: ShardRecord


def merge(
    path: str | os.PathLike[str],
    shards: Iterable[str | os.PathLike[str]],
    *,
    show_progress: bool = True,
) -> MergeReport:
    """Make one index of all shards of a list of slides, or go on with one.

    Parameters
    ----------
    path : path-like
        Folder of the new index, or of one that an interrupted merge of these shards began.
    shards : iterable of path-like
        The folders of all shards, in any order. Nothing is written into them.
    show_progress : bool
        Show progress: a bar on a terminal, plain lines elsewhere.

    Returns
    -------
    MergeReport
        What was done.

    Raises
    ------
    ParameterError
        If a shard is missing, is given twice, is not finished, is of another list or was made with other
        settings than the first; or if the index holds slides that no merge of these shards wrote.
    SlideExistsError
        If two shards hold a slide of one id.
    StoreError
        If a shard cannot be read or is damaged, or the index cannot be written.
    """
    folder = folder_of(path)
    parts, places = _gathered(folder, shards)
    order = sorted(places)
    header = parts[0].state.header
    _LOG.info("merging %s of %s", counted(len(order), "slide"), counted(len(parts), "shard"))
    with _store_at(folder, header) as store:
        there = _check_begun(store, header, places, order)
        with progress("merging", len(order) - there, show=show_progress) as bar:
            writer = SlideWriter(store, IndexHeader.from_json(header).recipe)
            for slide_id in islice(order, there, None):
                _, segment, number = places[slide_id]
                writer.take(*_copied(segment, number))
                if writer.is_due:
                    writer.commit()
                bar.step(slide_id)
            writer.commit()
        writer.settle()
    return MergeReport(len(order) - there, there, _failed(parts, places))


def plan_merge(path: str | os.PathLike[str], shards: Iterable[str | os.PathLike[str]]) -> MergeReport:
    """Return the report that :func:`merge` would give: every byte of the shards is read, nothing is written.

    Parameters
    ----------
    path : path-like
        As of :func:`merge`.
    shards : iterable of path-like
        As of :func:`merge`.

    Returns
    -------
    MergeReport
        What would be done.

    Raises
    ------
    ParameterError
        As of :func:`merge`.
    SlideExistsError
        As of :func:`merge`.
    StoreError
        If a shard or the index cannot be read, or is damaged.
    """
    folder = folder_of(path)
    parts, places = _gathered(folder, shards)
    order, there = sorted(places), 0
    if is_there(folder):
        with Store.open(folder) as store:
            there = _check_begun(store, parts[0].state.header, places, order)
    return MergeReport(len(order) - there, there, _failed(parts, places))


def _gathered(folder: Path, shards: Iterable[str | os.PathLike[str]]) -> tuple[list[_Part], _Places]:
    """Return the shards, checked, and where each slide is."""
    parts = [_opened(folder_of(shard)) for shard in shards]
    _check_whole(parts)
    _check_alike(parts)
    for part in parts:
        if folder.exists() and folder.samefile(part.path):
            raise ParameterError(f"got {folder} as a shard and as the index to make; give another folder")
    return parts, _places(parts)


def _failed(parts: Sequence[_Part], places: _Places) -> tuple[Skipped, ...]:
    """Return the slides that failed in their shard, and are in no other."""
    failed = (line for part in parts for line in part.record.failed if line[0] not in places)
    return tuple(Skipped(file, reason, slide_id) for slide_id, file, reason in failed)


def _opened(path: Path) -> _Part:
    """Open a finished shard, and compare every byte with what was written."""
    state = Store.open(path).state
    record = ShardRecord.kept_with(state.measured)
    if record is None:
        raise ParameterError(f"{path} is no shard; want indexes that sish index add --shard I/N filled")
    if not record.finished:
        raise ParameterError(
            f"shard {record.shard} in {path} is not finished: it has {state.n_slides} of {record.planned} "
            f"slides; run sish index add --shard {record.shard} again"
        )
    state.check(every_byte=True)
    return _Part(path, state, record)


def _check_whole(parts: Sequence[_Part]) -> None:
    """Refuse anything but each shard of one list once (ParameterError)."""
    if not parts:
        raise ParameterError("got no shards to merge; want all of them")
    first = parts[0]
    found: dict[int, _Part] = {}
    for part in parts:
        record = part.record
        if record.count != first.record.count:
            raise ParameterError(
                f"{part.path} is shard {record.shard}, and {first.path} is {first.record.shard}: give shards "
                "of one number"
            )
        if record.digest != first.record.digest:
            raise ParameterError(
                f"{part.path} is a shard of another list of slides than {first.path}: run sish index add "
                f"--shard {record.shard} again with the list of the others"
            )
        other = found.setdefault(record.number, part)
        if other is not part:
            raise ParameterError(f"{other.path} and {part.path} are both shard {record.shard}: give one")
    missing = [f"{it}/{first.record.count}" for it in range(first.record.count) if it not in found]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise ParameterError(f"shards {', '.join(missing[:_NAMED])}{more} are missing; give all shards")


def _check_alike(parts: Sequence[_Part]) -> None:
    """Refuse shards whose codes or settings differ from those of the first (ParameterError)."""
    for part in parts[1:]:
        _check_header(part.path, part.state.header, parts[0].path, parts[0].state.header)


def _check_header(
    path: Path, header: Mapping[str, object], other: Path, wanted: Mapping[str, object]
) -> None:
    names = sorted(name for name in {*header, *wanted} if header.get(name) != wanted.get(name))
    if names:
        raise ParameterError(
            f"{path} was made with another {', '.join(names)} than {other}: make all shards with --like one "
            "index (like=)"
        )


def _places(parts: Sequence[_Part]) -> _Places:
    """Return where each slide is; SlideExistsError for one in two shards, ParameterError for a stray one."""
    places: _Places = {}
    for part in parts:
        for segment in part.state.segments:
            for number, (slide_id, _) in enumerate(segment.patches.slides.ids_and_paths()):
                if number in segment.removed:
                    continue
                other = places.setdefault(slide_id, (part, segment, number))[0]
                if other is not part:
                    raise SlideExistsError(
                        f"slide {slide_id} is in {other.path} and in {part.path}: remove it from one of them",
                        slide_id=slide_id,
                    )
                if not part.record.shard.holds(slide_id):
                    raise ParameterError(
                        f"slide {slide_id} in {part.path} is not of shard {part.record.shard}: remove it "
                        "(sish index remove), and add it to its own shard",
                        slide_id=slide_id,
                    )
    return places


def _store_at(path: Path, header: Mapping[str, JSON]) -> Store:
    """Open the index that a merge began, or make it."""
    try:
        return Store.open(path, write=True)
    except IndexNotFoundError:
        return Store.create(path, header)


def _check_begun(store: Store, header: Mapping[str, JSON], places: _Places, order: Sequence[str]) -> int:
    """Return how many slides are merged already; ParameterError for an index of other slides."""
    _check_header(store.path, store.header, Path("the shards"), header)
    begun = store.slides
    for row, slide_id in zip_longest(begun, order[: len(begun)]):
        if slide_id is None or row != _row(places[slide_id]):
            raise ParameterError(
                f"{store.path} holds {row.slide_id}, which is not as these shards have it: merge into a new "
                "folder",
                slide_id=row.slide_id,
            )
    return len(begun)


def _row(place: tuple[_Part, Segment, int]) -> SlideRow:
    """Return the row of a slide."""
    _, segment, number = place
    return segment.patches.slides[number]


def _copied(segment: Segment, number: int) -> tuple[SlideRow, SlideCodes]:
    """Return the row and the codes of a slide, its patches in the order in which it was read."""
    table = segment.patches
    rows = table.rows_of(np.array([number]))
    vectors = None if table.vectors is None else table.vectors[rows]
    keys = table.keys[rows].astype(np.int64)
    return table.slides[number], SlideCodes(keys, table.barcodes[rows], table.l0_xy[rows], vectors)
