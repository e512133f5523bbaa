"""Searchers: one interface to the patches of an archive, whatever their keys are.

`GuidedSearcher` searches along the paper's keys, `TextureSearcher` in the cells of a texture tree. Both
return bags. Only the searcher that returned a bag knows what its patch numbers mean.

Results of equal distance have an order. Along the paper's keys it is the order of the published walk. In
cells it is that of slide ids, then of patches in their slide, so that an answer does not depend on the order
in which slides were added.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sish.archives import AnyStore, archive_of, learn_keys_of
from sish.encode import SlideCodes
from sish.errors import IndexCorruptError, ParameterError
from sish.index.bags import Bags
from sish.index.barcode import nearest
from sish.index.guided.walk import guided_search
from sish.index.params import BUDGET, OrderedSetName, SearchParams
from sish.index.postgres.archive import RemoteArchive
from sish.index.store import Snapshot, State, Store
from sish.index.store.manifest import JSON
from sish.index.store.slide_list import SlideList
from sish.index.table import KeyTable
from sish.index.texture.archive import Archive, learn_tree, rekeyed, root_tree
from sish.index.texture.tree import TextureTree
from sish.index.trees import OrderedSet, SortedListSet, VanEmdeBoas
from sish.recall import FACT as RECALL
from sish.recall import Recall, measure_recall
from sish.recipe import Keys
from sish.rerank import CHANCE, Rerank
from sish.thresholds import threshold_fact
from sish.tree_fit import TreeFit

_TREES: dict[OrderedSetName, type[OrderedSet]] = {"veb": VanEmdeBoas, "sorted_list": SortedListSet}
_CROWDED = 80  # patches per leaf at which a tree is learnt again that was never measured

SlideMask = NDArray[np.bool_]
"""bool (slides,), one value for each slide of a searcher."""


class Searcher(Protocol):
    """The interface through which a view searches the patches of an archive."""

    @property
    def slides(self) -> SlideList:
        """The slides; a slide's number is its place here."""

    @property
    def found(self) -> SlideMask:
        """True for slides that can be found: they have patches and were not removed."""

    @property
    def rank(self) -> NDArray[np.int64]:
        """Place of each slide in the order of slide ids, (slides,)."""

    @property
    def params(self) -> SearchParams:
        """Budget and threshold of a search that gives no others."""

    @property
    def n_bits(self) -> int:
        """Number of bits of a barcode."""

    def bags(self, codes: SlideCodes, exclude: SlideMask | None, params: SearchParams) -> Bags:
        """Return the neighbours of each query patch within the threshold; the cost is bounded."""

    def scan(self, codes: SlideCodes, exclude: SlideMask, k: int) -> Bags:
        """Return the `k` nearest neighbours of each query patch, compared with all that are not excluded."""

    def slide_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """Return the slide number of each patch, (N,)."""

    def l0_xy_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """Return the top left corner of each patch in level-0 pixels, x first, (N, 2)."""

    def row_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """Return the number of each patch in its slide, as it was added, (N,)."""


