"""The table of an archive's patches: made, filled, and made anew with other keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import StoreError
from sish.index.postgres.addresses import Address
from sish.index.postgres.connection import composed, needed
from sish.index.postgres.foreign import Part, Servers, parts_of
from sish.index.postgres.records import END, HEADER, Records
from sish.index.postgres.schema import FOREIGN, INDEXES, PARTITION, PATCHES, PLAIN, ROW_BITS
from sish.index.store.snapshot import Snapshot

if TYPE_CHECKING:
    from psycopg import Connection, Copy

_TOGETHER = 1 << 14  # records that are written at a time
_FARTHEST = 2**31 - 1  # level-0 pixels: places are 32 bits wide
_LEAST, _MOST = "MINVALUE", "MAXVALUE"


@dataclass(frozen=True, slots=True)
class PatchTable:
    """A table of patches, seen by the transaction of a writer."""

    connection: Connection[Any]
    """The writer's."""
    address: Address
    """The archive."""
    name: str
    """The table."""
    records: Records
    """How its patches are written."""
    servers: Servers
    """Those that hold its partitions."""

    @property
    def number(self) -> int:
        """The number at the end of its name."""
        return int(self.name.rpartition("_")[2])

    @property
    def parts(self) -> list[Part]:
        """Its partitions, in the order of their keys."""
        return parts_of(self.connection, self.address, self.name)

    def create(self, bounds: Sequence[int] = (), servers: Sequence[str | None] = (None,)) -> None:
        """Make the table, without indexes.

        Parameters
        ----------
        bounds : sequence of int
            The keys at which partitions begin, ascending, but for the first one.
        servers : sequence of str or None
            The foreign server of each partition in turn, again and again; None for this server.
        """
        sql = needed().sql
        bits = 8 * self.records.barcode_bytes
        self._execute(PATCHES, bits=sql.Literal(bits))
        edges = [sql.SQL(_LEAST), *map(sql.Literal, bounds), sql.SQL(_MOST)]
        for number, (low, high) in enumerate(pairwise(edges)):
            part, server = f"{self.name}_p{number}", servers[number % len(servers)]
            if server is None:
                self._execute(PARTITION, part, low=low, high=high)
                self._execute(PLAIN, part)
                continue
            made = self.servers.make(part, server, bits)
            options = {"remote_schema": sql.Literal(made.schema), "remote_table": sql.Literal(made.table)}
            self._execute(FOREIGN, part, low=low, high=high, server=sql.Identifier(server), **options)

    def finish(self) -> None:
        """Make its indexes, and let the planners know its size."""
        parts = self.parts
        self._index(self.connection, self.address, self.name)
        for part in parts:
            if part.server is not None:
                with self.servers.using(part) as (connection, place):
                    self._index(connection, place, part.table)
        if all(part.server is None for part in parts):
            self._execute("ANALYZE {patch}")
            return
        for part in parts:  # all at once, the others would have to send all of their patches
            with self.servers.using(part) as (connection, place):
                connection.execute(composed(place, "ANALYZE {patch}", patch=part.table))

    def delete_from(self, slides: int) -> None:
        """Delete what a writer left that died after the table's own part of its work: slides beyond these."""
        for part in self.parts:
            with self.servers.using(part) as (connection, place):
                query = composed(place, "DELETE FROM {patch} WHERE slide >= %s", patch=part.table)
                connection.execute(query, [slides])

    def copy(self, patches: Snapshot, first_slide: int, nth: NDArray[np.integer]) -> None:
        """Write patches in key order; their slides are numbered from `first_slide` on."""
        parts = self.parts
        lows = [part.low for part in parts[1:]]
        places = np.searchsorted(patches.keys[:, 0].astype(np.int64), np.array(lows, np.int64))
        for part, (begin, end) in zip(parts, pairwise([0, *places.tolist(), len(patches)]), strict=True):
            if begin < end:
                self._copy_into(part, patches, range(begin, end), first_slide, nth)

    def _copy_into(
        self, part: Part, patches: Snapshot, own: range, first_slide: int, nth: NDArray[np.integer]
    ) -> None:
        """Write the patches of one partition."""
        with self._copying(part) as copy:
            copy.write(HEADER)
            for start in own[::_TOGETHER]:
                some = slice(start, min(start + _TOGETHER, own.stop))
                copy.write(self._records(patches, some, first_slide, nth[some]).tobytes())
            copy.write(END)

    @contextmanager
    def _copying(self, part: Part) -> Iterator[Copy]:
        """Begin a COPY into a partition, on the server that holds it."""
        names = ", ".join(f'"{name}"' for name in self.records.columns)
        with self.servers.using(part) as (connection, place):
            statement = f"COPY {{patch}} ({names}) FROM STDIN (FORMAT BINARY)"
            with connection.cursor().copy(composed(place, statement, patch=part.table)) as copy:
                yield copy

    def _records(
        self, patches: Snapshot, some: slice, first_slide: int, nth: NDArray[np.integer]
    ) -> NDArray[Any]:
        records = self.records.empty(len(nth))
        slide, row, l0_xy = patches.slide[some] + first_slide, patches.row[some], patches.l0_xy[some]
        if np.abs(l0_xy.astype(np.int64)).max(initial=0) > _FARTHEST:
            raise StoreError(
                f"{self.address}: got patches {np.abs(l0_xy).max()} pixels from the corner of their slide; "
                f"want at most {_FARTHEST}"
            )
        records["key"], records["nth"] = patches.keys[some, 0], nth
        records["x"], records["y"] = l0_xy[:, 0], l0_xy[:, 1]
        records["slide"], records["row"] = slide, row
        records["patch"] = (slide.astype(np.int64) << ROW_BITS) | row
        records["barcode"] = patches.barcodes[some]
        if patches.vectors is not None:
            records["vector"] = patches.vectors[some]
        return records

    def stream(self, statement: str, columns: tuple[str, ...], *values: object) -> Iterator[NDArray[Any]]:
        """Yield what a statement selects, some records at a time."""
        query = composed(self.address, f"COPY ({statement}) TO STDOUT (FORMAT BINARY)", patch=self.name)
        with self.connection.cursor().copy(query, values) as copy:
            yield from self.records.stream(iter(copy), columns)

    def renew(
        self, new: PatchTable, numbers: NDArray[np.integer], keys: Iterator[NDArray[Any]] | None
    ) -> None:
        """Fill a new table with the patches of some slides, and drop this one.

        Parameters
        ----------
        new : PatchTable
            The new table, made and empty.
        numbers : int (N,)
            The slides that stay; their places here are their new numbers.
        keys : iterator of structured array, optional
            New keys: records of ``key``, ``slide`` and ``row``. Default: keys stay.
        """
        key = "p.key"
        join = ""
        if keys is not None:
            self.connection.execute(
                'CREATE TEMP TABLE rekeyed (key int, slide int, "row" int) ON COMMIT DROP'
            )
            with self.connection.cursor().copy("COPY rekeyed FROM STDIN (FORMAT BINARY)") as copy:
                copy.write(HEADER)
                for records in keys:
                    copy.write(records.tobytes())
                copy.write(END)
            self.connection.execute("ANALYZE rekeyed")
            key, join = "k.key::bigint", 'JOIN pg_temp.rekeyed k ON k.slide = p.slide AND k."row" = p."row"'
        vector = ", p.vector" if self.records.vector_bytes is not None else ""
        statement = f"""
            SELECT {key} AS key, (s.own << {ROW_BITS}) | p."row" AS patch, p.x, p.y,
                   (row_number() OVER (PARTITION BY {key} ORDER BY s.own, p."row") - 1)::int AS nth,
                   s.own::int AS slide, p."row", p.barcode{vector}
            FROM {{patch}} p {join}
            JOIN (SELECT number, place - 1 AS own
                  FROM unnest(%s::int[]) WITH ORDINALITY AS n(number, place)) s ON s.number = p.slide
            WHERE width_bucket({key}, %s::bigint[]) = ANY(%s::int[])
            ORDER BY {key}, s.own, p."row"
            """
        self._fill(new, statement, numbers)
        self.servers.replaced(self.parts)
        self._execute("DROP TABLE {patch}")

    def _fill(self, new: PatchTable, statement: str, numbers: NDArray[np.integer]) -> None:
        """Fill a new table with what a statement selects of this one for some of its partitions at a time."""
        parts = new.parts
        values = [numbers.tolist(), [part.low for part in parts[1:]]]
        here = [number for number, part in enumerate(parts) if part.server is None]
        names = ", ".join(f'"{name}"' for name in self.records.columns)
        insert = composed(
            self.address, f"INSERT INTO {{new}} ({names}) {statement}", new=new.name, patch=self.name
        )
        self.connection.execute(insert, [*values, here])
        query = composed(self.address, f"COPY ({statement}) TO STDOUT (FORMAT BINARY)", patch=self.name)
        for number, part in enumerate(parts):
            if part.server is not None:
                source = self.connection.cursor().copy(query, [*values, [number]])
                with source as selected, new._copying(part) as copy:
                    for data in selected:
                        copy.write(data)

    def _index(self, connection: Connection[Any], place: Address, table: str) -> None:
        """Make the indexes of the table, or of a partition's table on another server."""
        sql = needed().sql
        names = {"key_index": f"{table}_key", "row_index": f"{table}_row"}
        own = {name: sql.Identifier(index) for name, index in names.items()}
        for statement in INDEXES:
            query = sql.SQL(statement).format(patch=sql.Identifier(place.schema, table), **own)
            connection.execute(query)

    def _execute(self, statement: str, part: str | None = None, values: Any = None, **parts: Any) -> None:
        """Run a statement on the table; `part` is the name of a partition, `parts` are pieces of SQL."""
        sql = needed().sql
        names = {"patch": self.name, "part": part or self.name}
        own = {name: sql.Identifier(self.address.schema, table) for name, table in names.items()}
        self.connection.execute(sql.SQL(statement).format(**own, **parts), values)


