"""Archives from a folder into PostgreSQL, and back.

A push is one transaction: whoever searches meanwhile, or whoever kills it, sees all of its slides or none.
The first push brings the tree, the keys and what was measured; so the archive answers as the folder does.
Later ones bring slides alone, which get keys of the tree that is there. A slide that is there already is
known by its id and a digest of its codes.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from sish.archives import folder_of
from sish.errors import (
    EncoderMismatchError,
    IndexExistsError,
    IndexNotFoundError,
    ParameterError,
    SlideExistsError,
)
from sish.header import IndexHeader
from sish.index.postgres.addresses import Address
from sish.index.postgres.store import RemoteStore
from sish.index.postgres.writing import digests_of
from sish.index.store import Snapshot, State, Store
from sish.index.store.packed import pack
from sish.searchers import TextureKeys
from sish.shards import FACT as SHARD
from sish.thresholds import keep_threshold

_TOGETHER = 1 << 20  # patches that are written together, at most, unless a slide has more


@dataclass(slots=True)
class PushReport:
    """What a push did with each slide."""

    added: list[str] = field(default_factory=list)
    """Ids of slides that are new in the archive."""
    replaced: list[str] = field(default_factory=list)
    """Ids of slides that were there with other codes."""
    already: list[str] = field(default_factory=list)
    """Ids of slides that were there with the same codes; their labels stay as they are there."""
    patches: int = 0
    """Patches of the slides that were added or replaced."""

    def summary(self) -> str:
        """Return what was done, on one line."""
        return (
            f"pushed {len(self.added)} new slides, replaced {len(self.replaced)}, "
            f"{len(self.already)} were there; {self.patches} patches"
        )


def push(
    state: State,
    to: str | Address,
    *,
    replace: bool = False,
    partitions: int | None = None,
    servers: Sequence[str] = (),
    readers: Collection[str] = (),
) -> PushReport:
    """Add the slides of an index to an archive in PostgreSQL, which is made if it is not there.

    Parameters
    ----------
    state : State
        A state of the index.
    to : str or Address
        The archive.
    replace : bool
        Replace slides that are there with other codes.
    partitions : int, optional
        Number of partitions of the table of patches, for an archive that gets its first slides. Default: one
        on each server.
    servers : sequence of str
        Foreign servers (postgres_fdw) that hold partitions: the first is on the archive's own server, the
        next ones on these, and so on in turn.
    readers : collection of str
        Roles that may read the archive from now on, and its tables to come.

    Returns
    -------
    PushReport
        What was done.

    Raises
    ------
    EncoderMismatchError
        If the archive's codes are of another recipe, encoder or calibration.
    SlideExistsError
        If a slide is there with other codes, and `replace` is off; nothing is changed then.
    ParameterError
        If it is no address, a server gets no partition, or the archive is on other servers already.
    StoreError
        If the archive cannot be reached or written.
    """
    address = to if isinstance(to, Address) else Address.parse(str(to))
    least = 1 + len(servers)
    partitions = least if partitions is None else partitions
    if partitions < least:
        raise ParameterError(f"got {partitions} partitions; want at least {least}, one on each server")
    store = _opened(address, state)
    with store, store.changing() as writing:
        _check_header(state, writing.state, address)
        report, parts = _sorted_out(state, writing.digests(), replace=replace, address=address)
        fresh = not writing.state.n_slides and writing.state.manifest.barcode_bytes is None
        tree = pack(state.tree) if fresh and state.tree is not None else None
        writing.append(parts, replace=replace, partitions=partitions, servers=servers, tree=tree)
        if fresh:
            facts = {name: fact for name, fact in state.measured.items() if name != SHARD}
            writing.tell(facts=facts)
        writing.grant(readers)
    if not fresh:
        _grow(store, report)
    return report


def pull(address: Address, state: State, folder: str | os.PathLike[str]) -> None:
    """Make a folder of an archive in PostgreSQL, or bring the folder of an earlier pull up to date.

    Parameters
    ----------
    address : Address
        The archive, for errors.
    state : State
        Its state.
    folder : path-like
        The folder; an index in it must have been made with the same recipe, encoder and calibration.

    Raises
    ------
    EncoderMismatchError
        If the index there is of other codes.
    StoreError
        If there is something else, or the folder cannot be written.
    """
    header, folder = dict(state.header), folder_of(folder)
    try:
        store = Store.create(folder, header)
    except IndexExistsError:
        store = Store.open(folder, write=True)
    with store:
        _check_header(state, store.state, address)
        store.replace_all(state, header)


def _opened(address: Address, state: State) -> RemoteStore:
    """Open the archive, or make it; if two make it at once, one opens it."""
    try:
        return RemoteStore.open(address)
    except IndexNotFoundError:
        try:
            return RemoteStore.create(address, state.header)
        except IndexExistsError:
            return RemoteStore.open(address)


def _check_header(state: State, there: State, address: Address) -> None:
    """Refuse (EncoderMismatchError) codes that cannot be compared."""
    own, other = IndexHeader.from_json(state.header), IndexHeader.from_json(there.header)
    if (own.recipe, own.fingerprint) != (other.recipe, other.fingerprint):
        raise EncoderMismatchError(
            f"{state.name} holds codes of {own.fingerprint} and {there.name} those of {other.fingerprint}, "
            "which cannot be compared: make shards of one archive with sish index create --like",
            path=str(address),
        )


def _sorted_out(
    state: State, there: dict[str, bytes], *, replace: bool, address: Address
) -> tuple[PushReport, list[Snapshot]]:
    """Return the report of a push, and the patches of the slides that are to be written."""
    report, parts = PushReport(), list[Snapshot]()
    for segment in state.segments:
        live = segment.live()
        wanted = []
        for number, (row, digest) in enumerate(zip(live.slides, digests_of(live), strict=True)):
            before = there.get(row.slide_id)
            if before == digest:
                report.already.append(row.slide_id)
                continue
            if before is not None and not replace:
                raise SlideExistsError(
                    f"{address}: slide {row.slide_id!r} is there with other codes: --replace (replace=True) "
                    "takes those of this index; nothing was changed",
                    slide_id=row.slide_id,
                )
            (report.added if before is None else report.replaced).append(row.slide_id)
            report.patches += row.n_patches
            wanted.append(number)
        parts += _parts(live, wanted)
    return report, parts


def _parts(table: Snapshot, wanted: Sequence[int]) -> Iterator[Snapshot]:
    """Yield the patches of some slides of a table, some slides at a time; the table itself if it is all."""
    if len(wanted) == len(table.slides):
        yield table
        return
    numbers = np.array(wanted, np.int64)
    group = np.cumsum(table.slides.n_patches[numbers]) // _TOGETHER
    for some in np.split(numbers, np.flatnonzero(np.diff(group)) + 1) if len(numbers) else ():
        rows = np.sort(table.rows_of(some))  # in key order
        arrays = {name: array[rows] for name, array in table.arrays.items()}
        own = np.searchsorted(some, arrays["slide"]).astype(np.int32)
        yield Snapshot(table.slides.take(some), **{**arrays, "slide": own})


def _grow(store: RemoteStore, report: PushReport) -> None:
    """Measure the threshold of an archive that got more slides, and learn a tree if none fits."""
    header = IndexHeader.from_json(store.header)
    if header.recipe.keys != "texture":
        return
    TextureKeys(store, seed=header.recipe.seed).grow(0)
    rows = (store.state.row(slide_id) for slide_id in (*report.added, *report.replaced))
    keep_threshold(store, [row for row in rows if row is not None])