@dataclass(frozen=True, slots=True)
class GuidedSearcher:
    """A search along the paper's keys (Chen et al. 2022, guided search)."""

    snapshot: Snapshot
    """All patches, in key order."""
    table: KeyTable
    """The same patches as the guided search reads them; a patch's number is its row."""
    params: SearchParams
    """As in `Searcher`."""
    slides: SlideList
    """As in `Searcher`."""
    rank: NDArray[np.int64]
    """As in `Searcher`."""
    _trees: dict[OrderedSetName, OrderedSet] = field(default_factory=dict, repr=False)  # filled by `tree`

    @classmethod
    def of(cls, snapshot: Snapshot, params: SearchParams) -> GuidedSearcher:
        """Return the searcher of a snapshot; nothing is copied."""
        table = KeyTable.build(snapshot.keys[:, 0], snapshot.barcodes, snapshot.slide)
        slides = SlideList((snapshot.slides,))
        return cls(snapshot, table, params, slides, _rank_by_id(slides))

    def tree(self, name: OrderedSetName) -> OrderedSet | None:
        """Return the ordered set of the keys, made at its first use; None: the table's own sorted array."""
        if name in _TREES and name not in self._trees:
            self._trees[name] = _TREES[name].of(self.table.keys)
        return self._trees.get(name)

    @property
    def found(self) -> SlideMask:
        """As in `Searcher`."""
        return self.slides.n_patches > 0

    @property
    def n_bits(self) -> int:
        """As in `Searcher`."""
        return 8 * int(self.snapshot.barcodes.shape[1])

    def bags(self, codes: SlideCodes, exclude: SlideMask | None, params: SearchParams) -> Bags:
        """Return the bags of the guided search."""
        return guided_search(
            self.table,
            codes.keys[:, 0],
            codes.barcodes,
            exclude=exclude,
            params=params,
            tree=self.tree(params.ordered_set),
        )

    def scan(self, codes: SlideCodes, exclude: SlideMask, k: int) -> Bags:
        """Return the nearest patches, compared with all that are not excluded."""
        found = nearest(self.table.barcodes, codes.barcodes, k, skip=exclude[self.snapshot.slide])
        width = found.row.shape[1]
        return Bags(np.arange(len(codes) + 1) * width, found.row.ravel(), found.hamming.ravel())

    def slide_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """Return the slide number of each patch, (N,)."""
        slides = self.snapshot.slide[patches]
        if len(slides) and not 0 <= slides.min() <= slides.max() < len(self.slides):
            raise IndexCorruptError("patches name slides that are not there: see sish index verify")
        return slides

    def l0_xy_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """Return the top left corner of each patch in level-0 pixels, x first, (N, 2)."""
        return self.snapshot.l0_xy[patches]

    def row_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """Return the number of each patch in its slide, as it was added, (N,)."""
        return self.snapshot.row[patches]


@dataclass(frozen=True, slots=True)
class TextureSearcher:
    """A search in the cells of a texture tree, over the store's segments where they lie."""

    archive: Archive | RemoteArchive
    """The segments, mapped and not read; or patches in PostgreSQL."""
    params: SearchParams
    """As in `Searcher`."""
    least: int
    """The least budget of a search, whatever is asked for."""
    rank: NDArray[np.int64]
    """As in `Searcher`."""
    is_in_order: bool
    """Whether slides were added in order of id, so that results are in this order."""
    rerank: Rerank | None = None
    """How vectors are kept, where the nearest results are ranked again by them."""

    @classmethod
    def of(
        cls,
        archive: Archive | RemoteArchive,
        params: SearchParams,
        *,
        least: int = 1,
        rerank: Rerank | None = None,
    ) -> TextureSearcher:
        """Return the searcher of an archive."""
        rank = _rank_by_id(archive.slides)
        return cls(archive, params, least, rank, bool(np.all(rank[1:] > rank[:-1])), rerank)

    @property
    def slides(self) -> SlideList:
        """As in `Searcher`, including removed slides."""
        return self.archive.slides

    @property
    def found(self) -> SlideMask:
        """As in `Searcher`."""
        return (self.slides.n_patches > 0) & ~self.archive.removed

    @property
    def n_bits(self) -> int:
        """As in `Searcher`."""
        return 8 * self.archive.cells.tree.barcode_bytes

    def bags(self, codes: SlideCodes, exclude: SlideMask | None, params: SearchParams) -> Bags:
        """Return what is within the threshold in the nearest cells that hold the budget."""
        # a bag is not cut at some length: the published ranking drops the longest bags
        budget = max(params.budget, self.least)
        within = params.threshold + (0 if self.rerank is None else CHANCE)
        bags = self.archive.search(codes.barcodes, k=budget, budget=budget, exclude=exclude, threshold=within)
        if not self.is_in_order:
            bags = _ties_in_order(bags, self.rank[self.slide_of(bags.patch)])
        return self._ranked_again(bags, codes, params.threshold)

    def _ranked_again(self, bags: Bags, codes: SlideCodes, threshold: int) -> Bags:
        """Return bags whose nearest results have the distances of their vectors, where vectors are kept."""
        if self.rerank is None or codes.vectors is None:
            return bags
        return self.rerank.bags(
            bags, codes.vectors, self.archive.vectors_of, n_bits=self.n_bits, threshold=threshold
        )

    def scan(self, codes: SlideCodes, exclude: SlideMask, k: int) -> Bags:
        """Return the nearest patches with a budget of everything."""
        everything = max(1, len(self.archive))
        bags = self.archive.search(codes.barcodes, k=k, budget=everything, exclude=exclude)
        return self._ranked_again(bags, codes, self.n_bits)

    def slide_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """Return the slide number of each patch, (N,)."""
        return self.archive.slide_of(patches)

    def l0_xy_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """Return the top left corner of each patch in level-0 pixels, x first, (N, 2)."""
        return self.archive.l0_xy_of(patches)

    def row_of(self, patches: NDArray[np.int64]) -> NDArray[np.integer]:
        """Return the number of each patch in its slide, as it was added, (N,)."""
        return self.archive.row_of(patches)


