"""The compiled search against a plain one, written from the description over each ordered set."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plain_search import PlainIndex, plain_search
from sish.errors import ParameterError
from sish.index.bags import Bags
from sish.index.guided.walk import guided_search
from sish.index.params import KEY_UNIT, SearchParams
from sish.index.table import KeyTable
from sish.index.trees.sorted_array import SortedArray
from sish.index.trees.sorted_list import SortedListSet
from sish.index.trees.veb import VanEmdeBoas

SETS = [VanEmdeBoas, SortedArray, SortedListSet]
LARGEST = 2**63 - 1


def plain_bags(kind, archive, queries, exclude, params):
    return plain_search(PlainIndex.build(kind, archive, exclude), *queries, params)


def as_lists(bags):
    return [
        list(zip(bags.patch[a:b].tolist(), bags.hamming[a:b].tolist(), strict=True))
        for a, b in zip(bags.offset[:-1], bags.offset[1:], strict=True)
    ]


params = st.builds(
    SearchParams,
    interval=st.sampled_from([0, 1, 2, 5, 50]),
    n_seeds=st.integers(0, 4),
    pre_step=st.integers(0, 6),
    succ_step=st.integers(0, 6),
    skip_step=st.sampled_from([0, 1, 3, 50_000]),
    threshold=st.integers(0, 20),
    visit_query_key=st.booleans(),
)


@st.composite
def searches(draw):
    """An archive crowded on few keys, queries on and between them, slides that empty whole keys."""
    count, width = draw(st.integers(0, 60)), draw(st.sampled_from([1, 3, 8, 16, 64, 128]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([1, KEY_UNIT // 3, KEY_UNIT, 10**17]))
    keys = random.integers(0, draw(st.integers(1, 40)), count) * spread
    barcodes = random.integers(0, 256, (count, width), dtype=np.uint8)
    barcodes[:, 5:] = 0  # distances stay about the threshold, however wide
    barcodes &= np.uint8(draw(st.sampled_from([0x00, 0x03, 0x0F, 0xFF])))
    slide = random.integers(0, 6, count)
    # a slide to itself at each key: excluding it empties the key
    slide = np.where(random.random(count) < 0.5, keys // spread % 6, slide).astype(np.int32)
    query_keys = random.integers(0, 42, 5) * spread + random.integers(-1, 2, 5)
    query_barcodes = random.integers(0, 16, (5, width), dtype=np.uint8)
    query_barcodes[:, 5:-1] = 0
    exclude = np.array(draw(st.lists(st.booleans(), max_size=7)), dtype=bool)
    return (keys, barcodes, slide), (query_keys, query_barcodes), exclude


@pytest.mark.parametrize("kind", SETS, ids=lambda kind: kind.__name__)
@given(search=searches(), params=params)
@settings(max_examples=150, deadline=None)
def test_bags_agree_with_the_plain_search(kind, search, params):
    archive, queries, exclude = search
    bags = guided_search(KeyTable.build(*archive), *queries, exclude=exclude, params=params)
    assert as_lists(bags) == plain_bags(kind, archive, queries, exclude, params)


@pytest.mark.parametrize("kind", SETS, ids=lambda kind: kind.__name__)
@given(search=searches(), params=params)
@settings(max_examples=150, deadline=None)
def test_bags_do_not_depend_on_the_set_of_keys(kind, search, params):
    archive, queries, exclude = search
    table = KeyTable.build(*archive)
    bags = guided_search(table, *queries, exclude=exclude, params=params)
    along = guided_search(table, *queries, exclude=exclude, params=params, tree=kind.of(table.keys))
    assert as_lists(along) == as_lists(bags)
    assert [along.patch.dtype, along.hamming.dtype] == [bags.patch.dtype, bags.hamming.dtype]


def random_archive(count, seed=0, width=16):
    random = np.random.default_rng(seed)
    keys = random.integers(0, int(8e14), count)
    return (
        keys,
        random.integers(0, 256, (count, width), dtype=np.uint8),
        (np.arange(count) // 10).astype(np.int32),
    )


@pytest.mark.parametrize("threshold", [40, 55, 128])
def test_paper_budget_agrees_with_the_plain_search(threshold):
    archive = random_archive(1500)
    queries = archive[0][::300], archive[1][::300]
    exclude = np.zeros(150, dtype=bool)
    exclude[::7] = True
    params = SearchParams(threshold=threshold)
    bags = guided_search(KeyTable.build(*archive), *queries, exclude=exclude, params=params)
    assert as_lists(bags) == plain_bags(SortedArray, archive, queries, exclude, params)
    assert len(bags.patch) > 0


def by_hand(keys, distances, query_key, **given):
    """Patches found for the all-zero barcode, where patch i has `distances[i]` bits set."""
    barcodes = np.packbits([[1] * n + [0] * (8 - n) for n in distances], axis=1)
    slide = np.arange(len(keys), dtype=np.int32)
    exclude = given.pop("exclude", None)
    defaults = {"interval": 0, "n_seeds": 1, "threshold": 3}
    table = KeyTable.build(keys, barcodes, slide)
    query = np.zeros((1, 1), np.uint8)
    bags = guided_search(table, [query_key], query, exclude=exclude, params=SearchParams(**defaults | given))
    return bags.patch.tolist()


def test_down_comes_before_up_and_ties_keep_the_order_found():
    assert by_hand([10, 20, 30, 40], [1, 1, 1, 1], 25) == [1, 0, 2, 3]


def test_predecessor_and_successor_are_strict():
    assert by_hand([10, 20, 30], [0, 0, 0], 20) == [0, 2]
    assert by_hand([10, 20, 30], [0, 0, 0], 20, visit_query_key=True) == [1, 0, 2]


def test_the_query_key_is_found_from_another_seed():
    assert by_hand([10, 20], [5, 0], 20, interval=1, n_seeds=2) == [1]


def test_keys_that_fail_the_threshold_count_as_steps_and_do_not_stop_walks():
    assert by_hand([10, 20, 30], [0, 8, 8], 35, pre_step=2) == []
    assert by_hand([10, 20, 30], [0, 8, 8], 35, pre_step=3) == [0]


def test_excluded_keys_do_not_count_as_steps():
    excluded = np.array([False, True, True])
    assert by_hand([10, 20, 30], [0, 0, 0], 35, pre_step=1, exclude=excluded) == [0]


def test_a_walk_passes_so_many_excluded_keys_and_no_more():
    excluded = np.array([False, True, True, True])
    walks = {"pre_step": 3, "succ_step": 0, "exclude": excluded}
    assert by_hand([10, 20, 30, 30], [0, 0, 0, 0], 35, skip_step=1, **walks) == []
    assert by_hand([10, 20, 30, 30], [0, 0, 0, 0], 35, skip_step=2, **walks) == [0]


@pytest.mark.parametrize("n_threads", [2, 3, 100])
def test_threads_change_nothing(n_threads):
    archive = random_archive(2000, width=128)
    queries = archive[0][::100], archive[1][::100]
    table, params = KeyTable.build(*archive), SearchParams(threshold=490)
    one = guided_search(table, *queries, params=params)
    many = guided_search(table, *queries, params=params, n_threads=n_threads)
    assert len(one.patch) > 20
    assert as_lists(many) == as_lists(one)
    tree = VanEmdeBoas.of(table.keys)
    assert as_lists(
        guided_search(table, *queries, params=params, tree=tree, n_threads=n_threads)
    ) == as_lists(one)
    none = guided_search(table, [], archive[1][:0], n_threads=n_threads)
    assert (len(none), none.offset.tolist()) == (0, [0])


def test_a_walk_ends_at_a_closed_key():
    keys, far_key = [10, 20, 30, 40], 50 + KEY_UNIT
    # from the seed at 50 the walk closes 40 and 30; from the one at the query, far above, it arrives at 40
    walks = {"interval": 1, "n_seeds": 2, "pre_step": 2, "succ_step": 0}
    assert by_hand(keys, [0, 0, 0, 0], far_key, **walks) == [3, 2]
    # an open 40 is passed again, but costs each walk a step: 20 and 10 stay out of reach
    assert by_hand(keys, [0, 0, 0, 8], far_key, **walks) == [2]


def test_of_one_key_the_nearest_is_taken_and_of_equals_the_first():
    assert by_hand([10, 10, 10, 10], [3, 1, 1, 2], 15) == [1]
    assert by_hand([10, 10, 10, 10], [3, 1, 1, 2], 5) == [1]


def test_all_of_the_query_key_join_when_it_is_visited():
    assert by_hand([10, 10, 10, 10], [3, 1, 8, 1], 10, visit_query_key=True) == [1, 3, 0]


@pytest.mark.parametrize("visit", [False, True])
def test_keys_at_the_ends_of_int64_do_not_overflow(visit):
    keys = [-(2**63), -1, 0, 1, LARGEST - 1, LARGEST]
    params = SearchParams(interval=LARGEST // KEY_UNIT, n_seeds=3, threshold=8, visit_query_key=visit)
    archive = np.array(keys), np.zeros((6, 1), np.uint8), np.zeros(6, np.int32)
    queries = np.array(keys), np.zeros((6, 1), np.uint8)
    bags = guided_search(KeyTable.build(*archive), *queries, params=params)
    positive = SortedListSetOfAnyInteger
    assert as_lists(bags) == plain_bags(positive, archive, queries, [], params)


def test_a_seed_below_all_of_int64_is_below_all_keys():
    params = SearchParams(interval=LARGEST // KEY_UNIT, n_seeds=2, threshold=8, succ_step=0)
    table = KeyTable.build([0], np.zeros((1, 1), np.uint8), [0])
    assert len(guided_search(table, [-(2**63)], np.zeros((1, 1), np.uint8), params=params).patch) == 0


class SortedListSetOfAnyInteger:
    """Just enough of an ordered set, with negative keys."""

    def __init__(self, keys):
        self.keys = sorted(set(keys))

    @classmethod
    def of(cls, keys):
        return cls(keys.tolist())

    def predecessor(self, key):
        return max((k for k in self.keys if k < key), default=None)

    def successor(self, key):
        return min((k for k in self.keys if k > key), default=None)


def test_huge_parameters_are_no_overflow():
    huge = SearchParams(LARGEST, 5, LARGEST, LARGEST, LARGEST)
    assert by_hand(
        [10, 30], [8, 0], 20, **{name: getattr(huge, name) for name in ("interval", "n_seeds")}
    ) == [1]
    table = KeyTable.build([10, 30], np.zeros((2, 1), np.uint8), [0, 0])
    assert guided_search(table, [20], np.zeros((1, 1), np.uint8), params=huge).patch.tolist() == [0, 1]


def test_every_patch_finds_itself_in_a_large_archive_when_its_key_is_visited():
    archive = random_archive(20_000)
    rows = np.arange(0, 20_000, 997)
    table = KeyTable.build(*archive)
    params = SearchParams(n_seeds=1, pre_step=1, succ_step=1, visit_query_key=True)
    bags = guided_search(table, archive[0][rows], archive[1][rows], params=params)
    assert bags.patch[bags.offset[:-1]].tolist() == rows.tolist()
    assert not bags.hamming[bags.offset[:-1]].any()


def test_results_outgrow_the_first_allocation():
    archive = random_archive(3000)
    rows = np.arange(40)
    params = SearchParams(threshold=128)
    bags = guided_search(KeyTable.build(*archive), archive[0][rows], archive[1][rows], params=params)
    assert len(bags.patch) > 10 * 1024  # room for 1,024 at first
    one = guided_search(KeyTable.build(*archive), archive[0][39:40], archive[1][39:40], params=params)
    assert as_lists(bags)[39] == as_lists(one)[0]


def test_memory_maps_are_searched_where_they_lie(tmp_path):
    keys, barcodes, slide = random_archive(500)
    order = np.argsort(keys, kind="stable")
    saved = {"keys": keys[order], "barcodes": barcodes[order], "slide": slide[order]}
    saved |= {"row": order.astype(np.int32), "position": order}
    for name, array in saved.items():
        np.save(tmp_path / f"{name}.npy", array)
    maps = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in saved}
    table = KeyTable(**maps)
    assert all(np.shares_memory(getattr(table, name), maps[name]) for name in saved)
    want = guided_search(KeyTable.build(keys, barcodes, slide), keys[:5], barcodes[:5])
    got = guided_search(table, keys[:5], barcodes[:5])
    assert as_lists(got) == as_lists(want)
    assert len(got.patch)


def test_one_column_of_many_keys_is_searched():
    keys, barcodes, slide = random_archive(300)
    several = np.stack([keys, keys[::-1]], axis=1)
    ordered = np.argsort(keys, kind="stable")
    table = KeyTable.build(several[ordered][:, 0], barcodes[ordered], slide[ordered])
    want = guided_search(KeyTable.build(keys, barcodes, slide), keys[:3], barcodes[:3])
    got = guided_search(table, several[:3, 0], barcodes[:3])
    assert as_lists(replace(got, patch=ordered[got.patch])) == as_lists(want)


def test_no_patches_and_no_queries():
    table = KeyTable.build([], np.zeros((0, 128), np.uint8), [])
    bags = guided_search(
        table, [5, 6], np.zeros((2, 128), np.uint8), params=SearchParams(visit_query_key=True)
    )
    assert bags.offset.tolist() == [0, 0, 0]
    filled = KeyTable.build([5], np.zeros((1, 128), np.uint8), [0])
    for visit in (False, True):
        none = guided_search(
            filled, [], np.zeros((0, 128), np.uint8), params=SearchParams(visit_query_key=visit)
        )
        assert isinstance(none, Bags)
        assert len(none) == 0


def test_the_table_is_stable_and_knows_the_callers_numbers():
    table = KeyTable.build([3, 1, 3, 1], np.arange(4, dtype=np.uint8)[:, None], [0, 1, 2, 3])
    assert table.callers(np.arange(4)).tolist() == [1, 3, 0, 2]
    assert table.slide.tolist() == [1, 3, 0, 2]
    assert table.barcodes[:, 0].tolist() == [1, 3, 0, 2]


def test_what_is_in_key_order_is_not_copied():
    keys, barcodes, slide = np.array([1, 1, 3]), np.zeros((3, 8), np.uint8), np.zeros(3, np.int32)
    table = KeyTable.build(keys, barcodes, slide)
    assert table.keys is keys
    assert table.barcodes is barcodes
    assert table.slide is slide
    assert table.callers(np.arange(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["interval", "n_seeds", "pre_step", "succ_step", "skip_step", "threshold"])
def test_negative_parameters_are_refused(name):
    with pytest.raises(ParameterError, match=f"{name} is -1"):
        SearchParams(**{name: -1})


@pytest.mark.parametrize("value", [1.5, "9", None])
def test_parameters_that_are_no_integers_are_refused(value):
    with pytest.raises(ParameterError, match="pre_step is"):
        SearchParams(pre_step=value)


def test_slide_numbers_are_not_taken_for_a_mask():
    table = KeyTable.build([5], np.zeros((1, 16), np.uint8), [0])
    with pytest.raises(ParameterError, match="exclude is int64"):
        guided_search(table, [5], np.zeros((1, 16), np.uint8), exclude=np.array([1, 2]))


def test_what_does_not_fit_is_refused():
    table = KeyTable.build([5], np.zeros((1, 16), np.uint8), [0])
    with pytest.raises(ParameterError, match="n_threads is 0"):
        guided_search(table, [5], np.zeros((1, 16), np.uint8), n_threads=0)
    with pytest.raises(ParameterError, match="16 bytes against 8"):
        guided_search(table, [5], np.zeros((1, 8), np.uint8))
    with pytest.raises(ParameterError, match="query_keys"):
        guided_search(table, [5, 6], np.zeros((1, 16), np.uint8))
    with pytest.raises(ParameterError, match="slide is"):
        KeyTable.build([5], np.zeros((1, 16), np.uint8), [0, 1])
    with pytest.raises(ParameterError, match="barcodes are"):
        KeyTable.build([5], np.zeros((1, 16), np.int64), [0])


@pytest.mark.parametrize("visit", [False, True])
def test_keys_that_are_not_sorted_give_some_answer(visit):
    """A damaged file: whatever is found, no memory but the table's is touched."""
    random = np.random.default_rng(0)
    for count in (1, 7, 300):
        keys = random.integers(0, 3, count) * KEY_UNIT
        rows = np.zeros((count, 128), np.uint8)
        slide = random.integers(-(2**31), 2**31, count).astype(np.int32)
        table = KeyTable(keys, rows, slide, np.arange(count, dtype=np.int32))
        params = SearchParams(interval=1, n_seeds=3, pre_step=2, succ_step=2, visit_query_key=visit)
        bags = guided_search(
            table, [0, KEY_UNIT], rows[:1].repeat(2, 0), params=params, exclude=np.ones(3, bool)
        )
        assert (bags.hamming == 0).all()
        assert len(bags.patch) <= 2 * 2 * count


@pytest.mark.parametrize("keys", [[1.5, 2.5], [True, False], ["1", "2"]])
def test_keys_that_are_no_integers_are_refused_and_not_cut(keys):
    barcodes = np.zeros((2, 8), np.uint8)
    with pytest.raises(ParameterError, match=r"keys are .*; give integers"):
        KeyTable.build(keys, barcodes, [0, 1])
    with pytest.raises(ParameterError, match=r"slide are .*; give integers"):
        KeyTable.build([1, 2], barcodes, keys)
    with pytest.raises(ParameterError, match=r"query_keys are .*; give integers"):
        guided_search(KeyTable.build([1, 2], barcodes, [0, 1]), keys, barcodes)
