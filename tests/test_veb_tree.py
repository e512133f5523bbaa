"""The van Emde Boas recursion by itself, against bisect and a dict."""

import bisect

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sish.index.trees.veb_recursion import (
    EMPTY,
    FREE_NODE,
    N_NODES,
    Tree,
    below,
    get,
    greatest,
    insert,
    put,
    remove,
    take_out,
    values_of,
)

LARGEST = 2**63 - 1
# on both sides of every split of a node, near each other, and anywhere
near = st.builds(
    lambda high, middle, low: min(high << 31 | middle << 15 | low, LARGEST),
    st.sampled_from([0, 1, 2, 255, 256, 2**16, 2**32 - 1]),
    st.sampled_from([0, 1, 15, 16, 255, 256, 2**16 - 1]),
    st.integers(0, 40),
)
values = st.one_of(near, st.integers(0, 300), st.integers(0, LARGEST), st.integers(LARGEST - 5, LARGEST))


def empty_tree(n_nodes=3000):
    state = np.zeros(7, np.int64)
    state[N_NODES], state[FREE_NODE] = 1, EMPTY
    return Tree(np.zeros((n_nodes, 3), np.int64), np.full((8192, 2), EMPTY, np.int64), state)


@given(
    calls=st.lists(st.tuples(st.booleans(), values), max_size=120), again=st.randoms(use_true_random=False)
)
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_changes_agrees_with_bisect(calls, again):
    tree, model = empty_tree(), []
    for adding, value in calls:
        if not adding and model:
            value = again.choice(model)
            remove(tree, value)
            model.remove(value)
        elif value not in model:
            insert(tree, value)
            bisect.insort(model, value)
        for asked in (value, min(value + 1, LARGEST), max(value - 1, 0)):
            place = bisect.bisect_left(model, asked)
            assert below(tree, asked) == (model[place - 1] if place else EMPTY)
        assert greatest(tree) == (model[-1] if model else EMPTY)
        assert values_of(tree) == model
    for value in again.sample(model, len(model)):
        remove(tree, value)
    assert values_of(tree) == []
    assert (tree.slots[:, 0] == EMPTY).all()


@given(
    keys=st.lists(st.integers(0, 2**62), unique=True, max_size=14), doomed=st.randoms(use_true_random=False)
)
@settings(max_examples=150, deadline=None)
def test_the_hash_table_finds_what_is_left(keys, doomed):
    slots = np.full((16, 2), EMPTY, np.int64)  # so full that most keys are not at their own place
    for number, key in enumerate(keys):
        put(slots, key, number)
    kept = dict(zip(keys, range(len(keys)), strict=True))
    for key in doomed.sample(keys, len(keys)):
        assert {key: get(slots, key) for key in keys} == {key: kept.get(key, EMPTY) for key in keys}
        take_out(slots, key)
        del kept[key]
    assert (slots[:, 0] == EMPTY).all()
