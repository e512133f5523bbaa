"""The walk over cells: exact with an unlimited budget, bounded with any other."""

import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_hierarchy import clustered

from sish.errors import ParameterError
from sish.index.table import KeyTable
from sish.index.texture.cells import Cells
from sish.index.texture.tree import TextureTree

EVERYTHING = 10**9


def scan(barcodes, queries, k, *, skip=(), slide=None, threshold=10**9):
    """The plain answer: insertion numbers and distances of the k nearest, ties in insertion order."""
    out = []
    for query in queries:
        bits = np.bitwise_count(barcodes ^ query).sum(axis=1, dtype=np.int64)
        order = [i for i in np.argsort(bits, kind="stable") if bits[i] <= threshold]
        order = [i for i in order if slide is None or slide[i] not in skip]
        out.append([(int(i), int(bits[i])) for i in order[:k]])
    return out


def archive(barcodes, slide, tree, cuts=()):
    """Tables of consecutive slides, cut before the given slide numbers, and each patch's insertion number."""
    slide, tables, numbers = np.asarray(slide), [], []
    bounds = [0, *cuts, int(slide.max(initial=0)) + 1]
    for first, stop in pairwise(bounds):
        mine = np.flatnonzero((slide >= first) & (slide < stop))
        table = KeyTable.build(
            tree.keys(barcodes[mine]), barcodes[mine], slide[mine] - first, first_slide=first
        )
        tables.append(table)
        numbers.append(mine)
    return Cells.of(tree, tables), np.concatenate(numbers)


def answer(bags, number):
    pairs = list(zip(number[bags.patch].tolist(), bags.hamming.tolist(), strict=True))
    return [pairs[a:b] for a, b in zip(bags.offset, bags.offset[1:], strict=False)]


@pytest.fixture(scope="module", params=[(8, 8), (4, 3, 6)])
def world(request):
    """3,000 clustered barcodes of 16 bytes on 30 slides, a tree of two or three levels, and 20 queries."""
    rng = np.random.default_rng(0)
    barcodes = clustered(rng, 3020, clusters=60)
    return barcodes[:3000], np.sort(rng.integers(0, 30, 3000)), TextureTree.learn(
        barcodes[:3000], branching=request.param
    ), barcodes[3000:]  # fmt: skip


@pytest.mark.parametrize("cuts", [(), (10,), (3, 4, 20), (0, 15, 15)])
@pytest.mark.parametrize("k", [1, 10, 200])
def test_an_unlimited_budget_is_a_scan(world, cuts, k):
    barcodes, slide, tree, queries = world
    cells, number = archive(barcodes, slide, tree, cuts)
    assert answer(cells.search(queries, k=k, budget=EVERYTHING), number) == scan(barcodes, queries, k)


@pytest.mark.parametrize("budget", [2500, 2999])
def test_nearly_all_cells_still_find_what_they_hold(world, budget):
    barcodes, slide, tree, queries = world
    cells, number = archive(barcodes, slide, tree)
    got = answer(cells.search(queries, k=5, budget=budget), number)
    assert got == scan(barcodes, queries, 5)


@pytest.mark.parametrize("budget", [1, 7, 8, 9, 50, 300])
def test_a_budget_or_its_doubles_are_looked_at(world, budget):
    barcodes, slide, tree, queries = world
    cells, _ = archive(barcodes, slide, tree, (10, 20))
    bags = cells.search(queries, k=len(barcodes), budget=budget)  # all that was looked at comes back
    doubles = [budget, 2 * budget, 4 * budget, 8 * budget]  # the nodes that are opened hold the last of them
    assert all(length in doubles or 8 * budget < length <= 16 * budget for length in bags.lengths())
    for q in range(len(queries)):
        patches = bags.patch[bags.offset[q] : bags.offset[q + 1]]
        assert len(np.unique(patches)) == len(patches)


@pytest.mark.parametrize("budget", [20, 100, 700])
def test_what_is_looked_at_does_not_depend_on_the_tables(budget):
    rng = np.random.default_rng(1)
    barcodes, slide = clustered(rng, 5000), np.arange(5000) // 100
    tree = TextureTree.learn(barcodes, branching=(4, 4))  # its nodes are large, so that all are opened
    queries = clustered(rng, 10)
    answers = []
    for cuts in ((), (10,), (1, 2, 3, 30)):
        cells, number = archive(barcodes, slide, tree, cuts)
        answers.append(answer(cells.search(queries, k=10, budget=budget), number))
    assert answers[0] == answers[1] == answers[2]


def test_a_cell_is_walked_before_a_farther_one(world):
    barcodes, slide, tree, _ = world
    cells, number = archive(barcodes, slide, tree)
    keys = tree.keys(barcodes)
    leaf = int(np.bincount(keys).argmax())
    query = tree.leaves.reshape(-1, 16)[leaf : leaf + 1]
    members = set(np.flatnonzero(keys == leaf).tolist())
    bags = cells.search(query, k=3000, budget=len(members))
    assert members <= set(number[bags.patch].tolist())
    assert len(bags.patch) <= 16 * len(members)


