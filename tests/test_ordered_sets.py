"""One contract for every ordered set: a new one is one more line in `SETS`."""

import bisect
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sish.errors import ParameterError
from sish.index.trees.ordered_set import LARGEST_KEY, OrderedSet
from sish.index.trees.sorted_array import SortedArray
from sish.index.trees.sorted_list import SortedListSet
from sish.index.trees.veb import VanEmdeBoas

SETS: list[type[OrderedSet]] = [VanEmdeBoas, SortedArray, SortedListSet]
every_set = pytest.mark.parametrize("kind", SETS, ids=lambda kind: kind.__name__)

# near each other, near the ends, on both sides of every split of a van Emde Boas node, and anywhere
edges = st.sampled_from([1 << bits for bits in (4, 6, 8, 15, 16, 31, 32, 47, 62)])
keys = st.one_of(
    st.integers(0, 80),
    st.builds(lambda edge, step: edge + step, edges, st.integers(-3, 3)),
    st.integers(LARGEST_KEY - 70, LARGEST_KEY),
    st.integers(0, LARGEST_KEY),
)
anything = st.one_of(keys, st.integers(-5, -1), st.integers(LARGEST_KEY + 1, LARGEST_KEY + 5), st.integers())


# more than a block of the van Emde Boas tree holds, here and there
crowds = st.builds(
    lambda seed, count, start, spread: [
        min(start + int(step), LARGEST_KEY) for step in np.random.default_rng(seed).integers(0, spread, count)
    ],
    st.integers(0, 2**32),
    st.sampled_from([0, 70, 200, 500]),
    st.one_of(st.just(0), keys),
    st.sampled_from([100, 1000, 2**20, 2**40, 2**62]),
)


class Contract(RuleBasedStateMachine):
    """Any sequence of calls, against a sorted list and bisect."""

    kind: type[OrderedSet]

    @initialize(start=st.lists(keys, max_size=30), crowd=crowds)
    def build(self, start, crowd):
        self.set = self.kind.of(np.array(start + crowd, dtype=np.int64))
        self.model = sorted({*start, *crowd})

    @rule(crowd=crowds)
    def add_many(self, crowd):
        for key in crowd:
            self.set.add(key)
        self.model = sorted({*self.model, *crowd})

    @rule(start=st.integers(0, 1000), step=st.integers(1, 3), count=st.integers(0, 200))
    def discard_many(self, start, step, count):
        place = start % max(1, len(self.model))
        for key in self.model[place::step][:count]:
            self.set.discard(key)
            self.model.remove(key)

    @rule(key=keys)
    def add(self, key):
        self.set.add(key)
        if key not in self.model:
            bisect.insort(self.model, key)

    @rule(key=anything)
    def discard_any(self, key):
        self.set.discard(key)
        if key in self.model:
            self.model.remove(key)

    @rule(place=st.integers(0, 1000))
    def discard_one_that_is_there(self, place):
        if self.model:
            self.set.discard(self.model.pop(place % len(self.model)))

    @rule(key=anything)
    def look_around(self, key):
        self.agree_at(key)

    @rule(place=st.integers(0, 1000), step=st.integers(-1, 1))
    def look_around_one_that_is_there(self, place, step):
        if self.model:
            self.agree_at(self.model[place % len(self.model)] + step)

    def agree_at(self, key):
        below, upto = bisect.bisect_left(self.model, key), bisect.bisect_right(self.model, key)
        assert self.set.predecessor(key) == (self.model[below - 1] if below else None)
        assert self.set.successor(key) == (self.model[upto] if upto < len(self.model) else None)
        assert (key in self.set) == (upto > below)

    @rule(key=anything, steps=st.integers(-12, 12))
    def walk(self, key, steps):
        below, upto = bisect.bisect_left(self.model, key), bisect.bisect_right(self.model, key)
        want = self.model[upto : upto + steps] if steps >= 0 else self.model[:below][::-1][:-steps]
        assert self.set.walk(key, steps) == want

    @invariant()
    def same_content(self):
        assert list(self.set) == self.model
        assert len(self.set) == len(self.model)
        assert self.set.min() == (self.model[0] if self.model else None)
        assert self.set.max() == (self.model[-1] if self.model else None)
        self.set._check()


@every_set
def test_any_sequence_of_calls_agrees_with_bisect(kind):
    machine = type(f"{kind.__name__}Contract", (Contract,), {"kind": kind})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )


