"""The patches of an archive behind one interface: neighbours of query patches, whatever the keys are.

`GuidedSearcher` searches along the paper's key; `TextureSearcher` walks the cells of a texture tree, in the
mapped segments. Both answer with bags whose patch numbers they alone understand.

Results of equal distance: along the paper's key they come in the order in which the published walk meets
them; in cells they come in order of slide id, then of the patch in its slide, so that an answer does not
depend on the order in which slides were added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sish.encode import SlideCodes
from sish.errors import IndexCorruptError, ParameterError
from sish.index.bags import Bags
from sish.index.barcode import nearest
from sish.index.guided.walk import guided_search
from sish.index.params import BUDGET, SearchParams
from sish.index.store import SlideRow, Snapshot, State, Store
from sish.index.store.segment import Segment
from sish.index.table import KeyTable
from sish.index.texture.archive import Archive, learn_keys, learn_tree, rekeyed, root_tree
from sish.index.texture.tree import MOST_KEYS, TextureTree
from sish.recipe import Keys

__all__ = [
    "GuidedSearcher",
    "Searcher",
    "SlideMask",
    "TextureKeys",
    "TextureSearcher",
    "searcher_in_memory",
    "searcher_of",
]

_CROWDED = 80  # patches a leaf at which a wider tree is learnt; a new one has about 20

SlideMask = NDArray[np.bool_]
"""bool (slides,): which slides are meant."""


class Searcher(Protocol):
    """What a search asks of the patches of an archive."""

    @property
    def slides(self) -> Sequence[SlideRow]:
        """Slides; a slide's number is its place here."""
        ...

    @property
    def found(self) -> SlideMask:
        """Slides that can be found: they have patches and were not removed."""
        ...

    @property
    def rank(self) -> NDArray[np.int64]:
        """Place of each slide in the order of slide ids, (slides,)."""
        ...

    @property
    def params(self) -> SearchParams:
        """Budget and threshold of a search that asks for no other."""
        ...

    @property
    def n_bits(self) -> int:
        """Bits of a barcode."""
        ...

    def bags(self, codes: SlideCodes, exclude: SlideMask | None, params: SearchParams) -> Bags:
        """The neighbours of each query patch within the threshold, at a cost that does not grow."""
        ...

    def scan(self, codes: SlideCodes, exclude: SlideMask, k: int) -> Bags:
        """The `k` nearest neighbours of each query patch, by comparing all that is not excluded."""
        ...

    def slide_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """Slide number of each patch."""
        ...

    def l0_xy_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """Top left corner of each patch in level-0 pixels, (N, 2)."""
        ...


@dataclass(frozen=True, slots=True)
class GuidedSearcher:
    """Patches along the paper's key (Chen et al. 2022, guided search)."""

    snapshot: Snapshot
    """All of them, in key order."""
    table: KeyTable
    """The same as the guided search wants it; a patch's number is its row."""
    params: SearchParams
    """As in `Searcher`."""
    rank: NDArray[np.int64]
    """As in `Searcher`."""

    @classmethod
    def of(cls, snapshot: Snapshot, params: SearchParams) -> GuidedSearcher:
        """Nothing is copied."""
        table = KeyTable.build(snapshot.keys[:, 0], snapshot.barcodes, snapshot.slide)
        return cls(snapshot, table, params, _rank_by_id(snapshot.slides))

    @property
    def slides(self) -> Sequence[SlideRow]:
        """As in `Searcher`."""
        return self.snapshot.slides

    @property
    def found(self) -> SlideMask:
        """As in `Searcher`."""
        return np.array([slide.n_patches > 0 for slide in self.slides], bool)

    @property
    def n_bits(self) -> int:
        """As in `Searcher`."""
        return 8 * int(self.snapshot.barcodes.shape[1])

    def bags(self, codes: SlideCodes, exclude: SlideMask | None, params: SearchParams) -> Bags:
        """As in `Searcher`: the guided search."""
        return guided_search(self.table, codes.keys[:, 0], codes.barcodes, exclude=exclude, params=params)

    def scan(self, codes: SlideCodes, exclude: SlideMask, k: int) -> Bags:
        """As in `Searcher`."""
        found = nearest(self.table.barcodes, codes.barcodes, k, skip=exclude[self.snapshot.slide])
        width = found.row.shape[1]
        return Bags(np.arange(len(codes) + 1) * width, found.row.ravel(), found.hamming.ravel())

    def slide_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """As in `Searcher`."""
        return self.snapshot.slide[patches]

    def l0_xy_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """As in `Searcher`."""
        return self.snapshot.l0_xy[patches]


