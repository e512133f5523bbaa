"""Texture trees: keys are nearest leaves, learnt the same way every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sish.errors import ParameterError, SishError
from sish.index.barcode import hamming
from sish.index.texture.tree import TextureTree, sample_size


def clustered(rng, count, clusters=20, n_bytes=16, flips=0.06):
    """Barcodes around random centres: each bit differs from its centre's with a small chance."""
    centres = rng.integers(0, 2, (clusters, 8 * n_bytes), dtype=np.uint8)
    own = centres[rng.integers(clusters, size=count)]
    return np.packbits(own ^ (rng.random(own.shape) < flips), axis=1)


def test_a_key_is_the_nearest_leaf_of_the_two_nearest_nodes():
    barcodes = clustered(np.random.default_rng(0), 600)
    tree = TextureTree.learn(barcodes, branching=(6, 5))
    for barcode, key in zip(barcodes[:50], tree.keys(barcodes[:50]), strict=True):
        nodes = np.argsort(hamming(tree.nodes, barcode), kind="stable")[:2]
        leaves = {
            (int(bits), int(node) * 5 + leaf)
            for node in nodes
            for leaf, bits in enumerate(hamming(tree.leaves[node], barcode))
        }
        assert key == min(leaves)[1]


def test_a_tree_is_the_same_for_the_same_sample_and_seed():
    barcodes = clustered(np.random.default_rng(1), 500)
    one, again, other = (TextureTree.learn(barcodes, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.nodes, again.nodes) and np.array_equal(one.leaves, again.leaves)
    assert not np.array_equal(one.leaves, other.leaves)


def test_a_key_does_not_depend_on_its_company():
    barcodes = clustered(np.random.default_rng(2), 300)
    tree = TextureTree.learn(barcodes)
    together = tree.keys(barcodes)
    assert together.tolist() == [int(tree.keys(barcodes[i : i + 1])[0]) for i in range(300)]
    assert together.min() >= 0 and together.max() < tree.n_keys


@pytest.mark.parametrize("branching", [None, (3, 7), (3, 2, 5)])
def test_stored_and_read_again_it_gives_the_same_keys(branching):
    barcodes = clustered(np.random.default_rng(3), 300)
    tree = TextureTree.learn(barcodes, branching=branching)
    again = TextureTree.from_arrays({name: array.copy() for name, array in tree.to_arrays().items()})
    np.testing.assert_array_equal(again.keys(barcodes), tree.keys(barcodes))


def test_clusters_that_lie_apart_get_keys_of_their_own():
    rng = np.random.default_rng(4)
    barcodes = clustered(rng, 4000, clusters=8, flips=0.02)
    keys = TextureTree.learn(barcodes, branching=(16, 4)).keys(barcodes)
    same_cluster = hamming(barcodes, barcodes[0]) < 32
    own = set(keys[same_cluster].tolist())
    assert not own & set(keys[~same_cluster].tolist())


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_samples_smaller_than_the_tree_are_learnt(count):
    barcodes = clustered(np.random.default_rng(count), count)
    tree = TextureTree.learn(barcodes, branching=(8, 8))
    keys = tree.keys(barcodes)
    assert keys.shape == (count,) and keys.max(initial=0) < 64


def test_duplicates_share_one_key():
    barcodes = np.repeat(clustered(np.random.default_rng(5), 1), 100, axis=0)
    assert len(set(TextureTree.learn(barcodes).keys(barcodes).tolist())) == 1


@pytest.mark.parametrize(
    ("patches", "branching"),
    [(0, (1, 4, 4)), (10, (1, 4, 4)), (1000, (1, 8, 8)), (10_000, (1, 32, 16)), (100_000, (1, 64, 64)),
     (200_000, (32, 16, 16)), (10**6, (64, 32, 32)), (10**7, (128, 64, 64)), (10**9, (128, 64, 64))],
)  # fmt: skip
def test_the_tree_grows_with_the_archive(patches, branching):
    barcodes = clustered(np.random.default_rng(6), 50)
    tree = TextureTree.learn(barcodes, patches=patches)
    assert tree.shape == branching and tree.n_keys == np.prod(branching)
    assert tree.leaves.shape == (branching[0] * branching[1], branching[2], 16)
    assert sample_size(patches) >= max(100_000, 12 * tree.n_keys)


def test_under_top_nodes_a_key_is_the_nearest_leaf_of_the_two_nearest_nodes_under_the_two_nearest():
    barcodes = clustered(np.random.default_rng(7), 900)
    tree = TextureTree.learn(barcodes, branching=(5, 3, 4))
    for barcode, key in zip(barcodes[:50], tree.keys(barcodes[:50]), strict=True):
        tops = np.argsort(hamming(tree.tops, barcode), kind="stable")[:2]
        nodes = sorted(
            (int(hamming(tree.nodes[node : node + 1], barcode)[0]), int(node))
            for top in tops
            for node in range(3 * top, 3 * top + 3)
        )[:2]
        leaves = {
            (int(bits), node * 4 + leaf)
            for _, node in nodes
            for leaf, bits in enumerate(hamming(tree.leaves[node], barcode))
        }
        assert key == min(leaves)[1]


def test_a_tree_is_made_of_its_typical_barcodes():
    """As it was stored in format 1; without top nodes it has two arrays, and gives keys from all nodes."""
    barcodes = clustered(np.random.default_rng(8), 300)
    for branching, names in (((4, 4), ("nodes", "leaves")), ((2, 2, 4), ("tops", "nodes", "leaves"))):
        tree = TextureTree.learn(barcodes, branching=branching)
        again = TextureTree.from_arrays({name: getattr(tree, name) for name in names})
        assert again.shape == tree.shape
        np.testing.assert_array_equal(again.keys(barcodes), tree.keys(barcodes))


def test_a_large_sample_is_thinned():
    barcodes = np.random.default_rng(6).integers(0, 256, (100_010, 8), dtype=np.uint8)
    tree = TextureTree.learn(barcodes, branching=(4, 4))
    assert tree.n_keys == 16


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 40), st.just(8))),
    st.lists(st.integers(1, 5), min_size=2, max_size=3),
)
def test_any_barcodes_get_keys_in_range(barcodes, branching):
    tree = TextureTree.learn(barcodes, branching=tuple(branching))
    keys = tree.keys(barcodes)
    assert ((keys >= 0) & (keys < np.prod(branching))).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: TextureTree.learn(np.zeros((0, 16), np.uint8)),
        lambda: TextureTree.learn(np.zeros((5, 12), np.uint8)),
        lambda: TextureTree.learn(np.zeros((5, 16))),
        lambda: TextureTree.learn(np.zeros((5, 16), np.uint8), branching=(0, 3)),
        lambda: TextureTree.learn(np.zeros((5, 16), np.uint8), branching=(3,)),
        lambda: TextureTree.learn(np.zeros((5, 16), np.uint8)).keys(np.zeros((5, 8), np.uint8)),
        lambda: TextureTree.from_arrays({"nodes": np.zeros((2, 8), np.uint8)}),
        lambda: TextureTree.from_arrays({"shape": np.array([1, 2, 2])}),
        lambda: TextureTree.from_arrays(
            TextureTree.learn(np.zeros((5, 16), np.uint8)).to_arrays() | {"shape": np.array([1, 2, 900])}
        ),
        lambda: TextureTree.from_arrays(
            {"nodes": np.zeros((2, 8), np.uint8), "leaves": np.zeros((3, 2, 8), np.uint8)}
        ),
        lambda: TextureTree.from_arrays(
            {
                name: np.zeros(shape, np.uint8)
                for name, shape in (("tops", (2, 8)), ("nodes", (3, 8)), ("leaves", (3, 2, 8)))
            }
        ),
        lambda: TextureTree.from_arrays(
            {"nodes": np.zeros((2, 8), np.float32), "leaves": np.zeros((2, 2, 8), np.uint8)}
        ),
    ],
)
def test_what_is_wrong_is_said_on_one_line(wrong):
    with pytest.raises(ParameterError) as error:
        wrong()
    assert isinstance(error.value, SishError) and "\n" not in str(error.value)
