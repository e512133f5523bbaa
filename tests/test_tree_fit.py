"""A tree is learnt again when it does not fit any more, and not by counts."""

import numpy as np
import pytest
from test_dense_archives import around, random_bits
from test_recall import added

from sish import archives
from sish.index.store import Store
from sish.searchers import TextureKeys, stored_tree
from sish.tree_fit import TreeFit


@pytest.fixture
def learnt(monkeypatch):
    """The numbers of patches at which trees were learnt."""
    counts, learn = [], archives.learn_keys

    def counting(store, **options):
        counts.append(sum(row.n_patches for row in store.slides))
        return learn(store, **options)

    monkeypatch.setattr(archives, "learn_keys", counting)
    return counts


def grown(path, parts, **options):
    with Store.create(path, {}) as store:
        first = 0
        for barcodes in parts:
            added(store, barcodes, first, **options)
            first += len(barcodes) // 50  # slides
        return store.state


def test_what_is_measured_is_distance_to_the_leaf_and_patches_in_it(tmp_path):
    barcodes = around(random_bits(60, 0), 900, 1)
    with Store.create(tmp_path / "a.sish", {}) as store:
        added(store, barcodes)
        tree = archives.learn_keys(store, seed=0)
        fit = TreeFit.on(store.state, tree)
    keys = tree.keys(barcodes)
    bits = np.bitwise_count(barcodes ^ tree.leaves.reshape(-1, 32)[keys]).sum(1)
    assert (fit.bits, fit.checked) == (pytest.approx(bits.mean()), 900)
    assert fit.together == pytest.approx(np.bincount(keys)[keys].mean())


def test_a_tree_is_kept_while_the_same_textures_come(tmp_path, learnt):
    codes = random_bits(300, 0)
    grown(tmp_path / "a.sish", [around(codes, 12_000, 1)])
    assert len(learnt) == 1 and 4000 < learnt[0] <= 4050


def test_a_tree_is_learnt_again_once_its_leaves_are_full(tmp_path, learnt):
    grown(tmp_path / "a.sish", [around(random_bits(300, 0), 24_000, 1)])
    assert len(learnt) == 2 and 3 * learnt[0] < learnt[1] < 5 * learnt[0]


def test_a_tree_is_learnt_again_when_other_textures_come(tmp_path, learnt):
    old, new = around(random_bits(300, 0), 5000, 1), around(random_bits(300, 7), 3500, 2)
    state = grown(tmp_path / "a.sish", [old, new])
    assert len(learnt) >= 2 and learnt[1] < 8500  # a quarter more is enough
    kept = TreeFit.kept_with(state.measured)
    now = TreeFit.on(state, stored_tree(state))
    assert kept is not None and kept.still_holds(now)


def test_trees_do_not_depend_on_commits(tmp_path):
    barcodes = np.concatenate([around(random_bits(100, 0), 5000, 1), around(random_bits(100, 7), 3000, 2)])
    one = grown(tmp_path / "one.sish", [barcodes])
    many = grown(tmp_path / "many.sish", np.split(barcodes, [350, 3000, 4700, 5200]))
    assert one.measured["tree"] == many.measured["tree"]
    assert all(np.array_equal(array, many.tree[name]) for name, array in one.tree.items())


def test_a_tree_that_was_never_measured_is_learnt_at_eighty_patches_a_leaf(tmp_path, learnt):
    with Store.create(tmp_path / "a.sish", {}) as store:
        added(store, around(random_bits(300, 0), 5000, 1))
        store.keep_measured({"tree": None})
        leaves = stored_tree(store).n_keys
        keys = TextureKeys(store, seed=0)
        assert not keys.is_due(80 * leaves - 5000) and keys.is_due(80 * leaves - 4999)


@pytest.mark.parametrize("fact", [None, 3, {}, {"bits": "x", "together": 1, "checked": 1}])
def test_a_fact_of_another_kind_is_none(fact):
    assert TreeFit.kept_with({"tree": fact}) is None
