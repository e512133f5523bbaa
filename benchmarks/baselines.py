"""Baselines that know nothing of tissue: colours, local patterns, counts of codes, chance.

Each image becomes one vector, and all vectors are compared. Histograms are compared by the Hellinger
distance, the Euclidean distance of the square roots of their shares.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.datasets import Dataset
from sish.slides.slide import open_slide
from sish.systems.item import Item

_TINY = 1e-12

Vectors = NDArray[np.float32]
"""float32 (N, D), a row for each image."""

Pixels = NDArray[np.uint8]

PICTURE_PX = 768
"""Longer side of an image's picture at most."""
COLOUR_BINS = 8
RADII = (1, 2, 4)
NEIGHBOURS = 8


def picture(item: Item) -> Pixels:
    """Read a whole image, uint8 (H, W, 3): its own pixels, or an overview if it is large."""
    with open_slide(item.path, override_mpp=1.0) as slide:  # its scale does not matter here
        _, _, width, height = slide.bounds
        return slide.overview(slide.mpp * max(1.0, max(width, height) / PICTURE_PX))


def colour_histogram(pixels: Pixels) -> NDArray[np.float64]:
    """Count 8 x 8 x 8 colours.

    Parameters
    ----------
    pixels : ndarray
        An image, uint8 (H, W, 3).

    Returns
    -------
    ndarray
        Pixels of each colour, (512,), red first.

    Examples
    --------
    >>> counts = colour_histogram(np.zeros((2, 3, 3), np.uint8))
    >>> float(counts[0]), float(counts.sum())
    (6.0, 6.0)
    """
    step = 256 // COLOUR_BINS
    red, green, blue = (pixels[..., channel].astype(np.int64) // step for channel in range(3))
    joint = (red * COLOUR_BINS + green) * COLOUR_BINS + blue
    return np.bincount(joint.ravel(), minlength=COLOUR_BINS**3).astype(np.float64)


def local_binary_patterns(pixels: Pixels) -> NDArray[np.float64]:
    """Count rotation-invariant uniform local binary patterns at 1, 2 and 4 pixels.

    A pattern has a bit for each of eight neighbours on a square ring. It is 1 if the neighbour is at least
    as bright as the centre. Patterns with at most two changes around the ring are counted by their number of
    ones (0 to 8), all others together (Ojala, Pietikainen & Maenpaa, IEEE TPAMI 24, 2002, eq. 9). An image
    with a side of less than 9 px has no pattern at the largest ring.

    Parameters
    ----------
    pixels : ndarray
        An image, uint8 (H, W, 3).

    Returns
    -------
    ndarray
        Ten counts for each ring, (30,).

    Examples
    --------
    >>> local_binary_patterns(np.full((9, 9, 3), 7, np.uint8))[8::10].tolist()
    [49.0, 25.0, 1.0]
    """
    grey = np.asarray(Image.fromarray(pixels).convert("L")).astype(np.int16)
    return np.concatenate([_patterns(grey, radius) for radius in RADII])


def _patterns(grey: NDArray[np.int16], radius: int) -> NDArray[np.float64]:
    """Count the patterns of one ring, (10,)."""
    height, width = grey.shape[0] - 2 * radius, grey.shape[1] - 2 * radius
    if min(height, width) < 1:
        return np.zeros(NEIGHBOURS + 2)
    centre = grey[radius : radius + height, radius : radius + width]
    around = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    bits = np.stack([grey[y * radius :, x * radius :][:height, :width] >= centre for y, x in around])
    changes = (bits != np.roll(bits, 1, axis=0)).sum(axis=0)
    pattern = np.where(changes <= 2, bits.sum(axis=0), NEIGHBOURS + 1)
    return np.bincount(pattern.ravel(), minlength=NEIGHBOURS + 2).astype(np.float64)


def roots(histograms: Sequence[NDArray[np.float64]]) -> Vectors:
    """Return square roots of shares, float32 (N, D); their Euclidean distance is Hellinger's."""
    counts = np.stack(histograms)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    out: Vectors = np.sqrt(shares).astype(np.float32)
    return out


def unit(features: NDArray[np.float64]) -> Vectors:
    """Scale features to rows of length 1, whose Euclidean distance orders as their cosine does.

    A row of zeros holds no information. It gets an axis of its own, so that its cosine to other rows is 0.

    Parameters
    ----------
    features : ndarray
        A row for each image, (N, D).

    Returns
    -------
    ndarray
        float32 (N, D + 1).
    """
    length = np.linalg.norm(features, axis=1, keepdims=True)
    nothing = length < _TINY
    out: Vectors = np.hstack([features / np.maximum(length, _TINY), nothing]).astype(np.float32)
    return out


def nearest_images(
    dataset: Dataset, vector_of: Callable[[Item], int], vectors: Vectors, k: int
) -> tuple[list[list[str]], list[float]]:
    """Find the nearest images of each query by Euclidean distance.

    Ties keep the order of the database.

    Parameters
    ----------
    dataset : Dataset
        Queries and database.
    vector_of : callable
        Gives an image's row of `vectors`.
    vectors : ndarray
        float32 (N, D).
    k : int
        Images at most for each query.

    Returns
    -------
    found : list of list of str
        Ids of the images that each query may find, the nearest first.
    spent : list of float
        Milliseconds of each query.
    """
    rows = np.array([vector_of(item) for item in dataset.database], np.intp)
    table = vectors[rows]
    squares = (table * table).sum(axis=1)
    members: dict[str, list[int]] = {}  # places to leave out, by the name of an image or group
    for place, item in enumerate(dataset.database):
        for name in {f"image {item.item_id}", f"group {item.group}"}:
            members.setdefault(name, []).append(place)
    last = min(k, len(table)) - 1
    found: list[list[str]] = []
    spent: list[float] = []
    for query in dataset.queries:
        hidden = members.get(f"image {query.item_id}", [])
        if query.group:
            hidden = hidden + members.get(f"group {query.group}", [])
        if dataset.within_site:
            hidden = hidden + [place for place, it in enumerate(dataset.database) if it.site != query.site]
        start = time.perf_counter()
        distance = squares - 2 * (table @ vectors[vector_of(query)])
        distance[hidden] = np.inf
        near = np.flatnonzero(distance <= np.partition(distance, last)[last])
        best = near[np.argsort(distance[near], kind="stable")][:k]
        spent.append(1000 * (time.perf_counter() - start))
        found.append([dataset.database[place].item_id for place in best if np.isfinite(distance[place])])
    return found, spent
