"""Read whole images at a small size: X-rays, photographs of lesions and their masks.

Sizes are (width, height) in pixels, arrays (height, width). A picture is resized as a whole, its aspect is
not kept. Shrinking averages pixels, so that nothing aliases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sish.errors import MissingMaskError
from sish.slides.formats.pictures import decode_mask, decode_picture
from sish.systems.item import Item

SizePx = tuple[int, int]
"""Width and height in pixels."""


def read_picture(path: Path, size_px: SizePx, mode: Literal["RGB", "L"] = "RGB") -> NDArray[np.uint8]:
    """Read an image file at a size, as `sish.slides.formats.pictures.decode_picture` does.

    Parameters
    ----------
    path : Path
        A picture.
    size_px : (int, int)
        Width and height wanted.
    mode : {"RGB", "L"}
        Colour or grey.

    Returns
    -------
    uint8 (height, width, 3), or (height, width) for grey
        Upright, transparent parts white, 16 bits scaled to 8.
    """
    picture = decode_picture(path).convert(mode)
    if picture.size != size_px:
        picture = picture.resize(size_px, Image.Resampling.BICUBIC)
    return np.array(picture, np.uint8)


def read_given_mask(item: Item, size_px: SizePx) -> NDArray[np.bool_]:
    """Read the mask that comes with an image.

    Parameters
    ----------
    item : Item
        An image with a mask of its size.
    size_px : (int, int)
        Width and height wanted.

    Returns
    -------
    bool (height, width)
        True inside, where at least half of a pixel is not 0 in the file.

    Raises
    ------
    MissingMaskError
        If the item has no mask, or one of another size than the image.
    """
    if item.mask is None:
        raise MissingMaskError(
            f"{item.path} has no mask; name one in the column mask of its labels.csv, or give a mask"
            " predictor (`sish train-masks` trains one)"
        )
    size, inside = decode_picture(item.path).size, decode_mask(item.mask)
    if size != inside.shape[::-1]:
        raise MissingMaskError(
            f"{item.mask} is {inside.shape[1]} x {inside.shape[0]} px and its image {item.path} is"
            f" {size[0]} x {size[1]}; give a mask of the image's size"
        )
    share = Image.fromarray(inside.astype(np.float32)).resize(size_px, Image.Resampling.BOX)
    return np.asarray(share) >= 0.5
