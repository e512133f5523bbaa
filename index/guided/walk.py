"""The guided search: it walks along the keys around a query patch's key (Chen et al. 2022, Methods).

Every patch of the archive has an integer key and a barcode, and a table holds them in key order. A query
patch has a key m and a barcode h. The search does not compare h with everything. It looks around m, and
around *seeds* at regular distances from m, because patches of similar texture may have keys somewhat apart:

    seeds   m, m - s, m - 2s, ..., then m, m + s, m + 2s, ...      s = interval x 1e11

From each seed it walks down the keys, then up, one distinct key a step, for at most `pre_step` and
`succ_step` steps. At each key it takes the entry nearest to h in Hamming distance. If that is within the
threshold, it joins the *bag* and its key is closed. A later walk ends at a closed key, as everything beyond
has been walked. Keys that fail the threshold stay open and may be passed again. Keys whose entries are all
excluded are passed and do not count as steps. At most `skip_step` such keys are passed. This limit is our
addition: a filter that leaves almost nothing would lead through the whole archive. The bag is sorted by
distance.

So a query looks at no more than 2 x n_seeds x (pre_step + succ_step) keys, however large the archive is.
Predecessor and successor are strict: the entries at exactly m are found only by a walk from another seed.
That is the published behaviour and the default; `visit_query_key` changes it.

By default predecessor and successor are steps in a sorted array, and one binary search a seed replaces the
tree. No patch is compared twice (`sish.index.guided.kernel`). `sish.index.guided.tree_walk` makes the same
walks along any ordered set (`sish.index.trees`), with the same bags.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError
from sish.index.bags import Bags, joined
from sish.index.compiled import as_barcodes, frozen, paired_words
from sish.index.guided.kernel import Bag, Plan, Reach, Table, search_all
from sish.index.guided.tree_walk import TreeWalk
from sish.index.params import KEY_UNIT, GuidedParams
from sish.index.table import KeyTable, checked_mask, whole_numbers
from sish.index.trees.ordered_set import OrderedSet

_INT64_MAX = 2**63 - 1


def guided_search(
    table: KeyTable,
    query_keys: ArrayLike,
    query_barcodes: ArrayLike,
    *,
    exclude: NDArray[np.bool_] | None = None,
    params: GuidedParams | None = None,
    n_threads: int = 1,
    tree: OrderedSet | None = None,
) -> Bags:
    """Return the bag of each query patch: the patches found by walks along the keys.

    The docstring of the module :mod:`sish.index.guided.walk` tells how the search walks.

    A query costs O(n_seeds (log P + pre_step + succ_step)) whatever the number of patches P. Filters do not
    raise that: excluded patches are passed on the way. Where a filter leaves few patches, comparing with
    all of them (`sish.index.nearest`) finds more.

    Parameters
    ----------
    table : KeyTable
        The P patches of the archive.
    query_keys : int64 (Q,)
    query_barcodes : uint8 (Q, B)
    exclude : bool (n_slides,), optional
        True for the slides whose patches are left out. Slides past its end are not.
    params : GuidedParams, optional
        Default: the paper's.
    n_threads : int
        Threads that share the queries. The result does not depend on it.
    tree : OrderedSet, optional
        The keys of the table, to walk along. The result does not depend on it. Default: the table's own
        sorted array, in compiled loops.

    Returns
    -------
    Bags
        Patches in the caller's numbers (`KeyTable.build`).

    Raises
    ------
    ParameterError
        If keys, barcodes or the mask do not fit each other or the table, or `n_threads` is below 1.

    Examples
    --------
    >>> table = KeyTable.build([10, 20, 30], np.array([[7], [1], [255]], np.uint8), [0, 1, 2])
    >>> query, near = np.array([[1]], np.uint8), GuidedParams(threshold=4)
    >>> bags = guided_search(table, [20], query, params=near)
    >>> bags.patch.tolist(), bags.hamming.tolist()    # 30 is 7 bits away; 20 was met on the way from above
    ([1, 0], [0, 2])
    >>> guided_search(table, [20], query, params=GuidedParams(n_seeds=1)).patch.tolist()
    [0, 2]
    """
    params = params or GuidedParams()
    keys = whole_numbers(query_keys, "query_keys").astype(np.int64)
    barcodes = as_barcodes(query_barcodes, "query_barcodes")
    if keys.shape != (len(barcodes),):
        raise ParameterError(f"query_keys have shape {keys.shape}; give one a barcode, ({len(barcodes)},)")
    rows, queries = paired_words(table.barcodes, barcodes)
    mask = checked_mask(exclude)
    if n_threads < 1:
        raise ParameterError(f"n_threads is {n_threads}; give at least 1")
    padded = np.append(mask, False).astype(np.int32)[: None if mask.any() else 0]
    own_keys = table.keys.astype(np.int64, copy=False)
    kernel_table = Table(frozen(own_keys), rows, frozen(table.slide), frozen(padded))

    def search(part: slice) -> Bags:
        if tree is not None:
            found = TreeWalk(tree, table, mask, params).search(keys[part].tolist(), barcodes[part])
            return replace(found, patch=table.callers(found.patch))
        own = frozen(keys[part])
        offset, rank, hamming = search_all(
            kernel_table, own, queries[part], _plan(params, barcodes), *_scratch(own_keys, own, params)
        )
        return Bags(offset, table.callers(rank), hamming)

    cuts = [len(keys) * i // n_threads for i in range(n_threads + 1)]
    parts = [slice(a, b) for a, b in pairwise(cuts) if a < b]
    if len(parts) < 2:
        return search(slice(None))
    with ThreadPoolExecutor(len(parts)) as pool:
        return joined(list(pool.map(search, parts)))


def _plan(params: GuidedParams, barcodes: NDArray[np.uint8]) -> Plan:
    """Return the parameters as the kernels read them; no threshold is above the bits of a barcode."""
    return Plan(
        _seed_distances(params), params.pre_step, params.succ_step, params.skip_step,
        min(params.threshold, 8 * barcodes.shape[1]), params.visit_query_key,
    )  # fmt: skip


def _seed_distances(params: GuidedParams) -> NDArray[np.int64]:
    """Return the distance of the t-th seed from the query's key; -1 if it lies past every possible key."""
    step = params.interval * KEY_UNIT
    away = [t * step for t in range(params.n_seeds)]
    return np.array([d if d <= _INT64_MAX else -1 for d in away], dtype=np.int64)


def _scratch(
    keys: NDArray[np.int64], query_keys: NDArray[np.int64], params: GuidedParams
) -> tuple[Reach, Bag, Bag]:
    """Return memory that queries use in turn.

    A query has at most one hit for each step and each seed, and as many results. If the query's own key is
    visited, all entries there are results too. The system allocates only the pages that are touched.

    Returns
    -------
    Reach, Bag, Bag
        Room for the seeds, the hits and the results of a query.
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
