"""Yottixel: a mosaic of barcodes for each slide, and the median of their smallest distances.

Kalra, Tizhoosh, Choi et al., Yottixel, Med Image Anal 2020. A slide is kept as a mosaic of patches, and a
patch as a barcode of 1,023 bits. The distance of a query slide to another slide is the median, over the
query's barcodes, of the smallest Hamming distance to any barcode of the other. There is no tree: every
barcode is compared with every other. The authors state patents on their engine
(docs/explanation/systems.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.encoders import PatchEncoder
from sish.errors import ParameterError
from sish.index.barcode import hamming
from sish.systems.base import Allowed, Scores, System
from sish.systems.item import Item
from sish.systems.patch_features import PatchDescriber, PatchFeatures, describer_for

Barcodes = NDArray[np.uint8]


class Yottixel(System[PatchFeatures]):
    """Yottixel, with the library's mosaic and features.

    A score is 1 - d / bits, where d is the median of minima: 1 for a slide that holds all of the query's
    barcodes. A search is O(Q P) for Q patches of the query and P of the database.

    Parameters
    ----------
    describer : PatchDescriber, optional
        Which patches are read, and the encoder. Default: a mosaic, and ``vqvae``.
    encoder : str or PatchEncoder, optional
        The encoder of a mosaic of patches of its own size and scale, in place of a describer.

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
    >>> hits = Yottixel().fit(items).search(Item("copy", items[1].path, mpp=1.0), k=2)
    >>> hits[0].item_id, round(hits[0].score, 3)
    ('b', 1.0)
    """

    name = "yottixel"

    def __init__(
        self, describer: PatchDescriber | None = None, *, encoder: str | PatchEncoder | None = None
    ) -> None:
        """See the class."""
        self._describer = describer_for(describer, encoder)

    def describe(self, item: Item) -> PatchFeatures:
        """Return the features of the mosaic's patches."""
        return self._describer.describe(item)

    def build(self, descriptions: Sequence[PatchFeatures]) -> None:
        """Keep all barcodes, slide after slide."""
        rows = [falling_barcodes(found.features) for found in descriptions]
        self._starts = np.cumsum([0, *map(len, rows)])[:-1]
        self._barcodes = np.concatenate(rows) if rows else np.zeros((0, 1), np.uint8)

    def score(self, description: PatchFeatures, allowed: Allowed, k: int) -> Scores:
        """Compare all barcodes of the query with all barcodes of each slide."""
        bits = description.features.shape[1] - 1
        query = falling_barcodes(description.features)
        return Scores(1 - median_of_minima(query, self._barcodes, self._starts) / bits)

    def nbytes(self) -> int:
        """Return the bytes of all barcodes."""
        return self._barcodes.nbytes


def falling_barcodes(features: ArrayLike) -> Barcodes:
    """Return barcodes of features: bit i is 1 if feature i + 1 is smaller than feature i.

    Parameters
    ----------
    features : float (N, F)
        F of at least 2.

    Returns
    -------
    uint8 (N, ceil((F - 1) / 8))
        F features give F - 1 bits, most significant bit first; the rest of the last byte is 0.

    Raises
    ------
    ParameterError
        If the shape is another, or a feature is not finite.

    Examples
    --------
    >>> bin(falling_barcodes([[5.0, 6.0, 6.0, 1.0, 2.0, 0.0, 0.0, 9.0]])[0, 0])     # 0 0 1 0 1 0 0, and a 0
    '0b101000'
    """
    values = np.asarray(features)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ParameterError(f"features have shape {values.shape}; give (N, F) with F of at least 2")
    if not np.isfinite(values).all():
        raise ParameterError("features hold NaN or infinity; give finite numbers")
    return np.packbits(values[:, 1:] < values[:, :-1], axis=1)


def median_of_minima(query: Barcodes, barcodes: Barcodes, starts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the distance of a query to each of N slides, in bits; O(Q P).

    Parameters
    ----------
    query : uint8 (Q, B)
        Barcodes of the query.
    barcodes : uint8 (P, B)
        Barcodes of all slides, one slide after another.
    starts : int (N,)
        Where each slide begins; every slide has at least one barcode.

    Returns
    -------
    float64 (N,)
        Medians of the smallest distances. The median of an even number is the mean of the middle two.

    Examples
    --------
    Two query barcodes, 0 and 3, against slides {1} and {0, 7}: smallest distances 1 and 1, 0 and 1.

    >>> median_of_minima(np.uint8([[0], [3]]), np.uint8([[1], [0], [7]]), np.array([0, 1])).tolist()
    [1.0, 0.5]
    """
    smallest = [np.minimum.reduceat(hamming(barcodes, row), starts) for row in query]
    return np.asarray(np.median(smallest, axis=0), np.float64)
