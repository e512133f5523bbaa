"""All patches of one scale with their embeddings: the nearest of a query in its best orientation.

Exactly, by comparing with every one in blocks, or by the texture tree of `sish.index`: barcodes of the signs
of the embeddings lead to a bounded number of candidates, which the embeddings themselves then rank.
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

__all__ = ["ComparedPatches", "EmbeddingTable"]

Vectors = NDArray[np.float32]

_BLOCK = 32_768  # patches whose cosines are in memory at once
_CANDIDATES = 200  # of each orientation, that the tree hands on to be ranked


@dataclass(frozen=True, slots=True)
class ComparedPatches:
    """Patches compared with one query patch, in the order of the table."""

    row: NDArray[np.int64]
    """(C,): numbers of the patches."""
    cosine: NDArray[np.float32]
    """(C,): similarity in the best orientation."""
    orientation: NDArray[np.int64]
    """(C,): which of the query's orientations that is."""


@dataclass(frozen=True)
class EmbeddingTable:
    """Patches of one scale, item after item."""

    vectors: Vectors
    """(P, F), of unit length; may be a memory map."""
    item: NDArray[np.int32]
    """(P,): number of each patch's item, ascending."""
    l0_xy: NDArray[np.int64]
    """(P, 2): top left corners in level-0 pixels."""
    l0_px: NDArray[np.float32]
    """(P,): sides in level-0 pixels."""

    def __len__(self) -> int:
        """Patches."""
        return len(self.vectors)

    @classmethod
    def joined(cls, tables: Sequence[EmbeddingTable]) -> EmbeddingTable:
        """Several tables, one after another; their item numbers must ascend through all of them."""
        if len(tables) == 1:
            return tables[0]
        names = [each.name for each in fields(cls)]
        return cls(*(np.concatenate([getattr(table, name) for table in tables]) for name in names))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, and of the tree's barcodes where it was asked for."""
        arrays = sum(array.nbytes for array in self.arrays().values())
        tree = self._cells.tables if "_cells" in self.__dict__ else ()
        return arrays + sum(table.barcodes.nbytes for table in tree)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name: what a file keeps of it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def best_of_items(self, query: Vectors, n_items: int) -> NDArray[np.float32]:
        """The best cosine of each query patch (M, O, F) in any orientation with each item: (M, n_items).

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
        """Every patch, compared with one query patch (O, F)."""
        cosine, orientation = np.empty(len(self), np.float32), np.empty(len(self), np.int64)
        for start, cosines in self._blocks(query[None]):
            part = slice(start, start + cosines.shape[2])
            orientation[part] = cosines[0].argmax(axis=0)
            cosine[part] = cosines[0].max(axis=0)
        return ComparedPatches(np.arange(len(self)), cosine, orientation)

    def _blocks(self, query: Vectors) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Cosines (M, O, block) with the patches of each block, and where it begins."""
        flat = query.reshape(-1, query.shape[-1])
        for start in range(0, len(self), _BLOCK):
            cosines = flat @ self.vectors[start : start + _BLOCK].T
            yield start, cosines.reshape(*query.shape[:2], -1)

    @cached_property
    def _centre(self) -> Vectors:
        """The mean embedding: signs are taken from it, else features that are never negative have none."""
        return np.asarray(self.vectors.mean(axis=0, dtype=np.float64), np.float32)

    @cached_property
    def _cells(self) -> Cells:
        barcodes = barcodes_of(self.vectors, "projection", centre=self._centre)
        return Cells.learn(barcodes, self.item)

    def index(self) -> None:
        """Learn the tree now, not at the first search."""
        _ = self._cells

    def tree_candidates(
        self, query: Vectors, allowed: Allowed, budget: int = BUDGET
    ) -> Iterator[ComparedPatches]:
        """For each query patch (M, O, F) what the tree finds among `budget` patches an orientation."""
        flat = query.reshape(-1, query.shape[-1])
        barcodes = barcodes_of(flat, "projection", centre=self._centre)
        bags = self._cells.search(barcodes, k=_CANDIDATES, budget=budget, exclude=~allowed)
        ends = bags.offset[:: query.shape[1]]
        for vectors, start, stop in zip(query, ends[:-1], ends[1:], strict=True):
            row = np.unique(bags.patch[start:stop])
            cosines = self.vectors[row] @ vectors.T
            yield ComparedPatches(row, cosines.max(axis=1, initial=-np.inf), cosines.argmax(axis=1))
