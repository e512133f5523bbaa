"""Compiled preparation of float vectors: length 1, barcodes, and weights to compare stored rows with.

A single query would spend more time in numpy's calls than in its search.
"""

import numpy as np
from numpy.typing import NDArray

from sish.index.compiled import compiled

_LARGEST_WEIGHT = np.float32(32_767)  # of an int16
_LARGEST_OF_REST = np.float32(4_095)  # their products with 15 do not exceed int32
_TOGETHER = 4  # rows of a matrix that are added at a time


@compiled
def unit_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return vectors (N, F) scaled to length 1, and the largest size of a number of each, (N,).

    Returns
    -------
    float32 (N, F), float32 (N,)
        A row of zeros stays, and its size is 0. That of a row with NaN or infinity is such a number.
    """
    out, sizes = np.empty_like(vectors), np.empty(len(vectors), np.float32)
    for row in range(vectors.shape[0]):
        largest = np.float32(0)
        for place in range(vectors.shape[1]):
            size = abs(vectors[row, place])
            largest = size if size > largest or size != size else largest
        square = 0.0
        sizes[row] = largest
        for place in range(vectors.shape[1]):
            value = np.float64(vectors[row, place])
            square += value * value
        inverse = 1 / np.sqrt(square) if square > 0 else 0.0
        for place in range(vectors.shape[1]):
            out[row, place] = np.float32(vectors[row, place] * inverse)
    return out, sizes


@compiled
def barcodes_of_units(
    vectors: NDArray[np.float32], centre: NDArray[np.float32], signs: NDArray[np.float32], n_bytes: int
) -> NDArray[np.uint8]:
    """Return barcodes uint8 (N, n_bytes): the signs of `project` of vectors (N, F), without its scaling.

    Returns
    -------
    uint8 (N, n_bytes)
        Barcodes.
    """
    size = signs.shape[1]
    here, there = np.zeros(size, np.float32), np.empty(size, np.float32)
    out = np.zeros((vectors.shape[0], n_bytes), np.uint8)
    for row in range(vectors.shape[0]):
        for place in range(vectors.shape[1]):
            here[place] = vectors[row, place] - centre[place]
        here[vectors.shape[1] :] = 0
        for number in range(signs.shape[0]):
            here *= signs[number]
            _hadamard(here, there)
        for byte in range(n_bytes):
            bits = 0
            for bit in range(8):
                bits = 2 * bits + (1 if here[8 * byte + bit] >= 0 else 0)
            out[row, byte] = bits
    return out


@compiled
def _hadamard(row: NDArray[np.float32], spare: NDArray[np.float32]) -> None:
    """Replace a row, (P,) with P a power of two, by its Hadamard transform, sqrt(P) times as long."""
    # a stage adds and subtracts neighbours and puts the sums into the first half: after all stages, each
    # number is back in its place, and every stage reads and writes whole vectors
    half, here, there = row.size // 2, row, spare
    stage = 1
    while stage < row.size:
        for place in range(half):
            left, right = here[2 * place], here[2 * place + 1]
            there[place] = left + right
            there[half + place] = left - right
        here, there = there, here
        stage *= 2
    if here.ctypes.data != row.ctypes.data:
        row[:] = here


@compiled
def rotated(vectors: NDArray[np.float32], signs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors (N, F), with zeros behind them, rotated by random signs (rounds, W), float32 (N, W).

    W need not be a power of two: each round transforms the largest power of two of numbers, in turn the first
    and the last ones.

    Returns
    -------
    float32 (N, W)
        They are as long as the vectors.
    """
    width, size = signs.shape[1], 1
    while 2 * size <= width:
        size *= 2
    out, spare, scale = np.zeros((len(vectors), width), np.float32), np.empty(size, np.float32), size**-0.5
    for row in range(vectors.shape[0]):
        own = out[row]
        own[: vectors.shape[1]] = vectors[row]
        for number in range(signs.shape[0]):
            own *= signs[number]
            first = width - size if number % 2 else 0
            _hadamard(own[first : first + size], spare)
            own[first : first + size] *= np.float32(scale)
    return out


@compiled
def weights_of_rests(
    rests: NDArray[np.float32], middle: float
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Return what lies off a sketch's axes, rotated, as `dot_bits` compares rows with it.

    Returns
    -------
    int16 (Q, W), float32 (Q, 2)
        Weights; their step, and `middle` times their sum.
    """
    weights, terms = np.empty(rests.shape, np.int16), np.empty((len(rests), 2), np.float32)
    for row in range(rests.shape[0]):
        largest, total = np.float32(0), 0
        for place in range(rests.shape[1]):
            largest = max(largest, abs(rests[row, place]))
        step = largest / _LARGEST_OF_REST if largest > 0 else np.float32(1)
        for place in range(rests.shape[1]):
            weights[row, place] = np.int16(np.rint(rests[row, place] / step))
            total += weights[row, place]
        terms[row, 0], terms[row, 1] = step, middle * total
    return weights, terms


@compiled
def weights_of_units(
    vectors: NDArray[np.float32], mean: NDArray[np.float32], columns: NDArray[np.float32],
    spread: NDArray[np.float32], skip: int,
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:  # fmt: skip
    """Return unit vectors (Q, F) as the kernels compare them with int8 rows.

    `columns` (F, D) has the axes as columns, or (F, 0) if they are the features themselves.

    Returns
    -------
    int16 (Q, skip + D), float32 (Q, 2)
        Weights, after zeros for the bytes of a row that are skipped; their step, and half the squared length
        of the centred vector.
    """
    dims, features = spread.size, vectors.shape[1]
    weights, terms = (
        np.zeros((vectors.shape[0], skip + dims), np.int16),
        np.empty((len(vectors), 2), np.float32),
    )
    centred, along = np.empty(features, np.float32), np.empty(dims, np.float32)
    for row in range(vectors.shape[0]):
        square = 0.0
        for place in range(features):
            centred[place] = vectors[row, place] - mean[place]
            square += np.float64(centred[place]) * np.float64(centred[place])
        if columns.shape[1]:
            _combined(centred, columns, along)
        else:
            along[:] = centred
        along *= spread
        largest = np.float32(0)
        for place in range(dims):
            largest = max(largest, abs(along[place]))
        step = largest / _LARGEST_WEIGHT if largest > 0 else np.float32(1)
        for place in range(dims):
            weights[row, skip + place] = np.int16(np.rint(along[place] / step))
        terms[row, 0], terms[row, 1] = step, square / 2
    return weights, terms


@compiled
def _combined(vector: NDArray[np.float32], rows: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Fill `out` (D,) with the sum of `rows` (F, D), each times a number of `vector` (F,)."""
    out[:] = 0
    whole = vector.size - vector.size % _TOGETHER
    for first in range(0, whole, _TOGETHER):
        a, b, c, d = vector[first], vector[first + 1], vector[first + 2], vector[first + 3]
        one, two, three, four = rows[first], rows[first + 1], rows[first + 2], rows[first + 3]
        for place in range(out.size):
            out[place] += a * one[place] + b * two[place] + c * three[place] + d * four[place]
    for first in range(whole, vector.size):
        own = rows[first]
        for place in range(out.size):
            out[place] += vector[first] * own[place]
