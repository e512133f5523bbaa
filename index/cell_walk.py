"""The compiled walk over a texture tree's cells; `sish.index.cells` says what it does.

Kernels reach the tables by their *spots*, int64 (tables, 6): the addresses of barcodes, slides and rows, the
first slide, the first patch, and the number of patches.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sish.index.barcode import compiled
from sish.index.candidates import (
    ROW_BITS,
    Candidates,
    best_of,
    first_bound,
    new_candidates,
    start_query,
    thin,
)
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

__all__ = ["search_cells"]

_OPENED = 8  # opened nodes hold so many times the budget
_FEWEST_NODES = 6  # and are at least so many
_PATIENCE = 8  # with excluded slides: rows walked at most, in budgets
_LINE = 64  # bytes of a cache line
_AHEAD = 4  # so many times eight rows are being fetched while eight are compared
_FAR = np.int32(2**30)


class _Plan(NamedTuple):
    """What the walk is told."""

    budget: int
    n_nodes: int
    n_leaves: int  # of a node


@compiled
def search_cells(
    node_blocks: NDArray[np.uint64], leaf_blocks: NDArray[np.uint64], begins: NDArray[np.int64],
    totals: NDArray[np.int64], spots: NDArray[np.int64], queries: NDArray[np.uint8],
    mask: NDArray[np.bool_], k: int, budget: int, most: int, n_leaves: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:  # fmt: skip
    """Offsets (Q + 1,), patches (R,) and distances (R,) of the results of all queries."""
    width, plan = leaf_blocks.shape[2], _Plan(budget, leaf_blocks.shape[0], n_leaves)
    offset = np.zeros(queries.shape[0] + 1, np.int64)
    room = queries.shape[0] * k
    patch, hamming, order = np.empty(room, np.int64), np.empty(room, np.int32), np.empty(k, np.int64)
    tally = np.empty(64 * width + 1, np.int64)
    near, pad = np.empty(LANES, np.int32), np.empty((LANES, width), np.uint64)
    node_bits = np.empty(LANES * node_blocks.shape[0], np.int32)
    found = new_candidates(k, 64 * width)
    for query in range(queries.shape[0] if k else 0):
        place, start = queries.ctypes.data + 8 * width * query, offset[query]
        start_query(found, k, most)
        if budget >= totals[-1]:
            ranges = np.empty((spots.shape[0], 3), np.int64)
            for table in range(spots.shape[0]):
                ranges[table, 0], ranges[table, 1], ranges[table, 2] = table, 0, spots[table, 5]
            _scan(ranges, spots, place, mask, budget, totals[-1], found, near, pad)
        else:
            block_distances(
                node_blocks.ctypes.data, node_blocks.shape[0], width, place, node_bits.ctypes.data
            )
            reach = _reach_nodes(node_bits, totals, tally, plan)
            nodes, leaf_bits = _open(node_bits, reach, leaf_blocks, totals, place, plan)
            cells = _Cells(nodes, leaf_bits, totals, begins, tally, n_leaves)
            _walk(cells, spots, place, mask, plan, found, near, pad)
        count = best_of(found, spots, patch[start : start + k], hamming[start : start + k], order)
        offset[query + 1] = start + count
    return offset, patch[: offset[-1]], hamming[: offset[-1]]


@compiled
def _reach(tally: NDArray[np.int64], patches: int, nodes: int) -> int:
    """The smallest distance up to which there are so many patches and nodes, or the largest there is.

    A tally of a distance is its patches, plus 2**40 for each node.
    """
    sum_ = np.int64(0)
    for bits in range(tally.size):
        sum_ += tally[bits]
        if sum_ & 0xFFFFFFFFFF >= patches and sum_ >> 40 >= nodes:
            return bits
    return tally.size - 1


@compiled
def _reach_nodes(
    node_bits: NDArray[np.int32], totals: NDArray[np.int64], tally: NDArray[np.int64], plan: _Plan
) -> int:
    """The distance up to which nodes are opened."""
    tally[:] = 0
    leaves = plan.n_leaves
    for node in range(plan.n_nodes):
        size = totals[(node + 1) * leaves] - totals[node * leaves]
        if size > 0:
            tally[node_bits[node]] += size + (np.int64(1) << 40)
    return _reach(tally, _OPENED * plan.budget, _FEWEST_NODES)


class _Cells(NamedTuple):
    """The cells that a query may walk: leaves of opened nodes, and small nodes as they are."""

    nodes: NDArray[np.int64]  # (N,)
    bits: NDArray[np.int32]  # (N, leaves padded): distance of each leaf; of a small node itself, then -1
    totals: NDArray[np.int64]
    begins: NDArray[np.int64]
    tally: NDArray[np.int64]  # patches at each distance
    n_leaves: int


@compiled
def _open(
    node_bits: NDArray[np.int32], reach: int, leaf_blocks: NDArray[np.uint64], totals: NDArray[np.int64],
    place: int, plan: _Plan,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:  # fmt: skip
    """The nodes up to `reach` that hold patches, and the distances of their leaves."""
    leaves, blocks, width = plan.n_leaves, leaf_blocks.shape[1], leaf_blocks.shape[2]
    nodes, count = np.empty(plan.n_nodes, np.int64), 0
    for node in range(plan.n_nodes):
        if node_bits[node] <= reach and totals[node * leaves] < totals[(node + 1) * leaves]:
            nodes[count] = node
            count += 1
    nodes = nodes[:count]
    bits = np.empty((count, LANES * blocks), np.int32)
    for number in range(count):
        node = nodes[number]
        if totals[(node + 1) * leaves] - totals[node * leaves] <= leaves:
            bits[number] = _FAR
            bits[number, 0] = -1 - node_bits[node]
        else:
            address = leaf_blocks.ctypes.data + 8 * LANES * width * blocks * node
            block_distances(address, blocks, width, place, bits.ctypes.data + 4 * LANES * blocks * number)
    return nodes, bits


@compiled
def _count(cells: _Cells) -> None:
    """Fill the tally of patches at each distance."""
    nodes, bits, totals, tally = cells.nodes, cells.bits, cells.totals, cells.tally
    tally[:] = 0
    for number in range(nodes.size):
        first = nodes[number] * cells.n_leaves
        if bits[number, 0] < 0:
            tally[-1 - bits[number, 0]] += totals[first + cells.n_leaves] - totals[first]
            continue
        for leaf in range(cells.n_leaves):
            tally[bits[number, leaf]] += totals[first + leaf + 1] - totals[first + leaf]


@compiled
def _walk(
    cells: _Cells, spots: NDArray[np.int64], place: int, mask: NDArray[np.bool_], plan: _Plan,
    found: Candidates, near: NDArray[np.int32], pad: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Compare with the patches of the nearest cells until so many counted; go on for excluded ones."""
    _count(cells)
    state, done, limit = found.state, -1, _PATIENCE * plan.budget
    while state[1] < plan.budget and state[2] < limit and done < cells.tally.size - 1:
        reach = _reach(cells.tally, state[2] + plan.budget - state[1], 0)
        _scan(_ranges(cells, done, reach), spots, place, mask, plan.budget, limit, found, near, pad)
        done = reach


