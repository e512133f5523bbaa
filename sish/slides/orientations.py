"""The eight orientations of a patch: four rotations, each also mirrored."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["ORIENTATIONS", "oriented"]

ORIENTATIONS = 8
"""Number 0 is the patch as it is, 1 to 3 its quarter turns against the clock, 4 to 7 those of its mirror
image."""


def oriented(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Patches uint8 (N, H, W, 3) in one orientation, (N, H, W, 3) or (N, W, H, 3).

    >>> patch = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)        # 0 1 over 2 3
    >>> [oriented(patch, number).ravel().tolist() for number in (0, 1, 4, 5)]
    [[0, 1, 2, 3], [1, 3, 0, 2], [1, 0, 3, 2], [0, 2, 1, 3]]
    """
    mirrored = pixels[:, :, ::-1] if number >= ORIENTATIONS // 2 else pixels
    return np.ascontiguousarray(np.rot90(mirrored, number % (ORIENTATIONS // 2), axes=(1, 2)))
