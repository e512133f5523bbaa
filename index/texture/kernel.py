"""The compiled walk over a texture tree's cells; `sish.index.texture.cells` says what it computes.

Kernels find their data by *addresses* (`Place`). Where rows are compared, they call nothing that takes an
array: numba counts references at each such call, which took three times as long as all distances.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sish.index.compiled import compiled
from sish.index.hamming_kernels import (
    LANES,
    block_distances,
    eight_rows,
    eight_within,
    load_int32,
    load_int64,
    lowest,
    prefetch,
)
from sish.index.params import CEILING
from sish.index.texture.shortlist import (
    BARCODES,
    BITS,
    BOUND,
    COMPARED,
    COUNT,
    FIRST_SLIDE,
    KEY_BEGINS,
    KEYS,
    NODE_BEGINS,
    PATCHES,
    ROW_BITS,
    SLIDES,
    WALKED,
    WANTED,
    WHERE,
    WITHIN,
    Shortlist,
    best_of,
    first_bound,
    new_shortlist,
    start_query,
    thin,
)

_FEWEST_NODES = 3  # nodes that are opened at least
_NEAR_NUMERATOR, _NEAR_DENOMINATOR = 4, 3  # nodes are opened up to 4/3 of the nearest one's distance
_OPENED = 8  # more nodes are opened until all hold this many budgets of patches
CEILING_OF_FAR = 2
"""Budgets at most for a query whose neighbours are hardly nearer than chance,"""
FAR_NUMERATOR, FAR_DENOMINATOR = 3, 8
"""that is, farther than 3/8 of the bits."""
NEAREST = 32
"""So many nearest tell when to stop, or k; the ten nearest alone would stop too early."""
PATIENCE = 8
"""Most rows that a query walks if slides are excluded, in budgets."""
_CLOSER = 8  # cells are taken up to an eighth farther than the nearest, then another eighth farther, ...
_LINE = 64  # bytes of a cache line
_AHEAD = 4  # groups of eight rows that are prefetched while one is compared
_FAR = 2**30
CELL_SHIFT, CELL_WHOLE = 33, 1 << 32
"""A cell is distance << CELL_SHIFT | CELL_WHOLE where it is a whole node | its first key."""
CELL_KEY = CELL_WHOLE - 1
"""The bits of a cell's first key."""
_TABLE, _BEGIN, _END = 0, 1, 2  # columns of ranges of rows


class Place(NamedTuple):
    """The addresses of the arrays that every query reads, and their sizes."""

    top_blocks: int
    """Barcodes of the top nodes, `as_blocks`."""
    node_blocks: int
    """Barcodes of the nodes, top node after top node."""
    leaf_blocks: int
    """Barcodes of the leaves, node after node."""
    node_totals: int
    """int64 (nodes + 1,), where each node begins in all tables together."""
    totals: int
    """int64 (keys + 1,), where each key begins in all tables together."""
    tops: int
    """Number of top nodes."""
    nodes: int
    """Number of nodes of a top node."""
    leaves: int
    """Number of leaves of a node."""
    words: int
    """64-bit words of a barcode."""


