"""Guided search: the neighbours of a patch, looked for where its key leads (Chen et al. 2022, Methods).

How it works. Every patch of the archive has an integer key and a barcode; the table holds them in key
order. A query patch has a key m and a barcode h. Rather than comparing h with everything, the search
looks around m, and around *seeds* at regular distances from m, because patches of near texture may
have keys somewhat apart:

    seeds   m, m - s, m - 2s, ..., then m, m + s, m + 2s, ...      s = interval x 1e11

From each seed it walks down the keys, then up, one distinct key a step, for at most `pre_step` and
`succ_step` steps. At each key the entry nearest to h in Hamming distance is that key's result. Within
the threshold it joins the *bag* and its key is closed: a later walk that arrives at a closed key ends,
as all beyond it has been walked. Keys that fail the threshold stay open and may be passed again. Keys
whose entries are all excluded are passed without counting as a step (at most `skip_step` of them, which
is our addition: a filter that leaves almost nothing would lead through the whole archive). The bag is
sorted by distance.

So a query looks at no more than 2 x n_seeds x (pre_step + succ_step) keys however large the archive
is. Predecessor and successor are strict: the entries at exactly m are found only by a walk that comes
from another seed. That is the published behaviour and the default; `visit_query_key` changes it.

Here predecessor and successor are steps in a sorted array, so that one binary search a seed is all
that a tree would do (`sish.index.trees.ordered_set` has the trees), and no patch is compared twice
(`sish.index.guided.kernel`).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError, QueryError
from sish.index.bags import Bags
from sish.index.compiled import as_barcodes, paired_words
from sish.index.guided.kernel import Bag, Plan, Reach, Table, search_all
from sish.index.params import SearchParams

__all__ = ["KeyTable", "guided_search"]

KEY_UNIT = 10**11  # the weight of the coarsest sum in a key; `interval` counts in it
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class KeyTable:
    """The patches of an archive in key order. Arrays are used as they are: memory maps stay on disk."""

    keys: NDArray[np.int64]
    """Key of each patch, (P,), ascending; patches of one key in insertion order."""
    barcodes: NDArray[np.uint8]
    """Barcode of each patch, (P, B), most significant bit first."""
    slide: NDArray[np.int32]
    """Slide number of each patch, (P,)."""
    position: NDArray[np.int64]
    """The caller's number of each patch, (P,); its place in the order given to `build`."""

    def __post_init__(self) -> None:
        """Refuse arrays of other types or lengths; the order of the keys is `build`'s care."""
        as_barcodes(self.barcodes)
        for name, dtype in (("keys", np.int64), ("slide", np.int32), ("position", np.int64)):
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
        cls, keys: ArrayLike, barcodes: ArrayLike, slide: ArrayLike, position: ArrayLike | None = None
    ) -> "KeyTable":
        """The table of patches given in insertion order: keys (P,), barcodes uint8 (P, B), slide (P,).

        Sorts stably by key, O(P log P); what is in order already is not copied. `position` (P,) are
        the numbers by which the caller knows the patches, 0, 1, ... P - 1 unless given.

        >>> table = KeyTable.build([30, 10, 30], np.zeros((3, 1), np.uint8), [0, 1, 2])
        >>> table.keys.tolist(), table.position.tolist()
        ([10, 30, 30], [1, 0, 2])
        """
        own_keys = np.asarray(keys, dtype=np.int64)
        rows, slides = as_barcodes(barcodes), np.asarray(slide, dtype=np.int32)
        numbers = np.arange(len(rows)) if position is None else np.asarray(position, dtype=np.int64)
        table = cls(own_keys, rows, slides, numbers)
        if np.all(own_keys[1:] >= own_keys[:-1]):
            return table
        order = np.argsort(own_keys, kind="stable")
        return cls(own_keys[order], rows[order], slides[order], numbers[order])