def test_recall_of_clustered_barcodes():
    rng = np.random.default_rng(2)
    barcodes = clustered(rng, 20_200, clusters=300, n_bytes=32, flips=0.1)
    barcodes, queries = barcodes[:20_000], barcodes[20_000:]
    tree = TextureTree.learn(barcodes)
    cells, number = archive(barcodes, np.zeros(20_000, int), tree)
    got = answer(cells.search(queries, k=10, budget=1000), number)
    want = scan(barcodes, queries, 10)
    found = [sum(bits <= w[-1][1] for _, bits in g) / 10 for g, w in zip(got, want, strict=True)]
    assert np.mean(found) > 0.9  # 1,000 random ones of 20,000 would find 0.05


@pytest.mark.parametrize("skipped", [(), (0,), (3, 4, 29), tuple(range(29)), tuple(range(30))])
def test_excluded_slides_are_as_if_they_were_not_there(world, skipped):
    barcodes, slide, tree, queries = world
    cells, number = archive(barcodes, slide, tree, (12,))
    exclude = np.isin(np.arange(30), skipped)
    got = answer(cells.search(queries, k=10, budget=EVERYTHING, exclude=exclude), number)
    assert got == scan(barcodes, queries, 10, skip=set(skipped), slide=slide)


def test_excluded_patches_do_not_use_up_the_budget(world):
    barcodes, slide, tree, queries = world
    cells, number = archive(barcodes, slide, tree)
    exclude = np.arange(30) % 2 == 0
    kept = np.flatnonzero(slide % 2 == 1)
    fewer, fewer_number = archive(barcodes[kept], slide[kept], tree)
    bags = cells.search(queries, k=500, budget=500, exclude=exclude)
    assert (bags.lengths() == 500).all()
    assert not exclude[slide[number[bags.patch]]].any()
    again = fewer.search(queries, k=500, budget=500)
    assert answer(bags, number) == answer(again, kept[fewer_number])


def test_a_narrow_filter_still_ends(world):
    barcodes, slide, tree, queries = world
    cells, _ = archive(barcodes, slide, tree)
    bags = cells.search(queries, k=3000, budget=10, exclude=np.arange(30) != 7)
    assert (bags.lengths() <= 16 * 10).all()


def test_a_mask_may_be_shorter_than_the_slides(world):
    barcodes, slide, tree, queries = world
    cells, number = archive(barcodes, slide, tree)
    got = answer(cells.search(queries, budget=EVERYTHING, exclude=np.array([True])), number)
    assert got == scan(barcodes, queries, 10, skip={0}, slide=slide)


@pytest.mark.parametrize("threshold", [0, 10, 30, 1000])
def test_nothing_beyond_the_threshold_comes_back(world, threshold):
    barcodes, slide, tree, queries = world
    cells, number = archive(barcodes, slide, tree)
    got = answer(cells.search(queries, k=50, budget=EVERYTHING, threshold=threshold), number)
    assert got == scan(barcodes, queries, 50, threshold=threshold)


def test_added_patches_are_found_and_nothing_else_changes(world):
    barcodes, slide, tree, queries = world
    cells, number = archive(barcodes, slide, tree)
    new = KeyTable.build(tree.keys(queries), queries, np.zeros(len(queries), int), first_slide=30)
    more = cells.adding(new)
    bags = more.search(queries, k=1)
    assert bags.hamming.tolist() == [0] * len(queries)
    both = np.concatenate([barcodes, queries])
    numbers = np.concatenate([number, 3000 + np.arange(len(queries))])
    got = answer(more.search(queries, k=10, budget=EVERYTHING), numbers)
    assert got == scan(both, queries, 10)
    assert len(cells) == 3000 and len(more) == 3020


