"""Projection of feature vectors of any length to 1,024 numbers whose signs make a barcode.

The sign of a number is informative only if the number is as often above 0 as below. Features of networks are
not like that: many are never negative, and all vectors share a large common part. So a vector is first
centred, on the mean of an archive or on its own mean. Then a random rotation spreads what is left evenly over
all numbers. The share of signs in which two rotated vectors differ is, on average, the angle between them
over pi (Charikar 2002, section 3).

The rotation is three rounds of random signs and a Hadamard transform (Ailon and Chazelle 2006; three rounds
as in Andoni et al. 2015, section 4). It takes O(P log P) additions of two numbers each. The order of these
additions is fixed, so the projection of a vector does not depend on the other vectors of its batch. A matrix
product does not guarantee that.

Features may be of several parts, such as those of two networks side by side. Each part is scaled to a length
of its own before the rotation, so that a part of large numbers does not hide the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError

BITS = 1024
"""Numbers of a projection, and bits of a barcode."""

_ROUNDS = 3
_SEED = 1024


@dataclass(frozen=True, slots=True)
class Part:
    """A range of an encoder's features, which is scaled to a length of its own."""

    features: int
    """How many features it has; a part begins where the one before it ends."""
    weight: float = 1.0
    """Its length beside the others."""
    standardised: bool = False
    """Whether its features are first divided by their standard deviations in the archive."""


def project(
    features: ArrayLike,
    *,
    centre: NDArray[np.float32] | None = None,
    spread: NDArray[np.float32] | None = None,
    parts: Sequence[Part] = (),
    bits: int = BITS,
) -> NDArray[np.float32]:
    """Return features of any length centred, rotated, and scaled to length 1, O(N P log P).

    P is F rounded up to a power of two, at least `bits`. Where F is at most `bits`, the cosine of two
    projections is that of the centred and scaled features. Of longer vectors the first `bits` numbers are
    kept.

    Parameters
    ----------
    features : float (N, F)
        Finite numbers.
    centre : float32 (F,), optional
        Subtracted first. Default: each vector's own mean, in each part its own.
    spread : float32 (F,), optional
        Divides the centred features. Default: nothing is divided.
    parts : sequence of Part
        Ranges of the features, which are scaled to their lengths one by one; together they have F features.
        Default: all features are one part.
    bits : int
        Length of a projection, a power of two.

    Returns
    -------
    float32 (N, bits)
        A projection for each row.

    Raises
    ------
    ParameterError
        If features are empty or not finite, or the centre, the spread or the parts have another length.

    Examples
    --------
    >>> found = project(np.eye(3) * 5, centre=np.zeros(3, np.float32), bits=8)
    >>> found.shape, bool(np.abs(found @ found.T - np.eye(3)).max() < 1e-6)
    ((3, 8), True)
    """
    values = _scaled(features, centre, spread, parts)
    size = max(bits, 1 << (values.shape[1] - 1).bit_length())
    padded = np.zeros((len(values), size), np.float32)
    padded[:, : values.shape[1]] = values
    for signs in rotation_signs(size):
        padded = _hadamard(padded * signs)
    return _of_length_1(padded[:, :bits])


def calibrated(
    features: ArrayLike,
    *,
    centre: NDArray[np.float32] | None = None,
    spread: NDArray[np.float32] | None = None,
    parts: Sequence[Part] = (),
) -> NDArray[np.float32]:
    """Return features centred and scaled to length 1: `project` rotates them, which changes no cosine.

    Parameters
    ----------
    features, centre, spread, parts
        As of `project`.

    Returns
    -------
    float32 (N, F)
        A vector for each row. The share of bits in which two barcodes differ is, on average, the angle
        between their vectors over pi.
    """
    return _of_length_1(_scaled(features, centre, spread, parts))


def _scaled(
    features: ArrayLike,
    centre: NDArray[np.float32] | None,
    spread: NDArray[np.float32] | None,
    parts: Sequence[Part],
) -> NDArray[np.float32]:
    """Return features centred, with each part scaled to a length of its own, float32 (N, F)."""
    values = np.asarray(features, np.float32)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ParameterError(f"features have shape {values.shape}; give (N, F) with F of at least 1")
    if not np.isfinite(values).all():
        raise ParameterError("features hold NaN or infinity; give finite numbers")
    for name, given in (("centre", centre), ("spread", spread)):
        if given is not None and given.shape != values.shape[1:]:
            raise ParameterError(
                f"features are {values.shape[1]} long and their {name} {given.shape}; give one of both"
            )
    scaled = np.empty_like(values)
    for part, own in _ranges(parts or (Part(values.shape[1]),), values.shape[1]):
        vectors = values[:, own]
        vectors = vectors - (vectors.mean(axis=1, keepdims=True) if centre is None else centre[own])
        if spread is not None:
            vectors /= spread[own]
        scaled[:, own] = _of_length_1(vectors) * np.float32(part.weight)
    return scaled


def _ranges(parts: Sequence[Part], n_features: int) -> list[tuple[Part, slice]]:
    """Return each part with its features; ParameterError if together they are not as many as there are."""
    ends = np.cumsum([part.features for part in parts]).tolist()
    if ends[-1] != n_features:
        raise ParameterError(
            f"features are {n_features} long, and their parts {ends[-1]}; give parts that add up to them"
        )
    return [(part, slice(end - part.features, end)) for part, end in zip(parts, ends, strict=True)]


def _of_length_1(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors (N, P) scaled to length 1; a vector of zeros stays."""
    length = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.where(length > 0, length, np.float32(1)), np.float32)


def rotation_signs(size: int) -> NDArray[np.float32]:
    """Return float32 (rounds, size) of -1 and 1, from raw words, which numpy promises never to change."""
    words = np.random.PCG64(_SEED).random_raw(_ROUNDS * size)
    return np.where(words >> np.uint64(63), np.float32(1), np.float32(-1)).reshape(_ROUNDS, size)


def _hadamard(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the orthonormal Hadamard transform of each row, (N, P) with P a power of two."""
    rows, size = vectors.shape
    half = 1
    while half < size:
        pairs = vectors.reshape(rows, size // (2 * half), 2, half)
        left, right = pairs[:, :, 0], pairs[:, :, 1]
        vectors = np.stack([left + right, left - right], axis=2)
        half *= 2
    return vectors.reshape(rows, size) * np.float32(size**-0.5)
