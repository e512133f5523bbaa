"""Barcodes from features, by what was measured on an archive or shipped with the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sish.calibration import Calibration
from sish.encoders import MeasuredEncoder
from sish.index.barcode import Binarisation, barcodes_of
from sish.index.projection import Part, calibrated


@dataclass(frozen=True, slots=True, eq=False)
class Barcoder:
    """The rule that makes barcodes of one encoder's features, and the distance of similar barcodes."""

    binarisation: Binarisation
    """The rule of the encoder."""
    threshold: int
    """Bits within which two barcodes count as similar."""
    centre: NDArray[np.float32] | None = None
    """Float32 (F,): the mean feature of the archive, where it was measured."""
    spread: NDArray[np.float32] | None = None
    """Float32 (F,): what divides the features, where they are divided."""
    parts: tuple[Part, ...] = ()
    """The parts of the encoder's features."""

    @classmethod
    def of(cls, encoder: MeasuredEncoder, calibration: Calibration | None = None) -> Barcoder:
        """Return an encoder's barcoder, by what was measured on the archive, else by what was shipped."""
        known = calibration or encoder.statistics
        if known is None:
            return cls(encoder.binarisation, encoder.hamming_threshold, parts=encoder.parts)
        return cls(encoder.binarisation, known.threshold, known.centre, known.spread, encoder.parts)

    @classmethod
    def measured_on(cls, features: NDArray[np.float32], encoder: MeasuredEncoder) -> Barcoder:
        """Return the barcoder for features (M, F) of an archive, measured first where that is needed."""
        enough = len(features) > (1 if encoder.statistics is None else 0)
        if encoder.binarisation != "projection" or not enough:
            return cls.of(encoder)
        return cls.of(encoder, Calibration.learn(features, encoder.parts, encoder.statistics))

    def calibrated(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features as their barcodes see them, of length 1, float32 (N, F)."""
        return calibrated(features, centre=self.centre, spread=self.spread, parts=self.parts)

    def barcodes(self, features: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return barcodes uint8 (N, bytes) of features float32 (N, F)."""
        return barcodes_of(
            features, self.binarisation, centre=self.centre, spread=self.spread, parts=self.parts
        )
