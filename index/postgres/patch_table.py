"""The table of an archive's patches: made, filled, and made anew with other keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sish.index.postgres.addresses import Address
from sish.index.postgres.connection import composed, needed
from sish.index.postgres.records import END, HEADER, Records
from sish.index.postgres.schema import INDEXES, PARTITION, PATCHES, PLAIN
from sish.index.store.snapshot import Snapshot

if TYPE_CHECKING:
    from psycopg import Connection

_TOGETHER = 1 << 14  # records that are written at a time
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

    @property
    def number(self) -> int:
        """The number at the end of its name."""
        return int(self.name.rpartition("_")[2])

    def create(self, bounds: Sequence[int] = ()) -> None:
        """Make the table, without indexes.

        Parameters
        ----------
        bounds : sequence of int
            The keys at which partitions begin, ascending, but for the first one.
        """
        bits = needed().sql.Literal(8 * self.records.barcode_bytes)
        self._execute(PATCHES, bits=bits)
        sql = needed().sql
        edges = [sql.SQL(_LEAST), *map(sql.Literal, bounds), sql.SQL(_MOST)]
        for number, (low, high) in enumerate(pairwise(edges)):
            part = self.part(number)
            self._execute(PARTITION, part, low=low, high=high)
            self._execute(PLAIN, part)

    def part(self, number: int) -> str:
        """Return the name of a partition."""
        return f"{self.name}_p{number}"

    def finish(self) -> None:
        """Make its indexes, and let the planner know its size."""
        sql = needed().sql
        names = {"key_index": f"{self.name}_key", "row_index": f"{self.name}_row"}
        for statement in INDEXES:
            self._execute(statement, **{name: sql.Identifier(index) for name, index in names.items()})
        self._execute("ANALYZE {patch}")

    def delete_from(self, slides: int) -> None:
        """Delete what a writer left that died after the table's own part of its work: slides beyond these."""
        self._execute("DELETE FROM {patch} WHERE slide >= %s", values=[slides])

    def copy(self, patches: Snapshot, first_slide: int, nth: NDArray[np.integer]) -> None:
        """Write patches in key order; their slides are numbered from `first_slide` on."""
        names = ", ".join(f'"{name}"' for name in self.records.columns)
        statement = composed(
            self.address, f"COPY {{patch}} ({names}) FROM STDIN (FORMAT BINARY)", patch=self.name
        )
        with self.connection.cursor().copy(statement) as copy:
            copy.write(HEADER)
            for start in range(0, len(patches), _TOGETHER):
                some = slice(start, start + _TOGETHER)
                copy.write(self._records(patches, some, first_slide, nth[some]).tobytes())
            copy.write(END)

    def _records(
        self, patches: Snapshot, some: slice, first_slide: int, nth: NDArray[np.integer]
    ) -> NDArray[Any]:
        records = self.records.empty(len(nth))
        records["key"], records["nth"] = patches.keys[some, 0], nth
        records["x"], records["y"] = patches.l0_xy[some, 0], patches.l0_xy[some, 1]
        records["slide"], records["row"] = patches.slide[some] + first_slide, patches.row[some]
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
            key, join = "k.key", 'JOIN pg_temp.rekeyed k ON k.slide = p.slide AND k."row" = p."row"'
        vector = ", vector" if self.records.vector_bytes is not None else ""
        statement = composed(
            self.address,
            f"""
            INSERT INTO {{new}} (key, x, y, nth, slide, "row", barcode{vector})
            SELECT {key} AS key, p.x, p.y,
                   row_number() OVER (PARTITION BY {key} ORDER BY s.own, p."row") - 1,
                   s.own, p."row", p.barcode{vector}
            FROM {{patch}} p {join}
            JOIN (SELECT number, place - 1 AS own
                  FROM unnest(%s::int[]) WITH ORDINALITY AS n(number, place)) s ON s.number = p.slide
            ORDER BY {key}, s.own, p."row"
            """,
            new=new.name,
            patch=self.name,
        )
        self.connection.execute(statement, [numbers.tolist()])
        self._execute("DROP TABLE {patch}")

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
        How many are wanted; there are fewer if there are fewer keys.

    Returns
    -------
    list of int
        Keys, ascending.

    Examples
    --------
    >>> bounds_of(np.array([0, 0, 1, 1, 2, 3]), 3), bounds_of(np.array([4, 4]), 3)
    ([1, 2], [])
    """
    places = [len(keys) * part // partitions for part in range(1, partitions)]
    found = sorted({int(keys[place]) for place in places if len(keys)})
    return [key for key in found if key > keys[0]]
