"""Barcodes: feature vectors as bits, and the Hamming distance between them.

A barcode is a row of B bytes, most significant bit first. The paper's has 1,024 bits (B = 128). The kernels
are compiled by numba and release the GIL. They read 64-bit words where B is a multiple of 8 and the memory is
contiguous, and bytes otherwise, with the same result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError
from sish.index.compiled import Words, as_barcodes, compiled, distance, paired_words
from sish.index.projection import Part, project

Binarisation = Literal["minmax", "sign", "projection"]
"""The rule by which features become bits.

``minmax`` compares each feature with its left neighbour (the paper's rule), ``sign`` compares it with 0.
``projection`` takes the signs of a projection (`sish.index.projection`), for features of networks that were
not trained for barcodes."""

_BLOCK_BYTES = 1 << 15  # bytes of the rows that all queries scan together: about one first-level cache


def minmax_barcodes(features: ArrayLike) -> NDArray[np.uint8]:
    """Return min-max barcodes: bit i is 1 where feature i >= feature i - 1 (Chen et al. 2022, Methods).

    The first feature has no left neighbour, so that the first bit is 0.

    Parameters
    ----------
    features : float (N, F)
        Finite, F a multiple of 8.

    Returns
    -------
    uint8 (N, F / 8)
        A barcode for each row.

    Examples
    --------
    >>> bin(minmax_barcodes([[5.0, 6.0, 6.0, 1.0, 2.0, 0.0, 0.0, 9.0]])[0, 0])
    '0b1101011'
    """
    values = _as_features(features)
    rises = np.zeros(values.shape, dtype=bool)
    rises[:, 1:] = values[:, 1:] >= values[:, :-1]
    return np.packbits(rises, axis=1)


def sign_barcodes(features: ArrayLike) -> NDArray[np.uint8]:
    """Return barcodes of the signs of features: bit i is 1 where feature i >= 0.

    Where features are a random rotation of an embedding, the share of bits in which two patches differ is on
    average the angle between their embeddings over pi (Charikar 2002, section 3).

    Parameters
    ----------
    features : float (N, F)
        Finite, F a multiple of 8.

    Returns
    -------
    uint8 (N, F / 8)
        A barcode for each row.

    Examples
    --------
    >>> bin(sign_barcodes([[-1.0, 6.0, 0.0, -0.0, 2.0, -5.0, -3.0, 9.0]])[0, 0])
    '0b1111001'
    """
    return np.packbits(_as_features(features) >= 0, axis=1)


def barcodes_of(
    features: ArrayLike,
    binarisation: Binarisation,
    *,
    centre: NDArray[np.float32] | None = None,
    spread: NDArray[np.float32] | None = None,
    parts: Sequence[Part] = (),
) -> NDArray[np.uint8]:
    """Return features as barcodes, by the rule that their encoder names.

    Parameters
    ----------
    features : float (N, F)
        Finite; F a multiple of 8, or any F for a projection.
    binarisation : {"minmax", "sign", "projection"}
        The rule.
    centre, spread : float32 (F,), optional
        Of a projection: what is subtracted first, and what divides then. Default: as of `project`.
    parts : sequence of Part
        Of a projection: the parts of the features. Default: one.

    Returns
    -------
    uint8 (N, F / 8)
        Barcodes; a projection's have 1,024 bits.

    Raises
    ------
    ParameterError
        If there is no such rule, or the features do not fit it.
    """
    if binarisation == "minmax":
        return minmax_barcodes(features)
    if binarisation == "sign":
        return sign_barcodes(features)
    if binarisation == "projection":
        return sign_barcodes(project(features, centre=centre, spread=spread, parts=parts))
    raise ParameterError(f"got binarisation {binarisation!r}; want 'minmax', 'sign' or 'projection'")


def _as_features(features: ArrayLike) -> NDArray[Any]:
    """Return finite features (N, F) with F a multiple of 8, or raise ParameterError."""
    values = np.asarray(features)
    if values.ndim != 2 or values.shape[1] == 0 or values.shape[1] % 8:
        raise ParameterError(
            f"features have shape {values.shape}; give (N, F) with F a positive multiple of 8"
        )
    if not np.isfinite(values).all():
        raise ParameterError("features hold NaN or infinity; give finite numbers")
    return values


def hamming(barcodes: ArrayLike, query: ArrayLike) -> NDArray[np.int32]:
    """Return the Hamming distance of one query barcode to each of N barcodes, O(N B).

    Parameters
    ----------
    barcodes : uint8 (N, B)
    query : uint8 (B,)

    Returns
    -------
    int32 (N,)
        Distances in bits.

    Raises
    ------
    ParameterError
        If there is more than one query, or the widths differ.

    Examples
    --------
    >>> hamming(np.array([[0b1111], [0b0001]], np.uint8), np.array([0b0011], np.uint8)).tolist()
    [2, 1]
    """
    rows = as_barcodes(barcodes)
    left, right = paired_words(rows, as_barcodes(np.atleast_2d(np.asarray(query)), "queries"))
    if len(right) != 1:
        raise ParameterError(f"query holds {len(right)} barcodes; give one, or use nearest() for many")
    out = np.empty(len(rows), dtype=np.int32)
    _distances(left, right, out)
    return out


@compiled
def _distances(rows: Words, query: Words, out: NDArray[np.int32]) -> None:
    for row in range(rows.shape[0]):
        out[row] = distance(rows, row, query, 0)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The k nearest barcodes of each of Q queries, nearest first, ties by row number."""

    row: NDArray[np.int64]
    """Row of each in the searched barcodes, (Q, k)."""
    hamming: NDArray[np.int32]
    """Distance of each in bits, (Q, k)."""


def nearest(
    barcodes: ArrayLike, queries: ArrayLike, k: int, *, skip: NDArray[np.bool_] | None = None
) -> Neighbours:
    """Return the `k` barcodes nearest to each query, by comparing with all: exact, O(P Q B).

    Parameters
    ----------
    barcodes : uint8 (P, B)
    queries : uint8 (Q, B)
    k : int
        Neighbours of each query, at least 1.
    skip : bool (P,), optional
        True for the barcodes to leave out.

    Returns
    -------
    Neighbours
        Arrays (Q, k), with fewer columns where fewer than `k` barcodes are left.

    Raises
    ------
    ParameterError
        If shapes do not fit or `k` is below 1.

    Examples
    --------
    >>> found = nearest(np.array([[7], [1], [3]], np.uint8), np.array([[3]], np.uint8), k=2)
    >>> found.row.tolist(), found.hamming.tolist()
    ([[2, 0]], [[0, 1]])
    """
    rows = as_barcodes(barcodes)
    left, right = paired_words(rows, as_barcodes(queries, "queries"))
    if k < 1:
        raise ParameterError(f"k is {k}; ask for at least 1 neighbour")
    skipped = np.zeros(0, dtype=np.bool_) if skip is None else np.asarray(skip, dtype=np.bool_)
    if skip is not None and skipped.shape != (len(rows),):
        raise ParameterError(f"skip has shape {skipped.shape}; give one value a barcode, ({len(rows)},)")
    width = min(k, len(rows) - int(skipped.sum()))
    found = Neighbours(np.zeros((len(right), width), np.int64), np.zeros((len(right), width), np.int32))
    if width:
        block = max(1, _BLOCK_BYTES // rows.shape[1])
        _scan(left, right, skipped, block, found.row, found.hamming)
    return found


@compiled
def _scan(
    rows: Words, queries: Words, skip: NDArray[np.bool_], block: int, best_row: NDArray[np.int64],
    best: NDArray[np.int32],
) -> None:  # fmt: skip
    """Fill `best_row` and `best` (Q, k), one block of rows after another, so that a block stays in cache."""
    best[:] = np.iinfo(np.int32).max
    for start in range(0, rows.shape[0], block):
        stop = min(start + block, rows.shape[0])
        for query in range(queries.shape[0]):
            for row in range(start, stop):
                if skip.size and skip[row]:
                    continue
                bits = distance(rows, row, queries, query)
                if bits < best[query, -1]:
                    _insert(best_row[query], best[query], row, bits)


@compiled
def _insert(best_row: NDArray[np.int64], best: NDArray[np.int32], row: int, bits: int) -> None:
    """Insert `row` behind rows of the same distance, which came earlier."""
    place = best.size - 1
    while place > 0 and best[place - 1] > bits:
        best[place] = best[place - 1]
        best_row[place] = best_row[place - 1]
        place -= 1
    best[place] = bits
    best_row[place] = row


def mean_bits(barcodes: NDArray[np.uint8], ends: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return the mean of each bit over runs of barcodes: of slides whose patches follow each other.

    Parameters
    ----------
    barcodes : uint8 (P, B)
        The barcodes, run after run.
    ends : int (S,)
        Where each run ends, exclusive; ascending, and every run holds one barcode at least.

    Returns
    -------
    float32 (S, 8 B)
        Means in [0, 1].

    Raises
    ------
    ParameterError
        If the runs are not those of the barcodes.

    Examples
    --------
    >>> mean_bits(np.array([[0b11], [0b01], [0b10]], np.uint8), np.array([2, 3]))[:, 6:].tolist()
    [[0.5, 1.0], [1.0, 0.0]]
    """
    rows, bounds = as_barcodes(barcodes), np.asarray(ends, np.int64)
    lengths = np.diff(bounds, prepend=0)
    if (lengths < 1).any() or lengths.sum() != len(rows):
        raise ParameterError(f"got runs of {lengths.tolist()[:9]} of {len(rows)} barcodes; want all of them")
    sums = np.zeros((len(bounds), 8 * rows.shape[1]), np.float32)
    _add_bits(np.ascontiguousarray(rows), bounds, sums)
    sums /= lengths[:, None].astype(np.float32)
    return sums


@compiled
def _add_bits(rows: NDArray[np.uint8], ends: NDArray[np.int64], sums: NDArray[np.float32]) -> None:
    start = 0
    for run in range(ends.size):
        for row in range(start, ends[run]):
            for place in range(rows.shape[1]):
                value = rows[row, place]
                for bit in range(8):
                    sums[run, 8 * place + bit] += (value >> (7 - bit)) & 1
        start = ends[run]
