"""The compiled loops of the guided search; `sish.index.guided.walk` says what they compute.

Walks overlap, most of all in small archives, where a walk passes most of the keys that the one before it
passed. How far a walk may reach depends on keys and exclusions alone. So the work is done in another order,
with the same result:

1. Find the reach of all walks: binary searches of all seeds side by side, so that their cache misses overlap.
2. Compute the distance of every patch in reach once, four patches at a time, cache line by cache line. Skip
   the rest of four patches as soon as all are past the threshold. Keep the nearest patch of each key that is
   within the threshold: a *hit*.
3. Do the walks in their published order over the hits alone. Closed keys matter in this step only.

Steps 1 and 2 stream through memory that is contiguous for each seed, and prefetch the next lines.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sish.index.compiled import Words, compiled, distance
from sish.index.hamming_kernels import FIELD_BITS, LANES, TOGETHER, four_distances, prefetch

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_MOST_LINES = 31  # the largest distance of so many lines leaves the highest bits of its field free
_ONES = 1 << 48 | 1 << 32 | 1 << 16 | 1  # a one in each field
_AHEAD = 32  # rows that are prefetched before they are needed


class Table(NamedTuple):
    """The arrays of a table that the kernels read; numba can unpack a named tuple."""

    keys: NDArray[np.int64]
    words: Words
    slide: NDArray[np.int32]
    exclude: NDArray[np.int32]  # 1 if excluded; ends with a 0 for slides past its end; empty: none


class Plan(NamedTuple):
    """`GuidedParams` as the kernels read them."""

    away: NDArray[np.int64]
    pre_step: int
    succ_step: int
    skip_step: int
    threshold: int
    visit_query_key: bool


class Reach(NamedTuple):
    """The reach of one query's walks, for S = 2T seeds, ascending: m - (T-1)s ... m, m ... m + (T-1)s."""

    seed: NDArray[np.int64]
    below: NDArray[np.int64]  # number of keys smaller than the seed
    above: NDArray[np.int64]  # number of keys not greater
    low: NDArray[np.int64]  # the walk down reads entries low to below
    high: NDArray[np.int64]  # the walk up reads entries above to high


class Bag(NamedTuple):
    """Hits in key order, or results in the order found."""

    rank: NDArray[np.int64]
    bits: NDArray[np.int64]
    closed: NDArray[np.bool_]


