"""Small pictures for the systems that look at whole images: X-rays, photographs of lesions, their masks.

Sizes are (width, height) in pixels, arrays (height, width). A picture is resized as a whole, whatever its
aspect; where it shrinks, pixels are averaged, so nothing aliases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sish.errors import MissingMaskError, SlideOpenError
from sish.systems.item import Item

__all__ = ["SizePx", "read_given_mask", "read_picture"]

SizePx = tuple[int, int]
"""Width and height in pixels."""


def read_picture(path: Path, size_px: SizePx, mode: Literal["RGB", "L"] = "RGB") -> NDArray[np.uint8]:
    """An image file as uint8 (height, width, 3), or (height, width) for mode L (grey).

    SlideOpenError where the file is missing or does not decode.
    """
    try:
        with Image.open(path) as image:
            picture = image.convert(mode)
            if picture.size != size_px:
                picture = picture.resize(size_px, Image.Resampling.BICUBIC)
            return np.array(picture, np.uint8)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise SlideOpenError(
            f"{path} is not a readable image ({error}); give a PNG, JPEG or TIFF picture"
        ) from error


def read_given_mask(item: Item, size_px: SizePx) -> NDArray[np.bool_]:
    """The mask that comes with an image, bool (height, width): true where its file is not 0.

    MissingMaskError where it has none, or one of another size than the image.
    """
    if item.mask is None:
        raise MissingMaskError(
            f"{item.path} has no mask; name one in the column mask of its labels.csv, or give a mask"
            " predictor (`sish train-masks` trains one)"
        )
    try:
        with Image.open(item.path) as image, Image.open(item.mask) as mask:
            if image.size != mask.size:
                raise MissingMaskError(
                    f"{item.mask} is {mask.size[0]} x {mask.size[1]} px and its image {item.path} is"
                    f" {image.size[0]} x {image.size[1]}; give a mask of the image's size"
                )
            inside = np.asarray(mask.convert("L")) > 0
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise SlideOpenError(
            f"{item.mask} or its image is not readable ({error}); give both as pictures"
        ) from error
    share = Image.fromarray(inside.astype(np.float32)).resize(size_px, Image.Resampling.BOX)
    return np.asarray(share) >= 0.5
