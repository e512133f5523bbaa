"""The patches of an archive in PostgreSQL, read where something asks for them.

A `Snapshot` of columns that are not arrays in memory: indexing one reads those patches. Their numbers count
slide after slide, each in its own order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sish.errors import IndexCorruptError
from sish.index.postgres.addresses import Address
from sish.index.postgres.connection import composed
from sish.index.postgres.records import Records
from sish.index.postgres.schema import ROW_BITS
from sish.index.store.slide_table import SlideTable
from sish.index.store.snapshot import Snapshot

if TYPE_CHECKING:
    from psycopg import Connection

_ARRAY_HEADER = 20  # bytes of a binary array of one dimension before its elements
_ELEMENT = np.dtype([("length", ">i4"), ("value", ">i8")])
_TOGETHER = 1 << 15  # patches that are read by one statement


@dataclass(frozen=True, slots=True)
class Reader:
    """How the patches of one state of an archive are read."""

    address: Address
    """The archive."""
    table: str
    """Its table of patches."""
    records: Records
    """How they are written."""
    slides: int
    """Number of slides of the state; patches of others are not its own."""
    read: Callable[[Callable[[Connection[Any]], Any]], Any] = field(repr=False)
    """Calls a function with a connection: `Database.read`, or within a writer's transaction."""

    def patches(
        self, slide: NDArray[np.integer], row: NDArray[np.integer], columns: tuple[str, ...]
    ) -> NDArray[Any]:
        """Return some columns of patches, in the order in which they are named; numbers are as in the table.

        Parameters
        ----------
        slide, row : int (N,)
            Their slides, and their numbers in these.
        columns : tuple of str
            Names of columns.

        Returns
        -------
        structured array (N,)
            As of `Records.dtype`; ``slide`` and ``row`` are columns, too.

        Raises
        ------
        IndexCorruptError
            If one is missing.
        """
        names = tuple(dict.fromkeys(("slide", "row", *columns)))
        parts = [np.empty(0, self.records.dtype(names))]
        for start in range(0, len(slide), _TOGETHER):
            some = slice(start, start + _TOGETHER)
            parts.append(self._some(slide[some].astype(np.int64), row[some], names))
        return np.concatenate(parts)

    def of_slides(self, slides: NDArray[np.integer], columns: tuple[str, ...]) -> NDArray[Any]:
        """Return some columns of all patches of some slides, in no order."""
        names = ", ".join(f'p."{name}"' for name in columns)
        return self.copied(
            f"SELECT {names} FROM {{patch}} p WHERE p.slide = ANY(%s)", columns, slides.tolist()
        )

    def in_key_order(self, removed: NDArray[np.integer]) -> NDArray[Any]:
        """Return all columns of all patches but those of removed slides, in key order."""
        columns = self.records.columns
        names = ", ".join(f'p."{name}"' for name in columns)
        return self.copied(
            f"SELECT {names} FROM {{patch}} p WHERE p.slide < %s AND p.slide <> ALL(%s::int[]) "
            'ORDER BY p.key, p.slide, p."row"',
            columns,
            self.slides,
            removed.tolist(),
        )

    def arrays(self, statement: str, values: Mapping[str, Any]) -> list[tuple[int, NDArray[np.int64]]]:
        """Return what a statement selects: numbers, each with an array of bigint; one of NULL is left out."""
        query = composed(self.address, statement, patch=self.table)

        def ask(connection: Connection[Any]) -> list[tuple[int, NDArray[np.int64]]]:
            cursor = connection.cursor(binary=True)
            cursor.execute(query, values)
            result = cursor.pgresult
            assert result is not None
            found = []
            for place in range(result.ntuples):
                number, data = result.get_value(place, 0), result.get_value(place, 1)
                if number is not None and data is not None:
                    elements = np.frombuffer(data, _ELEMENT, offset=_ARRAY_HEADER)["value"]
                    found.append((int.from_bytes(number, "big"), elements.astype(np.int64)))
            return found

        arrays: list[tuple[int, NDArray[np.int64]]] = self.read(ask)
        return arrays

    def copied(self, statement: str, columns: tuple[str, ...], *values: object) -> NDArray[Any]:
        """Return what a statement selects, by a binary COPY."""
        query = composed(self.address, f"COPY ({statement}) TO STDOUT (FORMAT BINARY)", patch=self.table)

        def ask(connection: Connection[Any]) -> NDArray[Any]:
            with connection.cursor().copy(query, values) as copy:
                return np.concatenate([*self.records.stream(iter(copy), columns)])

        found: NDArray[Any] = self.read(ask)
        return found

    def _some(
        self, slide: NDArray[np.int64], row: NDArray[np.integer], columns: tuple[str, ...]
    ) -> NDArray[Any]:
        """Return some columns of patches: each slide's at once, as another server may hold them."""
        wanted, places = np.unique((slide << ROW_BITS) | row, return_inverse=True)
        slides, begins = np.unique(wanted >> ROW_BITS, return_index=True)
        names = ", ".join(f'p."{name}"' for name in columns)
        found = self.copied(
            f"""
            SELECT {names}
            FROM (
                SELECT u.slide, (%s::int[])[u.begins:u.ends] AS rows
                FROM unnest(%s::int[], %s::int[], %s::int[]) AS u(slide, begins, ends)
                OFFSET 0
            ) q,
            LATERAL (
                SELECT {names} FROM {{patch}} p WHERE p.slide = q.slide AND p."row" = ANY(q.rows) OFFSET 0
            ) p""",
            columns,
            (wanted & ((1 << ROW_BITS) - 1)).tolist(),
            slides.tolist(),
            (begins + 1).tolist(),
            [*begins[1:].tolist(), len(wanted)],
        )
        own = (found["slide"].astype(np.int64) << ROW_BITS) | found["row"]
        order = np.argsort(own)
        if not np.array_equal(own[order], wanted):
            raise IndexCorruptError(
                f"{self.address}: {len(wanted)} patches are wanted and {len(found)} are there: "
                "see sish index verify",
                path=str(self.address),
            )
        return found[order[places]]


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the patches of a state, to be indexed by their numbers."""

    reader: Reader
    ends: NDArray[np.integer]
    """Where the patches of each slide end, (slides,)."""
    names: tuple[str, ...]
    dtype: np.dtype[Any]
    width: int | None
    """Values of a patch; None for a column of single numbers."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self),) if self.width is None else (len(self), self.width)

    @property
    def nbytes(self) -> int:
        return len(self) * (self.width or 1) * self.dtype.itemsize

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, wanted: Any) -> NDArray[Any]:
        numbers, rest = wanted if isinstance(wanted, tuple) else (wanted, slice(None))
        if isinstance(numbers, slice):
            numbers = np.arange(len(self))[numbers]
        slide, row = places(self.ends, np.asarray(numbers))
        values = self._values(slide, row).astype(self.dtype)
        return values if self.width is None else values[:, rest]

    def _values(self, slide: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[Any]:
        if self.names == ("slide",):
            return slide
        if self.names == ("row",):
            return row
        found = self.reader.patches(slide, row, self.names)
        if self.width == len(self.names):
            return np.stack([found[name] for name in self.names], axis=1)
        return np.asarray(found[self.names[0]])


class _Identity:
    """Patches lie in the order of their slides: each is in its own place."""

    def __getitem__(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return numbers


def places(
    ends: NDArray[np.integer], numbers: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the slide (N,) and the row (N,) of patches that are numbered slide after slide."""
    slide = np.searchsorted(ends, numbers, "right")
    begins = np.concatenate([[0], ends])
    return slide, numbers - begins[slide]


def remote_patches(slides: SlideTable, reader: Reader) -> Snapshot:
    """Return the patches of a state, those of removed slides included."""
    records = reader.records

    def column(names: tuple[str, ...], dtype: Any, width: int | None) -> Any:
        return _Column(reader, slides.patch_ends, names, np.dtype(dtype), width)

    kept = records.vector_bytes
    return Snapshot(
        slides,
        keys=column(("key",), np.int64, 1),
        barcodes=column(("barcode",), np.uint8, records.barcode_bytes),
        l0_xy=column(("x", "y"), np.int64, 2),
        slide=column(("slide",), np.int32, None),
        row=column(("row",), np.int32, None),
        by_slide=cast(Any, _Identity()),
        vectors=None if kept is None else column(("vector",), np.uint8, kept),
    )


def snapshot_of(slides: SlideTable, removed: NDArray[np.bool_], reader: Reader) -> Snapshot:
    """Return all patches of slides that were not removed, in memory and in key order."""
    kept = reader.records.vector_bytes
    found = reader.in_key_order(np.flatnonzero(removed))
    live = np.flatnonzero(~removed)
    number = np.cumsum(~removed) - 1
    return Snapshot(
        slides.take(live),
        keys=found["key"].astype(np.int64)[:, None],
        barcodes=np.ascontiguousarray(found["barcode"]),
        l0_xy=np.stack([found["x"], found["y"]], axis=1).astype(np.int64),
        slide=number[found["slide"]].astype(np.int32),
        row=found["row"].astype(np.int32),
        vectors=None if kept is None else np.ascontiguousarray(found["vector"]),
    )