@dataclass(frozen=True, slots=True)
class TextureSearcher:
    """Patches in the cells of a texture tree, where the store's segments lie."""

    archive: Archive
    """Segments, mapped and not read."""
    params: SearchParams
    """As in `Searcher`."""
    rank: NDArray[np.int64]
    """As in `Searcher`."""
    least: int
    """Patches that a query patch is compared with at least, whatever the budget."""

    @classmethod
    def of(
        cls, tree: TextureTree, segments: Sequence[Segment], params: SearchParams, *, least: int = 1
    ) -> TextureSearcher:
        """Opened, not read."""
        archive = Archive.of(tree, segments)
        return cls(archive, params, _rank_by_id(archive.slides), least)

    @property
    def slides(self) -> Sequence[SlideRow]:
        """As in `Searcher`; removed slides included."""
        return self.archive.slides

    @property
    def found(self) -> SlideMask:
        """As in `Searcher`."""
        return np.array([slide.n_patches > 0 for slide in self.slides], bool) & ~self.archive.removed

    @property
    def n_bits(self) -> int:
        """As in `Searcher`."""
        return 8 * self.archive.cells.tree.barcode_bytes

    def bags(self, codes: SlideCodes, exclude: SlideMask | None, params: SearchParams) -> Bags:
        """As in `Searcher`: the nearest cells, until they hold the budget.

        The threshold alone decides what joins a bag, as in the guided search: a bag that is cut at some
        length looks odd to the published ranking, which drops the longest bags.
        """
        budget = max(params.budget, self.least)
        bags = self.archive.search(
            codes.barcodes, k=budget, budget=budget, exclude=exclude, threshold=params.threshold
        )
        if np.all(np.diff(self.rank) > 0):  # slides were added in order of id: results are in it already
            return bags
        return _ties_in_order(bags, self.rank[self.slide_of(bags.patch)])

    def scan(self, codes: SlideCodes, exclude: SlideMask, k: int) -> Bags:
        """As in `Searcher`: a budget of everything."""
        return self.archive.search(codes.barcodes, k=k, budget=max(1, len(self.archive)), exclude=exclude)

    def slide_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """As in `Searcher`."""
        return self.archive.slide_of(patches)

    def l0_xy_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """As in `Searcher`."""
        return self.archive.l0_xy_of(patches)


def _rank_by_id(slides: Sequence[SlideRow]) -> NDArray[np.int64]:
    """Place of each slide in the order of slide ids; a removed slide is beside the one that replaced it."""
    rank = np.empty(len(slides), np.int64)
    rank[sorted(range(len(slides)), key=lambda number: slides[number].slide_id)] = np.arange(len(slides))
    return rank


def _ties_in_order(bags: Bags, rank: NDArray[np.int64]) -> Bags:
    """Bags in which results of equal distance are in order of `rank`, one number a result.

    >>> bags = Bags(np.array([0, 3]), np.array([5, 6, 7]), np.array([2, 2, 9]))
    >>> _ties_in_order(bags, np.array([8, 1, 0])).patch.tolist()
    [6, 5, 7]
    """
    query_patch = np.repeat(np.arange(len(bags)), bags.lengths())
    begins = (np.diff(query_patch, prepend=0) != 0) | (np.diff(bags.hamming, prepend=-1) != 0)
    order = np.argsort(np.cumsum(begins) * (rank.max(initial=0) + 1) + rank, kind="stable")
    return Bags(bags.offset, bags.patch[order], bags.hamming[order])


