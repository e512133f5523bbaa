"""One committed state of an archive in PostgreSQL: slides, header, tree and counts; patches stay there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import IndexFormatError
from sish.index.postgres.addresses import Address
from sish.index.postgres.archive import RemoteArchive, remote_archive
from sish.index.postgres.connection import composed, needed
from sish.index.postgres.foreign import parts_of, servers_with
from sish.index.postgres.patches import Reader, remote_patches, snapshot_of
from sish.index.postgres.records import Records
from sish.index.postgres.schema import FORMAT, SLIDE_COLUMNS
from sish.index.store.disk import FileRecord
from sish.index.store.manifest import Manifest, SegmentRecord
from sish.index.store.segment import Segment
from sish.index.store.slide_row import SlideRow
from sish.index.store.slide_table import SlideTable, joined
from sish.index.store.snapshot import Snapshot
from sish.index.store.state import State
from sish.index.store.tree_file import TreeFile
from sish.index.texture.tree import TextureTree

if TYPE_CHECKING:
    from psycopg import Connection

    Read = Callable[[Callable[[Connection[Any]], Any]], Any]


@dataclass(frozen=True, slots=True)
class RemoteSegment(Segment):
    """All slides of an archive in PostgreSQL: removed ones may have the id of another."""

    def number_of(self, slide_id: str) -> int | None:
        """Return the number of a live slide, None if it is not here."""
        number = Segment.number_of(self, slide_id)
        if number is not None or not self.removed:
            return number
        own = np.flatnonzero(self.patches.slides.has("slide_id", slide_id) & ~self.removed_mask)
        return int(own[0]) if len(own) else None


@dataclass(frozen=True, eq=False)
class RemoteState(State):
    """A state of an archive in PostgreSQL. It stays valid until the archive gets new keys."""

    address: Address
    """Where the archive is."""
    reader: Reader
    """Its patches."""
    counts: NDArray[np.int32]
    """Patches of each key, of removed slides too, (keys,); none for the paper's keys."""
    distance: str
    """SQL for the distance of two barcodes."""
    identity: str
    """Tells it from another archive that was made at the same address."""
    is_spread: bool
    """Whether other servers hold some of its patches."""

    @property
    def name(self) -> str:
        """Its address."""
        return str(self.address)

    @property
    def _segment(self) -> Segment:
        return self.segments[0]

    def check(self, *, every_byte: bool = False) -> None:
        """Do nothing: the server keeps its pages, and `sish index verify` reads every patch."""

    def snapshot(self) -> Snapshot:
        """Return all live patches in key order, in memory."""
        return self._snapshot if self.segments else super().snapshot()

    @cached_property
    def _snapshot(self) -> Snapshot:
        return snapshot_of(self._segment.patches.slides, self._segment.removed_mask, self.reader)

    def archive(self, tree: TextureTree) -> RemoteArchive:
        """Return its patches, to be searched through the tree."""
        segment = self._segment
        return remote_archive(
            tree,
            self.counts,
            segment.patches.slides,
            segment.removed_mask,
            self.reader,
            self.distance,
            self.is_spread,
        )


def read_state(
    address: Address, connection: Connection[Any], read: Read, before: RemoteState | None = None
) -> RemoteState:
    """Read the state of an archive in one transaction.

    Parameters
    ----------
    address : Address
        The archive.
    connection : Connection
        A connection.
    read : callable
        How its patches will be read (`Reader.read`).
    before : RemoteState, optional
        An earlier state; what did not change since is taken from it.

    Returns
    -------
    RemoteState
        The state.

    Raises
    ------
    IndexFormatError
        If it is of another format.
    """
    begins = connection.info.transaction_status == needed().pq.TransactionStatus.IDLE
    with connection.transaction():
        if begins:  # else a writer reads, who holds the archive
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        row = connection.execute(
            composed(address, f"SELECT {', '.join(_COLUMNS)} FROM {{archive}}")
        ).fetchone()
        if row is None or row[0] != FORMAT:
            raise IndexFormatError(
                f"{address}: got an archive of format {None if row is None else row[0]}; this release reads "
                f"{FORMAT}"
            )
        facts = dict(zip(_COLUMNS, row, strict=True))
        if before is not None and before.identity != str(facts["id"]):
            before = None
        slides, removed = _slides(connection, address, facts, before)
        tree = _tree(connection, address, facts, before)
        servers = {part.server for part in parts_of(connection, address, facts["patches"])} - {None}
        distance = _distance(connection, servers)
    records = Records(facts["barcode_bytes"] or 1, facts["vector_bytes"])
    reader = Reader(address, facts["patches"], records, facts["slides"], read)
    patches = remote_patches(slides, reader)
    record = SegmentRecord(facts["patches"], len(slides), len(patches), "", None, {})
    manifest = Manifest(
        facts["header"],
        facts["generation"],
        key_orders=None if facts["barcode_bytes"] is None else 1,
        barcode_bytes=facts["barcode_bytes"],
        vector_bytes=facts["vector_bytes"],
        measured=facts["measured"],
    )
    parts = (RemoteSegment(record, patches, removed),) if len(slides) else ()
    counts = np.frombuffer(facts["counts"], "<i4")
    identity = str(facts["id"])
    return RemoteState(
        Path(), manifest, parts, tree, address, reader, counts, distance, identity, bool(servers)
    )


