"""The nearest patches that a walk has met so far.

All candidates are kept that were as near as the k-th nearest when they came. Which of equally near ones
come first, by slide and row, is decided at the end: both lie elsewhere in memory, and looking them up
for each candidate took more time than all distances.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sish.index.compiled import compiled
from sish.index.hamming_kernels import load_int32, prefetch

__all__ = ["ROW_BITS", "Shortlist", "best_of", "first_bound", "new_shortlist", "start_query", "thin"]

ROW_BITS = 40
"""Bits of a row within its table; the rest is the table."""
_ROW_MASK = 2**ROW_BITS - 1
_ROOM = 1024  # candidates that are kept beside twice the k wanted


class Shortlist(NamedTuple):
    """Shortlist of one query: all that were as near as the k-th nearest when they came."""

    candidates: NDArray[np.int64]  # (C, 2): distance, and table << 40 | row
    tally: NDArray[np.int32]  # candidates at each distance
    # candidates, patches that counted, rows walked, the bound (largest distance that enters), k, and how
    # many candidates are within the bound
    state: NDArray[np.int64]


@compiled
def new_shortlist(k: int, n_bits: int) -> Shortlist:
    """Room for the candidates of one query at a time."""
    return Shortlist(
        np.empty((2 * k + _ROOM, 2), np.int64), np.empty(n_bits + 1, np.int32), np.empty(6, np.int64)
    )


@compiled
def start_query(found: Shortlist, k: int, most: int) -> None:
    """Empty it; nothing farther than `most` bits will enter."""
    found.tally[:] = 0
    state = found.state
    state[0], state[1], state[2], state[3], state[4], state[5] = 0, 0, 0, most, k, 0


@compiled
def first_bound(found: Shortlist) -> None:
    """Where there are k candidates for the first time: the farthest is the bound from now on."""
    candidates, state = found.candidates, found.state
    farthest = candidates[0, 0]
    for number in range(1, state[0]):
        farthest = max(farthest, candidates[number, 0])
    state[3], state[5] = farthest, state[0]


@compiled
def thin(found: Shortlist, spots: NDArray[np.int64]) -> None:
    """Keep the k best candidates only."""
    candidates, tally, state = found.candidates, found.tally, found.state
    k = state[4]
    patch, hamming, order = np.empty(k, np.int64), np.empty(k, np.int32), np.empty(k, np.int64)
    kept = best_of(found, spots, patch, hamming, order)
    tally[:] = 0
    for number in range(kept):
        table = 0
        while table + 1 < spots.shape[0] and spots[table + 1, 4] <= patch[number]:
            table += 1
        candidates[number, 0] = hamming[number]
        candidates[number, 1] = (table << ROW_BITS) | (patch[number] - spots[table, 4])
        tally[hamming[number]] += 1
    state[0], state[5] = kept, kept


@compiled
def best_of(
    found: Shortlist, spots: NDArray[np.int64], patch: NDArray[np.int64], hamming: NDArray[np.int32],
    order: NDArray[np.int64],
) -> int:  # fmt: skip
    """The nearest candidates in order, by distance, then slide, then row; their number."""
    candidates, state, count = found.candidates, found.state, 0
    for number in range(state[0]):
        if candidates[number, 0] <= state[3]:  # their slides and rows lie far apart: ask for all at once
            table, row = candidates[number, 1] >> ROW_BITS, candidates[number, 1] & _ROW_MASK
            prefetch(spots[table, 1] + 4 * row)
            prefetch(spots[table, 2] + 4 * row)
    for number in range(state[0]):
        bits = candidates[number, 0]
        if bits > state[3]:
            continue
        table, row = candidates[number, 1] >> ROW_BITS, candidates[number, 1] & _ROW_MASK
        own = ((load_int32(spots[table, 1], row) + spots[table, 3]) << 32) | load_int32(spots[table, 2], row)
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
        patch[place], hamming[place], order[place] = spots[table, 4] + row, bits, own
    return count