@compiled
def _ranges(cells: _Cells, done: int, reach: int) -> NDArray[np.int64]:
    """Rows (table, begin, end) of the cells farther than `done` up to `reach`, those at `reach` last."""
    begins, keys = cells.begins, np.empty((cells.bits.size, 2), np.int64)
    count = _pick(cells, done, reach - 1, keys, 0)
    count = _pick(cells, max(done, reach - 1), reach, keys, count)
    out, used = np.empty((count * begins.shape[1], 3), np.int64), 0
    for number in range(count):
        key, end = keys[number]
        for table in range(begins.shape[1]):
            if begins[key, table] < begins[end, table]:
                out[used, 0], out[used, 1], out[used, 2] = table, begins[key, table], begins[end, table]
                used += 1
    return out[:used]


@compiled
def _pick(cells: _Cells, done: int, reach: int, keys: NDArray[np.int64], count: int) -> int:
    """Put the cells farther than `done` up to `reach` behind the first `count` keys (first, behind)."""
    nodes, bits, leaves = cells.nodes, cells.bits, cells.n_leaves
    for number in range(nodes.size):
        first = nodes[number] * leaves
        if bits[number, 0] < 0:
            if done < -1 - bits[number, 0] <= reach:
                keys[count, 0], keys[count, 1] = first, first + leaves
                count += 1
            continue
        for block in range(0, bits.shape[1], LANES):
            hits = eight_within(bits.ctypes.data + 4 * (number * bits.shape[1] + block), reach)
            while hits:
                leaf = block + lowest(hits)
                hits &= hits - 1
                if leaf < leaves and bits[number, leaf] > done:
                    keys[count, 0], keys[count, 1] = first + leaf, first + leaf + 1
                    count += 1
    return count


