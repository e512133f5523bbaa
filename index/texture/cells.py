"""The search of a texture tree: bounded walks over key ranges, nearest cells first.

An archive is a sequence of tables, each in key order (`KeyTable`: a segment of the store, mapped from its
files or not). A query patch with barcode h is answered in three steps:

1. It is compared with the tree's top nodes. Those at most a third farther than the nearest are *opened*, and
   farther ones until they hold 8 times the budget. Their nodes are compared and opened in the same
   way: a query that lies among the archive's textures opens half a dozen, one that lies apart from all of
   them more. (A small tree has no top nodes: it begins with its nodes.) Comparing h with the leaves of an
   opened node gives *cells*, each one key. A node that holds few patches is not opened: all its keys
   together are one cell. So a small archive is walked by prefixes of the same keys, and the tree grows
   deeper as the archive does.
2. Cells are taken in order of their distance from h until they hold `budget` patches.
3. A cell is a range of keys, hence adjacent rows in every table: they are compared with h eight at a time,
   in place, while the next cell is being fetched. The k nearest stay.

So a query looks at no more than `budget` patches however large the archive is, where the published search
looks at 15,000 keys; and what it looks at are whole neighbourhoods of barcodes, not of an average. A
directory says where each key's rows begin (the successor of a key, looked up instead of walked to); it takes
8 bytes a leaf and table. Adding patches is another table, removing slides a mask; nothing is rebuilt.

A budget of the whole archive compares with everything and is exact. Results are sorted by distance, then in
insertion order (slide number, then row), and do not depend on how patches are spread over tables, on
threads, or on the order of queries; only which of the last cell's patches still fit into the budget does,
where tables are not in insertion order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError
from sish.index.bags import Bags
from sish.index.compiled import as_barcodes, frozen
from sish.index.params import BUDGET
from sish.index.table import KeyTable, checked_mask
from sish.index.texture.kernel import search_cells
from sish.index.texture.tree import TextureTree

__all__ = ["Cells"]


@dataclass(frozen=True, slots=True)
class Cells:
    """A tree and the tables that are searched by it. Made by `of`; `adding` gives one with another table."""

    tree: TextureTree
    """What the tables' keys were made with."""
    tables: tuple[KeyTable, ...]
    """The archive; patch numbers count through all tables."""
    first_patch: NDArray[np.int64]
    """Number of the first patch of each table, (tables,)."""
    begins: NDArray[np.int64]
    """Where key c begins in table t, (keys + 1, tables)."""
    totals: NDArray[np.int64]
    """Where key c begins in all tables together, (keys + 1,)."""
    _kept: tuple[NDArray[Any], ...] = field(repr=False)  # what the addresses point into
    _fixed: tuple[NDArray[np.int64], NDArray[np.int64]] = field(repr=False)  # `Place` as an array, and spots

    @classmethod
    def of(cls, tree: TextureTree, tables: Sequence[KeyTable]) -> "Cells":
        """The cells of tables whose keys `tree` made: counts their patches, some milliseconds a million.

        >>> tree = TextureTree.learn(np.repeat(np.uint8([[0], [255]]), 8, axis=1), branching=(2, 1))
        >>> barcodes = np.uint8([[255] * 8, [1] * 8, [0] * 8])
        >>> table = KeyTable.build(tree.keys(barcodes), barcodes, [0, 1, 2])
        >>> bags = Cells.of(tree, [table]).search(np.uint8([[3] * 8]), k=2)
        >>> bags.patch.tolist(), bags.hamming.tolist()
        ([1, 2], [8, 16])
        """
        return cls._of(tree, tuple(tables), [_begins(tree, table) for table in tables])

    @classmethod
    def learn(cls, barcodes: ArrayLike, slide: ArrayLike | None = None, *, seed: int = 0) -> "Cells":
        """Learn a tree from all barcodes of an archive in memory, and return the cells of these patches.

        Parameters
        ----------
        barcodes : uint8 (P, B)
            P of at least 1, B a multiple of 8.
        slide : int (P,), optional
            Slide number of each barcode. Default: each is a slide of its own.
        seed : int
            Seed of the tree.

        Returns
        -------
        Cells
            Its searches answer with places in `barcodes`.

        Examples
        --------
        >>> cells = Cells.learn(np.repeat(np.uint8([[0], [255], [1]]), 8, axis=1))
        >>> cells.search(np.uint8([[1] * 8]), k=2).patch.tolist()
        [2, 0]
        """
        rows = as_barcodes(barcodes)
        tree = TextureTree.learn(rows, seed=seed)
        return cls.of(
            tree, [KeyTable.build(tree.keys(rows), rows, np.arange(len(rows)) if slide is None else slide)]
        )

    @classmethod
    def _of(cls, tree: TextureTree, tables: tuple[KeyTable, ...], begins: list[NDArray[np.int64]]) -> "Cells":
        kept: list[NDArray[Any]] = []
        spots = np.zeros((len(tables), 6), np.int64)
        first_patch = np.cumsum([0, *map(len, tables)], dtype=np.int64)[: len(tables)]
        for number, table in enumerate(tables):
            tree.check(table.barcodes)
            arrays = [np.ascontiguousarray(a) for a in (table.barcodes, table.slide, table.row)]
            addresses = [array.ctypes.data for array in arrays]
            kept += arrays
            spots[number] = *addresses, table.first_slide, first_patch[number], len(table)
        together = (
            np.ascontiguousarray(np.stack(begins, 1)) if begins else np.zeros((tree.n_keys + 1, 0), np.int64)
        )
        totals = together.sum(axis=1)
        node_totals = np.ascontiguousarray(totals[:: tree.shape[2]])
        kept += [tree.top_blocks, tree.node_blocks, tree.leaf_blocks, node_totals, totals, together]
        addresses = [array.ctypes.data for array in kept[-6:]]
        sizes = len(tables), *tree.shape, tree.barcode_bytes // 8
        fixed = np.array([*addresses, *sizes], np.int64), spots
        return cls(tree, tables, first_patch, together, totals, tuple(kept), fixed)

    def adding(self, table: KeyTable) -> "Cells":
        """These cells and one more table; nothing that is there is touched."""
        begins = [*self.begins.T, _begins(self.tree, table)]
        return self._of(self.tree, (*self.tables, table), begins)

    def __len__(self) -> int:
        """Number of patches."""
        return int(self.totals[-1])

    def search(
        self,
        query_barcodes: ArrayLike,
        *,
        k: int = 10,
        budget: int = BUDGET,
        exclude: NDArray[np.bool_] | None = None,
        threshold: int | None = None,
    ) -> Bags:
        """The `k` nearest patches of each query uint8 (Q, B) among the `budget` in the nearest cells.

        Patches of slide s are left out where `exclude[s]` is true: they do not count, as if they were not
        there, up to 8 budgets of rows walked. None farther than `threshold` bits comes back. A result's
        `patch` is the caller's number: its place in what `KeyTable.build` was given, counted through all
        tables. Raises ParameterError where the queries do not fit.
        """
        if k < 1 or budget < 1:
            raise ParameterError(f"k is {k} and budget {budget}; give at least 1 of each")
        rows = as_barcodes(query_barcodes, "query_barcodes")
        if rows.shape[1] != self.tree.barcode_bytes:
            raise ParameterError(
                f"query_barcodes have {rows.shape[1]} bytes and the archive's {self.tree.barcode_bytes}; "
                "encode them with the encoder of the index"
            )
        mask = checked_mask(exclude)
        most, total = 8 * rows.shape[1], len(self)
        offset, place, hamming = search_cells(
            *self._fixed, frozen(rows), mask, min(k, total), min(budget, total),
            most if threshold is None else min(threshold, most),
        )  # fmt: skip
        return Bags(offset, self._callers(place), hamming)

    def by_table(self, patches: NDArray[np.int64]) -> list[tuple[NDArray[np.bool_], int, NDArray[np.int64]]]:
        """Return, for each table that holds any: which of the patches, the table, and their numbers in it."""
        table = np.searchsorted(self.first_patch, patches, "right") - 1
        return [
            (table == number, int(number), patches[table == number] - self.first_patch[number])
            for number in np.unique(table)
        ]

    def _callers(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the caller's numbers of patches at some places of the tables, counted through all."""
        if all(table.position is None for table in self.tables):
            return places
        out = np.empty_like(places)
        for mine, table, own in self.by_table(places):
            out[mine] = self.tables[table].callers(own) + self.first_patch[table]
        return out


def _begins(tree: TextureTree, table: KeyTable) -> NDArray[np.int64]:
    """Where each key begins in a table, (keys + 1,); ParameterError where the keys are of another tree."""
    low, high = (int(table.keys.min()), int(table.keys.max())) if len(table) else (0, 0)
    if not 0 <= low <= high < tree.n_keys:
        raise ParameterError(
            f"keys run from {low} to {high} and the tree has {tree.n_keys}; "
            "make them with TextureTree.keys of this tree, and sort them"
        )
    begins = np.zeros(tree.n_keys + 1, np.int64)
    np.cumsum(np.bincount(table.keys, minlength=tree.n_keys), out=begins[1:])
    return begins