def test_duplicates_come_in_insertion_order_and_within_budget():
    barcodes = np.repeat(clustered(np.random.default_rng(3), 1), 1000, axis=0)
    tree = TextureTree.learn(barcodes)
    cells, number = archive(barcodes, np.arange(1000) // 10, tree, (30, 60))
    for budget in (EVERYTHING, 20):
        bags = cells.search(barcodes[:2], k=5, budget=budget)
        assert answer(bags, number) == [[(i, 0) for i in range(5)]] * 2


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_tiny_archives_are_scanned(count):
    barcodes = clustered(np.random.default_rng(4), 10)
    tree = TextureTree.learn(barcodes, branching=(8, 8))
    cells, number = archive(barcodes[:count], np.zeros(count, int), tree)
    bags = cells.search(barcodes, k=4)
    assert answer(bags, number) == scan(barcodes[:count], barcodes, 4)


def test_no_tables_and_no_queries():
    barcodes = clustered(np.random.default_rng(5), 10)
    tree = TextureTree.learn(barcodes)
    assert Cells.of(tree, []).search(barcodes).lengths().tolist() == [0] * 10
    cells, _ = archive(barcodes, np.zeros(10, int), tree)
    assert len(cells.search(barcodes[:0])) == 0


def test_threads_and_batches_give_the_same(world):
    barcodes, slide, tree, queries = world
    cells, number = archive(barcodes, slide, tree, (5,))
    want = answer(cells.search(queries, budget=200), number)
    one_by_one = [answer(cells.search(query[None], budget=200), number)[0] for query in queries]
    assert one_by_one == want
    got = [None] * 4

    def work(place):
        got[place] = [answer(cells.search(queries, budget=200), number) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [[want] * 20] * 4


def test_tables_are_searched_where_they_are_mapped(world, tmp_path):
    barcodes, slide, tree, queries = world
    table = KeyTable.build(tree.keys(barcodes), barcodes, slide)
    names = ("keys", "barcodes", "slide", "row", "position")
    for name in names:
        np.save(tmp_path / f"{name}.npy", getattr(table, name))
    mapped = KeyTable(**{name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in names})
    want, got = (Cells.of(tree, [one]).search(queries, k=7, budget=300) for one in (table, mapped))
    assert np.array_equal(got.patch, want.patch) and np.array_equal(got.hamming, want.hamming)


def test_answers_are_in_the_callers_numbers():
    barcodes = clustered(np.random.default_rng(6), 300)
    cells = Cells.learn(barcodes)
    assert np.any(np.diff(cells.tree.keys(barcodes)) < 0)  # their order is not that of their keys
    bags = cells.search(barcodes, k=3, budget=EVERYTHING)
    assert answer(bags, np.arange(300)) == scan(barcodes, barcodes, 3)


def test_stored_tables_are_numbered_as_they_lie(world):
    barcodes, slide, tree, queries = world
    built, _ = archive(barcodes, slide, tree, (7,))
    stored = Cells.of(tree, [replace(table, position=None) for table in built.tables])
    found, places = (cells.search(queries, k=9, budget=300).patch for cells in (built, stored))
    tables = zip(built.tables, built.first_patch, strict=True)
    order = np.concatenate([table.position + first for table, first in tables])
    assert order[places].tolist() == found.tolist()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_archive_any_budget(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    count, n_slides = data.draw(st.integers(1, 120)), data.draw(st.integers(1, 6))
    barcodes = rng.integers(0, data.draw(st.sampled_from([2, 256])), (count, 8), dtype=np.uint8)
    slide = np.sort(rng.integers(0, n_slides, count))
    branching = tuple(data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=3)))
    tree = TextureTree.learn(barcodes, branching=branching)
    cuts = sorted(data.draw(st.lists(st.integers(0, n_slides), max_size=3)))
    cells, number = archive(barcodes, slide, tree, cuts)
    exclude = rng.random(n_slides) < 0.3
    queries, k = rng.integers(0, 256, (3, 8), dtype=np.uint8), data.draw(st.integers(1, 30))
    skipped = set(np.flatnonzero(exclude).tolist())
    exact = answer(cells.search(queries, k=k, budget=count, exclude=exclude), number)
    assert exact == scan(barcodes, queries, k, skip=skipped, slide=slide)
    budget = data.draw(st.integers(1, count))
    some = answer(cells.search(queries, k=count, budget=budget), number)
    everything = scan(barcodes, queries, count)
    for got, known in zip(some, everything, strict=True):
        assert min(budget, count) <= len(got) <= min(16 * budget, count)
        assert [pair for pair in known if pair in set(got)] == got  # true distances, in the right order


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda cells, q: cells.search(q, k=0), ParameterError),
        (lambda cells, q: cells.search(q, budget=0), ParameterError),
        (lambda cells, q: cells.search(q[:, :8]), ParameterError),
        (lambda cells, q: cells.search(q, exclude=np.array([1, 2])), ParameterError),
        (lambda cells, q: cells.search(q.astype(float)), ParameterError),
        (lambda cells, q: KeyTable.build([1], q, [0]), ParameterError),
        (lambda cells, q: cells.adding(KeyTable.build([cells.tree.n_keys], q[:1], [0])), ParameterError),
        (lambda cells, q: cells.adding(KeyTable.build([-1], q[:1], [0])), ParameterError),
        (lambda cells, q: cells.adding(KeyTable.build([1], q[:1, :8], [0])), ParameterError),
    ],
)
def test_what_does_not_fit_is_said_on_one_line(world, wrong, error):
    barcodes, slide, tree, queries = world
    cells, _ = archive(barcodes, slide, tree)
    with pytest.raises(error) as raised:
        wrong(cells, queries)
    assert "\n" not in str(raised.value)
