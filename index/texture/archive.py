"""The texture search over a store's segments in place: nothing is merged, copied or read ahead.

`Store.snapshot` makes one table of all segments in memory. Here each segment stays a mapped file. So an index
larger than memory opens in the time that counting the patches of each key takes. A commit of the writer costs
a reader one more table. A mask leaves out removed slides.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import IndexCorruptError, ParameterError
from sish.index.bags import Bags
from sish.index.hamming_kernels import aligned
from sish.index.params import BUDGET
from sish.index.store import Store
from sish.index.store.manifest import JSON
from sish.index.store.scratch import blocks_of, scratch
from sish.index.store.segment import Segment
from sish.index.store.slide_list import SlideList
from sish.index.store.snapshot import Snapshot
from sish.index.table import KeyTable
from sish.index.texture.cells import Cells
from sish.index.texture.tree import TextureTree, sample_size

Facts = Callable[[TextureTree, NDArray[np.integer]], Mapping[str, JSON]]
"""Returns facts on a tree that was learnt, and on the keys (P,) that it made, in order."""

FEW = 1 << 16
"""Where a filter leaves at most this many patches, they alone are compared with: 8 MB of barcodes."""


@dataclass(frozen=True, slots=True)
class Archive:
    """The patches of one state of a store, a table for each segment; their first key is a texture tree's."""

    parts: tuple[Snapshot, ...]
    """The patches of each segment, including those of removed slides."""
    cells: Cells
    """The same as tables; patch numbers count through all of them."""
    slides: SlideList
    """The slides of all segments, including removed ones. A slide's number is its place here."""
    removed: NDArray[np.bool_]
    """Which of them were removed, bool (slides,)."""

    @classmethod
    def of(cls, tree: TextureTree, segments: Sequence[Segment]) -> "Archive":
        """Return the archive of segments whose first keys are `tree`'s. They are opened, not read."""
        removed = np.concatenate([np.zeros(0, bool), *(segment.removed_mask for segment in segments)])
        return cls._of(tree, tuple(segment.patches for segment in segments), removed)

    @classmethod
    def in_memory(cls, tree: TextureTree, patches: Snapshot) -> "Archive":
        """Return the archive of patches in memory whose first keys are `tree`'s, as `rekeyed` makes them."""
        return cls._of(tree, (patches,), np.zeros(len(patches.slides), bool))

    @classmethod
    def _of(cls, tree: TextureTree, parts: tuple[Snapshot, ...], removed: NDArray[np.bool_]) -> "Archive":
        slides = SlideList(tuple(part.slides for part in parts))
        firsts = np.cumsum([0, *(len(part.slides) for part in parts)]).tolist()
        tables = [_table(part, first) for part, first in zip(parts, firsts, strict=False)]
        return cls(parts, Cells.of(tree, tables), slides, removed)

    def __len__(self) -> int:
        """Return the number of patches, including those of removed slides."""
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
        """Return `Cells.search` without removed slides; `exclude` bool (slides,) leaves out more slides."""
        if exclude is not None and exclude.shape != self.removed.shape:
            raise ParameterError(
                f"exclude has shape {exclude.shape}; give one value a slide, {self.removed.shape}"
            )
        hidden = self.removed if exclude is None else self.removed | exclude
        mask = hidden if hidden.any() else None
        if mask is not None and (allowed := int(self.slides.n_patches[~mask].sum())) <= min(budget, FEW):
            few = self._only(~mask)  # a walk would pass over all others
            return few.search(query_barcodes, k=k, budget=max(1, allowed), threshold=threshold)
        return self.cells.search(query_barcodes, k=k, budget=budget, exclude=mask, threshold=threshold)

    def _only(self, allowed: NDArray[np.bool_]) -> Cells:
        """Return the patches of some slides, in memory and under one key: a search compares with all."""
        slide, row, patch, barcodes = [], [], [], []
        tables = zip(self.parts, self.cells.tables, self.cells.first_patch.tolist(), strict=True)
        for part, table, first in tables:
            numbers = np.flatnonzero(allowed[table.first_slide : table.first_slide + len(part.slides)])
            rows = part.rows_of(numbers) if len(numbers) else np.empty(0, np.int64)
            slide.append(table.slide[rows] + np.int32(table.first_slide))
            row.append(table.row[rows])
            patch.append(rows + first)
            barcodes.append(table.barcodes[rows])
        together = aligned(np.concatenate(barcodes), np.arange(sum(map(len, patch))))
        keys = np.zeros(len(together), np.int64)
        few = KeyTable(keys, together, np.concatenate(slide), np.concatenate(row), np.concatenate(patch))
        return Cells.of(root_tree(together.shape[1]), [few])

    def patches_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of patches that have each key, those of removed slides included, (N,)."""
        counts: NDArray[np.int64] = self.cells.totals[keys + 1] - self.cells.totals[keys]
        return counts

    def vectors_of(self, patches: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[NDArray[np.uint8]]]:
        """Return numbers (N,) of patches in a list of stored vectors, and the list, (P, V) in all."""
        return patches, [part.vectors for part in self.parts if part.vectors is not None]

    def slide_of(self, patches: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slide number of each patch, (N,)."""
        slides = self.cells.slide_of(patches)
        if len(slides) and not 0 <= slides.min() <= slides.max() < len(self.slides):
            raise IndexCorruptError("patches name slides that are not there: see sish index verify")
        return slides

    def l0_xy_of(self, patches: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the top left corner of each patch in level-0 pixels, x first, (N, 2)."""
        out = np.empty((len(patches), 2), np.int64)
        for mine, table, rows in self.cells.by_table(patches):
            out[mine] = self.parts[table].l0_xy[rows]
        return out

    def row_of(self, patches: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of each patch in its slide, as it was added, (N,)."""
        out = np.empty(len(patches), np.int64)
        for mine, table, rows in self.cells.by_table(patches):
            out[mine] = self.parts[table].row[rows]
        return out


def _table(patches: Snapshot, first_slide: int) -> KeyTable:
    keys = np.ascontiguousarray(patches.keys[:, 0])
    return KeyTable(
        keys,
        patches.barcodes,
        patches.slide,
        patches.row,
        first_slide=first_slide,
        key_begins=patches.key_begins,
    )


def rekeyed(patches: Snapshot, tree: TextureTree, folder: Path | None = None) -> Snapshot:
    """Return a copy of patches in the order of their texture keys, which become their only keys, (P, 1).

    Parameters
    ----------
    patches : Snapshot
        The patches.
    tree : TextureTree
        The tree of their keys.
    folder : Path, optional
        A folder for the files in which large arrays lie. Default: they lie in memory.

    Returns
    -------
    Snapshot
        The copy.
    """
    order, keys = patches.insertion_order(), scratch(folder, (len(patches),), np.int64)
    sizes = np.zeros(tree.n_keys, np.int64)
    for block in blocks_of(len(order)):
        keys[block] = tree.keys(patches.barcodes[order[block]])
        sizes += np.bincount(keys[block], minlength=tree.n_keys)
    out = {name: scratch(folder, array.shape, array.dtype) for name, array in patches.arrays.items()}
    out["keys"] = scratch(folder, (len(order), 1), np.int64)
    ends = np.cumsum(sizes) - sizes  # of what is in its place already, for each key
    for block in blocks_of(len(order)):
        place = _next_places(keys[block], ends)
        for name, array in out.items():
            array[place] = keys[block, None] if name == "keys" else patches.arrays[name][order[block]]
    return Snapshot(patches.slides, **out)


def _next_places(keys: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the next free place of each patch (N,), given where the last of each key ends; move the ends."""
    order = np.argsort(keys, kind="stable")
    in_order, place = keys[order], np.empty(len(keys), np.int64)
    place[order] = ends[in_order] + np.arange(len(keys)) - np.searchsorted(in_order, in_order)
    ends += np.bincount(keys, minlength=len(ends))
    return place


def root_tree(barcode_bytes: int) -> TextureTree:
    """Return the tree of an archive that is too small to learn one: all patches share one key."""
    nothing = np.zeros((1, barcode_bytes), np.uint8)
    return TextureTree.from_centres({"nodes": nothing, "leaves": nothing[None]})


def learn_keys(
    store: Store, *, seed: int = 0, facts: Facts = lambda _tree, _keys: MappingProxyType({})
) -> TextureTree:
    """Learn a tree of all patches of a store, give them its keys, and keep facts in the same commit.

    Parameters
    ----------
    store : Store
        The store, open for writing.
    seed : int
        Seed of the tree.
    facts : callable
        It returns the facts to keep, given the tree and the keys that it made, in order.

    Returns
    -------
    TextureTree
        The tree.
    """
    store.compact()  # a tree depends on the order of its sample, which must not depend on chance commits
    tree = learn_tree([segment.patches.barcodes for segment in store.segments], seed=seed)
    store.rekey(
        tree.to_arrays(),
        lambda patches: rekeyed(patches, tree, store.path),
        lambda patches: facts(tree, patches.keys[:, 0]),
    )
    return tree


def learn_tree(barcodes: Sequence[NDArray[np.uint8]], *, seed: int = 0) -> TextureTree:
    """Learn the texture tree of an archive from a sample of its barcodes, given in parts uint8 (P, B).

    A tree of other tissue is worse: one of lymph nodes found 0.15 of the neighbours among breast tissue,
    where the archive's own tree found 0.95.

    Returns
    -------
    TextureTree
        The same for the same patches in the same order, and the same seed.
    """
    width = barcodes[0].shape[1] if barcodes else 8
    return learn_tree_of(barcodes, sum(map(len, barcodes)), width, seed=seed)


def learn_tree_of(
    barcodes: Iterable[NDArray[np.uint8]], patches: int, width: int, *, seed: int = 0
) -> TextureTree:
    """Learn the tree of `learn_tree` from parts that are read one after another.

    Parameters
    ----------
    barcodes : iterable of uint8 (P, B)
        The barcodes.
    patches : int
        How many they are.
    width : int
        B.
    seed : int
        Seed of the sample and of the tree.

    Returns
    -------
    TextureTree
        The tree.
    """
    drawn = np.arange(patches)
    if patches > (enough := sample_size(patches)):
        drawn = np.sort(np.random.default_rng(seed).choice(patches, enough, replace=False))
    rows, first = np.zeros((max(1, len(drawn)), width), np.uint8), 0
    for part in barcodes:
        low, high = np.searchsorted(drawn, (first, first + len(part)))
        np.take(part, drawn[low:high] - first, axis=0, out=rows[low:high], mode="clip")
        first += len(part)
    return TextureTree.learn(rows, seed=seed, patches=patches)
