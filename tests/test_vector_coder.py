"""Vectors as they are stored for ranking again: distances, bytes, damage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish.errors import ParameterError
from sish.index.store.packed import pack, unpack
from sish.index.vector_coder import VectorCoder


def drawn(count: int, features: int, seed: int = 0, *, middle: float = 1.0) -> np.ndarray:
    """Return vectors around a common mean, with a falling spectrum."""
    rng = np.random.default_rng(seed)
    spread = (1 + np.arange(features)) ** -0.5
    return (rng.standard_normal((count, features)) * spread + middle / features**0.5).astype(np.float32)


def cosine(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return exact cosine distances (Q, N)."""
    left, right = (
        array.astype(float) / np.linalg.norm(array.astype(float), axis=1, keepdims=True)
        for array in (queries, vectors)
    )
    return 1 - left @ right.T


@pytest.mark.parametrize(
    ("kind", "dims", "most"), [("float16", 256, 1e-3), ("int8", 1000, 1e-2), ("int8", 64, 0.2)]
)
@pytest.mark.parametrize("features", [70, 96, 130])
def test_distances_are_about_those_of_cosine(kind, dims, most, features):
    vectors, queries = drawn(300, features), drawn(5, features, 1)
    coder = VectorCoder.learn(vectors, kind, dims=dims)
    stored = coder.encode(vectors)
    assert stored.dtype == coder.dtype
    assert stored.shape == (300, coder.width)
    found = np.stack([coder.distances(query, stored) for query in queries])
    assert found.dtype == np.float32
    assert np.abs(found - cosine(queries, vectors)).max() < most
    assert np.abs(cosine(coder.decode(stored), vectors).diagonal()).max() < most


@given(
    st.sampled_from(["int8", "float16"]),
    st.integers(1, 80),
    st.integers(1, 90),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_kernel_is_the_distance_to_what_is_decoded(kind, features, dims, sizes, n_queries):
    arrays = [drawn(size, features, seed) for seed, size in enumerate(sizes)]
    queries = drawn(n_queries, features, 99)
    coder = VectorCoder.learn(np.concatenate([*arrays, drawn(2, features, 5)]), kind, dims=dims)
    stored = [coder.encode(array) for array in arrays]
    rng, total = np.random.default_rng(3), sum(sizes)
    lengths = rng.integers(0, 30, n_queries) if total else np.zeros(n_queries, int)
    offset = np.concatenate([[0], np.cumsum(lengths)])
    patch = rng.integers(0, max(1, total), offset[-1])
    found = coder.bag_distances(queries, offset, patch, stored)
    meant = np.concatenate([coder.decode(rows) for rows in stored]).astype(float)
    if kind == "int8":  # what lies off the axes counts by its length alone
        unit = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(float)
        half = np.concatenate([np.ascontiguousarray(rows[:, 4:8]).view("<f4")[:, 0] for rows in stored])
        centred = unit - coder.mean
        wanted = (centred**2).sum(1)[:, None] / 2 + half - centred @ (meant - coder.mean).T
    else:
        wanted = 1 - (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ meant.T
    for query in range(n_queries):
        mine = slice(offset[query], offset[query + 1])
        assert np.allclose(found[mine], np.maximum(wanted[query, patch[mine]], 0), atol=2e-4)


def test_few_axes_find_neighbours_among_many():
    vectors, queries = drawn(4000, 128), drawn(50, 128, 1)
    coder = VectorCoder.learn(vectors, "int8", dims=64)
    stored = coder.encode(vectors)
    exact = np.argsort(cosine(queries, vectors), axis=1)[:, :10]
    found = np.array([np.argsort(coder.distances(query, stored))[:10] for query in queries])
    kept = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert kept > 0.75


def test_rows_survive_the_file_and_need_no_copy(tmp_path):
    vectors = drawn(200, 96)
    for kind in ("int8", "float16"):
        coder = VectorCoder.learn(vectors, kind, dims=32)
        (tmp_path / kind).write_bytes(pack({**coder.to_arrays(), "stored": coder.encode(vectors)}))
        arrays = unpack(np.memmap(tmp_path / kind, np.uint8, mode="r"))
        again = VectorCoder.from_arrays(arrays)
        assert again.kind == kind
        assert np.array_equal(again.encode(vectors), arrays["stored"])
        assert np.array_equal(
            again.distances(vectors[3], arrays["stored"]), coder.distances(vectors[3], coder.encode(vectors))
        )


def test_equal_vectors_and_one_vector_are_stored():
    for vectors in (np.ones((1, 8)), np.ones((5, 8)), np.full((3, 8), 1e30), np.zeros((2, 8))):
        coder = VectorCoder.learn(vectors, "int8", dims=4)
        far = coder.distances(np.eye(8)[0], coder.encode(vectors))
        assert np.isfinite(far).all()
    coder = VectorCoder.learn(np.ones((5, 8)), "int8", dims=4)
    assert np.abs(coder.distances(np.ones(8), coder.encode(np.ones((5, 8))))).max() < 1e-6


def test_encoding_does_not_depend_on_the_scale_of_a_vector():
    vectors = drawn(50, 32)
    coder = VectorCoder.learn(vectors, "int8", dims=16)
    assert np.array_equal(coder.encode(vectors), coder.encode(vectors * np.float32(4)))


@pytest.mark.parametrize(
    "call",
    [
        lambda: VectorCoder.learn(np.ones((3, 4)), "int4"),
        lambda: VectorCoder.learn(np.ones((0, 4)), "int8"),
        lambda: VectorCoder.learn(np.ones((3, 4)), "int8", dims=0),
        lambda: VectorCoder.learn(np.ones(4), "int8"),
        lambda: VectorCoder.learn(np.full((3, 4), np.nan), "int8"),
        lambda: VectorCoder.learn(np.full((3, 4), "a"), "int8"),
        lambda: VectorCoder.learn(np.eye(4), "int8").encode(np.ones((2, 5))),
        lambda: VectorCoder.learn(np.eye(4), "int8").decode(np.ones((2, 5), np.int8)),
        lambda: VectorCoder.learn(np.eye(4), "int8").distances(np.ones(4), np.ones((2, 4), np.int8)),
        lambda: VectorCoder.learn(np.eye(4), "int8").bag_distances(
            np.ones((1, 4)), np.array([0, 1]), np.array([7]), [np.zeros((2, 12), np.int8)]
        ),
        lambda: VectorCoder.learn(np.eye(4), "int8").bag_distances(
            np.ones((1, 4)), np.array([0, 2]), np.array([0]), [np.zeros((2, 12), np.int8)]
        ),
        lambda: VectorCoder.from_arrays({}),
        lambda: VectorCoder.from_arrays({"mean": np.zeros(4)}),
        lambda: VectorCoder.from_arrays(
            {
                "mean": np.zeros(4, np.float32),
                "axes": np.zeros((2, 3), np.float32),
                "spread": np.zeros(2, np.float32),
            }
        ),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(ParameterError):
        call()
