"""Barcodes: a feature vector as bits, and the Hamming distance between them.

A barcode is a row of ``B`` bytes, most significant bit first; the paper's has 1,024 bits (B = 128).
The kernels are compiled by numba and release the GIL. They work on 64-bit words where B is a
multiple of 8 and the memory is contiguous, and byte by byte otherwise, with the same result.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError
from sish.index.compiled import Words, as_barcodes, compiled, distance, paired_words
from sish.index.projection import project

__all__ = [
    "Binarisation",
    "Neighbours",
    "barcodes_of",
    "hamming",
    "minmax_barcodes",
    "nearest",
    "sign_barcodes",
]

Binarisation = Literal["minmax", "sign", "projection"]
"""How features become bits: each against its left neighbour (the paper's), each against 0, or the signs of
what `sish.index.projection` makes of features that were not made for it."""


_BLOCK_BYTES = 1 << 15  # rows scanned together by all queries: about one first-level cache


def minmax_barcodes(features: ArrayLike) -> NDArray[np.uint8]:
    """Features (N, F) as min-max barcodes uint8 (N, F / 8): bit i is 1 where feature i >= feature i-1.

    The first bit has no left neighbour and is 0 (Chen et al. 2022, Methods). F must be a multiple of 8.

    >>> bin(minmax_barcodes([[5.0, 6.0, 6.0, 1.0, 2.0, 0.0, 0.0, 9.0]])[0, 0])
    '0b1101011'
    """
    values = _as_features(features)
    rises = np.zeros(values.shape, dtype=bool)
    rises[:, 1:] = values[:, 1:] >= values[:, :-1]
    return np.packbits(rises, axis=1)


def sign_barcodes(features: ArrayLike) -> NDArray[np.uint8]:
    """Features (N, F) as barcodes uint8 (N, F / 8) of their signs: bit i is 1 where feature i >= 0.

    Where features are a random rotation of an embedding, the share of bits in which two patches differ is on
    average the angle between their embeddings over pi (Charikar 2002, section 3). F must be a multiple of 8.

    >>> bin(sign_barcodes([[-1.0, 6.0, 0.0, -0.0, 2.0, -5.0, -3.0, 9.0]])[0, 0])
    '0b1111001'
    """
    return np.packbits(_as_features(features) >= 0, axis=1)


def barcodes_of(
    features: ArrayLike, binarisation: Binarisation, *, centre: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """Features (N, F) as barcodes, by the rule that their encoder names: uint8 (N, F / 8).

    A projection has 1,024 bits whatever F is, and takes a `centre` float32 (F,) to subtract.
    """
    if binarisation == "minmax":
        return minmax_barcodes(features)
    if binarisation == "sign":
        return sign_barcodes(features)
    if binarisation == "projection":
        return sign_barcodes(project(features, centre=centre))
    raise ParameterError(f"got binarisation {binarisation!r}; want 'minmax', 'sign' or 'projection'")


def _as_features(features: ArrayLike) -> NDArray[Any]:
    """Finite features (N, F) with F a multiple of 8; ParameterError otherwise."""
    values = np.asarray(features)
    if values.ndim != 2 or values.shape[1] == 0 or values.shape[1] % 8:
        raise ParameterError(
            f"features have shape {values.shape}; give (N, F) with F a positive multiple of 8"
        )
    if not np.isfinite(values).all():
        raise ParameterError("features hold NaN or infinity; give finite numbers")
    return values


def hamming(barcodes: ArrayLike, query: ArrayLike) -> NDArray[np.int32]:
    """Hamming distance int32 (N,) of one query barcode uint8 (B,) to each of barcodes uint8 (N, B).

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
    """The nearest barcodes of each query, nearest first; ties by row number."""

    row: NDArray[np.int64]
    """Row in the searched barcodes, (Q, k)."""
    hamming: NDArray[np.int32]
    """Distance in bits, (Q, k)."""


def nearest(
    barcodes: ArrayLike, queries: ArrayLike, k: int, *, skip: NDArray[np.bool_] | None = None
) -> Neighbours:
    """The `k` barcodes uint8 (P, B) nearest to each query uint8 (Q, B), by scanning all of them.

    Exact, O(P Q). Rows where `skip` bool (P,) is true are left out. With fewer than `k` rows left the
    answer has that many columns.

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
    """Fill `best_row` and `best` (Q, k), block of rows by block, so that a block is read from cache."""
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
    """Put `row` into its place; behind rows of the same distance, which came earlier."""
    place = best.size - 1
    while place > 0 and best[place - 1] > bits:
        best[place] = best[place - 1]
        best_row[place] = best_row[place - 1]
        place -= 1
    best[place] = bits
    best_row[place] = row
