"""Slide similarity: compare two slides by the cosines of all their patches.

Afshari and Tizhoosh, A similarity measure of histopathology images by deep embeddings. Patches have 224 px at
one magnification; background is left out. Every patch of the query is compared with every patch of the other
slide. The similarity is the average of two means: that of the largest cosine of each row, and that of each
column. Optionally only the 128 features that vary most are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.encoders import PatchEncoder
from sish.errors import ParameterError
from sish.slides.region import Region, clip
from sish.slides.slide import Slide
from sish.systems.base import Allowed, Scores, System
from sish.systems.item import Item
from sish.systems.items import open_item
from sish.systems.patch_features import (
    PatchBatch,
    PatchDescriber,
    PatchFeatures,
    describer_for,
    read_squares,
    unit,
)

Rows = NDArray[np.float32]

SCALES = {"1x": 10.0, "2.5x": 4.0, "5x": 2.0, "10x": 1.0}
"""The paper's magnifications in micrometres per pixel; scanner vendors call 1 um/px 10x."""

DARK, BRIGHT = 200, 235
"""The bounds a and b of the three histogram bins [0, a], (a, b], (b, 255]; see `GridTiles`."""

BRIGHT_TO_DARK = 9.0
"""A patch is background if its third bin holds more than this many times the pixels of its first."""

_BLOCK = 65_536  # number of patches of the database whose cosines are in memory at once


@dataclass(frozen=True, slots=True)
class GridTiles:
    """All tiles of a slide's grid that are not background.

    The paper cuts a slide of w x h px into floor(w / s) * floor(h / s) patches. It finds background by three
    bins of grey, [0, a], (a, b] and (b, 255], but gives neither a and b nor its constant, and its sentence on
    the ratio of the third bin to the first, taken literally, would remove tissue. Here a patch is removed if
    its bright bin holds more than 9 times the pixels of its dark bin. For a patch without greys between, this
    is the rule of this library: more than 90 % of it is brighter than 235.
    """

    mpp: float = 2.0
    """Micrometres per pixel: see `SCALES`."""
    size_px: int = 224
    """Side of a patch in pixels at ``mpp``."""

    def __post_init__(self) -> None:
        """Refuse scales and sizes out of range (ParameterError)."""
        if not 0.05 <= self.mpp <= 64 or self.size_px < 1:
            raise ParameterError(f"got {self.size_px} px at {self.mpp} um/px; want 0.05 to 64 um/px")

    def read(self, item: Item, region: Region | None = None, step_px: int = 1) -> Iterator[PatchBatch]:
        """As in `sish.systems.patch_features.Looks`; a slide smaller than a patch is one, mirrored."""
        if self.size_px % step_px:
            raise ParameterError(f"got tiles of {self.size_px} px; the encoder wants a multiple of {step_px}")
        with open_item(item) as slide:
            for look in read_squares(slide, self.corners(slide, region), self.size_px, self.mpp):
                keep = ~is_background(look.pixels)
                if keep.any():
                    yield PatchBatch(look.pixels[keep], look.l0_xy[keep], look.l0_px, look.mpp)

    def corners(self, slide: Slide, region: Region | None = None) -> NDArray[np.int64]:
        """Top left corners of the grid, int64 (N, 2), level-0 pixels, row by row."""
        x, y, width, height = slide.bounds if region is None else clip(slide, region)
        step = self.size_px * self.mpp / slide.mpp
        # the addend keeps 672 px of 0.42 um from being 2.9999 patches
        columns, rows = (max(1, int(side / step + 1e-9)) for side in (width, height))
        across, down = np.meshgrid(x + step * np.arange(columns), y + step * np.arange(rows))
        corners = np.stack([across.ravel(), down.ravel()], axis=1)
        return np.asarray(np.rint(corners), np.int64)


