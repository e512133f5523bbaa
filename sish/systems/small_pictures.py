"""Small pictures for the systems that look at whole images: X-rays, photographs of lesions, their masks.

Sizes are (width, height) in pixels, arrays (height, width). A picture is resized as a whole, whatever its
aspect; where it shrinks, pixels are averaged, so nothing aliases.
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

__all__ = ["SizePx", "read_given_mask", "read_picture"]

SizePx = tuple[int, int]
"""Width and height in pixels."""


def read_picture(path: Path, size_px: SizePx, mode: Literal["RGB", "L"] = "RGB") -> NDArray[np.uint8]:
    """Return an image file as uint8 (height, width, 3), or (height, width) for mode L (grey).

    It is read as `sish.slides.formats.pictures.decode_picture` says: upright, on white, grey of 16 bits scaled to 8.
    SlideOpenError where the file is missing or does not decode.
    """
    picture = decode_picture(path).convert(mode)
    if picture.size != size_px:
        picture = picture.resize(size_px, Image.Resampling.BICUBIC)
    return np.array(picture, np.uint8)


def read_given_mask(item: Item, size_px: SizePx) -> NDArray[np.bool_]:
    """Return the mask that comes with an image, bool (height, width): true where its file is not 0.

    MissingMaskError where it has none, or one of another size than the image.
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