@compiled
def search_cells(
    place: NDArray[np.int64], spots: NDArray[np.int64], queries: NDArray[np.uint8],
    mask: NDArray[np.bool_], k: int, budget: int, most: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:  # fmt: skip
    """Return the results of all queries.

    `place` has the numbers of a `Place`. `spots` says where each table lies (`sish.index.texture.shortlist`).

    Returns
    -------
    int64 (Q + 1,), int64 (R,), int32 (R,)
        Offsets, patches and distances, as in `Bags`.
    """
    at = Place(
        place[0], place[1], place[2], place[3], place[4], place[5], place[6], place[7], place[8],
    )  # fmt: skip
    room, total = queries.shape[0] * k, load_int64(at.node_totals, at.tops * at.nodes)
    offset = np.zeros(queries.shape[0] + 1, np.int64)
    patch, hamming, order = np.empty(room, np.int64), np.empty(room, np.int32), np.empty(k, np.int64)
    tally, pad = np.empty(64 * at.words + 1, np.int64), np.empty((LANES, at.words), np.uint64)
    found = new_shortlist(k, 64 * at.words)
    for query in range(queries.shape[0] if k else 0):
        barcode, start = queries.ctypes.data + 8 * at.words * query, offset[query]
        start_query(found, k, most)
        if budget >= total:
            _scan(every_row(spots), spots, barcode, mask, budget, total, found, pad)
        else:
            nodes, node_bits = _open(at, barcode, budget)
            _walk(at, nodes, node_bits, spots, barcode, mask, budget, found, tally, pad)
        count = best_of(found, spots, patch[start : start + k], hamming[start : start + k], order)
        offset[query + 1] = start + count
    return offset, patch[: offset[-1]], hamming[: offset[-1]]


@compiled
def every_row(spots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return every table as a range (table, begin, end)."""
    ranges = np.empty((spots.shape[0], 3), np.int64)
    for table in range(spots.shape[0]):
        ranges[table, _TABLE], ranges[table, _BEGIN], ranges[table, _END] = table, 0, spots[table, PATCHES]
    return ranges


@compiled
def _open(at: Place, barcode: int, budget: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the nodes to open and the distance of each. Top nodes are opened first, by the same rule."""
    tops = np.zeros(1, np.int64)
    if at.tops > 1:
        bits = _bits_of_children(at, at.top_blocks, tops, at.tops, barcode)
        tops, _ = _near(at, bits, tops, at.tops, at.nodes, _OPENED * budget)
    bits = _bits_of_children(at, at.node_blocks, tops, at.nodes, barcode)
    return _near(at, bits, tops, at.nodes, 1, _OPENED * budget)


@compiled
def _bits_of_children(
    at: Place, blocks: int, parents: NDArray[np.int64], count: int, barcode: int
) -> NDArray[np.int32]:
    """Return distances int32 (P, count, padded) of the `count` children of each of P parents."""
    n_blocks = -(-count // LANES)
    bits = np.empty((parents.size, LANES * n_blocks), np.int32)
    for number in range(parents.size):
        own = bits.ctypes.data + 4 * LANES * n_blocks * number
        block_distances(
            blocks + 8 * LANES * at.words * n_blocks * parents[number], n_blocks, at.words, barcode, own
        )
        for child in range(count, LANES * n_blocks):
            bits[number, child] = _FAR
    return bits


@compiled
def _near(
    at: Place, bits: NDArray[np.int32], parents: NDArray[np.int64], count: int, step: int, wanted: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the children to open that hold `wanted` patches, without empty ones, and their distances."""
    # a child is `step` nodes
    opened, their_bits = np.empty(bits.size, np.int64), np.empty(bits.size, np.int32)
    nearest, farthest = _least(bits), 64 * at.words
    reach = nearest * _NEAR_NUMERATOR // _NEAR_DENOMINATOR
    while True:
        size = held = 0
        for first in range(0, bits.size, LANES):
            hits = eight_within(bits.ctypes.data + 4 * first, reach)
            while hits:
                place = first + lowest(hits)
                hits &= hits - 1
                number, own = place // bits.shape[1], place % bits.shape[1]
                child = parents[number] * count + own
                more = _held(at, child, step)
                if more > 0:
                    opened[size], their_bits[size] = child, bits[number, own]
                    size += 1
                    held += more
        if reach >= farthest or (held >= wanted and size >= _FEWEST_NODES):
            return opened[:size], their_bits[:size]
        reach += reach // 4 + 1


@compiled
def _least(bits: NDArray[np.int32]) -> int:
    """Return the smallest of some distances."""
    least, flat = _FAR, bits.reshape(-1)
    for place in range(flat.size):
        least = min(least, int(flat[place]))
    return least


@compiled
def _held(at: Place, number: int, step: int) -> int:
    """Return the number of patches of `step` nodes, from `number` x `step` on."""
    first = number * step
    return int(load_int64(at.node_totals, first + step) - load_int64(at.node_totals, first))


@compiled
def _leaf_bits(
    at: Place, nodes: NDArray[np.int64], node_bits: NDArray[np.int32], barcode: int
) -> NDArray[np.int32]:
    """Return distances int32 (N, leaves, padded) of the leaves of N opened nodes."""
    # comparing with the leaves of a small node does not pay: the node is one cell at its own distance, in the
    # place of its first leaf
    bits = _bits_of_children(at, at.leaf_blocks, nodes, at.leaves, barcode)
    for number in range(nodes.size):
        if _is_small(at, nodes[number]):
            bits[number] = _FAR
            bits[number, 0] = node_bits[number]
    return bits


@compiled
def _is_small(at: Place, node: int) -> bool:
    """Return whether a node holds no more patches than it has leaves."""
    return _held(at, node, 1) <= at.leaves


@compiled
def _select(
    at: Place, nodes: NDArray[np.int64], bits: NDArray[np.int32], beyond: int, bound: int,
    cells: NDArray[np.int64], count: int, tally: NDArray[np.int64],
) -> tuple[int, int]:  # fmt: skip
    """Add the cells farther than `beyond` up to `bound`; return the number of cells and of new patches."""
    # behind the first `count` of `cells`; the tally counts the patches at each distance
    held = 0
    tally[beyond + 1 : bound + 1] = 0
    padded, address = bits.shape[1], bits.ctypes.data
    for number in range(nodes.size):
        whole = CELL_WHOLE if _is_small(at, nodes[number]) else 0
        keys = at.leaves if whole else 1
        for first in range(0, padded, LANES):
            eight = address + 4 * (number * padded + first)
            hits = eight_within(eight, bound) & ~eight_within(eight, beyond)
            while hits:
                leaf = first + lowest(hits)
                hits &= hits - 1
                key = nodes[number] * at.leaves + leaf
                size = load_int64(at.totals, key + keys) - load_int64(at.totals, key)
                if size > 0:
                    cells[count] = (np.int64(bits[number, leaf]) << CELL_SHIFT) | whole | key
                    count += 1
                    held += size
                    tally[bits[number, leaf]] += size
    return count, held


@compiled
def _walk(
    at: Place, nodes: NDArray[np.int64], node_bits: NDArray[np.int32], spots: NDArray[np.int64],
    barcode: int, mask: NDArray[np.bool_], budget: int, found: Shortlist, tally: NDArray[np.int64],
    pad: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Compare with a budget of patches of the nearest cells, and with twice as many while that pays."""
    # goals are a half, one, two, four, ... budgets; a goal pays if it changes the nearest patches
    bits = _leaf_bits(at, nodes, node_bits, barcode)
    cells, nearest = np.empty(bits.size, np.int64), _least(bits)
    state, done, farthest = found.state, -1, tally.size - 1
    bound = min(farthest, nearest + nearest // _CLOSER + 1)
    count, held = _select(at, nodes, bits, -1, bound, cells, 0, tally)
    ranges, goal = np.empty((0, 3), np.int64), max(1, budget // 2)
    while True:
        last, before = _last_of_nearest(found)
        limit = PATIENCE * max(goal, budget)
        while state[COMPARED] < goal and state[WALKED] < limit and (ranges.size or done < farthest):
            if not ranges.size:
                wanted = min(limit, state[WALKED] + goal - state[COMPARED])
                while held < wanted and bound < farthest:
                    beyond, bound = bound, min(farthest, bound + bound // _CLOSER + 1)
                    count, more = _select(at, nodes, bits, beyond, bound, cells, count, tally)
                    held += more
                reach = max(done + 1, _reach(tally, wanted, bound))  # each goes farther, so the walk ends
                ranges = _ranges(at, spots, cells[:count], done, reach)
                done = farthest if reach == bound and bound == farthest else reach
            walked = state[WALKED]
            _scan(ranges, spots, barcode, mask, goal, limit, found, pad)
            ranges = _behind(ranges, state[WALKED] - walked)
        if goal >= budget and _nearer(found, last) == before:
            return
        near = FAR_DENOMINATOR * _last_of_nearest(found)[0] < FAR_NUMERATOR * farthest
        if goal >= (CEILING if near else CEILING_OF_FAR) * budget:
            return
        goal = budget if goal < budget else 2 * goal


@compiled
def _last_of_nearest(found: Shortlist) -> tuple[int, int]:
    """Return the distance of the last of the nearest candidates, and how many are nearer than that."""
    nearer, count = np.int64(0), min(NEAREST, found.state[WANTED])
    for bits in range(found.tally.size if found.state[COUNT] >= count else 0):
        if nearer + found.tally[bits] >= count:
            return bits, int(nearer)
        nearer += found.tally[bits]
    return found.tally.size, int(found.state[COUNT])


@compiled
def _nearer(found: Shortlist, distance: int) -> int:
    """Return the number of candidates nearer than a distance."""
    return int(found.tally[:distance].sum())


@compiled
def _behind(ranges: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Return what is left of the ranges (table, begin, end) after their first rows."""
    number = 0
    while number < ranges.shape[0] and ranges[number, _END] - ranges[number, _BEGIN] <= rows:
        rows -= ranges[number, _END] - ranges[number, _BEGIN]
        number += 1
    if rows:
        ranges[number, _BEGIN] += rows
    return ranges[number:]


@compiled
def _reach(tally: NDArray[np.int64], patches: int, bound: int) -> int:
    """Return the smallest distance within which there are `patches` patches, at most `bound`."""
    sum_ = np.int64(0)
    for bits in range(bound):
        sum_ += tally[bits]
        if sum_ >= patches:
            return bits
    return bound


@compiled
def _ranges(
    at: Place, spots: NDArray[np.int64], cells: NDArray[np.int64], done: int, reach: int
) -> NDArray[np.int64]:
    """Return ranges (table, begin, end) of cells farther than `done` up to `reach`, those at `reach` last."""
    # a budget may end within a cell at `reach`: these go key by key, so that tables do not show
    tables, last = spots.shape[0], max(done, reach - 1)
    ranges, used = np.empty((tables * _keys_of_ranges(at, cells, done, last, reach), 3), np.int64), 0
    for low, high in ((done, last), (last, reach)):
        for number in range(cells.size):
            if not low < cells[number] >> CELL_SHIFT <= high:
                continue
            key = cells[number] & CELL_KEY
            end = key + (at.leaves if cells[number] & CELL_WHOLE else 1)
            step = 1 if high == reach else end - key
            while key < end:
                for table in range(tables):
                    first = begin_of_key(at, spots, table, key)
                    behind = begin_of_key(at, spots, table, key + step)
                    if first < behind:
                        ranges[used, _TABLE], ranges[used, _BEGIN], ranges[used, _END] = table, first, behind
                        used += 1
                key += step
    return ranges[:used]


@compiled
def _keys_of_ranges(at: Place, cells: NDArray[np.int64], done: int, last: int, reach: int) -> int:
    """Return the number of keys, or of whole cells nearer than `reach`, that ranges are made of."""
    count = 0
    for number in range(cells.size):
        bits = cells[number] >> CELL_SHIFT
        if last < bits <= reach:
            count += at.leaves if cells[number] & CELL_WHOLE else 1
        elif done < bits <= last:
            count += 1
    return count


@compiled
def nearest_cells(
    place: NDArray[np.int64], queries: NDArray[np.uint8], budget: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the cells of all queries in the order in which `search_cells` compares with them.

    Returns
    -------
    int64 (Q + 1,), int64 (C,)
        Offsets, and cells.
    """
    at = Place(
        place[0], place[1], place[2], place[3], place[4], place[5], place[6], place[7], place[8],
    )  # fmt: skip
    offset, found = np.zeros(queries.shape[0] + 1, np.int64), [np.empty(0, np.int64)]
    farthest = 64 * at.words
    tally = np.empty(farthest + 1, np.int64)
    for query in range(queries.shape[0]):
        barcode = queries.ctypes.data + 8 * at.words * query
        nodes, node_bits = _open(at, barcode, budget)
        bits = _leaf_bits(at, nodes, node_bits, barcode)
        cells = np.empty(bits.size, np.int64)
        count, _ = _select(at, nodes, bits, -1, farthest, cells, 0, tally)
        cells = cells[:count]
        found.append(cells[np.argsort(cells >> CELL_SHIFT, kind="mergesort")])
        offset[query + 1] = offset[query] + count
    return offset, _concatenated(found, offset[-1])


@compiled
def _concatenated(parts: list[NDArray[np.int64]], size: int) -> NDArray[np.int64]:
    out, end = np.empty(size, np.int64), 0
    for part in parts:
        out[end : end + part.size] = part
        end += part.size
    return out


@compiled
def begin_of_key(at: Place, spots: NDArray[np.int64], table: int, key: int) -> int:
    """Return where a key begins in a table: looked up, or searched among the keys of its node."""
    if spots[table, KEY_BEGINS]:
        return int(load_int32(spots[table, KEY_BEGINS], key))
    low: int = load_int32(spots[table, NODE_BEGINS], key // at.leaves)
    if key % at.leaves == 0:
        return low
    high: int = load_int32(spots[table, NODE_BEGINS], key // at.leaves + 1)
    while low < high:
        middle = (low + high) // 2
        if load_int32(spots[table, KEYS], middle) < key:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _scan(
    ranges: NDArray[np.int64], spots: NDArray[np.int64], barcode: int, mask: NDArray[np.bool_], budget: int,
    limit: int, found: Shortlist, pad: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Compare with the rows of the ranges (table, begin, end), in this order, within budget and limit."""
    # this is one function, with arrays taken out of their tuple; the module's docstring tells why
    candidates, tally, state = found.candidates, found.tally, found.state
    words, near = pad.shape[1], np.empty(LANES, np.int32)
    row_bytes, step = 8 * words, 8 * words * LANES
    n_ranges, fetched = ranges.shape[0], -1
    ahead = ahead_end = 0  # address of the rows to prefetch next, and of the end of their range
    due = 1 + _AHEAD  # groups of eight rows to prefetch now; at first all that are ahead
    counted, walked = state[COMPARED], state[WALKED]
    for number in range(n_ranges):
        table, row, end = ranges[number, _TABLE], ranges[number, _BEGIN], ranges[number, _END]
        base, behind = spots[table, BARCODES], spots[table, PATCHES]
        end = min(end, row + limit - walked)
        if mask.size == 0:
            end = min(end, row + budget - counted)
        while row < end and counted < budget:
            for _ in range(due):
                while ahead >= ahead_end and fetched + 1 < n_ranges:
                    fetched += 1
                    ahead = spots[ranges[fetched, _TABLE], BARCODES] + row_bytes * ranges[fetched, _BEGIN]
                    ahead_end = spots[ranges[fetched, _TABLE], BARCODES] + row_bytes * ranges[fetched, _END]
                for line in range(ahead, min(ahead + step, ahead_end), _LINE):
                    prefetch(line)
                ahead += step
            due = 1
            address = base + row_bytes * row
            if row + LANES > behind:
                for word in range((behind - row) * words):
                    pad[word // words, word % words] = load_int64(address, word)
                address = pad.ctypes.data
            hits = eight_rows(address, words, barcode, near.ctypes.data, state[BOUND])
            lanes = min(LANES, end - row)
            walked += lanes
            if mask.size == 0:
                counted += lanes
                hits &= (1 << lanes) - 1
            else:
                allowed = 0
                for lane in range(lanes):
                    if counted == budget:
                        walked += lane - lanes  # the others are not looked at
                        break
                    slide = load_int32(spots[table, SLIDES], row + lane) + spots[table, FIRST_SLIDE]
                    if not (0 <= slide < mask.size and mask[slide]):
                        counted += 1
                        allowed |= 1 << lane
                hits &= allowed
            while hits:
                lane = lowest(hits)
                hits &= hits - 1
                bits = near[lane]
                if bits > state[BOUND]:  # the bound has fallen since
                    continue
                if state[COUNT] == candidates.shape[0]:
                    thin(found, spots)
                candidates[state[COUNT], BITS] = bits
                candidates[state[COUNT], WHERE] = (table << ROW_BITS) | (row + lane)
                state[COUNT] += 1
                tally[bits] += 1
                if state[COUNT] > state[WANTED]:
                    state[WITHIN] += 1
                    while state[WITHIN] - tally[state[BOUND]] >= state[WANTED]:
                        state[WITHIN] -= tally[state[BOUND]]
                        state[BOUND] -= 1
                elif state[COUNT] == state[WANTED]:
                    first_bound(found)
            row += LANES
    state[COMPARED], state[WALKED] = counted, walked