def is_background(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which patches are background by three bins of grey; see `GridTiles`.

    Parameters
    ----------
    pixels : uint8 (N, H, W, 3)
        Patches.

    Returns
    -------
    bool (N,)
        True for background.

    Examples
    --------
    >>> is_background(np.full((2, 4, 4, 3), [[[[250]]], [[[180]]]], np.uint8)).tolist()
    [True, False]
    """
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    dark, bright = (np.count_nonzero(part, axis=(1, 2)) for part in (grey <= DARK, grey > BRIGHT))
    return np.asarray(bright > BRIGHT_TO_DARK * dark)


class SlideSimilarity(System[PatchFeatures]):
    """Search by slide similarity at one scale; O(Q P) for Q patches of the query and P of the database.

    Parameters
    ----------
    mpp : float
        Scale of the patches, um per pixel: 10, 4, 2 and 1 are the paper's 1x, 2.5x, 5x and 10x.
    keep : int, optional
        Number of features to keep: those that vary most over the database's patches (the paper: 128).
    describer : PatchDescriber, optional
        Which patches are read, and the encoder. Default: tiles at ``mpp`` and ``vqvae``.
    encoder : str or PatchEncoder, optional
        The encoder of these tiles, in place of a describer.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sish.systems import Item
    >>> folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    >>> for name in "abc":
    ...     Image.fromarray(rng.integers(0, 200, (128, 128, 3), np.uint8)).save(folder / f"{name}.png")
    >>> items = [Item(name, folder / f"{name}.png", mpp=1.0) for name in "abc"]
    >>> hits = SlideSimilarity(1.0).fit(items).search(Item("copy", items[1].path, mpp=1.0), k=2)
    >>> hits[0].item_id, round(hits[0].score, 3)
    ('b', 1.0)
    """

    def __init__(
        self,
        mpp: float = 2.0,
        *,
        keep: int | None = None,
        describer: PatchDescriber | None = None,
        encoder: str | PatchEncoder | None = None,
    ) -> None:
        """See the class."""
        if keep is not None and keep < 1:
            raise ParameterError(f"got keep={keep}; want at least 1 feature, or None for all")
        self.name = f"slide similarity{'' if keep is None else f' {keep}'}"
        self._keep = keep
        self._describer = describer_for(describer, encoder, GridTiles(mpp))

    def describe(self, item: Item) -> PatchFeatures:
        """Return the features of all patches that are not background."""
        return self._describer.describe(item)

    def build(self, descriptions: Sequence[PatchFeatures]) -> None:
        """Keep the features of all patches, divided by their length."""
        self._starts = np.cumsum([0, *map(len, descriptions)])[:-1]
        rows = [found.features for found in descriptions]
        features = np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)
        self._columns = None
        if self._keep is not None and len(features):
            self._columns = most_varying(features, self._keep)
        self._rows = self._directions(features)

    def _directions(self, features: NDArray[np.floating]) -> Rows:
        """Return the features that are kept, of unit length."""
        return unit(features if self._columns is None else features[:, self._columns])

    def score(self, description: PatchFeatures, allowed: Allowed, k: int) -> Scores:
        """Return the similarity of each slide."""
        return Scores(similarity(self._directions(description.features), self._rows, self._starts))

    def nbytes(self) -> int:
        """Return the bytes of all features that are kept."""
        return self._rows.nbytes


def similarity(query: Rows, rows: Rows, starts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the similarity of a query with each of N slides (Afshari and Tizhoosh, eq. 1 and 2); O(Q P).

    With S the cosines (Q, n_r) of the query's patches and those of one slide,

        sim = 1/2 [ mean over columns of the column's maximum + mean over rows of the row's maximum ].

    It is symmetric, and 1 for a slide with itself.

    Parameters
    ----------
    query : float32 (Q, F)
        Features of the query's patches, of unit length.
    rows : float32 (P, F)
        Features of all slides, of unit length, one slide after another. Whole slides are compared at a time,
        up to 65,536 patches or the largest slide.
    starts : int (N,)
        Where each slide begins; every slide has at least one patch.

    Returns
    -------
    float64 (N,)
        In [0, 1] if no feature is negative, else in [-1, 1].

    Examples
    --------
    Query patches (1, 0) and (0, 1) against one patch (0.6, 0.8): S = (0.6, 0.8), its only column's maximum is
    0.8, its rows' are 0.6 and 0.8, so sim = (0.8 + 0.7) / 2.

    >>> similarity(np.float32([[1, 0], [0, 1]]), np.float32([[0.6, 0.8]]), np.array([0])).round(6).tolist()
    [0.75]
    """
    ends = np.append(starts[1:], len(rows))
    out = np.empty(len(starts))
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + _BLOCK, side="right")))
        begin, own = starts[first], starts[first:last] - starts[first]
        cosines = query @ rows[begin : ends[last - 1]].T
        by_column = np.add.reduceat(cosines.max(axis=0), own, dtype=np.float64) / (ends - starts)[first:last]
        by_row = np.maximum.reduceat(cosines, own, axis=1).mean(axis=0, dtype=np.float64)
        out[first:last] = (by_column + by_row) / 2
        first = last
    return out


def variation(features: ArrayLike) -> NDArray[np.float64]:
    """Return the coefficient of variation of each feature, sigma / |mean|, with the population's sigma.

    Parameters
    ----------
    features : float (N, F)
        Features of patches. The measure is meant for features of one sign.

    Returns
    -------
    float64 (F,)
        Infinite for a feature whose mean is 0, but 0 for a feature that is always 0.

    Examples
    --------
    >>> variation([[1.0, 4.0, 0.0], [3.0, 4.0, 0.0]]).tolist()      # means 2, 4, 0; sigmas 1, 0, 0
    [0.5, 0.0, 0.0]
    """
    rows = np.asarray(features, np.float64)
    sigma, mean = rows.std(axis=0), np.abs(rows.mean(axis=0))
    with np.errstate(divide="ignore"):
        return np.asarray(np.divide(sigma, mean, out=np.zeros_like(sigma), where=sigma > 0), np.float64)


def most_varying(features: ArrayLike, count: int) -> NDArray[np.int64]:
    """Return the numbers of the features that vary most.

    Parameters
    ----------
    features : float (N, F)
        Features of patches.
    count : int
        How many are wanted.

    Returns
    -------
    int64 (min(count, F),)
        Ascending. Of features that vary alike, the first are taken.

    Examples
    --------
    >>> most_varying([[1.0, 4.0, 0.0, 5.0], [3.0, 4.0, 1.0, 6.0]], 2).tolist()
    [0, 2]
    """
    order = np.argsort(-variation(features), kind="stable")
    return np.sort(order[:count])