_COLUMNS = (
    "format", "id", "generation", "header", "measured", "patches", "slides", "rows_changed", "barcode_bytes",
    "vector_bytes", "counts",
)  # fmt: skip


def _slides(
    connection: Connection[Any], address: Address, facts: Mapping[str, Any], before: RemoteState | None
) -> tuple[SlideTable, frozenset[int]]:
    """Return the slides, and the numbers of the removed ones; read only new ones if no other changed."""
    tables, removed, first = list[SlideTable](), frozenset[int](), 0
    if before is not None and before.segments and facts["rows_changed"] <= before.generation:
        tables, removed = [before.segments[0].patches.slides], before.segments[0].removed
        first = len(tables[0])
    names = ", ".join(SLIDE_COLUMNS)
    ask = f"SELECT {names}, removed FROM {{slide}} WHERE number >= %s AND number < %s ORDER BY number"
    rows = connection.execute(composed(address, ask), [first, facts["slides"]]).fetchall()
    removed |= {number for number, row in enumerate(rows, first) if row[-1]}
    if rows or not tables:
        tables.append(SlideTable.of([slide_row(row[:-1]) for row in rows]))
    return (tables[0] if len(tables) == 1 else joined(tables)), removed


def _tree(
    connection: Connection[Any], address: Address, facts: Mapping[str, Any], before: RemoteState | None
) -> TreeFile | None:
    """Return the tree; it stays as long as the table of patches does."""
    if before is not None and before.tree_file is not None and before.reader.table == facts["patches"]:
        return before.tree_file
    row = connection.execute(composed(address, "SELECT tree FROM {archive}")).fetchone()
    if row is None or row[0] is None:
        return None
    data = bytes(row[0])
    return TreeFile(Path("tree.safetensors"), FileRecord.of(data), np.frombuffer(data, np.uint8))


def slide_row(values: tuple[Any, ...]) -> SlideRow:
    """Return a slide's row of the values of `SLIDE_COLUMNS`."""
    return SlideRow(**dict(zip(SLIDE_COLUMNS, values, strict=True)))


def slide_values(row: SlideRow) -> list[Any]:
    """Return the values of `SLIDE_COLUMNS` of a slide's row."""
    own = replace(row, metadata=dict(row.metadata))
    return [json.dumps(value) if name == "metadata" else value for name, value in
            ((name, getattr(own, name)) for name in SLIDE_COLUMNS)]  # fmt: skip


def tree_in(state: State) -> TextureTree | None:
    """Return the tree of a state, or None."""
    arrays = state.tree
    return None if arrays is None else TextureTree.from_arrays(arrays)


def _distance(connection: Connection[Any], servers: Set[str | None]) -> str:
    """Return SQL for the distance of two barcodes: pgvector's where all servers have it, else bit_count."""
    found = connection.execute(
        "SELECT n.nspname FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace "
        "WHERE o.oprname = '<~>' AND o.oprleft = 'bit'::regtype AND has_schema_privilege(n.oid, 'USAGE')"
    ).fetchone()
    if found is None or not servers <= servers_with(connection, "vector"):
        return "bit_count(p.barcode # q.barcode)"
    schema = found[0].replace('"', '""')
    for sign in "{}%":  # the text becomes a part of others, to which names and values are given
        schema = schema.replace(sign, 2 * sign)
    return f'(p.barcode OPERATOR("{schema}".<~>) q.barcode)'
