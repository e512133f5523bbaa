"""The engines of `benchmarks.postgres`: pgvector's indexes, and ours in the same server and in a folder."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import psycopg
from numpy.typing import NDArray

from benchmarks.postgres_data import Barcodes
from benchmarks.rivals import K
from sish.slide_index import Index

_COPY_HEADER, _COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), struct.pack(">h", -1)
_ROW = np.dtype([
    ("columns", ">i2"), ("id_bytes", ">i4"), ("id", ">i4"), ("bytes", ">i4"), ("bits", ">i4"),
    ("barcode", "u1", 128),
])  # fmt: skip
_TOGETHER = 20_000  # rows that are sent at once
_NEAREST = """
    SELECT q.number, p.distance FROM unnest(%s::bit(1024)[]) WITH ORDINALITY q(barcode, number),
    LATERAL (SELECT barcode <~> q.barcode AS distance FROM {table} ORDER BY distance LIMIT {k}) p
"""


class Client(Protocol):
    """A client of an engine."""

    def search(self, queries: Barcodes, setting: int) -> list[NDArray[np.int64]]:
        """Return the distances of the nearest found for each query patch, ascending."""


@dataclass(frozen=True, slots=True)
class Graph:
    """An index of pgvector: how it is made, and what trades time for recall."""

    name: str
    table: str
    made: str
    """Its definition, after ``USING``."""
    setting: str
    """Name of the setting."""
    settings: tuple[int, ...]

    def load(self, connection: psycopg.Connection[Any], barcodes: Barcodes) -> float:
        """Make its table, and fill it; return the seconds."""
        table = self.table
        connection.execute(f"CREATE TABLE {table} (id int, barcode bit(1024))".encode())
        connection.execute(f"ALTER TABLE {table} ALTER barcode SET STORAGE PLAIN".encode())
        start = time.perf_counter()
        with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)".encode()) as copy:
            copy.write(_COPY_HEADER)
            for first in range(0, len(barcodes), _TOGETHER):
                copy.write(_records(first, barcodes[first : first + _TOGETHER]))
            copy.write(_COPY_END)
        seconds = time.perf_counter() - start
        connection.execute(f"VACUUM ANALYZE {table}".encode())
        return seconds

    def build(self, connection: psycopg.Connection[Any]) -> float:
        """Build it; return the seconds."""
        start = time.perf_counter()
        connection.execute(f"CREATE INDEX ON {self.table} USING {self.made}".encode())
        return time.perf_counter() - start


def pgvector_indexes(n: int) -> tuple[Graph, ...]:
    """Return pgvector's two indexes, with the parameters that its manual advises for `n` rows."""
    lists = max(10, n // 1000) if n <= 1_000_000 else round(n**0.5)
    made = f"ivfflat (barcode bit_hamming_ops) WITH (lists = {lists})"
    probes = tuple(it for it in (1, 2, 4, 8, 16, 32, 64, 128) if it <= lists)
    efforts = 10, 20, 40, 80, 160, 320
    return (
        Graph("pgvector IVFFlat", "in_lists", made, "ivfflat.probes", probes),
        Graph("pgvector HNSW", "in_graph", "hnsw (barcode bit_hamming_ops)", "hnsw.ef_search", efforts),
    )


def _records(first: int, barcodes: Barcodes) -> bytes:
    """Return rows as a binary COPY has them."""
    rows = np.zeros(len(barcodes), _ROW)
    rows["columns"], rows["id_bytes"], rows["id"] = 2, 4, first + np.arange(len(barcodes))
    rows["bytes"], rows["bits"], rows["barcode"] = 132, 1024, barcodes
    return rows.tobytes()


@dataclass
class Rival:
    """A client of an index of pgvector."""

    connection: psycopg.Connection[Any]
    graph: Graph
    _set: int = field(default=0, repr=False)

    def search(self, queries: Barcodes, setting: int) -> list[NDArray[np.int64]]:
        """As in `Client`."""
        if setting != self._set:
            self.connection.execute(f"SET {self.graph.setting} = {setting}".encode())
            self._set = setting
        texts = ["".join(map(str, row)) for row in np.unpackbits(queries, axis=1).tolist()]
        statement = _NEAREST.format(table=self.graph.table, k=K).encode()
        found = np.array(self.connection.execute(statement, (texts,), prepare=True).fetchall(), np.int64)
        return [found[found[:, 0] == number, 1] for number in range(1, len(queries) + 1)]


@contextmanager
def rival(dsn: str, graph: Graph) -> Iterator[Rival]:
    """Yield a client of pgvector's index; the server scans nothing, and answers in one process."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET max_parallel_workers_per_gather = 0")
        yield Rival(connection, graph)


@dataclass(frozen=True, slots=True)
class Ours:
    """A client of an index of sish, wherever that is."""

    index: Index

    def search(self, queries: Barcodes, setting: int) -> list[NDArray[np.int64]]:
        """As in `Client`; the setting is the budget."""
        archive: Any = self.index.state_and_view()[1].searcher.archive  # type: ignore[attr-defined]
        bags = archive.search(queries, k=K, budget=setting)
        return [part.astype(np.int64) for part in np.split(bags.hamming, bags.offset[1:-1])]


@contextmanager
def ours(address: str) -> Iterator[Ours]:
    """Yield a client of an index of sish at a path or an address."""
    yield Ours(Index.open(address))
