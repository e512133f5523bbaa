"""An archive as the store keeps it, searched where it lies: nothing is merged, copied or read ahead.

`Store.snapshot` makes one table of all segments in memory. Here each segment stays the mapped file that it
is, so that an index larger than memory opens in as long as it takes to look up where each key begins, and
a commit of the writer costs a reader one more table. Removed slides are left out by a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import QueryError
from sish.index.cells import BUDGET, Cells, CellTable
from sish.index.hierarchy import TextureTree
from sish.index.search import Bags
from sish.index.segment import Segment
from sish.index.snapshot import SlideRow

__all__ = ["Archive"]


@dataclass(frozen=True, slots=True)
class Archive:
    """The segments of one state of a store, whose first keys are those of a texture tree."""

    segments: tuple[Segment, ...]
    """As `Store.segments` gives them."""
    cells: Cells
    """Their patches; patch numbers count through all segments, removed slides included."""
    slides: tuple[SlideRow, ...]
    """The slides of all segments, removed ones included: a slide's number is its place here."""
    removed: NDArray[np.bool_]
    """Which of them were removed, bool (slides,)."""
    first_patch: NDArray[np.int64]
    """Number of the first patch of each segment, (segments,)."""

    @classmethod
    def of(cls, tree: TextureTree, segments: Sequence[Segment]) -> "Archive":
        """The archive of a store's segments, opened but not read."""
        tables: list[CellTable] = []
        slides: list[SlideRow] = []
        removed: list[bool] = []
        for segment in segments:
            patches = segment.patches
            keys = np.ascontiguousarray(patches.keys[:, 0])
            tables.append(CellTable(keys, patches.barcodes, patches.slide, patches.row, len(slides)))
            removed += [number in segment.removed for number in range(len(patches.slides))]
            slides += patches.slides
        sizes = [len(table) for table in tables]
        first = np.cumsum([0, *sizes], dtype=np.int64)[: len(sizes)]
        cells = Cells.of(tree, tables)
        return cls(tuple(segments), cells, tuple(slides), np.array(removed, bool), first)

    def __len__(self) -> int:
        """Number of patches, those of removed slides included."""
        return len(self.cells)

    def search(
        self,
        query_barcodes: ArrayLike,
        *,
        k: int = 10,
        budget: int = BUDGET,
        exclude: NDArray[np.bool_] | None = None,
        threshold: int | None = None,
    ) -> Bags:
        """`Cells.search` without removed slides; `exclude` bool (slides,) leaves out more."""
        if exclude is not None and exclude.shape != self.removed.shape:
            raise QueryError(
                f"exclude has shape {exclude.shape}; give one value a slide, {self.removed.shape}"
            )
        hidden = self.removed if exclude is None else self.removed | exclude
        mask = hidden if hidden.any() else None
        return self.cells.search(query_barcodes, k=k, budget=budget, exclude=mask, threshold=threshold)

    def slide_of(self, patches: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slide number of each patch, (N,)."""
        out = np.empty(len(patches), np.int64)
        for mine, table, rows in self._by_table(patches):
            out[mine] = self.cells.tables[table].slide[rows] + self.cells.tables[table].first_slide
        return out

    def l0_xy_of(self, patches: NDArray[np.int64]) -> NDArray[np.int64]:
        """Top left corner of each patch in level-0 pixels, x first, (N, 2)."""
        out = np.empty((len(patches), 2), np.int64)
        for mine, table, rows in self._by_table(patches):
            out[mine] = self.segments[table].patches.l0_xy[rows]
        return out

    def _by_table(self, patches: NDArray[np.int64]) -> list[tuple[NDArray[np.bool_], int, NDArray[np.int64]]]:
        """For each table that holds any: which of the patches, the table, and their rows in it."""
        table = np.searchsorted(self.first_patch, patches, "right") - 1
        return [
            (table == number, int(number), patches[table == number] - self.first_patch[number])
            for number in np.unique(table)
        ]
