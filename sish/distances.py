"""Distances between all patches of a query and all of some others: exact, as a search tells them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sish.encode import SlideCodes
from sish.index.barcode import hamming
from sish.rerank import Rerank

_MOST = 1 << 22  # distances at a time: 16 MB


def distances(asked: SlideCodes, others: SlideCodes, rerank: Rerank | None) -> NDArray[np.int32]:
    """Return the distance of each query patch to each other patch.

    Parameters
    ----------
    asked : SlideCodes
        Q patches of a query.
    others : SlideCodes
        N other patches.
    rerank : Rerank, optional
        How vectors are kept. Where both have vectors, the distance is their angle, in bits
        (:mod:`sish.rerank`).

    Returns
    -------
    int32 (Q, N)
        Distances in bits.
    """
    bits = np.empty((len(asked), len(others)), np.int32)
    for row, barcode in zip(bits, asked.barcodes, strict=True):
        row[:] = hamming(others.barcodes, barcode)
    if rerank is None or asked.vectors is None or others.vectors is None:
        return bits
    return rerank.distances(asked.vectors, others.vectors, bits, n_bits=8 * asked.barcodes.shape[1])


def nearest_asked(
    asked: SlideCodes, others: SlideCodes, rerank: Rerank | None
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return of each other patch the query patch nearest to it, the first of equally near ones.

    Parameters
    ----------
    asked : SlideCodes
        Q patches of a query, one at least.
    others : SlideCodes
        N other patches.
    rerank : Rerank, optional
        As of `distances`.

    Returns
    -------
    query_row : int64 (N,)
        Numbers of query patches.
    hamming : int32 (N,)
        Their distances in bits.
    """
    query_row, bits = np.empty(len(others), np.int64), np.empty(len(others), np.int32)
    for part in _parts(len(others), max(1, _MOST // len(asked))):
        found = distances(asked, _some(others, part), rerank)
        query_row[part], bits[part] = found.argmin(axis=0), found.min(axis=0)
    return query_row, bits


def _parts(length: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, length, step))


def _some(codes: SlideCodes, part: slice) -> SlideCodes:
    """Return some patches, without their places."""
    vectors = None if codes.vectors is None else codes.vectors[part]
    return SlideCodes(codes.keys[part], codes.barcodes[part], None, vectors)
