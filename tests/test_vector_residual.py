"""Rows of a few bits a number: packing, dot products, the rotation, distances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish.errors import ParameterError
from sish.index.compiled import compiled
from sish.index.projection import rotation_signs
from sish.index.vector_coder import VectorCoder
from sish.index.vector_kernels import dot_bits
from sish.index.vectors.queries import rotated
from sish.index.vectors.residual import FACTOR, ResidualCoder, packed_codes


@compiled
def dots(rows, weights, bits, out):
    """Fill `out` with the dot products of packed rows and weights."""
    for row in range(rows.shape[0]):
        out[row] = dot_bits(rows.ctypes.data + rows.shape[1] * row, weights.ctypes.data, weights.size, bits)


def drawn(count: int, features: int, seed: int = 0) -> np.ndarray:
    """Return unit vectors whose spectrum falls."""
    rows = np.random.default_rng(seed).standard_normal((count, features)) * (1 + np.arange(features)) ** -0.3
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(st.sampled_from([3, 4, 6]), st.integers(0, 4), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_packed_numbers_are_multiplied_exactly(bits, blocks, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, (5, 512 * blocks)).astype(np.uint8)
    codes[0] = 2**bits - 1
    weights = rng.integers(-4095, 4096, 512 * blocks).astype(np.int16)
    rows, out = packed_codes(codes, bits), np.empty(5, np.int64)
    assert rows.shape == (5, 64 * blocks * bits)
    dots(rows, weights, bits, out)
    assert np.array_equal(out, codes.astype(int) @ weights.astype(int))


@pytest.mark.parametrize(("features", "width"), [(300, 512), (1024, 1024), (1300, 1536)])
def test_rotation_keeps_dot_products_and_spreads_a_number_over_all(features, width):
    vectors = drawn(20, features)
    turned = rotated(vectors, rotation_signs(width))
    assert turned.shape == (20, width)
    assert np.abs(turned @ turned.T - vectors @ vectors.T).max() < 1e-5
    ones = rotated(
        np.eye(features, dtype=np.float32)[[0, features // 2, features - 1]], rotation_signs(width)
    )
    assert np.abs(ones).max() < 0.3


@pytest.mark.parametrize(("bits", "most"), [(3, 0.03), (4, 0.015), (6, 0.005)])
def test_dot_products_of_what_a_sketch_leaves_are_about_right(bits, most):
    vectors, queries = drawn(400, 600), drawn(10, 600, 1)
    coder = ResidualCoder.of(bits, VectorCoder.learn(vectors, "int8", 50))
    rows, (weights, terms) = coder.encode(vectors), coder.weights(queries)
    assert rows.shape == (400, FACTOR + 1024 * bits // 8)
    rests = [it - coder.sketch.mean - (it - coder.sketch.mean) @ coder.sketch.axes.T @ coder.sketch.axes
             for it in (vectors, queries)]  # fmt: skip
    factor, packed = np.ascontiguousarray(rows[:, :FACTOR]).view("<f4")[:, 0], rows[:, FACTOR:].copy()
    out = np.empty(400, np.int64)
    for query in range(10):
        dots(packed, weights[query], bits, out)
        found = factor * terms[query, 0] * (out - terms[query, 1])
        error = found - rests[0] @ rests[1][query]
        assert np.abs(error).mean() < most / 2
        assert abs(error.mean()) < most / 10


def test_nothing_is_left_where_a_sketch_has_all_numbers():
    vectors = drawn(30, 40)
    coder = ResidualCoder.of(4, VectorCoder.learn(vectors, "int8", 120))
    rows = coder.encode(vectors)
    assert rows.shape == (30, FACTOR)
    assert not rows.any()


def test_other_numbers_of_bits_are_refused():
    with pytest.raises(ParameterError, match="5 bits"):
        ResidualCoder.of(5, VectorCoder.learn(drawn(9, 4), "int8"))
