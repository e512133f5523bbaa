"""Make the archives of `benchmarks.vectors`: features of real tissue, and mixtures with their spectrum.

Mixtures stand for the features of foundation models. Their constants follow EfficientNet-lite0's features of
PatchCamelyon's training patches (12,000 patches, 1,536 standardised numbers), in which k-means found 100
clusters. There

- the covariance of the centres has eigenvalues that fall like i ** -1.6, and holds 0.57 of the variance;
- within clusters, eigenvalues fall slowly at first, then like 1 / j;
- a cluster's deviations lie partly in directions of its own;
- the clusters' sizes (root mean square distance from the centre) have a log-normal spread of 0.19;
- the common mean holds 0.14 of the mean squared length (0.21 in the default encoder's features).

The fall within clusters, 1 / (j + 3), was chosen so that the eigenvalues of all points, and the recall of
exact searches among 64 to 512 principal components, are near those of the features.

A point of a mixture is the sum of a common mean, the centre of its cluster, and a deviation that is partly in
shared directions and partly in the cluster's own. Of 1,000 clusters, the n-th has a share of 1 / n. Lengths
are not 1 and differ. A query is another point of the same mixture. Blocks of points have their own seeds, so
a smaller mixture is the beginning of a larger one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sish.tissue import TissueEncoder
from sish.vqvae.tissue_network import N_NETWORK

K = 10
DIMS = 1024
BLOCK = 10_000
"""Vectors that are made, or turned into unit vectors, at once."""
_CLUSTERS, _OWN = 1000, 32
_CENTRES_FALL, _FALL, _FLAT = 1.6, 1.0, 3.0
_MEAN, _CENTRES, _SHARED, _OWNED = 0.2, 0.45, 0.21, 0.14  # shares of the mean squared length
_SIZES_SPREAD = 0.19
_LENGTH = 40.0
_SEED, _ASKED = 14, 2**31  # the queries are a block far from the archive's
_TIE = 1e-6

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Archive:
    """Vectors, queries that are not among them, and the exact answers."""

    name: str
    """Its name in the rows."""
    vectors: Floats
    """float32 (N, D), of any length; may be mapped."""
    queries: Floats
    """float32 (Q, D)."""
    tenth: Floats
    """Cosine distance of the tenth nearest vector of each query, float32 (Q,)."""


# ---- mixtures


@dataclass(frozen=True)
class Mixture:
    """Gaussian clusters with the spectrum of features; see the module's docstring."""

    dims: int = DIMS
    """Numbers of a vector."""

    @cached_property
    def _centres(self) -> Floats:
        """Centres with the common mean added, (clusters, dims)."""
        rng = np.random.default_rng([_SEED, 1])
        mean = _scaled(rng.standard_normal(self.dims, np.float32), _MEAN)
        fall = np.arange(1, self.dims + 1) ** (-_CENTRES_FALL / 2)
        centres = (rng.standard_normal((_CLUSTERS, self.dims)) * fall) @ _rotation(rng, self.dims)
        return np.asarray(mean + _scaled(centres, _CENTRES), np.float32)

    @cached_property
    def _shared(self) -> Floats:
        """Directions of the deviations of every cluster, (dims, dims)."""
        rng = np.random.default_rng([_SEED, 2])
        fall = (np.arange(1, self.dims + 1) + _FLAT) ** (-_FALL / 2)
        return np.asarray(
            _scaled(fall[:, None] * _rotation(rng, self.dims), _SHARED, summed=True), np.float32
        )

    @cached_property
    def _sizes(self) -> Floats:
        """Factors of the clusters' deviations, (clusters,)."""
        rng = np.random.default_rng([_SEED, 3])
        return np.asarray(np.exp(_SIZES_SPREAD * rng.standard_normal(_CLUSTERS, np.float32)))

    @cached_property
    def _own(self) -> Floats:
        """Further directions of the deviations of each cluster, (clusters, 32, dims)."""
        rng = np.random.default_rng([_SEED, 4])
        own = rng.standard_normal((_CLUSTERS * _OWN, self.dims), np.float32) @ self._shared
        own = _scaled(own, _OWNED / _OWN).reshape(_CLUSTERS, _OWN, self.dims)
        return np.asarray(own, np.float32)

    def clusters(self, block: int, n: int) -> NDArray[np.int64]:
        """Return the clusters of the n points of a block, int64 (n,)."""
        share = 1 / np.arange(1, _CLUSTERS + 1)
        return np.random.default_rng([_SEED, 5, block]).choice(_CLUSTERS, n, p=share / share.sum())

    def points(self, block: int, n: int) -> Floats:
        """Return the n points of a block, float32 (n, dims)."""
        rng = np.random.default_rng([_SEED, 6, block])
        clusters = self.clusters(block, n)
        points = rng.standard_normal((n, self.dims), np.float32) @ self._shared
        weights = rng.standard_normal((n, _OWN), np.float32)
        for cluster in np.unique(clusters):
            mine = clusters == cluster
            points[mine] += weights[mine] @ self._own[cluster]
        points *= self._sizes[clusters, None]
        return points + self._centres[clusters]

    def queries(self, n: int) -> Floats:
        """Return points that are in no archive, float32 (n, dims)."""
        return self.points(_ASKED, n)

    def write(self, path: Path, n: int) -> None:
        """Write the first n points as an array of numpy's format; nothing is there until all of it is."""
        part = path.with_suffix(".part")
        out = np.lib.format.open_memmap(part, "w+", np.float32, (n, self.dims))
        for block, first in enumerate(range(0, n, BLOCK)):
            out[first : first + BLOCK] = self.points(block, BLOCK)[: n - first]
        out.flush()
        part.rename(path)