class TextureKeys:
    """The keys of an archive that grows: a tree is learnt when there is enough to learn one from.

    Until there are more patches than a search compares with, all share one key. Then the tree is learnt, and
    learnt anew whenever the archive has grown to 80 patches a leaf, about fourfold, until it has its full
    524,288 leaves. Each time the archive is rewritten once, so that adding a patch costs the same on average
    however many there are.
    """

    def __init__(self, store: Store, *, seed: int) -> None:
        """The keys of what is in a store that is open for writing."""
        self._store, self._seed = store, seed
        self._tree = stored_tree(store)
        self._patches = store.info().patches

    def is_due(self, waiting: int) -> bool:
        """Whether it is time to learn a tree, once so many patches that wait are stored as well."""
        leaves = 1 if self._tree is None else self._tree.n_keys
        return leaves < MOST_KEYS and self._patches + waiting > max(BUDGET, _CROWDED * leaves)

    def of(self, barcodes: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Keys int64 (N, 1) of barcodes uint8 (N, B)."""
        if self._tree is None:
            return np.zeros((len(barcodes), 1), np.int64)
        return self._tree.keys(barcodes)[:, None]

    def grow(self, patches: int) -> None:
        """Count patches that were stored, and learn the tree anew if it is time to."""
        self._patches += patches
        if not self.is_due(0):
            return
        self._tree = learn_keys(self._store, seed=self._seed)


def stored_tree(source: Store | State) -> TextureTree | None:
    """The texture tree of an archive; None while it is too small to have one."""
    return _tree_of(_state_of(source))


def searcher_of(source: Store | State, keys: Keys, params: SearchParams) -> Searcher:
    """The patches of one state of a store, to be searched by the keys that they have.

    Of a store it is the state at hand: its tree and its segments are of one commit, whatever comes meanwhile.

    Raises
    ------
    IndexCorruptError
        If a segment or the tree is damaged, or they do not fit each other.
    """
    state = _state_of(source)
    if keys == "paper":
        return GuidedSearcher.of(state.snapshot(), params)
    state.check()
    tree, segments, least = _tree_of(state), state.segments, 1
    if tree is None:  # there are no more patches than BUDGET yet, and they are compared with one and all
        width = max((segment.patches.barcodes.shape[1] for segment in segments), default=8)
        tree, least = root_tree(width), BUDGET
    try:
        return TextureSearcher.of(tree, segments, params, least=least)
    except ParameterError as error:
        raise IndexCorruptError(
            f"{state.folder}: its patches do not fit its tree ({error}): index the slides again"
        ) from error


def searcher_in_memory(patches: Snapshot, keys: Keys, params: SearchParams, *, seed: int = 0) -> Searcher:
    """Return a searcher of patches in memory, which an index on disk would search alike.

    Parameters
    ----------
    patches : Snapshot
        Slides and their patches; for the paper's keys, in key order.
    keys : {"texture", "paper"}
        What the patches are searched by. Texture keys are made here, by a tree that is learnt from the
        barcodes; those of `patches` are not read.
    params : SearchParams
        Budget and threshold.
    seed : int
        Seed of the tree.

    Returns
    -------
    Searcher
        Its slides are those of `patches`, in the same order.
    """
    if keys == "paper":
        return GuidedSearcher.of(patches, params)
    small = len(patches) <= BUDGET
    tree = root_tree(patches.barcodes.shape[1]) if small else learn_tree([patches.barcodes], seed=seed)
    archive = Archive.in_memory(tree, rekeyed(patches, tree))
    return TextureSearcher(archive, params, _rank_by_id(archive.slides), BUDGET if small else 1)


def _state_of(source: Store | State) -> State:
    return source.state if isinstance(source, Store) else source


def _tree_of(state: State) -> TextureTree | None:
    arrays = state.tree
    try:
        return None if arrays is None else TextureTree.from_arrays(arrays)
    except ParameterError as error:
        raise IndexCorruptError(
            f"{state.folder}: its tree is no texture tree ({error}): index the slides again"
        ) from error
