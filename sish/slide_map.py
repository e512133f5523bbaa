"""A map of an archive: a place in two dimensions for each slide, so that slides that look alike lie together.

A slide is the mean of its patches' barcodes: 1,024 numbers. They are reduced to their 50 axes of largest
variance (PCA), and t-SNE (van der Maaten and Hinton 2008; scikit-learn) places up to 5,000 slides so that
neighbours stay neighbours. Every other slide is placed among the three of these that it resembles most. Time
and memory beyond 5,000 slides are so those of reading the barcodes once. Without scikit-learn (extra
``serve``), and of fewer than ten slides, the places are the first two axes.

Chosen on the odd groups of crc5 (840 images, `python -m benchmarks.slide_map`): of the ten nearest on the
map, 0.96 have the image's label (0.95 in the 1,024 dimensions), and 0.64 are of its ten nearest there. With
UMAP it is 0.96 and 0.59, and each process compiles it first, which takes longer than the map. With two axes
alone it is 0.59 and 0.20.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sish.index.barcode import mean_bits
from sish.index.store import State
from sish.index.store.segment import Segment

LAID_OUT = 5000
"""Slides that t-SNE places; the others are placed among them."""

_AXES = 50
_FEWEST = 10  # slides; fewer have no neighbourhoods to keep
_AMONG = 3  # of the slides that are laid out, the most similar: the median of their places
_PERPLEXITY = 30.0  # about the neighbours that a slide is held to
_STEPS = 500  # of t-SNE; a thousand gave the same figures
_TOGETHER = 2048  # slides whose means are in memory at a time: 8 MB

_Means = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SlideMap:
    """Places of N slides, those without patches left out."""

    slide_ids: tuple[str, ...]
    """Their names, in the order in which they were added."""
    xy: NDArray[np.float32]
    """Shape (N, 2): places in [0, 1], x first, y down; both axes have the same scale."""
    label: tuple[str | None, ...]
    """Their labels, None where not known."""
    method: Literal["t-sne", "pca"]
    """How they were placed."""
    generation: int
    """The commit of the index that it shows."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.slide_ids)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "method": self.method,
            "generation": self.generation,
            "slide_ids": list(self.slide_ids),
            "xy": np.round(self.xy.astype(np.float64), 5).tolist(),
            "label": list(self.label),
        }


def layout(state: State, *, seed: int = 0) -> SlideMap:
    """Place all slides of a state of an index.

    Parameters
    ----------
    state : State
        The state.
    seed : int
        Seed of the slides that are laid out first. The same state and seed give the same map on one machine.

    Returns
    -------
    SlideMap
        The places.

    Raises
    ------
    IndexCorruptError
        If a segment is damaged.
    """
    slides = _Slides.of(state)
    rng = np.random.default_rng(seed)
    first = np.sort(rng.permutation(len(slides))[:LAID_OUT])
    axes = _Axes.of(slides.means(first))
    places = np.concatenate([axes(slides.means(first[:0])), *map(axes, slides.all_means())])
    method: Literal["t-sne", "pca"] = "t-sne" if _can_lay_out(len(first)) else "pca"
    xy = places[:, :2] if method == "pca" else _laid_out(places, first, seed)
    return SlideMap(slides.ids, _in_square(xy), slides.labels, method, state.generation)


