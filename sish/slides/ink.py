"""Ink of pens: dense, smooth, and of a hue that stained tissue rarely has.

Pens write on the cover glass, far above the focal plane, so ink has no texture at the scale of cells, and
stained tissue has. Hue alone does not tell them apart: haematoxylin may be as blue as a pen, and blood as
red.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sish.slides.glass import Blocks, Glass

DENSE = 0.45
"""Largest share of the light that ink lets through, in the channel that it absorbs most."""

FAINT = 0.9
"""The same for the blurred rim of a mark."""

RIM_BLOCKS = 5
"""Width of that rim, at most: 200 um."""

SMOOTH_INK = 0.04
"""Largest standard deviation in a smooth block of ink, as a share of its optical density."""

SMOOTH_SHARE = 0.3
"""A mark is ink if at least this share of its blocks is smooth; the others are its edges."""

MIN_BLOCKS = 12
"""Smaller marks (0.02 mm2) are left to the rules for specks."""

SQUARE = np.ones((3, 3), bool)


def ink_of(blocks: Blocks, glass: Glass) -> NDArray[np.bool_]:
    """Return which blocks of an overview with this glass are ink, bool (h, w)."""
    light = np.clip(blocks.mean / np.array(glass.colour, np.float32), 1 / 255, 1)
    darkest, has_hue = light.min(axis=-1), has_hue_of_ink(-np.log(light))
    labels, n_marks = ndimage.label(has_hue & (darkest < DENSE), SQUARE)
    if not n_marks:
        return np.zeros(labels.shape, bool)
    smooth = blocks.roughness < SMOOTH_INK * -np.log(light.mean(axis=-1))
    sizes = np.bincount(labels.ravel())
    n_smooth = np.bincount(labels[smooth], minlength=n_marks + 1)
    is_ink = (sizes >= MIN_BLOCKS) & (n_smooth >= SMOOTH_SHARE * sizes)
    is_ink[0] = False
    marks = is_ink[labels]
    rim = ndimage.binary_dilation(marks, SQUARE, RIM_BLOCKS, mask=marks | (has_hue & (darkest < FAINT)))
    edged: NDArray[np.bool_] = ndimage.binary_dilation(rim, SQUARE)
    return edged


def has_hue_of_ink(density: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where optical densities have the hue of blue, green, red or black ink.

    Blue and green ink absorb more red than green. Red ink absorbs as much blue as green, and hardly any red
    (eosin absorbs half as much blue). Black ink absorbs all alike.

    Parameters
    ----------
    density : float32 (h, w, 3)
        Optical densities of red, green and blue.

    Returns
    -------
    bool (h, w)
        True where the hue is ink's.
    """
    red, green, blue = np.moveaxis(density, -1, 0)
    is_red = (blue > 0.75 * green) & (blue < 1.25 * green) & (red < 0.25 * green)
    is_black = density.min(axis=-1) > 0.75 * density.max(axis=-1)
    has_hue: NDArray[np.bool_] = (red > green) | is_red | is_black
    return has_hue
