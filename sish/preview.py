"""A picture of a mosaic: the thumbnail, the outline of the tissue, and boxes coloured by cluster."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from sish.errors import ParameterError
from sish.outputs import check_output, write_output
from sish.slides.mosaic import Mosaic
from sish.slides.slide import Slide
from sish.slides.tissue import Mask, TissueMask

CLUSTER_COLOURS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
    (60, 60, 60),
    (148, 0, 211),
    (128, 128, 0),
)
"""One for each colour cluster, again from the first after the ninth. The first six are Okabe and Ito's, which
colour-blind eyes tell apart; their pink is left out because stained tissue is pink."""

OUTLINE_COLOUR = (0, 110, 60)

FILL_ALPHA = 28
"""Opacity of a box, out of 255: the tissue under it stays visible."""


def draw_mosaic(slide: Slide, tissue: TissueMask, mosaic: Mosaic, max_px: int = 1024) -> Image.Image:
    """Draw a slide's mosaic on its thumbnail; small images are not enlarged.

    Parameters
    ----------
    slide : Slide
        An open slide.
    tissue : TissueMask
        Its tissue, to be outlined.
    mosaic : Mosaic
        Its mosaic.
    max_px : int
        Largest side of the picture.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    ParameterError
        If `max_px` is below 1.
    SlideReadError
        If the slide's pixels fail.
    """
    if max_px < 1:
        raise ParameterError(f"got max_px={max_px}; want at least 1")
    _, _, width, height = slide.bounds
    step = max(1.0, max(width, height) / max_px)
    thumbnail = slide.overview(step * slide.mpp)[:max_px, :max_px].copy()
    stroke = max(1, round(max(thumbnail.shape) / 500))
    thumbnail[outline(tissue, step, thumbnail.shape[:2], stroke)] = OUTLINE_COLOUR
    picture = Image.fromarray(thumbnail)
    # Drawing in RGBA mode on an RGB picture blends the fill.
    draw = ImageDraw.Draw(picture, "RGBA")
    low = (mosaic.l0_xy - np.array(slide.bounds[:2])) / step
    side = mosaic.l0_size / step
    for (left, top), cluster in zip(low.tolist(), mosaic.cluster.tolist(), strict=True):
        colour = CLUSTER_COLOURS[cluster % len(CLUSTER_COLOURS)]
        box = (left, top, max(left, left + side - 1), max(top, top + side - 1))
        draw.rectangle(box, fill=(*colour, FILL_ALPHA), outline=colour, width=stroke + 1)
    return picture


PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""The endings of pictures that are written, and their formats."""


def write_picture(
    picture: Image.Image, path: str | os.PathLike[str], *, slide: str | os.PathLike[str]
) -> Path:
    """Write a picture of a slide (.png, .jpg); ParameterError or OutputError as `write_output`."""
    check_picture(path, slide)
    stream = io.BytesIO()
    picture.save(stream, PICTURES[Path(path).suffix.lower()])
    return write_output(path, stream.getvalue(), inputs=[slide], replaces=tuple(PICTURES))


def check_picture(path: str | os.PathLike[str], slide: str | os.PathLike[str]) -> None:
    """Refuse a path that :func:`write_picture` would refuse, before the slide is opened."""
    if Path(path).suffix.lower() not in PICTURES:
        raise ParameterError(f"cannot write {path}: its ending is none of a picture; want .png or .jpg")
    check_output(path, inputs=[slide], replaces=tuple(PICTURES))


def outline(tissue: TissueMask, step: float, shape: tuple[int, int], stroke: int) -> Mask:
    """Return the inner rim of the tissue, bool of ``shape``; a thumbnail pixel spans ``step`` of level 0."""
    height, width = shape
    box = (0, 0, width * step / tissue.l0_per_px, height * step / tissue.l0_per_px)
    clipped = (0.0, 0.0, min(box[2], tissue.mask.shape[1]), min(box[3], tissue.mask.shape[0]))
    grey = Image.fromarray(tissue.mask.astype(np.uint8) * 255)
    large = np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR, box=clipped)) >= 128
    rim: Mask = large & ~ndimage.binary_erosion(large, iterations=stroke, border_value=0)
    return rim