def _rank_by_id(slides: SlideList) -> NDArray[np.int64]:
    """Return the place of each slide in the order of ids; a removed slide is beside its replacement."""
    rank = np.empty(len(slides), np.int64)
    rank[slides.id_order] = np.arange(len(slides))
    return rank


def _ties_in_order(bags: Bags, rank: NDArray[np.int64]) -> Bags:
    """Return bags in which results of equal distance are in order of `rank` (R,).

    Returns
    -------
    Bags
        The same results.

    Examples
    --------
    >>> bags = Bags(np.array([0, 3]), np.array([5, 6, 7]), np.array([2, 2, 9]))
    >>> _ties_in_order(bags, np.array([8, 1, 0])).patch.tolist()
    [6, 5, 7]
    """
    query_patch = np.repeat(np.arange(len(bags)), bags.lengths())
    begins = (np.diff(query_patch, prepend=0) != 0) | (np.diff(bags.hamming, prepend=-1) != 0)
    order = np.argsort(np.cumsum(begins) * (rank.max(initial=0) + 1) + rank, kind="stable")
    return Bags(bags.offset, bags.patch[order], bags.hamming[order])


class TextureKeys:
    """The keys of an archive that grows: its tree is learnt when there are enough patches.

    While a search compares with all patches, the patches share one key. Then the tree is learnt. Whenever the
    archive has grown by a quarter, it is measured whether the tree still fits (`sish.tree_fit`). If it does
    not, it is learnt again, and the archive is rewritten once. So on average the cost of adding a patch does
    not depend on the number of patches.
    """

    def __init__(self, store: AnyStore, *, seed: int) -> None:
        """Take a store that is open for writing."""
        self._store, self._seed = store, seed
        self._follow()

    def is_due(self, waiting: int) -> bool:
        """Return whether the tree must be looked at once this number of waiting patches is stored too."""
        return self._patches + waiting > self._due

    def of(self, barcodes: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return keys int64 (N, 1) of barcodes uint8 (N, B)."""
        if self._tree is None:
            return np.zeros((len(barcodes), 1), np.int64)
        return self._tree.keys(barcodes)[:, None]

    def grow(self, patches: int) -> None:
        """Count patches that were stored. If it is due, measure, and learn a tree that fits.

        Of no patches, it does what a killed writer left undone. So the tree does not depend on such a chance.
        """
        self._patches += patches
        if self._store.state.tree_file is not self._file:
            self._follow()
        if self.is_due(0):
            if not self._still_fits():
                learn_keys_of(self._store, facts=self._facts_on, seed=self._seed)
            self._follow()
        self._measure_recall()

    def _follow(self) -> None:
        """Take the tree of the store, which another writer of an archive in PostgreSQL may have learnt."""
        state = self._store.state
        self._file, self._tree = state.tree_file, stored_tree(state)
        self._patches = state.n_patches
        self._due = self._first_due()

    def _still_fits(self) -> bool:
        """Return whether the tree still fits, and keep that it was looked at; False if there is none."""
        holds = False

        def fact(state: State) -> dict[str, JSON]:
            nonlocal holds
            before, tree = TreeFit.kept_with(state.measured), tree_of(state)
            if tree is None or before is None:
                return {}
            now = TreeFit.on(state, tree)
            holds = before.still_holds(now)
            return before.checked_at(now).fact() if holds else {}

        self._store.measure(fact)
        return holds

    def _facts_on(self, tree: TextureTree, keys: NDArray[np.integer]) -> dict[str, JSON]:
        """Return what is kept with a new tree and its keys; the recall of the old one is forgotten."""
        state = self._store.state

        def patches_of(own: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.searchsorted(keys, own, "right") - np.searchsorted(keys, own)

        return {**TreeFit.of(state, tree, patches_of).fact(), **threshold_fact(state), RECALL: None}

    def _measure_recall(self) -> None:
        """Measure the recall, if that was not done since the tree was looked at."""
        measured = self._store.state.measured
        fit, found = TreeFit.kept_with(measured), Recall.kept_with(measured)
        if self._tree is not None and fit and (found is None or found.patches < fit.checked):
            measure_recall(self._store)

    def _first_due(self) -> int:
        """Return the number of patches beyond which the stored tree must be looked at."""
        if self._tree is None:
            return BUDGET
        fit = TreeFit.kept_with(self._store.state.measured)  # none if an older release learnt the tree
        return max(BUDGET, _CROWDED * self._tree.n_keys if fit is None else fit.due)


def convert(store: Store) -> None:
    """Rewrite an index of an older format in the newest one, in one commit; its answers stay.

    Parameters
    ----------
    store : Store
        The index, open for writing.
    """
    tree = stored_tree(store)
    if tree is None:
        store.compact()
    else:
        store.rekey(tree.to_arrays(), lambda patches: patches)


def stored_tree(source: AnyStore | State) -> TextureTree | None:
    """Return the texture tree of an archive, or None while it is too small for one."""
    return tree_of(_state_of(source))


def tree_of(state: State) -> TextureTree | None:
    """Return the texture tree of one committed state, or None."""
    arrays = state.tree
    try:
        return None if arrays is None else TextureTree.from_arrays(arrays)
    except ParameterError as error:
        raise IndexCorruptError(
            f"{state.name}: its tree is no texture tree ({error}): index the slides again"
        ) from error


def searcher_of(
    source: AnyStore | State, keys: Keys, params: SearchParams, *, rerank: Rerank | None = None
) -> Searcher:
    """Return a searcher of one state of a store, by the keys that its patches have.

    The tree and the segments are of one commit.

    Parameters
    ----------
    source : Store, RemoteStore or State
        A state, or a store, whose current state is taken.
    keys : {"texture", "paper"}
        The kind of keys that the patches have.
    params : SearchParams
        Used where a search asks for no others.
    rerank : Rerank, optional
        How the patches' vectors are kept, where they are.

    Returns
    -------
    Searcher
        A `GuidedSearcher` for the paper's keys, else a `TextureSearcher`.

    Raises
    ------
    IndexCorruptError
        If a segment or the tree is damaged, or they do not fit each other.
    """
    state = _state_of(source)
    if keys == "paper":
        return GuidedSearcher.of(state.snapshot(), params)
    state.check()
    tree, least = tree_of(state), 1
    if tree is None:  # at most BUDGET patches so far: a query is compared with all of them
        width = max((segment.patches.barcodes.shape[1] for segment in state.segments), default=8)
        tree, least = root_tree(width), BUDGET
    try:
        return TextureSearcher.of(archive_of(state, tree), params, least=least, rerank=rerank)
    except ParameterError as error:
        raise IndexCorruptError(
            f"{state.name}: its patches do not fit its tree ({error}): index the slides again"
        ) from error


def searcher_in_memory(patches: Snapshot, keys: Keys, params: SearchParams, *, seed: int = 0) -> Searcher:
    """Return a searcher of patches in memory, with the answers of an index on disk.

    Parameters
    ----------
    patches : Snapshot
        Slides and their patches; for the paper's keys, in key order.
    keys : {"texture", "paper"}
        The kind of keys. Texture keys are made here, by a tree that is learnt from the barcodes, and the keys
        of `patches` are not read.
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
    return TextureSearcher.of(archive, params, least=BUDGET if small else 1)


def _state_of(source: AnyStore | State) -> State:
    """Return a state, or the state at hand of a store."""
    return source if isinstance(source, State) else source.state
