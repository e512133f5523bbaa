"""The search of a texture tree: bounded walks over key ranges, nearest cells first.

An archive is a sequence of tables, each in key order (`CellTable`: a segment of the store, mapped from its
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

from sish.errors import ParameterError, QueryError
from sish.index.bags import Bags
from sish.index.compiled import as_barcodes
from sish.index.hamming_kernels import aligned
from sish.index.texture.kernel import search_cells
from sish.index.texture.tree import TextureTree

__all__ = ["BUDGET", "CellTable", "Cells"]

BUDGET = 4000
"""Patches that a query patch is compared with by default."""


@dataclass(frozen=True, slots=True)
class CellTable:
    """Patches in key order. Arrays are used as they are: memory maps stay on disk."""

    keys: NDArray[np.int64]
    """Key of each patch, (P,), ascending; patches of one key in insertion order."""
    barcodes: NDArray[np.uint8]
    """Barcode of each patch, (P, B)."""
    slide: NDArray[np.int32]
    """Slide number of each patch within this table, (P,)."""
    row: NDArray[np.int32]
    """Number of each patch within its slide, (P,)."""
    first_slide: int = 0
    """What to add to the slide numbers."""

    def __post_init__(self) -> None:
        """Refuse arrays of other types or lengths; the order of the keys is `build`'s care."""
        as_barcodes(self.barcodes)
        for name, dtype in (("keys", np.int64), ("slide", np.int32), ("row", np.int32)):
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != (len(self.barcodes),):
                raise ParameterError(
                    f"{name} is {array.dtype} {array.shape} beside barcodes {self.barcodes.shape}; "
                    f"give {np.dtype(dtype)} ({len(self.barcodes)},)"
                )

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.keys)

    @classmethod
    def build(
        cls, keys: ArrayLike, barcodes: ArrayLike, slide: ArrayLike, *, first_slide: int = 0
    ) -> "CellTable":
        """The table of patches given in insertion order: keys (P,), barcodes uint8 (P, B), slide (P,).

        `row` counts all patches as given, 0 to P - 1. Sorts stably by key, O(P log P).
        """
        rows, own_keys, slides = as_barcodes(barcodes), np.asarray(keys), np.asarray(slide, np.int32)
        if own_keys.shape != (len(rows),) or slides.shape != (len(rows),):
            raise ParameterError(
                f"keys are {own_keys.shape} and slide {slides.shape} beside barcodes {rows.shape}; "
                "give one of each a patch"
            )
        order = np.argsort(own_keys, kind="stable")
        return cls(
            own_keys.astype(np.int64)[order],
            aligned(rows, order),
            slides[order],
            order.astype(np.int32),
            first_slide,
        )


@dataclass(frozen=True, slots=True)
class Cells:
    """A tree and the tables that are searched by it. Made by `of`; `adding` gives one with another table."""

    tree: TextureTree
    """What the tables' keys were made with."""
    tables: tuple[CellTable, ...]
    """The archive; patch numbers count through all tables."""
    begins: NDArray[np.int64]
    """Where key c begins in table t, (keys + 1, tables)."""
    totals: NDArray[np.int64]
    """Where key c begins in all tables together, (keys + 1,)."""
    _kept: tuple[NDArray[Any], ...] = field(repr=False)  # what the addresses point into
    _fixed: tuple[NDArray[np.int64], NDArray[np.int64]] = field(repr=False)  # `Place` as an array, and spots

    @classmethod
    def of(cls, tree: TextureTree, tables: Sequence[CellTable]) -> "Cells":
        """The cells of tables whose keys `tree` made: counts their patches, some milliseconds a million.

        >>> tree = TextureTree.learn(np.repeat(np.uint8([[0], [255]]), 8, axis=1), branching=(2, 1))
        >>> barcodes = np.uint8([[255] * 8, [1] * 8, [0] * 8])
        >>> table = CellTable.build(tree.keys(barcodes), barcodes, [0, 1, 2])
        >>> bags = Cells.of(tree, [table]).search(np.uint8([[3] * 8]), k=2)
        >>> table.row[bags.patch].tolist(), bags.hamming.tolist()
        ([1, 2], [8, 16])
        """
        return cls._of(tree, tuple(tables), [_begins(tree, table) for table in tables])

    @classmethod
    def _of(
        cls, tree: TextureTree, tables: tuple[CellTable, ...], begins: list[NDArray[np.int64]]
    ) -> "Cells":
        kept: list[NDArray[Any]] = []
        spots = np.zeros((len(tables), 6), np.int64)
        first_patch = 0
        for number, table in enumerate(tables):
            tree.check(table.barcodes)
            arrays = [np.ascontiguousarray(a) for a in (table.barcodes, table.slide, table.row)]
            addresses = [array.ctypes.data for array in arrays]
            kept += arrays
            spots[number] = *addresses, table.first_slide, first_patch, len(table)
            first_patch += len(table)
        together = (
            np.ascontiguousarray(np.stack(begins, 1)) if begins else np.zeros((tree.n_keys + 1, 0), np.int64)
        )
        totals = together.sum(axis=1)
        node_totals = np.ascontiguousarray(totals[:: tree.shape[2]])
        kept += [tree.top_blocks, tree.node_blocks, tree.leaf_blocks, node_totals, totals, together]
        addresses = [array.ctypes.data for array in kept[-6:]]
        sizes = len(tables), *tree.shape, tree.barcode_bytes // 8
        fixed = np.array([*addresses, *sizes], np.int64), spots
        return cls(tree, tables, together, totals, tuple(kept), fixed)

    def adding(self, table: CellTable) -> "Cells":
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
        `patch` is its row, counted through all tables. Raises QueryError where the queries do not fit.
        """
        if k < 1 or budget < 1:
            raise ParameterError(f"k is {k} and budget {budget}; give at least 1 of each")
        rows = as_barcodes(query_barcodes, "query_barcodes")
        if rows.shape[1] != self.tree.barcode_bytes:
            raise QueryError(
                f"query_barcodes have {rows.shape[1]} bytes and the archive's {self.tree.barcode_bytes}; "
                "encode them with the encoder of the index"
            )
        mask = _NO_MASK if exclude is None else _frozen(exclude)
        if mask.dtype != np.bool_ or mask.ndim != 1:
            raise QueryError(
                f"exclude is {mask.dtype} {mask.shape}; give bool (n_slides,), not slide numbers"
            )
        most, total = 8 * rows.shape[1], len(self)
        found = search_cells(
            *self._fixed, _frozen(rows), mask, min(k, total), min(budget, total),
            most if threshold is None else min(threshold, most),
        )  # fmt: skip
        return Bags(*found)


def _begins(tree: TextureTree, table: CellTable) -> NDArray[np.int64]:
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


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous read-only view: the kernels are compiled for these only."""
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view


_NO_MASK = _frozen(np.zeros(0, np.bool_))
