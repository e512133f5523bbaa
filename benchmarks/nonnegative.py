"""Features that are never negative, which the reduction of the slide similarity to 128 features is meant for.

The coefficient of variation, sigma / mean, chooses features by their mean: of features with both signs the
mean is near 0, and what it chooses is chance. The default encoder's network and codes give features of one
sign before they are centred: how much each channel of the network varies over a patch, and how often each
code occurs in it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.watched import Seen
from sish.encoders import MeasuredEncoder
from sish.index.barcode import Binarisation
from sish.vqvae.stages import KEPT_CHANNELS, STRIDE
from sish.vqvae.tissue_network import N_CODES, N_NETWORK, TissueNetwork

N_DEVIATIONS = N_NETWORK // 2
DEVIATIONS, CODES = slice(0, N_DEVIATIONS), slice(N_DEVIATIONS, N_DEVIATIONS + N_CODES)
"""The columns of `NonNegative`: deviations of the network's channels, and shares of the codes."""


class NonNegative:
    """An encoder whose features are not negative: 768 deviations of the network, then shares of 128 codes.

    Examples
    --------
    >>> features = NonNegative().features(np.zeros((1, 64, 64, 3), np.uint8))
    >>> features.shape, float(features.min()) >= 0, round(float(features[0, CODES].sum()), 3)
    ((1, 896), True, 1.0)
    """

    fingerprint, licence = "non-negative", "Apache-2.0"
    patch_px, mpp, stride = 224, 1.0, STRIDE
    binarisation: Binarisation = "projection"
    hamming_threshold = 0
    n_features = CODES.stop
    parts, statistics, codebook = (), None, None
    orientation_invariant = True

    @cached_property
    def _network(self) -> TissueNetwork:
        return TissueNetwork()

    def encode(self, images: NDArray[np.uint8]) -> Seen:
        """Return only the features, as an encoding without codes."""
        return Seen(None, self.features(images))

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 (N, 896) of patches uint8 (N, H, W, 3), H and W multiples of 32."""
        found = self._network(images)
        return np.concatenate([found.network[:, _deviations()], found.codes], axis=1)


class Columns:
    """Some columns of the features of an encoder."""

    def __init__(self, encoder: MeasuredEncoder, columns: slice) -> None:
        """Take the encoder, which others may share, and the columns."""
        self._encoder, self._columns = encoder, columns

    def __getattr__(self, name: str) -> Any:
        """Pass on every other attribute of the encoder."""
        return getattr(self._encoder, name)

    def encode(self, images: NDArray[np.uint8]) -> Seen:
        """Return only the features, as an encoding without codes."""
        return Seen(None, self.features(images))

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return these columns of the features."""
        return self._encoder.features(images)[:, self._columns]


def _deviations() -> NDArray[np.bool_]:
    """Return which numbers of the network are deviations, bool (1536,)."""
    return np.concatenate([np.repeat([False, True], channels) for channels in KEPT_CHANNELS])
