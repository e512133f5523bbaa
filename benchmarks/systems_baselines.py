"""Baselines that know nothing of tissue: random order, colours, and gradients as in SIFT."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.baselines import Pixels, Vectors, colour_histogram, picture, roots
from sish.slides.clusters import assign, kmeans
from sish.systems.base import Allowed, Scores, System
from sish.systems.item import Item

WINDOW_PX, CELLS, DIRECTIONS = 16, 4, 8
"""Lowe's descriptor: 4 x 4 cells of 4 px with 8 directions each, 128 numbers."""
CLIP = 0.2
"""No direction of a cell weighs more, so that one strong edge is not all that counts."""
WORDS = 256
"""Kinds of window that are told apart."""


class RandomOrder(System[None]):
    """A random order."""

    name = "random"

    def describe(self, item: Item) -> None:
        """Nothing."""

    def build(self, descriptions: Sequence[None]) -> None:
        """Nothing."""
        self._random = np.random.default_rng(0)

    def score(self, description: None, allowed: Allowed, k: int) -> Scores:
        """Random numbers."""
        return Scores(self._random.random(len(self)), looked_at=0)

    def nbytes(self) -> int:
        """None."""
        return 0


class ColourHistogram(System[Vectors]):
    """The share of pixels in each of 8 x 8 x 8 colours, by the Hellinger distance, as in `baselines`."""

    name = "colour histogram"

    def describe(self, item: Item) -> Vectors:
        """Float32 (512,): square roots of shares."""
        shares: Vectors = roots([colour_histogram(picture(item))])[0]
        return shares

    def build(self, descriptions: Sequence[Vectors]) -> None:
        """All of them."""
        self._rows = np.reshape(descriptions, (-1, 512))

    def score(self, description: Vectors, allowed: Allowed, k: int) -> Scores:
        """Return the Bhattacharyya coefficient, which falls as the Hellinger distance rises."""
        return Scores(self._rows @ description)

    def nbytes(self) -> int:
        """All of them."""
        return self._rows.nbytes


class GradientWords(System[NDArray[np.uint8]]):
    """Counts of typical windows of gradients, by the Hellinger distance: SMILY was compared with the like.

    SIFT descriptors (Lowe, IJCV 60, 2004, section 6) are taken upright on a grid, not at key points. Each
    counts as the nearest of 256 words that k-means finds in the database.
    """

    name = "gradient words"

    def describe(self, item: Item) -> NDArray[np.uint8]:
        """Return the descriptors uint8 (N, 128) of a picture's windows."""
        return gradient_descriptors(picture(item))

    def build(self, descriptions: Sequence[NDArray[np.uint8]]) -> None:
        """Find the words, and count them in each image."""
        every = np.concatenate(descriptions) if len(descriptions) else np.zeros((0, 128), np.uint8)
        self._words = kmeans(every.astype(np.float32), WORDS, seed=0)
        self._rows = np.reshape([self._shares(found) for found in descriptions], (-1, WORDS))

    def _shares(self, descriptors: NDArray[np.uint8]) -> Vectors:
        nearest = assign(descriptors.astype(np.float32), self._words)
        shares: Vectors = roots([np.bincount(nearest, minlength=WORDS).astype(np.float64)])[0]
        return shares

    def score(self, description: NDArray[np.uint8], allowed: Allowed, k: int) -> Scores:
        """Return the Bhattacharyya coefficient of the counts of words."""
        return Scores(self._rows @ self._shares(description))

    def nbytes(self) -> int:
        """Return the bytes of the counts and the words."""
        return self._rows.nbytes + self._words.nbytes


def gradient_descriptors(pixels: Pixels) -> NDArray[np.uint8]:
    """Return descriptors of the windows of 16 x 16 px of a picture, without overlap.

    A descriptor holds, for each of 4 x 4 cells, the sum of the gradients' lengths in 8 directions. It is
    divided by its length, cut at 0.2, divided again, and multiplied by 512.

    Parameters
    ----------
    pixels : uint8 (H, W, 3)
        The picture.

    Returns
    -------
    uint8 (N, 128)
        At most 255; zeros for a window without gradients.

    Examples
    --------
    A slope to the right has all its gradients in direction 0: 16 equal entries of length 1/4, cut to 0.2, are
    1/4 again, 128 of 512.

    >>> slope = np.repeat(np.arange(16, dtype=np.uint8)[None, :, None], 16, axis=0).repeat(3, axis=2)
    >>> gradient_descriptors(slope).reshape(16, 8)[:, 0].tolist()
    [128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128]
    """
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    down, right = np.gradient(grey)
    turn = np.arctan2(down, right) * (DIRECTIONS / (2 * np.pi))
    direction = np.rint(turn).astype(np.int64) % DIRECTIONS
    cells = _by_cell(np.hypot(down, right), direction)
    cells = _unit(np.minimum(_unit(cells), CLIP))
    return np.minimum(np.rint(512 * cells), 255).astype(np.uint8)


def _by_cell(length: NDArray[np.float32], direction: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sums of lengths by window, cell and direction, float64 (N, 128)."""
    rows, columns = (side // WINDOW_PX for side in length.shape)
    cell_px, across = WINDOW_PX // CELLS, columns * CELLS
    y, x = np.mgrid[: rows * WINDOW_PX, : columns * WINDOW_PX] // cell_px
    place = (y * across + x) * DIRECTIONS + direction[: len(y), : y.shape[1]]
    sums = np.bincount(
        place.ravel(), length[: len(y), : y.shape[1]].ravel(), minlength=rows * CELLS * across * DIRECTIONS
    )
    grid = sums.reshape(rows, CELLS, columns, CELLS, DIRECTIONS)
    return np.asarray(grid.swapaxes(1, 2).reshape(rows * columns, -1), np.float64)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float64)
