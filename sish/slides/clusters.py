"""k-means for the mosaic: deterministic for a seed, and an empty cluster is no surprise.

Lloyd's algorithm from k-means++ seeds (Arthur and Vassilvitskii, SODA 2007). It is our own because scipy's
`kmeans2` was slower on the same histograms and places, and its centres no better; scikit-learn's would be one
more dependency.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Points = NDArray[np.float32]

MAX_FIT = 20_000
"""Centres are fitted on at most so many points; of more, a sample is taken."""

MAX_ROUNDS = 50
"""Largest number of Lloyd rounds; on histograms and places of tiles it settles in 10 to 30."""

CHUNK = 8_192
"""Number of points whose distances to all centres are in memory at once."""

TREE_DIMENSIONS = 3
"""Up to so many dimensions a k-d tree finds the nearest centre faster than a product with all centres."""


def kmeans(points: Points, k: int, seed: int) -> Points:
    """Find the centres of clusters.

    Takes O(R N k D) time for R rounds, at most 50, on at most 20,000 points.

    Parameters
    ----------
    points : float32 (N, D)
        The points; N may be 0.
    k : int
        Largest number of centres.
    seed : int
        Of the random starts.

    Returns
    -------
    float32 (K, D)
        At most `k` centres; fewer where fewer points differ.

    Examples
    --------
    >>> points = np.float32([[0, 0], [0, 2], [9, 0], [9, 2]])
    >>> sorted(kmeans(points, 2, seed=0).tolist())
    [[0.0, 1.0], [9.0, 1.0]]
    """
    rng = np.random.default_rng(seed)
    if len(points) > MAX_FIT:
        points = points[np.sort(rng.choice(len(points), MAX_FIT, replace=False))]
    centres = seed_centres(points, k, rng)
    previous = np.full(len(points), -1, np.int32)
    for _ in range(MAX_ROUNDS):
        nearest = assign(points, centres)
        if np.array_equal(nearest, previous):
            break
        previous = nearest
        centres = means(points, nearest, centres)
    return centres


def seed_centres(points: Points, k: int, rng: np.random.Generator) -> Points:
    """Draw the first centres, each in proportion to its squared distance to those before it (k-means++).

    Parameters
    ----------
    points : float32 (N, D)
        The points.
    k : int
        Largest number of centres.
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    float32 (K, D)
        Centres, each a point.
    """
    if not len(points):
        return points
    chosen = [int(rng.integers(len(points)))]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < k:
        gap = points - points[chosen[-1]]
        nearest = np.minimum(nearest, np.einsum("nd,nd->n", gap, gap, dtype=np.float64))
        total = nearest.cumsum()
        if total[-1] == 0:
            break
        chosen.append(int(np.searchsorted(total, rng.random() * total[-1], side="right")))
    return points[chosen]


def assign(points: Points, centres: Points) -> NDArray[np.int32]:
    """Return the number of the nearest centre of each point, int32 (N,)."""
    if points.shape[1] <= TREE_DIMENSIONS:
        return cKDTree(centres).query(points)[1].astype(np.int32) if len(centres) else np.zeros(0, np.int32)
    out = np.empty(len(points), np.int32)
    # |p - c|^2 without |p|^2, which is the same for all centres.
    lengths = np.einsum("kd,kd->k", centres, centres)
    for start in range(0, len(points), CHUNK):
        part = points[start : start + CHUNK]
        out[start : start + CHUNK] = (lengths - 2 * part @ centres.T).argmin(axis=1)
    return out


def means(points: Points, nearest: NDArray[np.int32], centres: Points) -> Points:
    """Return the mean of each centre's points; a centre without any stays."""
    counts = np.bincount(nearest, minlength=len(centres))
    order = np.argsort(nearest, kind="stable")
    filled = counts > 0
    starts = (counts.cumsum() - counts)[filled]
    out = centres.copy()
    out[filled] = np.add.reduceat(points[order], starts, axis=0, dtype=np.float64) / counts[filled, None]
    return out