def guided_search(
    table: KeyTable,
    query_keys: ArrayLike,
    query_barcodes: ArrayLike,
    *,
    exclude: NDArray[np.bool_] | None = None,
    params: SearchParams | None = None,
    n_threads: int = 1,
) -> Bags:
    """The bag of each query patch: keys int64 (Q,), barcodes uint8 (Q, B). See the module for the walk.

    Patches of slide s are left out where `exclude[s]` is true; slides past its end are not. Nothing is
    rebuilt for it: excluded patches are passed on the way, up to `SearchParams.skip_step` keys a walk, so
    that the cost is bounded whatever the size of the archive. Where a filter leaves few patches, scanning
    them (`sish.index.barcode.nearest`) finds more. The queries are shared among `n_threads` threads; the
    result does not depend on their number. Raises QueryError where the queries do not fit the table.

    >>> table = KeyTable.build([10, 20, 30], np.array([[7], [1], [255]], np.uint8), [0, 1, 2])
    >>> query, near = np.array([[1]], np.uint8), SearchParams(threshold=4)
    >>> bags = guided_search(table, [20], query, params=near)
    >>> bags.patch.tolist(), bags.hamming.tolist()    # 30 is 7 bits away; 20 was met on the way from above
    ([1, 0], [0, 2])
    >>> guided_search(table, [20], query, params=SearchParams(n_seeds=1)).patch.tolist()
    [0, 2]
    """
    params = params or SearchParams()
    keys = np.asarray(query_keys, dtype=np.int64)
    barcodes = as_barcodes(query_barcodes, "query_barcodes")
    if keys.shape != (len(barcodes),):
        raise QueryError(f"query_keys have shape {keys.shape}; give one a barcode, ({len(barcodes)},)")
    rows, queries = paired_words(table.barcodes, barcodes)
    mask = np.zeros(0, np.bool_) if exclude is None else np.asarray(exclude)
    if mask.dtype != np.bool_ or mask.ndim != 1:
        raise QueryError(f"exclude is {mask.dtype} {mask.shape}; give bool (n_slides,), not slide numbers")
    if n_threads < 1:
        raise ParameterError(f"n_threads is {n_threads}; give at least 1")
    padded = np.append(mask, False).astype(np.int32)[: None if mask.any() else 0]
    kernel_table = Table(_frozen(table.keys), rows, _frozen(table.slide), _frozen(padded))

    def search(part: slice) -> Bags:
        own = _frozen(keys[part])
        offset, rank, hamming = search_all(
            kernel_table, own, queries[part], _plan(params, barcodes), *_scratch(table.keys, own, params)
        )
        return Bags(offset, np.asarray(table.position)[rank], hamming)

    cuts = [len(keys) * i // n_threads for i in range(n_threads + 1)]
    parts = [slice(a, b) for a, b in pairwise(cuts) if a < b]
    if len(parts) < 2:
        return search(slice(None))
    with ThreadPoolExecutor(len(parts)) as pool:
        return _joined(list(pool.map(search, parts)))


def _plan(params: SearchParams, barcodes: NDArray[np.uint8]) -> Plan:
    """The parameters as the kernels want them; a barcode has no more bits to differ in than there are."""
    return Plan(
        _seed_distances(params), params.pre_step, params.succ_step, params.skip_step,
        min(params.threshold, 8 * barcodes.shape[1]), params.visit_query_key,
    )  # fmt: skip


def _joined(parts: Sequence[Bags]) -> Bags:
    """The bags of all parts, one after another."""
    lengths = np.concatenate([part.lengths() for part in parts])
    return Bags(
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.patch for part in parts]),
        np.concatenate([part.hamming for part in parts]),
    )


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous read-only view: the kernels are compiled for these only."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _seed_distances(params: SearchParams) -> NDArray[np.int64]:
    """Distance of the t-th seed from the query's key; -1 where it lies past every key that there can be."""
    step = params.interval * KEY_UNIT
    away = [t * step for t in range(params.n_seeds)]
    return np.array([d if d <= _INT64_MAX else -1 for d in away], dtype=np.int64)


def _scratch(
    keys: NDArray[np.int64], query_keys: NDArray[np.int64], params: SearchParams
) -> tuple[Reach, Bag, Bag]:
    """Memory that queries use in turn; untouched pages of it are never made real by the system.

    A query has a hit a step at most, and one at each seed; all at its own key are results too if visited.
    """
    n_seeds, own = params.n_seeds, 0
    if params.visit_query_key and len(query_keys):
        runs = np.searchsorted(keys, query_keys, "right") - np.searchsorted(keys, query_keys, "left")
        own = int(runs.max())
    room = min(len(keys), 2 * n_seeds * (params.pre_step + params.succ_step + 1))
    hits, found = (
        Bag(np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.bool_)) for n in (room, room + own)
    )
    return Reach(*np.empty((5, 2 * n_seeds), np.int64)), hits, found