def nth_of(keys: NDArray[np.integer], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which patch of its key each patch is, (N,), behind those that are counted already.

    Parameters
    ----------
    keys : int (N,)
        Ascending.
    counts : int64 (keys,)
        Patches of each key before.

    Returns
    -------
    int64 (N,)
        The numbers.

    Examples
    --------
    >>> nth_of(np.array([0, 0, 2]), np.array([5, 0, 1])).tolist()
    [5, 6, 1]
    """
    first = np.searchsorted(keys, keys)
    nth: NDArray[np.int64] = np.arange(len(keys)) - first + counts[keys]
    return nth


def bounds_of(keys: NDArray[np.integer], partitions: int) -> list[int]:
    """Return the keys at which partitions but the first begin, for about equal numbers of patches.

    Parameters
    ----------
    keys : int (N,)
        Ascending.
    partitions : int
        How many are wanted; those without keys of their own come last, for keys to come.

    Returns
    -------
    list of int
        Keys, ascending.

    Examples
    --------
    >>> bounds_of(np.array([0, 0, 1, 1, 2, 3]), 3), bounds_of(np.array([4, 4]), 3)
    ([1, 2], [5, 6])
    """
    places = [len(keys) * part // partitions for part in range(1, partitions)]
    found = sorted({int(keys[place]) for place in places if keys[place] > keys[0]} if len(keys) else ())
    after = 1 + int(keys[-1]) if len(keys) else 1
    return [*found, *range(after, after + len(places) - len(found))]
