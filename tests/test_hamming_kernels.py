"""The vector kernels against numpy."""

import numpy as np
import pytest
from numba import njit

from sish.index.hamming_kernels import (
    LANES,
    as_blocks,
    block_distances,
    eight_rows,
    eight_within,
    load_int32,
    load_int64,
    nearest_block,
)

WIDTHS = [1, 3, 8, 11, 16, 24]


@njit
def all_blocks(blocks, query, out):
    block_distances(blocks.ctypes.data, blocks.shape[0], blocks.shape[1], query.ctypes.data, out.ctypes.data)


@njit
def nearest(blocks, query):
    return nearest_block(blocks.ctypes.data, blocks.shape[0], blocks.shape[1], query.ctypes.data)


@njit
def rows_at(address, words, query, out, most):
    return eight_rows(address, words, query.ctypes.data, out.ctypes.data, most)


@njit
def within(numbers, most):
    return eight_within(numbers.ctypes.data, most)


@njit
def loaded(small, large, place):
    return load_int32(small.ctypes.data, place), load_int64(large.ctypes.data, place)


def words(rng, count, width):
    return rng.integers(0, 2**64, (count, width), dtype=np.uint64)


def distances(rows, query):
    return np.bitwise_count(rows ^ query).sum(axis=1).astype(np.int32)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 30])
def test_distances_to_blocks_are_those_of_numpy(width, count):
    rng = np.random.default_rng(count)
    rows, query = words(rng, count, width), words(rng, 1, width)[0]
    blocks = as_blocks(rows)
    assert blocks.shape == (-(-count // LANES), width, LANES)
    out = np.full(blocks.shape[0] * LANES, -1, np.int32)
    all_blocks(blocks, query, out)
    np.testing.assert_array_equal(out[:count], distances(rows, query))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 30])
def test_the_nearest_is_the_first_of_the_smallest_distances(width, count):
    rng = np.random.default_rng(count)
    rows, query = words(rng, count, width), words(rng, 1, width)[0]
    rows[count // 2 :] = rows[count // 2]  # many ties
    found = nearest(as_blocks(rows), query)
    apart = distances(rows, query)
    assert (found >> 32, found & 0xFFFFFFFF) == (apart.min(), apart.argmin())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("offset", [0, 1, 4])
def test_eight_rows_are_compared_in_place_at_any_address(width, offset):
    rng = np.random.default_rng(width)
    raw = rng.integers(0, 256, LANES * 8 * width + offset, dtype=np.uint8)
    rows = np.frombuffer(raw[offset:].tobytes(), np.uint64).reshape(LANES, width)
    query, out = words(rng, 1, width)[0], np.zeros(LANES, np.int32)
    want = distances(rows, query)
    most = int(np.sort(want)[3])
    hits = rows_at(raw.ctypes.data + offset, width, query, out, most)
    np.testing.assert_array_equal(out, want)
    assert hits == sum(1 << lane for lane in range(LANES) if want[lane] <= most)


def test_numbers_within_a_bound_are_bits():
    numbers = np.array([5, -3, 7, 2**30, 0, 6, 5, -(2**30)], np.int32)
    for most in (-4, 0, 5, 6, 2**31):
        assert within(numbers, most) == sum(1 << i for i, n in enumerate(numbers) if n <= most)


def test_integers_are_read_with_their_sign():
    small, large = np.array([1, -2, 2**31 - 1], np.int32), np.array([3, -(2**62), 2**62], np.int64)
    assert [loaded(small, large, i) for i in range(3)] == list(
        zip(small.tolist(), large.tolist(), strict=True)
    )
