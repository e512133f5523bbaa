"""The shortlist: the nearest patches that a compiled walk has met so far.

A candidate is kept if it was at least as near as the k-th nearest when it was met. At the end equally near
candidates are put in order of slide and row. Slides and rows lie elsewhere in memory: looking them up for
each candidate took more time than all distances.
"""

from typing import Any, NamedTuple

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
NODE_BEGINS, KEY_BEGINS, KEYS = 6, 7, 8
SPOT = 9
"""Columns of `spots`, int64 (tables, SPOT): of each table the addresses of its barcodes, slides and rows, the
numbers of its first slide and first patch, and how many patches it has; then the addresses of int32 numbers:
where each node begins, and either where each key begins or, if that is 0, the keys themselves."""
_MANY = 64  # more candidates at one distance than this are not sorted by insertion
_ROOM = 1024  # room for so many candidates more than 2 k


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
def slides_of(spots: NDArray[np.int64], patches: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the slide number of each patch, (N,); patch numbers count through all tables."""
    out, table, last = np.empty(patches.size, np.int64), 0, spots.shape[0] - 1
    for number in range(patches.size):  # most are of the table of the one before
        while table > 0 and patches[number] < spots[table, FIRST_PATCH]:
            table -= 1
        while table < last and patches[number] >= spots[table + 1, FIRST_PATCH]:
            table += 1
        row = patches[number] - spots[table, FIRST_PATCH]
        if not 0 <= row < spots[table, PATCHES]:
            raise IndexError("there is no patch of this number")
        out[number] = load_int32(spots[table, SLIDES], row) + spots[table, FIRST_SLIDE]
    return out


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
    # Distances are whole numbers and `tally` counts them: a counting sort, in which only equals are compared.
    candidates, tally, bound = found.candidates, found.tally, found.state[BOUND]
    ends = np.empty(bound + 1, np.int64)  # end of the candidates at each distance; at first their begin
    together: Any = np.int64(0)
    for bits in range(bound + 1):
        ends[bits] = together
        together += tally[bits]
    for number in range(found.state[COUNT]):
        if candidates[number, BITS] <= bound:  # slides and rows lie far apart in memory: prefetch all of them
            table, row = candidates[number, WHERE] >> ROW_BITS, candidates[number, WHERE] & _ROW_MASK
            prefetch(spots[table, SLIDES] + 4 * row)
            prefetch(spots[table, ROWS] + 4 * row)
    patches, places = np.empty(together, np.int64), np.empty(together, np.int64)
    for number in range(found.state[COUNT]):
        bits = candidates[number, BITS]
        if bits <= bound:
            table, row = candidates[number, WHERE] >> ROW_BITS, candidates[number, WHERE] & _ROW_MASK
            slide = load_int32(spots[table, SLIDES], row) + spots[table, FIRST_SLIDE]
            patches[ends[bits]] = spots[table, FIRST_PATCH] + row
            places[ends[bits]] = (slide << 32) | load_int32(spots[table, ROWS], row)
            ends[bits] += 1
    count: Any = np.int64(0)
    begin: Any = np.int64(0)
    for bits in range(bound + 1):
        if begin < ends[bits] and count < patch.size:
            count = _add_equals(patches, places, begin, ends[bits], bits, count, patch, hamming, order)
        begin = ends[bits]
    return int(count)


@compiled
def _add_equals(
    patches: NDArray[np.int64], places: NDArray[np.int64], begin: int, end: int, bits: int, count: int,
    patch: NDArray[np.int64], hamming: NDArray[np.int32], order: NDArray[np.int64],
) -> int:  # fmt: skip
    """Append candidates `begin` to `end`, all at one distance, by slide and row; return the new number."""
    if end - begin > _MANY:
        sorted_ = np.argsort(places[begin:end])
        patches[begin:end], places[begin:end] = patches[begin:end][sorted_], places[begin:end][sorted_]
    else:
        for number in range(begin + 1, end):
            own, own_patch, at = places[number], patches[number], number
            while at > begin and places[at - 1] > own:
                places[at], patches[at] = places[at - 1], patches[at - 1]
                at -= 1
            places[at], patches[at] = own, own_patch
    for number in range(begin, min(end, begin + patch.size - count)):
        patch[count], hamming[count], order[count] = patches[number], bits, places[number]
        count += 1
    return count
