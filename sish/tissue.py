"""The default encoder: a network of photographs beside the filters and the codes of our autoencoder.

The features of a patch are three parts one after another (`PARTS`): 1,536 statistics of EfficientNet-lite0,
256 statistics of the autoencoder's first filters, and the square roots of how often each of its 128 codes
occurs. They are centred and scaled by statistics that come with the release, so that their cosine is of use
as it is. An index measures them again on its own archive (:mod:`sish.calibration`). Turning or mirroring a
patch does not change them, up to rounding.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from sish.calibration import Calibration
from sish.index.barcode import Binarisation
from sish.index.projection import Part
from sish.vqvae.stages import STRIDE
from sish.vqvae.tissue_network import (
    N_CODES,
    N_FILTERS,
    N_NETWORK,
    TissueNetwork,
    TissueParts,
    shipped,
    shipped_codebook,
)

PARTS = (Part(N_NETWORK, 1.0, standardised=True), Part(N_FILTERS, 0.75), Part(N_CODES, 0.25))
"""The parts of the features; the model card tells how their weights were chosen."""

PATCH_PX, PATCH_MPP = 256, 1.0
"""Side of the patches that it is meant for, in pixels, and their scale, um per pixel."""

_STATISTICS = "tissue.safetensors"


@dataclass(frozen=True, slots=True)
class TissueEncoding:
    """Codes and features of N patches."""

    codes: NDArray[np.uint8]
    """uint8 (N, H / 8, W / 8)."""
    features: NDArray[np.float32]
    """float32 (N, 1920)."""


class TissueEncoder:
    """The encoder that is used where none is named; it needs no torch.

    Parameters
    ----------
    device : str
        ``cpu``, or ``cuda`` with the package onnxruntime-gpu.
    threads : int, optional
        Patches at the same time; features do not depend on it. Default: as of
        :class:`sish.vqvae.tissue_network.TissueNetwork`.

    Raises
    ------
    ParameterError
        If ONNX Runtime does not have the device.

    Examples
    --------
    >>> encoded = TissueEncoder().encode(np.zeros((2, 256, 256, 3), np.uint8))
    >>> encoded.features.shape, encoded.codes.shape
    ((2, 1920), (2, 32, 32))
    """

    patch_px, mpp = PATCH_PX, PATCH_MPP
    licence = "Apache-2.0"
    binarisation: Binarisation = "projection"
    stride = STRIDE
    orientation_invariant = True
    n_features = sum(part.features for part in PARTS)
    parts = PARTS

    def __init__(self, device: str = "cpu", threads: int | None = None) -> None:
        """See the class."""
        self._network = TissueNetwork(device, threads)
        stored = shipped(_STATISTICS)
        numbers = load(stored)
        self._mean, self._spread, self.hamming_threshold = (
            numbers["mean"],
            numbers["spread"],
            int(numbers["threshold"]),
        )
        digest = hashlib.sha256(self._network.digest.encode() + stored)
        self.fingerprint = f"tissue-{digest.hexdigest()[:12]}"

    @cached_property
    def codebook(self) -> NDArray[np.float32]:
        """Float32 (128, 64), the vectors that its codes stand for."""
        return shipped_codebook()

    @property
    def statistics(self) -> Calibration:
        """The shipped statistics of its features: these are centred and scaled by them already."""
        zeros, ones = np.zeros(self.n_features, np.float32), np.ones(self.n_features, np.float32)
        return Calibration(zeros, self.hamming_threshold, patches=0, spread=ones)

    def encode(self, images: NDArray[np.uint8]) -> TissueEncoding:
        """Return codes and features of patches uint8 (N, H, W, 3), H and W multiples of 32."""
        return TissueEncoding(self._network.codes(images), self.features(images))

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return only the features of `encode`, float32 (N, 1920): texture keys need no more."""
        found: NDArray[np.float32] = (raw_features(self._network(images)) - self._mean) / self._spread
        return found


def raw_features(parts: TissueParts) -> NDArray[np.float32]:
    """Return the three parts side by side, float32 (N, 1920), before they are centred and scaled."""
    return np.concatenate([parts.network, parts.filters, np.sqrt(parts.codes)], axis=1)
