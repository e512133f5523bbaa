"""The compiled loops over bags, each against the same loop in plain Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sish.index.bag_kernels import first_of_each, first_unseen, label_votes
from sish.index.compiled import frozen

BAGS = st.lists(st.lists(st.integers(0, 6), max_size=9), max_size=5)
"""The slide, or the label, of each result of some bags."""


def as_arrays(bags):
    """Offsets and the results of all bags, as the kernels take them."""
    flat = np.array([number for bag in bags for number in bag], np.int64)
    return frozen(np.cumsum([0, *map(len, bags)], dtype=np.int64)), frozen(flat)


@given(BAGS)
def test_the_first_of_each_slide_in_each_bag(bags):
    offset, slide = as_arrays(bags)
    first, found_in, seen = first_of_each(offset, slide)
    want = [[bag.index(number) for number in dict.fromkeys(bag)] for bag in bags]
    assert first.tolist() == [
        start + i for start, own in zip(offset.tolist(), want, strict=False) for i in own
    ]
    assert found_in.tolist() == list(map(len, want))
    assert np.flatnonzero(seen).tolist() == sorted({number for bag in bags for number in bag})


@given(BAGS)
def test_a_slide_is_taken_from_the_first_bag_that_has_it(bags):
    mask, known = np.zeros(7, bool), set()
    for bag in bags:
        places = first_unseen(frozen(np.array(bag, np.int64)), mask).tolist()
        assert places == [bag.index(number) for number in dict.fromkeys(bag) if number not in known]
        known |= set(bag)
    assert set(np.flatnonzero(mask).tolist()) == known


@given(BAGS, st.lists(st.floats(0.125, 8), min_size=7, max_size=7))
def test_votes_are_summed_in_the_order_of_the_bag(bags, weights):
    begins, labels, votes = label_votes(*as_arrays(bags), frozen(np.array(weights)))
    assert len(begins) == len(bags) + 1 and begins[-1] == len(labels) == len(votes)
    for number, bag in enumerate(bags):
        span = slice(begins[number], begins[number + 1])
        want: dict[int, float] = {}
        for place, label in enumerate(bag, 1):
            want[label] = want.get(label, 0.0) + weights[label] / place
        assert list(zip(labels[span].tolist(), votes[span].tolist(), strict=True)) == list(want.items())


@pytest.mark.parametrize("kernel", [first_of_each, first_unseen, label_votes])
def test_the_loops_let_other_threads_run(kernel):
    assert kernel.targetoptions["nogil"]
