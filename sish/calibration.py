"""Measure an archive, so that the features of a network make good barcodes.

The signs of feature vectors say little if all vectors share a large common part. Centring removes this part:
it subtracts the mean of patches like those that will be searched. Features of very different sizes are
divided by their standard deviations too, where their encoder wants it (`sish.index.projection.Part`).
``python -m benchmarks.binarisation`` measures how many neighbours centring keeps.

A mean of few patches is a poor one. An encoder of sish therefore ships the statistics of other tissue: where
fewer than 500 patches of an archive were measured, shipped ones make up their number.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import IndexFormatError, ParameterError
from sish.index.barcode import barcodes_of
from sish.index.projection import Part
from sish.vqvae.random_pairs import random_pair_distances

ENOUGH = 500
"""Patches of an archive from which on the shipped statistics are not used."""

_PAIRS = 100_000
_LONGEST = 1 << 16  # numbers of a feature: those of known networks have some thousand
_PERCENTILE = 1.0  # of the distances of random pairs, as for the shipped weights
_LEAST_SPREAD = 1e-6  # of the mean; a feature that varies less is constant but for its rounding

Numbers = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Mean, deviation and threshold of an archive's features, measured once and kept with it."""

    centre: Numbers
    """Float32 (F,): mean feature of the measured patches."""
    threshold: int
    """The distance in bits within which 1 % of random pairs of these patches lie. Closer ones are similar,
    until the archive is large enough to measure its own threshold (`sish.thresholds`)."""
    patches: int
    """Number of patches of the archive that were measured."""
    spread: Numbers | None = None
    """Float32 (F,): standard deviation of each feature, 1 where a feature is not divided by it; None if none
    is."""
    shipped: int = 0
    """Number of shipped patches that are mixed in."""

    @classmethod
    def learn(
        cls, features: Numbers, parts: Sequence[Part] = (), prior: Calibration | None = None
    ) -> Calibration:
        """Measure on features (M, F) of patches of several slides.

        Parameters
        ----------
        features : float32 (M, F)
            The features.
        parts : sequence of Part
            The parts of the encoder's features.
        prior : Calibration, optional
            The statistics of other tissue. Where M is below 500, the result is that of M patches of the
            archive and 500 - M of the others; their thresholds are averaged by count.

        Returns
        -------
        Calibration
            What was measured.

        Raises
        ------
        ParameterError
            If there are fewer than 2 patches, or none beside a prior.
        """
        count, least = len(features), 2 if prior is None else 1
        if count < least:
            raise ParameterError(f"got {count} patches to measure features on; want at least {least}")
        mean = features.mean(axis=0, dtype=np.float64)
        variance = features.var(axis=0, dtype=np.float64)
        shipped = max(0, ENOUGH - count) if prior is not None else 0
        if prior is not None and shipped:
            mean, variance = _joined(mean, variance, prior, count / ENOUGH)
        centre, spread = mean.astype(np.float32), _spread_of(mean, variance, parts)
        threshold = 0
        if count > 1:
            barcodes = barcodes_of(features, "projection", centre=centre, spread=spread, parts=parts)
            threshold = int(np.percentile(random_pair_distances(barcodes, _PAIRS), _PERCENTILE))
        if prior is not None and shipped:
            own = count if count > 1 else 0  # one patch has no pairs
            threshold = round((own * threshold + shipped * prior.threshold) / (own + shipped))
        return cls(centre, threshold, count, spread, shipped)

    @property
    def fingerprint(self) -> str:
        """Six hexadecimal digits of centre and spread: barcodes of different ones cannot be compared."""
        numbers = [self.centre] if self.spread is None else [self.centre, self.spread]
        return hashlib.sha256(b"".join(map(_bytes_of, numbers))).hexdigest()[:6]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON; the newer fields are left out at their defaults."""
        stored: dict[str, Any] = {
            "centre": base64.b64encode(_bytes_of(self.centre)).decode(),
            "threshold": self.threshold,
            "patches": self.patches,
        }
        if self.spread is not None:
            stored["spread"] = base64.b64encode(_bytes_of(self.spread)).decode()
        if self.shipped:
            stored["shipped"] = self.shipped
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Calibration:
        """Return the calibration that `to_json` wrote; IndexFormatError for anything else."""
        try:
            centre = _numbers(stored["centre"])
            spread = _numbers(stored["spread"]) if "spread" in stored else None
            counts = stored["threshold"], stored["patches"], stored.get("shipped", 0)
            if spread is not None and (spread.shape != centre.shape or (spread <= 0).any()):
                raise ValueError(f"a spread of {len(spread)} numbers, wanted {len(centre)} above 0")
            if not all(type(number) is int and 0 <= number < 2**63 for number in counts):
                raise ValueError("a threshold or a number of patches that is no whole number")
            if odd := set(stored) - {"centre", "spread", "threshold", "patches", "shipped"}:
                raise ValueError(f"unknown fields: {', '.join(map(repr, sorted(odd)))}")
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            raise IndexFormatError(
                f"the index's calibration is not one ({repr(error)[:200]}): "
                "open it with the release that made it"
            ) from error
        threshold, patches, shipped = counts
        return cls(centre, threshold, patches, spread, shipped)


def _joined(
    mean: NDArray[np.float64], variance: NDArray[np.float64], prior: Calibration, share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance of patches of which `share` have these, and all others those of the prior."""
    other = prior.centre.astype(np.float64)
    spread = np.ones(1) if prior.spread is None else prior.spread.astype(np.float64)
    apart = share * (1 - share) * (mean - other) ** 2
    return share * mean + (1 - share) * other, share * variance + (1 - share) * spread**2 + apart


def _spread_of(
    mean: NDArray[np.float64], variance: NDArray[np.float64], parts: Sequence[Part]
) -> Numbers | None:
    """Return deviations (F,), 1 outside of standardised parts; None if no part is standardised."""
    if not any(part.standardised for part in parts):
        return None
    divided = np.repeat([part.standardised for part in parts], [part.features for part in parts])
    deviation = np.sqrt(variance)
    varies = deviation > _LEAST_SPREAD * np.abs(mean)
    return np.where(divided & varies, deviation, 1.0).astype(np.float32)


def _bytes_of(numbers: Numbers) -> bytes:
    return numbers.astype("<f4").tobytes()


def _numbers(stored: str) -> Numbers:
    """Return the numbers of a text of base64; ValueError unless they are some finite ones."""
    found = np.frombuffer(base64.b64decode(stored, validate=True), "<f4")
    if not 1 <= len(found) <= _LONGEST or not np.isfinite(found).all():
        raise ValueError(f"{len(found)} numbers, wanted up to {_LONGEST} finite ones")
    return found.astype(np.float32)
