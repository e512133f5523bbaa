"""The compiled search for float vectors: nearest cells, sketches, then stored rows.

Each vector has a *sketch* of two cache lines: a row of `VectorCoder` of 120 axes. So has the mean of each
cell, and of each group of cells (`sish.index.vectors.means`). The query is compared with all groups, with the
cells of the nearest groups, and with the sketches of the nearest cells, as many as hold the budget. The
nearest of these, the shortlist, are compared again by their stored rows. Sketches of a cell are adjacent in
memory; the next cell is fetched meanwhile.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.index.compiled import compiled
from sish.index.hamming_kernels import load_int32, load_int64, prefetch
from sish.index.texture.kernel import Place, begin_of_key, every_row
from sish.index.texture.shortlist import BARCODES, ROW_BITS, SLIDES
from sish.index.vector_kernels import (
    SKETCH,
    TERMS,
    dot_bits,
    dot_float16,
    dot_int8,
    load_float32,
    prefetch_row,
)
from sish.index.vectors.means import sketches_apart
from sish.index.vectors.residual import FACTOR

_OPENED = 4  # groups are opened until their cells hold so many budgets
_BINS = 1024  # of distances, among which a bound is looked for
_LINE = 64  # bytes of a cache line
_ROW_MASK = 2**ROW_BITS - 1
_SPARE = 4  # room for candidates, in shortlists
_AHEAD = 12  # stored rows that are fetched while one is compared
_IDS, _STORED = 0, 1  # columns of `kept`


@compiled
def search_vectors(
    place: NDArray[np.int64], spots: NDArray[np.int64], kept: NDArray[np.int64],
    sketch: tuple[NDArray[np.int16], NDArray[np.float32]],
    weights: NDArray[np.int16], terms: NDArray[np.float32], floats: NDArray[np.float32],
    mask: NDArray[np.bool_], sizes: tuple[int, int, int, int], ids: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:  # fmt: skip
    """Fill `ids` and `out` (Q, k) with the nearest vectors; -1 and infinity stay where there are fewer.

    `place` is a `Place` with means as sketches for barcodes. `kept`, int64 (tables, 2), has the addresses of
    the ids and of the stored rows of each table. `sizes` are the budget, the shortlist, the bytes of a stored
    row, and how it is stored: 16 for float16, compared with `floats`; 8 for int8 or fewer for what a sketch
    leaves, compared with `weights` and `terms`.
    """
    budget, short, row_bytes, bits = sizes
    at = Place(
        place[0], place[1], place[2], place[3], place[4], place[5], place[6], place[7], place[8],
    )  # fmt: skip
    near, where = np.empty(_SPARE * short, np.float32), np.empty(_SPARE * short, np.int64)
    numbers = np.empty(ids.shape[1], np.int64)
    for query in range(ids.shape[0]):
        ours, step = sketch[0].ctypes.data + 2 * SKETCH * query, sketch[1][query, 0]
        ranges = _ranges_of_budget(at, spots, ours, step, budget)
        count = _sketched(ranges, spots, ours, step, mask, short, near, where)
        _fetch(where[: min(count, _AHEAD)], kept, row_bytes)
        for number in range(count):
            if number + _AHEAD < count:
                _fetch(where[number + _AHEAD : number + _AHEAD + 1], kept, row_bytes)
            table, row = where[number] >> ROW_BITS, where[number] & _ROW_MASK
            stored = kept[table, _STORED] + row_bytes * row
            if bits == 16:
                address = floats.ctypes.data + 4 * floats.shape[1] * query
                apart = np.float32(1) - dot_float16(stored, address, floats.shape[1])
            else:
                address, width = weights.ctypes.data + 2 * weights.shape[1] * query, weights.shape[1]
                scale = terms[query, 0] * load_float32(stored)
                if bits == 8:
                    dot = np.float32(dot_int8(stored + TERMS, address, width))
                    apart = terms[query, 1] + load_float32(stored + 4) - scale * dot
                else:
                    dot = np.float32(dot_bits(stored + FACTOR, address, width, bits)) - terms[query, 1]
                    apart = sketch[1][query, 1] + near[number] - scale * dot
            own = load_int32(spots[table, SLIDES], row)
            _insert(
                out[query], numbers, ids[query], max(apart, np.float32(0)), own,
                load_int64(kept[table, _IDS], row),
            )  # fmt: skip


@compiled
def _ranges_of_budget(
    at: Place, spots: NDArray[np.int64], query: int, step: float, budget: int
) -> NDArray[np.int64]:
    """Return ranges (table, begin, end) of the rows of the nearest cells that hold a budget, or of all."""
    if budget >= load_int64(at.node_totals, at.nodes):
        return every_row(spots)
    apart, held = np.empty(at.nodes, np.float32), np.empty(at.nodes, np.int64)
    sketches_apart(at.node_blocks, at.nodes, query, step, apart)
    for node in range(at.nodes):
        held[node] = load_int64(at.node_totals, node + 1) - load_int64(at.node_totals, node)
    nodes = np.flatnonzero(apart <= _reach(apart, held, _OPENED * budget))
    apart, held = np.empty(nodes.size * at.leaves, np.float32), np.empty(nodes.size * at.leaves, np.int64)
    for number in range(nodes.size):
        first, key = number * at.leaves, nodes[number] * at.leaves
        sketches_apart(
            at.leaf_blocks + SKETCH * key, at.leaves, query, step, apart[first : first + at.leaves]
        )
        for leaf in range(at.leaves):
            held[first + leaf] = load_int64(at.totals, key + leaf + 1) - load_int64(at.totals, key + leaf)
    taken = np.flatnonzero(apart <= _reach(apart, held, budget))
    ranges, used = np.empty((taken.size * spots.shape[0], 3), np.int64), 0
    for cell in taken:
        key = nodes[cell // at.leaves] * at.leaves + cell % at.leaves
        for table in range(spots.shape[0] if held[cell] else 0):
            begin, end = begin_of_key(at, spots, table, key), begin_of_key(at, spots, table, key + 1)
            if begin < end:
                ranges[used, 0], ranges[used, 1], ranges[used, 2] = table, begin, end
                used += 1
    return ranges[:used]


@compiled
def _reach(apart: NDArray[np.float32], held: NDArray[np.int64], wanted: int) -> Any:
    """Return a distance within which cells, at some distances, hold a number of vectors."""
    nearest, farthest, total = np.float32(np.inf), np.float32(-np.inf), 0
    for cell in range(apart.size):
        if held[cell]:
            total += held[cell]
            nearest, farthest = min(nearest, apart[cell]), max(farthest, apart[cell])
    if total <= wanted or not nearest < farthest < np.inf:
        return farthest
    scale, tally = np.float32(_BINS - 1) / (farthest - nearest), np.zeros(_BINS, np.int64)
    for cell in range(apart.size):
        if held[cell]:
            bin_ = (apart[cell] - nearest) * scale
            tally[int(bin_) if 0 <= bin_ < _BINS else _BINS - 1] += held[cell]  # NaN of a damaged file
    sum_ = tally[0]
    for bin_ in range(1, _BINS):
        if sum_ >= wanted:
            return nearest + np.float32(bin_) / scale
        sum_ += tally[bin_]
    return farthest


@compiled
def _fetch(where: NDArray[np.int64], kept: NDArray[np.int64], row_bytes: int) -> None:
    """Prefetch the stored rows of candidates, and their ids."""
    for number in range(where.size):
        table, row = where[number] >> ROW_BITS, where[number] & _ROW_MASK
        prefetch_row(kept[table, _STORED] + row_bytes * row, row_bytes)
        prefetch(kept[table, _IDS] + 8 * row)


@compiled
def _sketched(
    ranges: NDArray[np.int64], spots: NDArray[np.int64], query: int, step: float, mask: NDArray[np.bool_],
    short: int, near: NDArray[np.float32], where: NDArray[np.int64],
) -> int:  # fmt: skip
    """Fill `near` and `where` with the `short` nearest sketches of the ranges; return their number."""
    count, bound, room = 0, np.float32(np.inf), near.size
    for number in range(ranges.shape[0]):
        table, begin, end = ranges[number, 0], ranges[number, 1], ranges[number, 2]
        base, owners = spots[table, BARCODES], spots[table, SLIDES]
        ahead = ahead_end = 0
        if number + 1 < ranges.shape[0]:
            following = ranges[number + 1]
            ahead = spots[following[0], BARCODES] + SKETCH * following[1]
            ahead_end = spots[following[0], BARCODES] + SKETCH * following[2]
        for row in range(begin, end):
            if ahead < ahead_end:
                prefetch(ahead)
                prefetch(ahead + _LINE)
                ahead += SKETCH
            address = base + SKETCH * row
            dot = np.float32(dot_int8(address, query, SKETCH))
            apart = load_float32(address + 4) - step * load_float32(address) * dot
            if apart < bound:
                if mask.size and mask[load_int32(owners, row)]:
                    continue
                near[count], where[count] = apart, (table << ROW_BITS) | row
                count += 1
                if count == room:
                    bound = _thinned(near, where, short)
                    count = short
        while ahead < ahead_end:
            prefetch(ahead)
            prefetch(ahead + _LINE)
            ahead += SKETCH
    if count > short:
        _thinned(near[:count], where[:count], short)
    return min(count, short)


@compiled
def _thinned(near: NDArray[np.float32], where: NDArray[np.int64], short: int) -> Any:
    """Put the `short` nearest first, in the order in which they were met; return the farthest's distance."""
    bound = np.partition(near, short - 1)[short - 1]
    equal = short
    for number in range(near.size):
        equal -= near[number] < bound
    count = 0
    for number in range(near.size):
        take = near[number] < bound
        if near[number] == bound and equal > 0:
            equal -= 1
            take = True
        if take:
            near[count], where[count] = near[number], where[number]
            count += 1
    return bound


@compiled
def _insert(
    best: NDArray[np.float32], numbers: NDArray[np.int64], ids: NDArray[np.int64], apart: Any, own: int,
    id_: int,
) -> None:  # fmt: skip
    """Insert a vector among the nearest; of equally near ones, those with smaller numbers come first."""
    place = best.size
    while place > 0 and (apart < best[place - 1] or (apart == best[place - 1] and own < numbers[place - 1])):
        place -= 1
        if place + 1 < best.size:
            best[place + 1], numbers[place + 1], ids[place + 1] = best[place], numbers[place], ids[place]
    if place < best.size:
        best[place], numbers[place], ids[place] = apart, own, id_
