"""The search through a texture tree: a query patch is compared with the patches of its nearest cells.

An archive is a sequence of tables, each in key order (`KeyTable`: patches in memory, or a segment of the
store, mapped from its files). A query patch with barcode h is answered in three steps:

1. Open nodes. h is compared with the tree's top nodes. Those at most a third farther than the nearest are
   *opened*, and farther ones until they hold 8 times the budget. Their nodes are compared and opened in the
   same way. A query that lies among the archive's textures opens about six nodes; one that lies apart from
   all textures opens more. (A small tree has no top nodes, and the search begins with its nodes.) Comparing h
   with the leaves of an opened node gives *cells*, each one key. A node that holds few patches is not opened:
   all its keys together are one cell. So a small archive is searched by prefixes of the same keys, and the
   tree grows deeper as the archive does.
2. Choose cells, in order of their distance from h, until they hold `budget` patches.
3. Compare. A cell is a range of keys, hence adjacent rows in every table. They are compared with h eight at a
   time, in place, while the next cell is being fetched. The k nearest are kept.

The budget is a floor. Where cells are over-full, or the tree was learnt from other textures, nearer patches
lie behind it. The search goes on while that pays: if the second half of the patches that it has compared with
changed the 32 nearest of the first half, it compares with twice as many. It ends at 16 budgets, or at 2 if
the 32 are farther than 3/8 of the bits, hardly nearer than random barcodes.

So a query looks at no more than 16 budgets, and mostly at one, however large the archive is (the published
search looks at 15,000 keys). These are whole neighbourhoods of barcodes, not all patches of one average. In a
table with more patches than keys a directory tells where the rows of each key begin, so the successor of a
key is looked up; it takes 4 bytes for each key. In a smaller table a key is searched for among the few keys
of its node. Adding patches adds a table, and removing slides sets a mask; nothing is rebuilt.

A budget of the whole archive compares with everything and is exact. Results are sorted by distance, then in
insertion order (slide number, then row). They do not depend on how patches are spread over tables, on
threads, or on the order of queries. There is one exception: if tables are not in insertion order, their
order decides which patches of the last cell still fit into the budget.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError
from sish.index.bags import Bags
from sish.index.compiled import as_barcodes, frozen
from sish.index.params import BUDGET
from sish.index.table import KeyTable, checked_mask
from sish.index.texture.kernel import search_cells
from sish.index.texture.shortlist import SPOT, slides_of
from sish.index.texture.tree import TextureTree


@dataclass(frozen=True, slots=True)
class Cells:
    """A tree, and the tables of patches that are searched through it.

    `learn` makes cells of barcodes in memory, `of` makes them of a tree and tables, `adding` adds a table.

    Examples
    --------
    >>> barcodes = np.repeat(np.uint8([[0], [255], [1]]), 8, axis=1)
    >>> bags = Cells.learn(barcodes).search(np.uint8([[1] * 8]), k=2)
    >>> bags.patch.tolist(), bags.hamming.tolist()
    ([2, 0], [0, 8])
    """

    tree: TextureTree
    """The tree that made the tables' keys."""
    tables: tuple[KeyTable, ...]
    """The archive; patch numbers count through all tables."""
    first_patch: NDArray[np.int64]
    """Number of the first patch of each table, (tables,)."""
    totals: NDArray[np.int64]
    """Where each key begins in all tables together, (keys + 1,)."""
    _directories: tuple["Directory", ...] = field(repr=False)
    _kept: tuple[NDArray[Any], ...] = field(repr=False)  # the arrays that addresses point into
    _fixed: tuple[NDArray[np.int64], NDArray[np.int64]] = field(repr=False)  # `Place` as an array, and spots

    @classmethod
    def of(cls, tree: TextureTree, tables: Sequence[KeyTable]) -> "Cells":
        """Return the cells of tables whose keys `tree` made, O(P + keys): milliseconds for a million patches.

        Parameters
        ----------
        tree : TextureTree
        tables : sequence of KeyTable
            Their keys are `tree.keys` of their barcodes.

        Returns
        -------
        Cells
            Its searches answer with the caller's numbers of patches, counted through all tables.

        Raises
        ------
        ParameterError
            If keys or barcodes are not of this tree.

        Examples
        --------
        >>> tree = TextureTree.learn(np.repeat(np.uint8([[0], [255]]), 8, axis=1), branching=(2, 1))
        >>> barcodes = np.uint8([[255] * 8, [1] * 8, [0] * 8])
        >>> table = KeyTable.build(tree.keys(barcodes), barcodes, [0, 1, 2])
        >>> bags = Cells.of(tree, [table]).search(np.uint8([[3] * 8]), k=2)
        >>> bags.patch.tolist(), bags.hamming.tolist()
        ([1, 2], [8, 16])
        """
        totals = np.zeros(tree.n_keys + 1, np.int64)
        return cls._of(
            tree,
            tuple(tables),
            [Directory.of(tree, table.keys, table.key_begins) for table in tables],
            totals,
        )

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
        own = np.arange(len(rows)) if slide is None else slide
        return cls.of(tree, [KeyTable.build(tree.keys(rows), rows, own)])

    @classmethod
    def _of(
        cls,
        tree: TextureTree,
        tables: tuple[KeyTable, ...],
        directories: Sequence["Directory"],
        totals: NDArray[np.int64],
    ) -> "Cells":
        """Return the cells of tables with their directories; `totals` is filled."""
        spots = np.zeros((len(tables), SPOT), np.int64)
        first_patch = np.cumsum([0, *map(len, tables)], dtype=np.int64)[: len(tables)]
        kept: list[NDArray[Any]] = []
        for number, (table, directory) in enumerate(zip(tables, directories, strict=True)):
            tree.check(table.barcodes)
            arrays = [np.ascontiguousarray(a) for a in (table.barcodes, table.slide, table.row)]
            arrays += [directory.node_begins, directory.key_begins, directory.keys]
            kept += arrays
            at = [array.ctypes.data if array.size else 0 for array in arrays]
            spots[number] = *at[:3], table.first_slide, first_patch[number], len(table), *at[3:]
            if directory.key_begins.size:
                totals += directory.key_begins
        sparse = [directory.keys for directory in directories if not directory.key_begins.size]
        if sparse:
            counts = np.bincount(np.concatenate(sparse), minlength=tree.n_keys)
            totals[1:] += np.cumsum(counts)
        node_totals = np.ascontiguousarray(totals[:: tree.shape[2]])
        kept += [tree.top_blocks, tree.node_blocks, tree.leaf_blocks, node_totals, totals]
        addresses = [array.ctypes.data for array in kept[-5:]]
        sizes = *tree.shape, tree.barcode_bytes // 8
        fixed = np.array([*addresses, *sizes], np.int64), spots
        return cls(tree, tables, first_patch, totals, tuple(directories), tuple(kept), fixed)

    @classmethod
    def counted(cls, tree: TextureTree, totals: NDArray[np.int64]) -> "Cells":
        """Return cells of which only the sizes are known: where each key begins, int64 (keys + 1,)."""
        return cls._of(tree, (), [], totals)

    @property
    def place(self) -> NDArray[np.int64]:
        """The numbers of a `sish.index.texture.kernel.Place`."""
        return self._fixed[0]

    def adding(self, table: KeyTable) -> "Cells":
        """Return cells of these tables and one more; the old tables are neither copied nor changed."""
        directories = [*self._directories, Directory.of(self.tree, table.keys, table.key_begins)]
        return self._of(self.tree, (*self.tables, table), directories, np.zeros_like(self.totals))

    @property
    def directories(self) -> list[NDArray[np.int32]]:
        """The arrays that tell where the nodes and keys of each table begin."""
        return [array for it in self._directories for array in (it.node_begins, it.key_begins)]

    def __len__(self) -> int:
        """Return the number of patches."""
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
        """Return the `k` nearest of a `budget` of patches, or of more, in each query's nearest cells.

        The cost is O(budget) a query: it does not grow with the number of patches.

        Parameters
        ----------
        query_barcodes : uint8 (Q, B)
        k : int
            Patches wanted for each query, at least 1.
        budget : int
            Patches that each query is compared with at least; up to 16 times as many while the nearest
            change (see the module).
        exclude : bool (n_slides,), optional
            True for the slides whose patches are left out. They do not use up the budget, but a query walks
            no more than 8 times as many rows. Slides past its end are not left out.
        threshold : int, optional
            Largest distance in bits of a result. Default: any.

        Returns
        -------
        Bags
            Patches in the caller's numbers: places in the arrays given to `KeyTable.build` or `learn`,
            counted through all tables.

        Raises
        ------
        ParameterError
            If the queries or the mask do not fit, or `k` or the budget is below 1.
        """
        if k < 1 or budget < 1:
            raise ParameterError(f"k is {k} and budget {budget}; give at least 1 of each")
        rows = self.tree.check(query_barcodes, "query_barcodes")
        mask = checked_mask(exclude)
        most, total = 8 * rows.shape[1], len(self)
        offset, place, hamming = search_cells(
            *self._fixed, frozen(rows), mask, min(k, total), min(budget, total),
            most if threshold is None else min(threshold, most),
        )  # fmt: skip
        return Bags(offset, self._callers(place), hamming)

    def slide_of(self, patches: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slide number of each patch, (N,); patch numbers are places in the tables, in order."""
        return slides_of(self._fixed[1], frozen(patches))

    def by_table(self, patches: NDArray[np.int64]) -> list[tuple[NDArray[np.bool_], int, NDArray[np.int64]]]:
        """Return for each table with some of the patches: which ones, the table's number, their rows."""
        table = np.searchsorted(self.first_patch, patches, "right") - 1
        return [
            (table == number, int(number), patches[table == number] - self.first_patch[number])
            for number in np.unique(table)
        ]

    def _callers(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the caller's numbers of patches at some places of the tables, counted through all."""
        if all(table.position is None for table in self.tables):
            return places
        if len(self.tables) == 1:
            return self.tables[0].callers(places)
        out = np.empty_like(places)
        for mine, table, own in self.by_table(places):
            out[mine] = self.tables[table].callers(own) + self.first_patch[table]
        return out


class Keyed(Protocol):
    """What makes keys: a `TextureTree`, or other cells in groups."""

    @property
    def n_keys(self) -> int:
        """Number of keys."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Top nodes, nodes of each, and leaves of each of these."""


@dataclass(frozen=True, slots=True)
class Directory:
    """Where keys begin in a table; either `key_begins` or `keys` is empty."""

    node_begins: NDArray[np.int32]
    """Where each node begins, (nodes + 1,)."""
    key_begins: NDArray[np.int32]
    """Where each key begins, (keys + 1,)."""
    keys: NDArray[np.int32]
    """The keys, (P,)."""

    @classmethod
    def of(
        cls, tree: "Keyed", keys: NDArray[np.integer], begins: NDArray[np.int32] | None = None
    ) -> "Directory":
        """Return the directory of ascending keys, which may tell where they begin.

        Parameters
        ----------
        tree : Keyed
        keys : int (P,)
            Ascending.
        begins : int32, optional
            Where each of the keys 0, 1, ... begins, and P.

        Returns
        -------
        Directory
            The directory.

        Raises
        ------
        ParameterError
            If the keys are another tree's.
        """
        if begins is None and len(keys) >= tree.n_keys and 0 <= keys[0] <= keys[-1] < tree.n_keys:
            begins = np.searchsorted(keys, np.arange(tree.n_keys + 1)).astype(np.int32)
        ends = keys[[0, -1]] if begins is not None else keys  # a few keys are all looked at
        low, high = (int(ends.min()), int(ends.max())) if len(keys) else (0, 0)
        if not 0 <= low <= high < tree.n_keys or (begins is not None and len(begins) > tree.n_keys + 1):
            raise ParameterError(
                f"keys run from {low} to {high} and the tree has {tree.n_keys}; "
                "make them with TextureTree.keys of this tree, and sort them"
            )
        nodes = np.arange(0, tree.n_keys + 1, tree.shape[2]).astype(np.int32)
        none = np.empty(0, np.int32)
        if begins is None:
            own = np.ascontiguousarray(keys, np.int32)
            return cls(np.searchsorted(own, nodes).astype(np.int32), none, own)
        if len(begins) <= tree.n_keys:  # the last keys have no patches
            begins = np.append(begins, np.full(tree.n_keys + 1 - len(begins), len(keys), np.int32))
        return cls(np.ascontiguousarray(begins[nodes]), np.ascontiguousarray(begins), none)

    def totals(self, n_keys: int) -> NDArray[np.int64]:
        """Return where each key begins, (n_keys + 1,)."""
        if self.key_begins.size:
            return self.key_begins.astype(np.int64)
        return np.concatenate([[0], np.cumsum(np.bincount(self.keys, minlength=n_keys))])