def _rotation(rng: np.random.Generator, dims: int) -> NDArray[np.float64]:
    """Return random directions at right angles, (dims, dims)."""
    return np.asarray(np.linalg.qr(rng.standard_normal((dims, dims)))[0])


def _scaled(vectors: Any, share: float, *, summed: bool = False) -> Any:
    """Return vectors whose mean squared length, or the sum of them all, is a share of a point's."""
    square = np.square(vectors).sum(axis=-1)
    return vectors * _LENGTH * np.sqrt(share / (square.sum() if summed else square.mean()))


def mixture(n: int, queries: int, cache: Path) -> Archive:
    """Return a mixture of n points; it is kept in the cache, with its exact answers.

    Parameters
    ----------
    n, queries : int
        Numbers of vectors and of queries.
    cache : Path
        A folder.

    Returns
    -------
    Archive
        The mixture; its vectors are mapped.
    """
    path, source = cache / f"mixture-{n}.npy", Mixture()
    if not path.exists():
        source.write(path, n)
    vectors = np.load(path, mmap_mode="r")
    return with_answers(f"mixture {n:,}", vectors, source.queries(queries), cache / f"mixture-{n}-{queries}")


# ---- features of real tissue


def tissue(data: Path, cache: Path, most: int | None = None) -> Iterator[Archive]:
    """Yield two archives of PatchCamelyon's training patches; queries are the validation ones.

    Parameters
    ----------
    data : Path
        Folder with `pcam`.
    cache : Path
        A folder, where features are kept.
    most : int, optional
        Patches of the archive and queries at most, drawn at random.

    Yields
    ------
    Archive
        The default encoder's features, and lite0's part of them.
    """
    train = _features(data / "pcam" / "train", cache, most)
    valid = _features(data / "pcam" / "valid", cache, most and most // 5)
    for name, dims in (("tissue", train.shape[1]), ("lite0", N_NETWORK)):
        vectors, queries = (np.ascontiguousarray(part[:, :dims]) for part in (train, valid))
        yield with_answers(f"{name} {len(vectors):,}", vectors, queries, cache / f"{name}-{len(vectors)}")


def _features(folder: Path, cache: Path, most: int | None) -> Floats:
    """Return the default encoder's features of the images of a folder, in a random order."""
    path = cache / f"features-{folder.name}{most or ''}.npy"
    if not path.exists():
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in {".png", ".jpg", ".tif"})
        files = [files[row] for row in np.random.default_rng(0).permutation(len(files))[:most]]
        np.save(path, _encoded(files))
    return np.asarray(np.load(path))


def _encoded(files: list[Path]) -> Floats:
    """Return the default encoder's features of image files, all of one size."""
    encoder = TissueEncoder()
    return np.concatenate([encoder.features(_pixels(file)[None]) for file in files])


def _pixels(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


# ---- exact answers


def unit(vectors: Floats) -> Floats:
    """Return vectors of length 1; zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, np.finfo(np.float32).tiny), np.float32)


def unit_blocks(vectors: Floats, size: int) -> Iterator[Floats]:
    """Yield vectors with length 1, so many at once."""
    for first in range(0, len(vectors), size):
        yield unit(vectors[first : first + size])


def tenth_distances(vectors: Floats, queries: Floats) -> Floats:
    """Return the cosine distance of the tenth nearest vector of each query, float32 (Q,)."""
    asked = unit(queries)
    best = np.full((len(asked), K), np.inf, np.float32)
    for block in unit_blocks(vectors, BLOCK):
        distances = 1 - asked @ block.T
        nearest = np.partition(distances, K - 1, axis=1)[:, :K] if len(block) > K else distances
        best = np.partition(np.concatenate([best, nearest], axis=1), K - 1, axis=1)[:, :K]
    return np.asarray(best.max(axis=1))


def hits(archive: Archive, found: NDArray[np.int64], queries: slice) -> float:
    """Return recall: the share of the ten nearest that were found.

    A row counts once, and if it is no farther than the tenth true neighbour.

    Parameters
    ----------
    archive : Archive
        The archive.
    found : ndarray
        Rows that were found, int64 (Q, K); -1 where there is none.
    queries : slice
        The queries that were asked.

    Returns
    -------
    float
        Between 0 and 1.
    """
    asked, tenth = unit(archive.queries[queries]), archive.tenth[queries]
    right = 0
    for query, limit, rows in zip(asked, tenth, found, strict=True):
        rows = np.unique(rows[rows >= 0])
        right += int((1 - unit(archive.vectors[rows]) @ query <= limit + _TIE).sum())
    return min(1.0, right / (K * len(asked)))


def with_answers(name: str, vectors: Floats, queries: Floats, kept: Path) -> Archive:
    """Return an archive with its exact answers, which are kept in a file."""
    path = kept.with_name(f"{kept.name}-tenth.npy")
    if not path.exists():
        np.save(path, tenth_distances(vectors, queries))
    return Archive(name, vectors, queries, np.load(path))
