"""Recall at default settings where cells are over-full, or the tree was learnt from other textures."""

import numpy as np
import pytest

from sish.index.barcode import nearest
from sish.index.params import BUDGET, CEILING
from sish.index.table import KeyTable
from sish.index.texture.cells import Cells
from sish.index.texture.tree import TextureTree


def around(codes, n, seed, flips=0.03):
    """n barcodes, each of one of the codes with some bits flipped."""
    rng = np.random.default_rng(seed)
    noise = np.packbits(rng.random((n, 8 * codes.shape[1])) < flips, axis=1)
    return codes[rng.integers(len(codes), size=n)] ^ noise


def random_bits(n, seed, n_bytes=32):
    return np.random.default_rng(seed).integers(0, 256, (n, n_bytes), np.uint8)


def recall(cells, barcodes, queries, budget=BUDGET):
    """The share of the ten nearest that a search finds, asked as an index asks; ties with the tenth count."""
    tenth = nearest(barcodes, queries, 10).hamming[:, -1]
    bags = cells.search(queries, k=budget, budget=budget)
    found = np.split(bags.hamming, bags.offset[1:-1])
    return np.mean([np.sum(own[:10] <= bits) / 10 for own, bits in zip(found, tenth, strict=True)])


@pytest.mark.parametrize("codes", [2, 3, 5])
def test_a_cluster_that_is_larger_than_the_budget_is_looked_through(codes):
    barcodes = around(random_bits(codes, 0), 8000, 1)
    queries = around(random_bits(codes, 0), 40, 2)
    assert recall(Cells.learn(barcodes), barcodes, queries, budget=800) >= 0.95


def test_one_full_cell_is_looked_through_with_any_tables_and_any_mask():
    barcodes, queries = around(random_bits(1, 0), 6000, 1), around(random_bits(1, 0), 20, 2)
    tree, slide = TextureTree.learn(barcodes, branching=(1, 1)), np.arange(6000) // 60
    tables = [
        KeyTable.build(
            tree.keys(barcodes[mine]), barcodes[mine], slide[mine] - slide[mine][0], first_slide=first
        )
        for first, mine in ((0, slice(0, 1800)), (30, slice(1800, 6000)))
    ]
    cells = Cells.of(tree, tables)
    assert recall(cells, barcodes, queries, budget=1000) >= 0.95
    hidden = slide % 2 == 0
    tenth = nearest(barcodes[~hidden], queries, 10).hamming[:, -1]
    bags = cells.search(queries, k=40, budget=500, exclude=np.arange(100) % 2 == 0)
    assert not hidden[bags.patch].any()
    assert np.mean(bags.hamming.reshape(-1, 40)[:, :10] <= tenth[:, None]) >= 0.95
    assert all(len(np.unique(own)) == 40 for own in bags.patch.reshape(-1, 40))


def test_a_tree_of_other_textures_loses_less():
    old, new = around(random_bits(40, 0), 2000, 1), around(random_bits(40, 7), 10_000, 2)
    barcodes, queries = np.concatenate([old, new]), around(random_bits(40, 7), 60, 3)
    tree = TextureTree.learn(old)
    cells = Cells.of(tree, [KeyTable.build(tree.keys(barcodes), barcodes, np.zeros(12_000, int))])
    assert recall(cells, barcodes, queries, budget=400) >= 0.95


def test_a_search_that_is_not_paid_for_ends_at_the_budget():
    codes = random_bits(200, 0)
    cells = Cells.learn(around(codes, 20_000, 1))
    bags = cells.search(around(codes, 100, 2), k=20_000, budget=1000)
    assert np.mean(bags.lengths() == 1000) >= 0.95


def test_random_bits_end_at_two_budgets_and_nothing_goes_on_past_sixteen():
    barcodes = random_bits(20_000, 0, 128)
    lengths = Cells.learn(barcodes).search(random_bits(20, 1, 128), k=20_000, budget=500).lengths()
    assert lengths.max() == 2 * 500
    dense = around(random_bits(1, 0), 20_000, 1)
    lengths = Cells.learn(dense).search(dense[:20] ^ np.uint8(1), k=20_000, budget=100).lengths()
    assert 4 * 100 < lengths.max() <= CEILING * 100


def test_exact_copies_do_not_make_a_search_go_on():
    barcodes = np.repeat(random_bits(4, 0), 3000, axis=0)
    bags = Cells.learn(barcodes).search(barcodes[:1], k=12_000, budget=200)
    assert bags.lengths().tolist() == [200] and not bags.hamming.any()


def test_the_default_budget_looks_through_a_cluster_of_three_budgets():
    barcodes, queries = around(random_bits(3, 0), 9 * BUDGET, 1), around(random_bits(3, 0), 30, 2)
    assert recall(Cells.learn(barcodes), barcodes, queries) >= 0.95
