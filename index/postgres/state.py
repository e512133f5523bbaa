"""One committed state of an archive in PostgreSQL: slides, header, tree and counts; patches stay there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
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
from sish.index.postgres.patches import Reader, remote_patches, snapshot_of
from sish.index.postgres.records import Records
from sish.index.postgres.schema import FORMAT, SLIDE_COLUMNS
from sish.index.store.disk import FileRecord
from sish.index.store.manifest import Manifest, SegmentRecord
from sish.index.store.segment import Segment
from sish.index.store.slide_row import SlideRow
from sish.index.store.slide_table import SlideTable
from sish.index.store.snapshot import Snapshot
from sish.index.store.state import State
from sish.index.store.tree_file import TreeFile
from sish.index.texture.tree import TextureTree

if TYPE_CHECKING:
    from psycopg import Connection


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
        return self._snapshot

    @cached_property
    def _snapshot(self) -> Snapshot:
        return snapshot_of(self._segment.patches.slides, self._segment.removed_mask, self.reader)

    def archive(self, tree: TextureTree) -> RemoteArchive:
        """Return its patches, to be searched through the tree."""
        segment = self._segment
        return remote_archive(
            tree, self.counts, segment.patches.slides, segment.removed_mask, self.reader, self.distance
        )


def read_state(
    address: Address,
    connection: Connection[Any],
    read: Callable[[Callable[[Connection[Any]], Any]], Any],
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
        slides = connection.execute(composed(address, _SLIDES), [row[5]]).fetchall()
        distance = _distance(connection)
    facts = dict(zip(_COLUMNS, row, strict=True))
    return _state(address, facts, slides, distance, read)


_COLUMNS = (
    "format", "generation", "header", "measured", "patches", "slides", "barcode_bytes", "vector_bytes",
    "counts", "tree",
)  # fmt: skip
_SLIDES = f"SELECT {', '.join(SLIDE_COLUMNS)}, removed FROM {{slide}} WHERE number < %s ORDER BY number"


def _state(
    address: Address,
    facts: Mapping[str, Any],
    slides: list[tuple[Any, ...]],
    distance: str,
    read: Callable[[Callable[[Connection[Any]], Any]], Any],
) -> RemoteState:
    """Return the state of what was read."""
    table = SlideTable.of([slide_row(row[:-1]) for row in slides])
    removed = frozenset(number for number, row in enumerate(slides) if row[-1])
    records = Records(facts["barcode_bytes"] or 1, facts["vector_bytes"])
    reader = Reader(address, facts["patches"], records, facts["slides"], read)
    patches = remote_patches(table, reader)
    record = SegmentRecord(facts["patches"], len(table), len(patches), "", None, {})
    manifest = Manifest(
        facts["header"],
        facts["generation"],
        key_orders=None if facts["barcode_bytes"] is None else 1,
        barcode_bytes=facts["barcode_bytes"],
        vector_bytes=facts["vector_bytes"],
        measured=facts["measured"],
    )
    return RemoteState(
        Path(),
        manifest,
        (RemoteSegment(record, patches, removed),) if len(table) else (),
        _tree_file(facts["tree"]),
        address,
        reader,
        np.frombuffer(facts["counts"], "<i4"),
        distance,
    )


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


def _tree_file(data: bytes | None) -> TreeFile | None:
    """Return a tree as a state holds it."""
    if data is None:
        return None
    record = FileRecord.of(memoryview(data))
    return TreeFile(Path("tree.safetensors"), record, np.frombuffer(data, np.uint8))


def _distance(connection: Connection[Any]) -> str:
    """Return SQL for the distance of two barcodes: pgvector's where it is, else the engine's own."""
    found = connection.execute(
        "SELECT n.nspname FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace "
        "WHERE o.oprname = '<~>' AND o.oprleft = 'bit'::regtype"
    ).fetchone()
    if found is None:
        return "bit_count(p.barcode # q.barcode)"
    schema = '"' + found[0].replace('"', '""') + '"'
    return f"(p.barcode OPERATOR({schema}.<~>) q.barcode)::int"
