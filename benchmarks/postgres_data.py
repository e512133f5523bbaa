"""The barcodes of `benchmarks.postgres`: windows of real tissue, or generated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import archive, scaling
from benchmarks.rivals import K
from sish.errors import ParameterError
from sish.slide_index import Index

PATCHES = 50
"""Patches of a slide, of the archive and of queries."""
_BYTES = 128
_KINDS, _TEXTURES, _OF_KIND, _OF_TEXTURE = 60, 4000, 0.15, 0.12  # generated: numbers, and shares of bits

Barcodes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Workload:
    """An archive, and slides that are not in it."""

    source: str
    """Where the barcodes are from."""
    barcodes: Barcodes
    """Of the archive, (N, 128); neighbours in tissue follow each other."""
    queries: tuple[Barcodes, ...]
    """Of slides that are not in the archive, (50, 128) each."""
    tenth: tuple[NDArray[np.int32], ...]
    """Distance of the tenth neighbour of each query patch, (50,) each."""

    def recall(self, slide: int, found: Sequence[NDArray[np.int64]]) -> float:
        """Return the share of the ten nearest that are no farther than the true tenth neighbour."""
        near = [np.count_nonzero(own[:K] <= most) for own, most in zip(found, self.tenth[slide], strict=True)]
        return float(np.mean(near) / K)


class Source:
    """Barcodes from which workloads are drawn."""

    def __init__(self, few: bool, slides: int, data: Path, cache: Path) -> None:
        """Encode tissue (`few`: eight fields) or read what was encoded before; if there is none, generate."""
        self._slides = slides
        self._pool: scaling.Pool | None = None
        try:
            self._pool = scaling.Pool(data, cache, few, slides * PATCHES)
            self.name = "windows of tissue"
        except ParameterError:
            self.name = f"generated barcodes (no tissue at {data})"

    def workload(self, n: int) -> Workload:
        """Draw an archive of `n` patches, and the queries, with their true neighbours."""
        if self._pool is None:
            barcodes, unseen = np.split(_generated(n + self._slides * PATCHES), [n])
        else:
            barcodes, unseen = self._pool.archive(n).barcodes, self._pool.unseen.barcodes
        queries = np.split(unseen, self._slides)
        tenth = scaling.tenth_distance(barcodes, unseen)
        return Workload(self.name, barcodes, tuple(queries), tuple(np.split(tenth, self._slides)))


def _generated(n: int) -> Barcodes:
    """Return barcodes of textures of some kinds, each patch with noise, (n, 128)."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, (_KINDS, 8 * _BYTES), np.uint8)
    textures = kinds[rng.integers(0, _KINDS, _TEXTURES)] ^ (rng.random((_TEXTURES, 8 * _BYTES)) < _OF_KIND)
    own = rng.integers(0, _TEXTURES, n)
    parts = np.array_split(own, max(1, n // 20_000))
    return np.concatenate(
        [
            np.packbits(
                textures[part] ^ (rng.random((len(part), 8 * _BYTES), np.float32) < _OF_TEXTURE), axis=1
            )
            for part in parts
        ]
    )


@dataclass(frozen=True, slots=True)
class _Slides(archive.Maker):
    """Slides of the archive's own barcodes, 50 in turn each."""

    def codes(self, number: int) -> tuple[NDArray[np.int64], Barcodes]:
        """Return keys, which are not read, and barcodes of a slide."""
        barcodes = self.barcodes[number * PATCHES : (number + 1) * PATCHES]
        return np.zeros(len(barcodes), np.int64), barcodes


def folder_of(barcodes: Barcodes, path: Path) -> Index:
    """Return a new index in a folder: slides of 50 patches of the archive."""
    maker = _Slides(barcodes, np.zeros(0, np.int64), "texture")
    return archive.built(maker, path, -(-len(barcodes) // PATCHES))
