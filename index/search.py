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
whose entries are all excluded are passed without counting as a step. The bag is sorted by distance.

So a query looks at no more than 2 x n_seeds x (pre_step + succ_step) keys however large the archive
is. Predecessor and successor are strict: the entries at exactly m are found only by a walk that comes
from another seed. That is the published behaviour and the default; `visit_query_key` changes it.

Here predecessor and successor are steps in a sorted array, so that one binary search a seed is all
that a tree would do. `sish.index.ordered_set` has the trees.
"""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError, QueryError
from sish.index.barcode import Words, as_barcodes, compiled, distance, paired_words

__all__ = ["Bags", "PatchTable", "SearchParams", "guided_search"]

KEY_UNIT = 10**11  # the weight of the coarsest sum in a key; `interval` counts in it
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class SearchParams:
    """How far a guided search looks; the defaults are the paper's. ParameterError out of range."""

    interval: int = 50
    """C: distance between neighbouring seeds, in units of 1e11."""
    n_seeds: int = 10
    """T: seeds on each side of the query's key, the key itself included on both."""
    pre_step: int = 375
    """Keys walked down from each seed."""
    succ_step: int = 375
    """Keys walked up from each seed."""
    threshold: int = 128
    """Largest Hamming distance, in bits, of an entry that joins a bag."""
    visit_query_key: bool = False
    """Look at the entries at exactly the query's key first, and take all within the threshold. Not in
    the paper, whose walks may miss them; with it an indexed patch always finds itself."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | np.integer) or not 0 <= value <= _INT64_MAX:
                raise ParameterError(f"{field.name} is {value!r}; give an integer of at least 0")


@dataclass(frozen=True, slots=True)
class PatchTable:
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
    ) -> "PatchTable":
        """The table of patches given in insertion order: keys (P,), barcodes uint8 (P, B), slide (P,).

        Sorts stably by key, O(P log P); what is in order already is not copied. `position` (P,) are
        the numbers by which the caller knows the patches, 0, 1, ... P - 1 unless given.

        >>> table = PatchTable.build([30, 10, 30], np.zeros((3, 1), np.uint8), [0, 1, 2])
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


@dataclass(frozen=True, slots=True)
class Bags:
    """The results of several query patches: a bag each, best first."""

    offset: NDArray[np.int64]
    """Bag q is entries offset[q] to offset[q + 1] of the other arrays, (Q + 1,)."""
    patch: NDArray[np.int64]
    """The caller's number of each result, (R,)."""
    hamming: NDArray[np.int32]
    """Its distance in bits, (R,)."""

    def __len__(self) -> int:
        """Number of query patches."""
        return len(self.offset) - 1

    def lengths(self) -> NDArray[np.int64]:
        """Number of results of each query patch, (Q,)."""
        return np.diff(self.offset)


def guided_search(
    table: PatchTable,
    query_keys: ArrayLike,
    query_barcodes: ArrayLike,
    *,
    exclude: NDArray[np.bool_] | None = None,
    params: SearchParams | None = None,
) -> Bags:
    """The bag of each query patch: keys int64 (Q,), barcodes uint8 (Q, B). See the module for the walk.

    Patches of slide s are left out where `exclude[s]` is true; slides past its end are not. Nothing is
    rebuilt for it, but every excluded entry on the way is passed one by one: where nearly all is
    excluded, scanning what remains (`sish.index.barcode.nearest`) is faster. Raises QueryError where
    the queries do not fit the table.

    >>> table = PatchTable.build([10, 20, 30], np.array([[7], [1], [255]], np.uint8), [0, 1, 2])
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
    offset, rank, hamming = _search(
        _Table(_frozen(table.keys), rows, _frozen(table.slide), _frozen(mask)),
        _frozen(keys),
        queries,
        _Plan(
            _seed_distances(params), params.pre_step, params.succ_step,
            min(params.threshold, 8 * barcodes.shape[1]), params.visit_query_key,
        ),
        _Scratch(
            np.zeros(len(table), np.int32), *np.empty((2, _largest_bag(table.keys, keys, params)), np.int64)
        ),
    )  # fmt: skip
    return Bags(offset, np.asarray(table.position)[rank], hamming)


class _Table(NamedTuple):
    """What the kernels read of a table; a tuple with names, which numba can take apart."""

    keys: NDArray[np.int64]
    words: Words
    slide: NDArray[np.int32]
    exclude: NDArray[np.bool_]


class _Query(NamedTuple):
    """One query patch."""

    key: int
    words: Words  # (1, W)
    mark: int  # what its closed keys are marked with


class _Plan(NamedTuple):
    """SearchParams as the kernels want them."""

    away: NDArray[np.int64]
    pre_step: int
    succ_step: int
    threshold: int
    visit_query_key: bool


class _Scratch(NamedTuple):
    """Memory that queries use in turn. No clearing between them: a key is closed for a query where
    the first entry of its run has the query's mark. Untouched pages of it are never made real by the system.
    """

    closed: NDArray[np.int32]
    rank: NDArray[np.int64]
    bits: NDArray[np.int64]


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


def _largest_bag(keys: NDArray[np.int64], query_keys: NDArray[np.int64], params: SearchParams) -> int:
    """A bound on the results of one query: a result a step, and all entries at its own key if visited."""
    most = 2 * params.n_seeds * (params.pre_step + params.succ_step)
    if params.visit_query_key and len(query_keys):
        runs = np.searchsorted(keys, query_keys, "right") - np.searchsorted(keys, query_keys, "left")
        most += int(runs.max())
    return min(len(keys), most)


@compiled
def _search(
    table: _Table, query_keys: NDArray[np.int64], queries: Words, plan: _Plan, scratch: _Scratch
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Offsets (Q + 1,), ranks in the table (R,) and distances (R,) of the bags of all queries."""
    offset = np.zeros(query_keys.size + 1, np.int64)
    rank, hamming = np.empty(1024, np.int64), np.empty(1024, np.int32)
    for query in range(query_keys.size):
        own = _Query(query_keys[query], queries[query : query + 1], query + 1)
        start, count = offset[query], _fill_bag(table, own, plan, scratch)
        if start + count > rank.size:
            rank, hamming = _grown(rank, start, start + count), _grown(hamming, start, start + count)
        _sort_bag(scratch, count, plan.threshold, rank[start:], hamming[start:])
        offset[query + 1] = start + count
    total = offset[-1]
    return offset, rank[:total].copy(), hamming[:total].copy()


