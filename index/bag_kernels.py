"""Compiled loops over all results of all bags, for the rankings of slides (`sish.ranking`).

A search has up to 4,000 results for each query patch. Loops over them in Python would hold the interpreter's
lock, so that two threads would search no faster than one.
"""

import numpy as np
from numpy.typing import NDArray

from sish.index.compiled import compiled


@compiled
def first_of_each(
    offset: NDArray[np.int64], slide: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the first, so the nearest, result of each slide in each bag, O(R + largest slide number).

    Returns
    -------
    int64 (M,), int64 (Q,), bool (largest slide number + 1,)
        Results, bag after bag in the order of the bag; how many there are of each bag; which slides are in
        any bag.
    """
    last = np.full(slide.max() + 1 if slide.size else 0, -1, np.int32)  # the last bag with each slide
    first, count = np.empty(slide.size, np.int64), 0
    found_in = np.zeros(offset.size - 1, np.int64)
    for bag in range(offset.size - 1):
        before = count
        for result in range(offset[bag], offset[bag + 1]):
            if last[slide[result]] != bag:
                last[slide[result]] = bag
                first[count] = result
                count += 1
        found_in[bag] = count - before
    return first[:count].copy(), found_in, last >= 0


@compiled
def first_unseen(slide: NDArray[np.int64], seen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the first place of each slide that was not `seen` (slides,) before, and mark it as seen."""
    places, count = np.empty(slide.size, np.int64), 0
    for place in range(slide.size):
        if not seen[slide[place]]:
            seen[slide[place]] = True
            places[count] = place
            count += 1
    return places[:count].copy()


@compiled
def label_votes(
    offset: NDArray[np.int64], label: NDArray[np.int64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the votes for each label in each bag: the sum of w_L / i over the label's places i from 1.

    Returns
    -------
    int64 (Q + 1,), int64 (V,), float64 (V,)
        Where the votes of each bag begin and end; their labels, in the order first seen; the sums.
    """
    begins, count = np.zeros(offset.size, np.int64), 0
    room = min(label.size, weight.size * (offset.size - 1))
    labels, votes = np.empty(room, np.int64), np.zeros(room, np.float64)
    at = np.full(weight.size, -1, np.int64)  # where the vote for each label is
    for bag in range(offset.size - 1):
        for result in range(offset[bag], offset[bag + 1]):
            own = label[result]
            if at[own] < begins[bag]:
                at[own], labels[count] = count, own
                count += 1
            votes[at[own]] += weight[own] / (result - offset[bag] + 1)
        begins[bag + 1] = count
    return begins, labels[:count].copy(), votes[:count].copy()