@every_set
@given(chosen=st.lists(keys, max_size=200))
@settings(max_examples=40, deadline=None)
def test_walking_both_ways_gives_all_keys(kind, chosen):
    filled = kind.of(np.array(chosen, dtype=np.int64))
    up, down = [], []
    key = filled.min()
    while key is not None:
        up.append(key)
        key = filled.successor(key)
    key = filled.max()
    while key is not None:
        down.append(key)
        key = filled.predecessor(key)
    assert up == sorted(set(chosen))
    assert down == up[::-1]


@every_set
def test_an_empty_set_has_no_neighbours(kind):
    for empty in (kind(), kind.of([]), kind.of(np.zeros(0, dtype=np.int64))):
        assert len(empty) == 0
        assert list(empty) == []
        assert empty.min() is empty.max() is empty.successor(-1) is empty.predecessor(2**70) is None
        empty.discard(3)
        empty._check()


@every_set
def test_both_ends_of_the_range_are_keys(kind):
    ends = kind.of([0, LARGEST_KEY])
    assert ends.successor(-(2**80)) == 0
    assert ends.successor(0) == LARGEST_KEY
    assert ends.successor(LARGEST_KEY) is None
    assert ends.predecessor(2**80) == LARGEST_KEY
    assert ends.predecessor(LARGEST_KEY) == 0
    assert ends.predecessor(0) is None
    assert -1 not in ends
    assert LARGEST_KEY + 1 not in ends


@every_set
@pytest.mark.parametrize("key", [-1, LARGEST_KEY + 1, 2**70])
def test_keys_out_of_range_are_refused_and_change_nothing(kind, key):
    filled = kind.of([5])
    with pytest.raises(ParameterError, match=str(key)):
        filled.add(key)
    with pytest.raises(ParameterError):
        kind.of([key])
    assert list(filled) == [5]
    filled._check()


@every_set
@pytest.mark.parametrize("keys", [[1.5], [[1, 2]], ["a"]])
def test_keys_that_are_not_integers_are_refused(kind, keys):
    with pytest.raises(ParameterError, match="give integers"):
        kind.of(keys)


@every_set
def test_numpy_integers_are_keys_and_python_integers_come_back(kind):
    filled = kind.of(np.array([7, 3], dtype=np.uint8))
    filled.add(np.int64(5))
    assert [type(key) for key in filled] == [int, int, int]
    assert type(filled.successor(np.int64(3))) is int
    assert np.int64(5) in filled


@every_set
def test_paper_sized_keys_survive_filling_and_emptying(kind):
    chosen = np.random.default_rng(0).integers(0, int(8e14), 2000)
    filled = kind.of(chosen)
    filled._check()
    for key in chosen[:1990]:
        filled.discard(key)
    filled._check()
    assert list(filled) == sorted(chosen[1990:].tolist())


def bytes_per_key(filled: VanEmdeBoas) -> float:
    return filled.nbytes / len(filled)


@pytest.mark.parametrize("upper", [8e14, LARGEST_KEY])
def test_van_emde_boas_memory_is_proportional_to_its_keys(upper):
    for count in (1_000, 10_000, 100_000):
        chosen = np.random.default_rng(count).integers(0, int(upper), count)
        assert bytes_per_key(VanEmdeBoas.of(chosen)) < 30
        one_by_one = VanEmdeBoas()
        for key in chosen[:10_000].tolist():
            one_by_one.add(key)
        assert bytes_per_key(one_by_one) < 40


def test_van_emde_boas_counts_its_memory():
    chosen = np.random.default_rng(0).integers(0, int(8e14), 100_000)
    VanEmdeBoas.of(chosen[:10])  # what numpy and numba load on first use is not the tree's
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        filled = VanEmdeBoas.of(chosen)
        assert tracemalloc.get_traced_memory()[0] - before == pytest.approx(filled.nbytes, rel=0.05)
    finally:
        tracemalloc.stop()


def test_van_emde_boas_gives_back_the_memory_of_discarded_keys():
    chosen = np.random.default_rng(0).permutation(np.arange(0, 10**15, 10**11))
    tree = VanEmdeBoas.of(chosen)
    full = tree.nbytes
    for key in chosen[200:].tolist():
        tree.discard(key)
    tree._check()
    assert tree.nbytes < full / 8
    assert list(tree) == sorted(chosen[:200].tolist())


def test_van_emde_boas_memory_stays_where_keys_come_and_go():
    random = np.random.default_rng(0)
    tree, size = VanEmdeBoas.of(random.integers(0, int(8e14), 5000)), []
    for _ in range(6):
        for key in list(tree)[::2]:
            tree.discard(key)
        for key in random.integers(0, int(8e14), 2500).tolist():
            tree.add(key)
        size.append(bytes_per_key(tree))
    tree._check()
    assert max(size) < 40
