"""Measure an archive, so that the features of a foreign encoder make good barcodes.

The signs of feature vectors say little if all vectors share a large common part. Centring removes this part:
it subtracts the mean of patches like those that will be searched. ``python -m benchmarks.binarisation``
measures how many neighbours centring keeps.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.encoders import MeasuredEncoder
from sish.errors import IndexFormatError, ParameterError
from sish.index.barcode import Binarisation, barcodes_of
from sish.vqvae.random_pairs import random_pair_distances

_PAIRS = 100_000
_LONGEST = 1 << 16  # numbers of a feature: those of known networks have some thousand
_PERCENTILE = 1.0  # of the distances of random pairs, as for the shipped weights


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The centre and the threshold of an archive, measured once on its first patches and kept with it."""

    centre: NDArray[np.float32]
    """Float32 (F,): mean feature of these patches."""
    threshold: int
    """The distance in bits within which 1 % of random pairs of these patches lie. Closer ones are similar,
    until the archive is large enough to measure its own threshold (`sish.thresholds`)."""
    patches: int
    """Number of these patches."""

    @classmethod
    def learn(cls, features: NDArray[np.float32]) -> Calibration:
        """Measure on features (M, F) of patches of several slides; ParameterError for fewer than 2."""
        if len(features) < 2:
            raise ParameterError(f"got {len(features)} patches to measure features on; want at least 2")
        centre = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        barcodes = barcodes_of(features, "projection", centre=centre)
        distances = random_pair_distances(barcodes, _PAIRS)
        return cls(centre, int(np.percentile(distances, _PERCENTILE)), len(features))

    @property
    def fingerprint(self) -> str:
        """Six hexadecimal digits of the centre: barcodes of different centres cannot be compared."""
        return hashlib.sha256(self.centre.astype("<f4").tobytes()).hexdigest()[:6]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON, as an index keeps them."""
        numbers = base64.b64encode(self.centre.astype("<f4").tobytes()).decode()
        return {"centre": numbers, "threshold": self.threshold, "patches": self.patches}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Calibration:
        """Return the calibration that `to_json` wrote; IndexFormatError for anything else."""
        try:
            centre = np.frombuffer(base64.b64decode(stored["centre"], validate=True), "<f4")
            threshold, patches = stored["threshold"], stored["patches"]
            if not 1 <= len(centre) <= _LONGEST or not np.isfinite(centre).all():
                raise ValueError(f"a centre of {len(centre)} numbers, wanted up to {_LONGEST} finite ones")
            if not all(type(number) is int and 0 <= number < 2**63 for number in (threshold, patches)):
                raise ValueError("a threshold or a number of patches that is no whole number")
        except (TypeError, KeyError, ValueError) as error:
            raise IndexFormatError(
                f"the index's calibration is not one ({repr(error)[:200]}): "
                "open it with the release that made it"
            ) from error
        return cls(centre.astype(np.float32), threshold, patches)


@dataclass(frozen=True, slots=True, eq=False)
class Barcoder:
    """The rule that makes barcodes of one encoder's features, and the distance of similar barcodes."""

    binarisation: Binarisation
    """The rule of the encoder."""
    threshold: int
    """Bits within which two barcodes count as similar."""
    centre: NDArray[np.float32] | None = None
    """Float32 (F,): the mean feature of the archive, where it was measured."""

    @classmethod
    def of(cls, encoder: MeasuredEncoder, calibration: Calibration | None = None) -> Barcoder:
        """Return an encoder's barcoder, with the archive's centre and threshold if they were measured."""
        if calibration is None:
            return cls(encoder.binarisation, encoder.hamming_threshold)
        return cls(encoder.binarisation, calibration.threshold, calibration.centre)

    @classmethod
    def measured_on(cls, features: NDArray[np.float32], encoder: MeasuredEncoder) -> Barcoder:
        """Return the barcoder for features (M, F) of an archive; a foreign encoder's are measured first."""
        foreign = encoder.binarisation == "projection" and len(features) > 1
        return cls.of(encoder, Calibration.learn(features) if foreign else None)

    def barcodes(self, features: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return barcodes uint8 (N, bytes) of features float32 (N, F)."""
        return barcodes_of(features, self.binarisation, centre=self.centre)
