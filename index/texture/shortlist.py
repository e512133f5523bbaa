"""The shortlist: the nearest patches that a compiled walk has met so far.

Every candidate is kept that was as near as the k-th nearest when it came. Equally near ones are put in order
of slide and row at the end. Slides and rows lie elsewhere in memory, and looking them up for each candidate
took more time than all distances.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sish.index.compiled import compiled
from sish.index.hamming_kernels import load_int32, prefetch

ROW_BITS = 40
"""Bits of a row number within its table; the bits above are the table's number."""
_ROW_MASK = 2**ROW_BITS - 1
BITS, WHERE = 0, 1
"""Columns of `Shortlist.candidates`: distance, and table << ROW_BITS | row."""
COUNT, COMPARED, WALKED, BOUND, WANTED, WITHIN = 0, 1, 2, 3, 4, 5
"""Places in `Shortlist.state`: number of candidates, patches that used up budget, rows walked, the largest
distance that enters, k, and number of candidates within that distance."""
BARCODES, SLIDES, ROWS, FIRST_SLIDE, FIRST_PATCH, PATCHES = 0, 1, 2, 3, 4, 5
"""Columns of `spots`, int64 (tables, 6): of each table the addresses of its barcodes, slides and rows, the
numbers of its first slide and first patch, and how many patches it has."""
_ROOM = 1024  # candidates that there is room for beside twice the k wanted


class Shortlist(NamedTuple):
    """The candidates of one query."""

    candidates: NDArray[np.int64]
    """(C, 2): see `BITS` and `WHERE`."""
    tally: NDArray[np.int32]
    """Number of candidates at each distance, (bits + 1,)."""
    state: NDArray[np.int64]
    """(6,): see `COUNT` and the places behind it."""


@compiled
def new_shortlist(k: int, n_bits: int) -> Shortlist:
    """Return room for the candidates of one query at a time."""
    return Shortlist(
        np.empty((2 * k + _ROOM, 2), np.int64), np.empty(n_bits + 1, np.int32), np.empty(6, np.int64)
    )


@compiled
def start_query(found: Shortlist, k: int, most: int) -> None:
    """Empty the shortlist; nothing farther than `most` bits will enter."""
    found.tally[:] = 0
    state = found.state
    state[COUNT] = state[COMPARED] = state[WALKED] = state[WITHIN] = 0
    state[BOUND], state[WANTED] = most, k


@compiled
def first_bound(found: Shortlist) -> None:
    """Set the bound to the farthest candidate, once there are k."""
    candidates, state = found.candidates, found.state
    farthest = candidates[0, BITS]
    for number in range(1, state[COUNT]):
        farthest = max(farthest, candidates[number, BITS])
    state[BOUND], state[WITHIN] = farthest, state[COUNT]


@compiled
def thin(found: Shortlist, spots: NDArray[np.int64]) -> None:
    """Drop all but the k best candidates."""
    candidates, tally, state = found.candidates, found.tally, found.state
    k = state[WANTED]
    patch, hamming, order = np.empty(k, np.int64), np.empty(k, np.int32), np.empty(k, np.int64)
    kept = best_of(found, spots, patch, hamming, order)
    tally[:] = 0
    for number in range(kept):
        table = 0
        while table + 1 < spots.shape[0] and spots[table + 1, FIRST_PATCH] <= patch[number]:
            table += 1
        candidates[number, BITS] = hamming[number]
        candidates[number, WHERE] = (table << ROW_BITS) | (patch[number] - spots[table, FIRST_PATCH])
        tally[hamming[number]] += 1
    state[COUNT], state[WITHIN] = kept, kept


@compiled
def best_of(
    found: Shortlist, spots: NDArray[np.int64], patch: NDArray[np.int64], hamming: NDArray[np.int32],
    order: NDArray[np.int64],
) -> int:  # fmt: skip
    """Fill `patch`, `hamming` and `order` with the nearest candidates in order; return their number."""
    candidates, state, count = found.candidates, found.state, 0
    for number in range(state[COUNT]):
        if candidates[number, BITS] <= state[BOUND]:  # slides and rows lie far apart: ask for all at once
            table, row = candidates[number, WHERE] >> ROW_BITS, candidates[number, WHERE] & _ROW_MASK
            prefetch(spots[table, SLIDES] + 4 * row)
            prefetch(spots[table, ROWS] + 4 * row)
    for number in range(state[COUNT]):
        bits = candidates[number, BITS]
        if bits > state[BOUND]:
            continue
        table, row = candidates[number, WHERE] >> ROW_BITS, candidates[number, WHERE] & _ROW_MASK
        slide = load_int32(spots[table, SLIDES], row) + spots[table, FIRST_SLIDE]
        own = (slide << 32) | load_int32(spots[table, ROWS], row)
        if count == patch.size:
            last = count - 1
            if hamming[last] < bits or (hamming[last] == bits and order[last] < own):
                continue
            place = last
        else:
            place = count
            count += 1
        while place > 0 and (
            hamming[place - 1] > bits or (hamming[place - 1] == bits and order[place - 1] > own)
        ):
            patch[place], hamming[place] = patch[place - 1], hamming[place - 1]
            order[place] = order[place - 1]
            place -= 1
        patch[place], hamming[place], order[place] = spots[table, FIRST_PATCH] + row, bits, own
    return count
