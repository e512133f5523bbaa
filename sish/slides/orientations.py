"""The eight orientations of a patch: a slide has no up and no left.

Orientations 0 to 3 are 0 to 3 quarter turns counterclockwise. Orientations 4 to 7 first mirror the patch
(left and right exchanged), then turn it 0 to 3 times. `sish.vqvae.p4m.turned` does the same to torch's maps.
"""

import numpy as np
from numpy.typing import NDArray

ORIENTATIONS = 8
"""How many there are."""


def oriented(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Return patches in one orientation.

    Parameters
    ----------
    pixels : NDArray[np.uint8]
        One patch (H, W, C) or several (N, H, W, C).
    number : int
        The orientation, 0 to 7.

    Returns
    -------
    NDArray[np.uint8]
        Contiguous; for odd numbers H and W are exchanged.

    Examples
    --------
    >>> patch = np.uint8([[[0], [1]], [[2], [3]]])
    >>> [oriented(patch, number).ravel().tolist() for number in (0, 1, 4, 5)]
    [[0, 1, 2, 3], [1, 3, 0, 2], [1, 0, 3, 2], [0, 2, 1, 3]]
    """
    mirrored = pixels[..., ::-1, :] if number >= ORIENTATIONS // 2 else pixels
    return np.ascontiguousarray(np.rot90(mirrored, number % (ORIENTATIONS // 2), axes=(-3, -2)))