@compiled
def _fill_bag(table: _Table, query: _Query, plan: _Plan, scratch: _Scratch) -> int:
    """Put the results of one query into `scratch` in the order found; their number."""
    count = _visit_own(table, query, plan, scratch) if plan.visit_query_key else 0
    for sign in (-1, 1):
        for away in plan.away:
            below, above = _around(table.keys, query.key, sign, away)
            count = _walk(table, query, below - 1, -1, plan, scratch, count)
            count = _walk(table, query, above, 1, plan, scratch, count)
    return count


@compiled
def _around(keys: NDArray[np.int64], key: int, sign: int, away: int) -> tuple[int, int]:
    """Number of keys below the seed `key + sign * away`, and of keys not above it."""
    if sign < 0 and (away < 0 or key < _INT64_MIN + away):
        return 0, 0
    if sign > 0 and (away < 0 or key > _INT64_MAX - away):
        return keys.size, keys.size
    seed = key + sign * away
    below = _lower_bound(keys, seed)
    above = below
    while above < keys.size and keys[above] == seed:
        above += 1
    return below, above


@compiled
def _lower_bound(keys: NDArray[np.int64], value: int) -> int:
    """Number of keys smaller than `value`, O(log P)."""
    low, high = 0, keys.size
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _walk(
    table: _Table, query: _Query, place: int, stride: int, plan: _Plan, scratch: _Scratch, count: int
) -> int:
    """Walk from `place` by `stride` (-1 down, +1 up), adding results behind the first `count`; their number.

    Entries of one key are neighbours in the table: a run. O(entries passed). The arrays are taken out of
    their tuples first, and the loop over a run stands here: otherwise a step costs ten times as much.
    """
    keys, slide, exclude, words, own = table.keys, table.slide, table.exclude, table.words, query.words
    closed, threshold = scratch.closed, plan.threshold
    steps = plan.pre_step if stride < 0 else plan.succ_step
    while steps > 0 and 0 <= place < keys.size:
        end = place
        while 0 <= end + stride < keys.size and keys[end + stride] == keys[place]:
            end += stride
        first = min(place, end)
        if closed[first] == query.mark:
            break
        best, least = -1, _INT64_MAX
        for entry in range(first, max(place, end) + 1):
            if not _excluded(slide, exclude, entry):
                bits = distance(words, entry, own, 0)
                if bits < least:
                    best, least = entry, bits
        place = end + stride
        if best < 0:
            continue
        steps -= 1
        if least <= threshold:
            scratch.rank[count], scratch.bits[count] = best, least
            closed[first] = query.mark
            count += 1
    return count


@compiled
def _excluded(slide: NDArray[np.int32], exclude: NDArray[np.bool_], entry: int) -> bool:
    number = slide[entry]
    return bool(0 <= number < exclude.size and exclude[number])


@compiled
def _visit_own(table: _Table, query: _Query, plan: _Plan, scratch: _Scratch) -> int:
    """Take every entry at the query's own key that is within the threshold; their number."""
    first, stop = _around(table.keys, query.key, 1, 0)
    count = 0
    for entry in range(first, stop):
        if not _excluded(table.slide, table.exclude, entry):
            bits = distance(table.words, entry, query.words, 0)
            if bits <= plan.threshold:
                scratch.rank[count], scratch.bits[count] = entry, bits
                scratch.closed[first] = query.mark
                count += 1
    return count


@compiled
def _sort_bag(
    scratch: _Scratch, count: int, threshold: int, rank: NDArray[np.int64], hamming: NDArray[np.int32]
) -> None:
    """The first `count` results of `scratch` by distance, stable (a counting sort)."""
    place = np.zeros(threshold + 2, np.int64)
    for found in range(count):
        place[scratch.bits[found] + 1] += 1
    place = np.cumsum(place)
    for found in range(count):
        bits = scratch.bits[found]
        rank[place[bits]], hamming[place[bits]] = scratch.rank[found], bits
        place[bits] += 1


@compiled
def _grown(array: Any, used: int, wanted: int) -> Any:
    """A copy of `array` with room for `wanted` values at least."""
    larger = np.empty(max(wanted, 2 * array.size), array.dtype)
    larger[:used] = array[:used]
    return larger