@compiled
def _fetch(
    ranges: NDArray[np.int64], spots: NDArray[np.int64], row_bytes: int, cursor: NDArray[np.int64]
) -> None:
    """Ask for the eight rows at the cursor (range, row), and move it on."""
    if cursor[0] < ranges.shape[0]:
        address = spots[ranges[cursor[0], 0], 0] + row_bytes * cursor[1]
        rows = min(LANES, ranges[cursor[0], 2] - cursor[1])
        for line in range(0, rows * row_bytes, _LINE):
            prefetch(address + line)
        cursor[1] += LANES
        if cursor[1] >= ranges[cursor[0], 2]:
            cursor[0] += 1
            if cursor[0] < ranges.shape[0]:
                cursor[1] = ranges[cursor[0], 1]


@compiled
def _scan(
    ranges: NDArray[np.int64], spots: NDArray[np.int64], place: int, mask: NDArray[np.bool_], budget: int,
    limit: int, found: Candidates, near: NDArray[np.int32], pad: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Compare with the rows of the ranges (table, begin, end), in this order, within budget and limit.

    A candidate is taken here, with the arrays out of their tuple: a call for each took five times as long.
    """
    candidates, tally, state = found.candidates, found.tally, found.state
    width, cursor = pad.shape[1], np.zeros(2, np.int64)
    if ranges.shape[0]:
        cursor[1] = ranges[0, 1]
    for _ in range(_AHEAD):
        _fetch(ranges, spots, 8 * width, cursor)
    for number in range(ranges.shape[0]):
        table, row, end = ranges[number, 0], ranges[number, 1], ranges[number, 2]
        end = min(end, row + limit - state[2])
        if mask.size == 0:
            end = min(end, row + budget - state[1])
        while row < end and state[1] < budget:
            _fetch(ranges, spots, 8 * width, cursor)
            address = spots[table, 0] + 8 * width * row
            if row + LANES > spots[table, 5]:
                address = _padded(address, spots[table, 5] - row, pad)
            hits = eight_rows(address, width, place, near.ctypes.data, state[3])
            lanes = min(LANES, end - row)
            state[2] += lanes
            hits &= (1 << lanes) - 1
            if mask.size == 0:
                state[1] += lanes
            else:
                hits &= _allowed(spots[table], row, lanes, mask, budget, state)
            while hits:
                lane = lowest(hits)
                hits &= hits - 1
                bits = near[lane]
                if bits > state[3]:  # the bound has come nearer since
                    continue
                if state[0] == candidates.shape[0]:
                    thin(found, spots)
                candidates[state[0], 0], candidates[state[0], 1] = bits, (table << ROW_BITS) | (row + lane)
                state[0] += 1
                tally[bits] += 1
                if state[0] > state[4]:
                    state[5] += 1
                    while state[5] - tally[state[3]] >= state[4]:
                        state[5] -= tally[state[3]]
                        state[3] -= 1
                elif state[0] == state[4]:
                    first_bound(found)
            row += LANES


@compiled
def _padded(address: int, rows: int, pad: NDArray[np.uint64]) -> int:
    """The address of a copy of the last rows of a table, behind which there may be nothing to read."""
    for row in range(rows):
        for word in range(pad.shape[1]):
            pad[row, word] = load_int64(address, row * pad.shape[1] + word)
    return pad.ctypes.data


@compiled
def _allowed(
    spot: NDArray[np.int64], row: int, lanes: int, mask: NDArray[np.bool_], budget: int,
    state: NDArray[np.int64],
) -> int:  # fmt: skip
    """A bit for each of the rows that is not excluded, while the budget lasts; counts them."""
    bits = 0
    for lane in range(lanes):
        slide = load_int32(spot[1], row + lane) + spot[3]
        if state[1] < budget and not (0 <= slide < mask.size and mask[slide]):
            state[1] += 1
            bits |= 1 << lane
    return bits
