"""The embeddings of all patches of one scale, and the search for those nearest to a query.

An exact search compares the query with all patches, block by block. A search by the texture tree of
`sish.index` compares barcodes, the signs of the embeddings, with a bounded number of patches; the embeddings
then rank the nearest of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.index.barcode import barcodes_of
from sish.index.params import BUDGET
from sish.index.texture.cells import Cells
from sish.systems.base import Allowed

Vectors = NDArray[np.float32]

_BLOCK = 32_768  # number of patches whose cosines are in memory at once
_CANDIDATES = 200  # number of patches of each orientation that the tree finds and the embeddings rank


@dataclass(frozen=True, slots=True)
class ComparedPatches:
    """Patches of a table that were compared with one query patch, in the table's order."""

    row: NDArray[np.int64]
    """(C,): places of the patches in the table."""
    cosine: NDArray[np.float32]
    """(C,): similarity in the best orientation."""
    orientation: NDArray[np.int64]
    """(C,): number of that orientation among the query's."""


@dataclass(frozen=True)
class EmbeddingTable:
    """P patches of one scale, item after item, with embeddings of F numbers."""

    vectors: Vectors
    """(P, F), of unit length; may be a memory map."""
    item: NDArray[np.int32]
    """(P,): number of each patch's item, ascending."""
    l0_xy: NDArray[np.int64]
    """(P, 2): top left corners in level-0 pixels."""
    l0_px: NDArray[np.float32]
    """(P,): sides in level-0 pixels."""

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.vectors)

    @classmethod
    def joined(cls, tables: Sequence[EmbeddingTable]) -> EmbeddingTable:
        """Join tables, one after another; their item numbers must ascend through all of them."""
        if len(tables) == 1:
            return tables[0]
        names = [each.name for each in fields(cls)]
        return cls(*(np.concatenate([getattr(table, name) for table in tables]) for name in names))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, and of the tree's barcodes once it is learnt."""
        arrays = sum(array.nbytes for array in self.arrays().values())
        tree = self._cells.tables if "_cells" in self.__dict__ else ()
        return arrays + sum(table.barcodes.nbytes for table in tree)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, as files keep them."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def best_of_items(self, query: Vectors, n_items: int) -> NDArray[np.float32]:
        """Return the best cosine of each query patch with each item, in any orientation; O(M O P).

        Parameters
        ----------
        query : float32 (M, O, F)
            M query patches in O orientations, of unit length.
        n_items : int
            Number of items of the database.

        Returns
        -------
        float32 (M, n_items)
            Minus infinity for an item without patches of this scale.
        """
        best = np.full((len(query), n_items), -np.inf, np.float32)
        for start, cosines in self._blocks(query):
            own = self.item[start : start + cosines.shape[2]]
            first = np.flatnonzero(np.diff(own, prepend=-1))
            found = np.maximum.reduceat(cosines.max(axis=1), first, axis=1)
            best[:, own[first]] = np.maximum(best[:, own[first]], found)
        return best

    def all_candidates(self, query: Vectors) -> ComparedPatches:
        """Compare every patch with one query patch (O, F); O(O P)."""
        cosine, orientation = np.empty(len(self), np.float32), np.empty(len(self), np.int64)
        for start, cosines in self._blocks(query[None]):
            part = slice(start, start + cosines.shape[2])
            orientation[part] = cosines[0].argmax(axis=0)
            cosine[part] = cosines[0].max(axis=0)
        return ComparedPatches(np.arange(len(self)), cosine, orientation)

    def _blocks(self, query: Vectors) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield where each block begins, and the cosines (M, O, block) with its patches."""
        flat = query.reshape(-1, query.shape[-1])
        for start in range(0, len(self), _BLOCK):
            cosines = flat @ self.vectors[start : start + _BLOCK].T
            yield start, cosines.reshape(*query.shape[:2], -1)

    @cached_property
    def _centre(self) -> Vectors:
        """The mean embedding: signs are relative to it, since features may never be negative."""
        return np.asarray(self.vectors.mean(axis=0, dtype=np.float64), np.float32)

    @cached_property
    def _cells(self) -> Cells:
        barcodes = barcodes_of(self.vectors, "projection", centre=self._centre)
        return Cells.learn(barcodes, self.item)

    def index(self) -> None:
        """Learn the tree now instead of at the first search."""
        _ = self._cells

    def tree_candidates(
        self, query: Vectors, allowed: Allowed, budget: int = BUDGET
    ) -> Iterator[ComparedPatches]:
        """Search by the tree.

        Parameters
        ----------
        query : float32 (M, O, F)
            M query patches in O orientations, of unit length.
        allowed : bool (N,)
            Items that may be found.
        budget : int
            Number of patches whose barcodes are compared, for each orientation.

        Yields
        ------
        ComparedPatches
            For each query patch, the patches that the tree found.
        """
        flat = query.reshape(-1, query.shape[-1])
        barcodes = barcodes_of(flat, "projection", centre=self._centre)
        bags = self._cells.search(barcodes, k=_CANDIDATES, budget=budget, exclude=~allowed)
        ends = bags.offset[:: query.shape[1]]
        for vectors, start, stop in zip(query, ends[:-1], ends[1:], strict=True):
            row = np.unique(bags.patch[start:stop])
            cosines = self.vectors[row] @ vectors.T
            yield ComparedPatches(row, cosines.max(axis=1, initial=-np.inf), cosines.argmax(axis=1))