@dataclass(frozen=True, slots=True)
class _Slides:
    """The slides of a state that have patches, N in all, segment after segment."""

    segments: tuple[Segment, ...]
    numbers: tuple[NDArray[np.int64], ...]
    """Of each segment, the numbers of its slides."""
    ids: tuple[str, ...]
    labels: tuple[str | None, ...]

    @classmethod
    def of(cls, state: State) -> _Slides:
        segments, ids, labels, numbers = list[Segment](), list[str](), list[str | None](), []
        for segment in state.segments:
            table = segment.patches.slides
            own = np.flatnonzero((table.n_patches > 0) & ~segment.removed_mask)
            if not len(own):
                continue
            segments.append(segment)
            names = [name for name, _ in table.ids_and_paths()]
            code, values = table.values("label")
            ids += [names[number] for number in own.tolist()]
            labels += [[*values, None][place] for place in code[own].tolist()]  # the last is for -1
            numbers.append(own)
        return cls(tuple(segments), tuple(numbers), tuple(ids), tuple(labels))

    def __len__(self) -> int:
        return len(self.ids)

    def means(self, wanted: NDArray[np.int64]) -> _Means:
        """Return the mean barcodes of some slides, by their places in `ids`, ascending."""
        ends = np.cumsum([len(own) for own in self.numbers])
        parts = np.split(wanted, np.searchsorted(wanted, ends)[:-1]) if len(ends) else []
        starts = ends - [len(own) for own in self.numbers]
        found = [
            _means_of(segment, own[part - start])
            for segment, own, part, start in zip(self.segments, self.numbers, parts, starts, strict=True)
        ]
        return np.concatenate([np.empty((0, self._bits), np.float32), *found])

    @property
    def _bits(self) -> int:
        return max((8 * segment.patches.barcodes.shape[1] for segment in self.segments), default=8)

    def all_means(self) -> Iterator[_Means]:
        """Yield the mean barcodes of all slides, some at a time."""
        for segment, own in zip(self.segments, self.numbers, strict=True):
            for start in range(0, len(own), _TOGETHER):
                yield _means_of(segment, own[start : start + _TOGETHER])


def _means_of(segment: Segment, numbers: NDArray[np.int64]) -> _Means:
    """Return the mean barcodes of some slides of a segment."""
    table = segment.patches
    return mean_bits(table.barcodes[table.rows_of(numbers)], np.cumsum(table.slides.n_patches[numbers]))


@dataclass(frozen=True, slots=True)
class _Axes:
    """The axes of largest variance of some means."""

    centre: _Means
    axes: _Means
    """Shape (bits, axes)."""

    @classmethod
    def of(cls, means: _Means) -> _Axes:
        """Return at most `_AXES` axes; the largest part of each is positive: no map is a mirror image."""
        centre = means.mean(axis=0) if len(means) else np.zeros(means.shape[1], np.float32)
        centred = (means - centre).astype(np.float64)
        _, vectors = np.linalg.eigh(centred.T @ centred)
        axes = vectors[:, ::-1][:, :_AXES]
        largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
        return cls(centre, (axes * np.where(largest < 0, -1, 1)).astype(np.float32))

    def __call__(self, means: _Means) -> _Means:
        """Return the coordinates of means along the axes."""
        return np.asarray((means - self.centre) @ self.axes, np.float32)


def _can_lay_out(slides: int) -> bool:
    return slides >= _FEWEST and find_spec("sklearn") is not None


def _laid_out(places: _Means, first: NDArray[np.int64], seed: int) -> _Means:
    """Return places in two dimensions: by t-SNE those of the slides `first`, the others among them."""
    xy = np.empty((len(places), 2), np.float32)
    xy[first] = _t_sne(places[first], seed)
    others = np.setdiff1d(np.arange(len(places)), first)
    for start in range(0, len(others), _TOGETHER):
        part = others[start : start + _TOGETHER]
        xy[part] = np.median(xy[first[_most_similar(places[part], places[first])]], axis=1)
    return xy


def _t_sne(places: _Means, seed: int) -> _Means:
    """Return places in two dimensions that keep neighbours; by one thread, so that they are reproducible."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(_PERPLEXITY, (len(places) - 1) / 3)
    method = TSNE(perplexity=perplexity, init="pca", max_iter=_STEPS, random_state=seed, n_jobs=1)
    with threadpool_limits(1, user_api="openmp"):
        xy: _Means = method.fit_transform(places)
    return xy


def _most_similar(places: _Means, among: _Means) -> NDArray[np.int64]:
    """Return the numbers of the nearest of some places to each place, (N, _AMONG)."""
    squared = (among**2).sum(axis=1) - 2 * (places @ among.T)
    return np.argpartition(squared, _AMONG, axis=1)[:, :_AMONG]


def _in_square(xy: _Means) -> _Means:
    """Return places moved and scaled into the unit square, in its middle along the shorter side."""
    if not len(xy):
        return np.empty((0, 2), np.float32)
    low, high = xy.min(axis=0).astype(np.float64), xy.max(axis=0).astype(np.float64)
    side = max(float((high - low).max()), np.finfo(np.float32).tiny)
    places: _Means = np.clip(0.5 + (xy - (low + high) / 2) / side, 0, 1).astype(np.float32)
    return places
