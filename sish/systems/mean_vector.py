"""One vector a slide: the mean of its patches' features, compared by cosine.

Mean pooling is the simplest embedding of a slide, and slide encoders (TITAN, PRISM) are compared with it. The
features are centred and scaled on the database first, as barcodes see them, so that the part that all patches
share does not hide the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sish.barcoder import Barcoder
from sish.encoders import TISSUE, PatchEncoder
from sish.systems.base import Allowed, Scores, System
from sish.systems.item import Item
from sish.systems.patch_features import PatchDescriber, PatchFeatures, describer_for, sample_of


class MeanVector(System[PatchFeatures]):
    """Mean pooling, with the library's mosaic and features.

    A score is the cosine of two slides' mean vectors, from -1 to 1. A search is O(F S) for S slides. For an
    archive on disk give the means to :meth:`sish.Index.from_vectors`.

    Parameters
    ----------
    describer : PatchDescriber, optional
        Which patches are read, and the encoder. Default: a mosaic, and the encoder of :class:`sish.Index`.
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
    >>> hits = MeanVector().fit(items).search(Item("copy", items[1].path, mpp=1.0), k=2)
    >>> hits[0].item_id, round(hits[0].score, 3)
    ('b', 1.0)
    """

    name = "mean vector"

    def __init__(
        self, describer: PatchDescriber | None = None, *, encoder: str | PatchEncoder | None = None
    ) -> None:
        """See the class."""
        own = TISSUE if describer is None and encoder is None else encoder
        self._describer = describer_for(describer, own)

    def describe(self, item: Item) -> PatchFeatures:
        """Return the features of the mosaic's patches."""
        return self._describer.describe(item)

    def build(self, descriptions: Sequence[PatchFeatures]) -> None:
        """Measure the features, and keep the mean of each slide."""
        self._means = np.zeros((len(descriptions), 0), np.float32)
        if descriptions:
            sample = sample_of(self.items, descriptions)
            self._barcoder = Barcoder.measured_on(sample, self._describer.encoder)
            self._means = np.stack([self._mean(found) for found in descriptions])

    def _mean(self, found: PatchFeatures) -> NDArray[np.float32]:
        """Return the mean of a slide's features, scaled to length 1; zeros if there is nothing in it."""
        mean = self._barcoder.calibrated(found.features).mean(axis=0)
        length = np.linalg.norm(mean)
        return np.asarray(mean / length if length > 0 else mean, np.float32)

    def score(self, description: PatchFeatures, allowed: Allowed, k: int) -> Scores:
        """Return the cosine with each slide."""
        return Scores(self._means @ self._mean(description))

    def nbytes(self) -> int:
        """Return the bytes of all means."""
        return self._means.nbytes
