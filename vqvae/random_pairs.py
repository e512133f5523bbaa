"""Hamming distances of random pairs of patches: where thresholds of similarity come from."""

import numpy as np
from numpy.typing import NDArray

_TOGETHER = 10_000  # pairs compared at a time, to bound memory


def random_pair_distances(barcodes: NDArray[np.uint8], pairs: int, seed: int = 0) -> NDArray[np.int64]:
    """Return the Hamming distances of random pairs of different rows.

    Thresholds that are stored with weights and indexes depend on which pairs a seed draws.

    Parameters
    ----------
    barcodes : NDArray[np.uint8]
        Shape (N, B), N at least 2: B bytes, that is 8 B bits, a row.
    pairs : int
        How many pairs to draw, with replacement.
    seed : int
        Seed of the draw.

    Returns
    -------
    NDArray[np.int64]
        Shape (pairs,): bits in which the two rows differ.

    Examples
    --------
    >>> random_pair_distances(np.array([[0b0011], [0b0111]], np.uint8), pairs=3).tolist()
    [1, 1, 1]
    """
    generator = np.random.default_rng(seed)
    left = generator.integers(len(barcodes), size=pairs)
    right = (left + generator.integers(1, len(barcodes), size=pairs)) % len(barcodes)
    out = np.empty(pairs, np.int64)
    for start in range(0, pairs, _TOGETHER):
        part = slice(start, start + _TOGETHER)
        out[part] = np.bitwise_count(barcodes[left[part]] ^ barcodes[right[part]]).sum(1)
    return out