@compiled
def search_all(
    table: Table,
    query_keys: NDArray[np.int64],
    queries: Words,
    plan: Plan,
    reach: Reach,
    hits: Bag,
    found: Bag,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Return offsets (Q + 1,), places in the table (R,) and distances (R,) of the bags of all queries."""
    offset = np.zeros(query_keys.size + 1, np.int64)
    rank, hamming = np.empty(1024, np.int64), np.empty(1024, np.int32)
    place = np.empty(plan.threshold + 2, np.int64)
    for query in range(query_keys.size):
        words = queries[query : query + 1]
        _set_reach(table, query_keys[query], plan, reach)
        n_hits = _find_hits(table, words, plan, reach, hits)
        start, count = (
            offset[query],
            _walk_all(table, query_keys[query], words, plan, reach, hits, n_hits, found),
        )
        if start + count > rank.size:
            rank, hamming = _grown(rank, start, start + count), _grown(hamming, start, start + count)
        _sort_bag(found, count, place, rank[start:], hamming[start:])
        offset[query + 1] = start + count
    total = offset[-1]
    return offset, rank[:total].copy(), hamming[:total].copy()


@compiled
def _set_reach(table: Table, key: int, plan: Plan, reach: Reach) -> None:
    """Fill `reach` for one query: where the walks start, and how far they may go."""
    keys, n_seeds = table.keys, plan.away.size
    for t in range(n_seeds):
        away = plan.away[t]
        reach.seed[n_seeds - 1 - t] = key - away if away >= 0 and key >= _INT64_MIN + away else _INT64_MIN
        reach.seed[n_seeds + t] = key + away if away >= 0 and key <= _INT64_MAX - away else _INT64_MAX
    _lower_bounds(keys, reach.seed, reach.below)
    for number in range(2 * n_seeds):
        t = number - n_seeds if number >= n_seeds else n_seeds - 1 - number
        away, above = plan.away[t], reach.below[number]
        if number < n_seeds and (away < 0 or key < _INT64_MIN + away):
            reach.below[number] = above = 0
        elif number >= n_seeds and (away < 0 or key > _INT64_MAX - away):
            reach.below[number] = above = keys.size
        while above < keys.size and keys[above] == reach.seed[number]:
            above += 1
        reach.above[number] = above
        reach.low[number] = _walk_end(table, reach.below[number] - 1, -1, plan.pre_step, plan.skip_step) + 1
        reach.high[number] = _walk_end(table, above, 1, plan.succ_step, plan.skip_step)


@compiled
def _lower_bounds(keys: NDArray[np.int64], values: NDArray[np.int64], below: NDArray[np.int64]) -> None:
    """Fill `below` with the number of keys below each value, level by level, so that cache misses overlap."""
    below[:] = 0
    left = keys.size
    while left > 1:
        half = left >> 1
        for i in range(values.size):
            below[i] += half * np.int64(keys[below[i] + half - 1] < values[i])
        left -= half
    for i in range(values.size if keys.size else 0):
        below[i] += np.int64(keys[below[i]] < values[i])


@compiled
def _walk_end(table: Table, place: int, stride: int, steps: int, skips: int) -> int:
    """Return the entry past a walk of `steps` distinct keys from `place` by `stride` (-1 down, +1 up)."""
    end = _end_of_keys(table.keys, place, stride, steps)
    if table.exclude.size:
        passed = table.slide[place:end] if stride > 0 else table.slide[end + 1 : place + 1]
        if _any_excluded(passed, table.exclude):
            return _walk_end_among(table, place, stride, steps, skips)
    return end


@compiled
def _end_of_keys(keys: NDArray[np.int64], place: int, stride: int, steps: int) -> int:
    """Return `_walk_end` where nothing is excluded."""
    if steps <= 0 or not 0 <= place < keys.size:
        return place
    place += stride
    steps -= 1
    while steps > 0 and 0 <= place < keys.size:
        block = min(steps, keys.size - place if stride > 0 else place + 1)  # n entries have at most n keys
        low = place if stride > 0 else place - block + 1
        steps -= _n_different(keys[low : low + block], keys[low - stride : low - stride + block])
        place += stride * block
    while 0 <= place < keys.size and keys[place] == keys[place - stride]:
        place += stride
    return place


@compiled
def _any_excluded(slide: NDArray[np.int32], exclude: NDArray[np.int32]) -> bool:
    """Return whether any of these entries is excluded; the loop becomes vector instructions."""
    count, last = np.int32(0), np.uint32(exclude.size - 1)
    for i in range(slide.size):
        count |= exclude[min(np.uint32(slide[i]), last)]
    return bool(count)


@compiled
def _n_different(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    """Return how many values differ; the loop becomes vector instructions."""
    count = np.int64(0)
    for i in range(left.size):
        count += np.int64(left[i] != right[i])
    return int(count)


@compiled
def _walk_end_among(table: Table, place: int, stride: int, steps: int, skips: int) -> int:
    """Return `_walk_end` where some patches are excluded; keys without any other do not count as steps."""
    keys, slide, exclude = table.keys, table.slide, table.exclude
    while steps > 0 and 0 <= place < keys.size:
        key, any_left = keys[place], False
        while 0 <= place < keys.size and keys[place] == key:
            any_left |= not exclude[min(np.uint32(slide[place]), np.uint32(exclude.size - 1))]
            place += stride
        if any_left:
            steps -= 1
        elif skips == 0:
            break
        else:
            skips -= 1
    return place


@compiled
def _find_hits(table: Table, query: Words, plan: Plan, reach: Reach, hits: Bag) -> int:
    """Fill `hits` from all entries in reach, each read once; return their number."""
    done = count = 0
    for number in range(reach.seed.size):
        start, stop = max(done, reach.low[number]), reach.high[number]
        if start < stop:
            count = _hits_among(table, query, start, stop, plan.threshold, hits, count)
            done = stop
    return count


@compiled
def _hits_among(
    table: Table, query: Words, start: int, stop: int, threshold: int, hits: Bag, count: int
) -> int:
    """Put the hits among entries `start` to `stop` behind the first `count`; return their number."""
    words = table.words
    row_bytes, line_bytes, own = words.shape[1] * words.itemsize, 8 * LANES, query.ctypes.data
    lines = row_bytes // line_bytes if words.itemsize == 8 and row_bytes % line_bytes == 0 else 0
    most = 8 * line_bytes * _MOST_LINES
    tops = np.int64(_ONES) << (FIELD_BITS - 2)  # more than any distance
    past = np.int64(_ONES) * (min(threshold, most) + 1)
    entry = start
    keys, slide, exclude = table.keys, table.slide, table.exclude
    ranks, bits_of, closed = hits.rank, hits.bits, hits.closed
    last = keys[ranks[count - 1]] if count else keys[start]  # key of the last hit, if there is one
    found = np.empty(TOGETHER, np.int64)
    while entry < stop:
        size = min(TOGETHER, stop - entry)
        if 0 < lines <= _MOST_LINES and size == TOGETHER:
            row, packed = words.ctypes.data + entry * row_bytes, np.int64(0)
            for number in range(TOGETHER):
                prefetch(row + (_AHEAD + number) * row_bytes)
            passed = False
            for line in range(lines):
                packed += four_distances(row + line * line_bytes, row_bytes, own + line * line_bytes)
                if ((packed | tops) - past) & tops == tops:  # no field is smaller than its part of `past`
                    passed = True
                    break
            if passed:
                entry += TOGETHER
                continue
            for number in range(TOGETHER):
                found[number] = (packed >> (FIELD_BITS * number)) & ((1 << FIELD_BITS) - 1)
        else:
            for number in range(size):
                found[number] = distance(words, entry + number, query, 0)
        for number in range(size):
            bits, at = found[number], entry + number
            if bits > threshold:
                continue
            if exclude.size and exclude[min(np.uint32(slide[at]), np.uint32(exclude.size - 1))]:
                continue
            if count and keys[at] == last:  # keep only the nearest patch of a key
                if bits < bits_of[count - 1]:
                    ranks[count - 1], bits_of[count - 1] = at, bits
                continue
            ranks[count], bits_of[count], closed[count], last = at, bits, False, keys[at]
            count += 1
        entry += size
    return count


@compiled
def _walk_all(
    table: Table, key: int, query: Words, plan: Plan, reach: Reach, hits: Bag, n_hits: int, found: Bag
) -> int:
    """Put the results of one query into `found` in the order of the walks; return their number."""
    count, n_seeds = 0, plan.away.size
    if plan.visit_query_key:
        count = _visit_own(table, key, query, plan.threshold, hits, n_hits, found)
    if n_hits == 0:
        return count
    for order in range(2 * n_seeds):
        number = n_seeds - 1 - order if order < n_seeds else order
        if order == n_seeds:
            continue  # the seed at the query's own key comes twice: its walks are done
        count = _walk(hits, n_hits, reach.below[number] - 1, reach.low[number] - 1, -1, found, count)
        count = _walk(hits, n_hits, reach.above[number], reach.high[number], 1, found, count)
    return count


@compiled
def _walk(hits: Bag, n_hits: int, place: int, end: int, stride: int, found: Bag, count: int) -> int:
    """Take the hits from entry `place` to before `end`, up to the first closed key; return the new count."""
    at = _lower_bound(hits.rank[:n_hits], place + np.int64(stride < 0)) - np.int64(stride < 0)
    while 0 <= at < n_hits and (end - hits.rank[at]) * stride > 0 and not hits.closed[at]:
        found.rank[count], found.bits[count] = hits.rank[at], hits.bits[at]
        hits.closed[at] = True
        count += 1
        at += stride
    return count


@compiled
def _lower_bound(values: NDArray[np.int64], value: Any) -> int:
    """Return the number of values smaller than `value`, O(log n)."""
    low, high = 0, values.size
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _visit_own(
    table: Table, key: int, query: Words, threshold: int, hits: Bag, n_hits: int, found: Bag
) -> int:
    """Take all entries at the query's own key within the threshold, and close it; return their number."""
    keys, slide, exclude = table.keys, table.slide, table.exclude
    first, count = _lower_bound(keys, key), 0
    entry, room = first, found.rank.size - n_hits  # enough, if the keys are sorted as they should be
    while entry < keys.size and keys[entry] == key and count < room:
        if not (exclude.size and exclude[min(np.uint32(slide[entry]), np.uint32(exclude.size - 1))]):
            bits = distance(table.words, entry, query, 0)
            if bits <= threshold:
                found.rank[count], found.bits[count] = entry, bits
                count += 1
        entry += 1
    if count:
        at = _lower_bound(hits.rank[:n_hits], first)
        if at < n_hits and hits.rank[at] < entry:
            hits.closed[at] = True
    return count


@compiled
def _sort_bag(
    found: Bag, count: int, place: NDArray[np.int64], rank: NDArray[np.int64], hamming: NDArray[np.int32]
) -> None:
    """Sort the first `count` results by distance, stably: a counting sort, with `place` for its counts."""
    if count == 0:
        return
    place[:] = 0
    for i in range(count):
        place[found.bits[i] + 1] += 1
    for bits in range(1, place.size):
        place[bits] += place[bits - 1]
    for i in range(count):
        bits = found.bits[i]
        rank[place[bits]], hamming[place[bits]] = found.rank[i], bits
        place[bits] += 1


@compiled
def _grown(array: Any, used: int, wanted: int) -> Any:
    """Return a copy of `array` with room for `wanted` values at least."""
    larger = np.empty(max(wanted, 2 * array.size), array.dtype)
    larger[:used] = array[:used]
    return larger
