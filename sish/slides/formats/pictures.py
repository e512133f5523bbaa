"""Picture files, decoded by one function for all that uses pictures: upright, 8 bits, on white.

``decode_picture`` reads PNG, JPEG, TIFF, BMP and WebP as a viewer shows them: turned as their EXIF or TIFF
orientation says, and white where they are transparent. Palettes, CMYK and 1 bit become RGB or grey, and grey
of 16 bits is scaled to 8. Pictures that cannot be shown without a guess are refused with the reason:
floating-point pixels, LAB colours, channels of fluorescence. Of a TIFF of several pages the main one is read,
not its thumbnail.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from sish.errors import SlideOpenError, SlideReadError, about_its_path
from sish.slides.formats.checks import check_decoded, one_line, unreadable
from sish.slides.formats.levels import Pixels
from sish.slides.formats.tiff import TiffLevels
from sish.slides.formats.tiff_pages import UnsuitedTiff, main_page_number
from sish.slides.formats.upright import turn

PLAIN_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""Formats that Pillow may try: its other decoders serve no microscope and only widen the door."""

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that detectors use of the 16 of a file."""

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262


@about_its_path
def decode_picture(path: Path) -> Image.Image:
    """Decode a picture: upright, 8 bits a sample, laid on white.

    Parameters
    ----------
    path : Path
        A PNG, JPEG, TIFF, BMP or WebP file.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, or L where it is grey.

    Raises
    ------
    SlideNotFoundError
        If there is no such file.
    SlideOpenError
        If the file is broken, too large, or not a picture that can be shown without a guess.

    Notes
    -----
    Grey of 16 bits is scaled from the depth that its brightest pixel needs (8, 10, 12, 14 or 16 bits), since
    files do not tell how many bits a detector filled. A picture of 8 bits that was widened (every value times
    257) becomes what it was.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "black.png")
    ...     Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(file)
    ...     decode_picture(file).size, decode_picture(file).mode
    ((40, 30), 'RGB')
    """
    try:
        if is_tiff(path):
            with contextlib.suppress(UnsuitedTiff):
                return _of_tiff(path)
        with open_picture(path) as image:
            return plain(image, path)
    except UnidentifiedImageError:
        raise SlideOpenError(
            f"{path}: not a readable picture; give a PNG, JPEG, TIFF, BMP or WebP file"
        ) from None


@about_its_path
def decode_mask(path: Path) -> NDArray[np.bool_]:
    """Decode a mask, upright.

    Parameters
    ----------
    path : Path
        A PNG, TIFF or BMP file.

    Returns
    -------
    bool (height, width)
        True where pixels are visible and not 0.

    Raises
    ------
    SlideOpenError
        If the file is missing or does not decode.
    """
    try:
        with open_picture(path) as image:
            image = ImageOps.exif_transpose(image)
            if is_deep(image):
                return np.asarray(image).astype(np.bool_)
            if not image.has_transparency_data:
                return np.asarray(image.convert("L")) > 0
            grey, alpha = (np.asarray(band) for band in image.convert("RGBA").convert("LA").split())
            return (grey > 0) & (alpha > 0)
    except UnidentifiedImageError:
        raise SlideOpenError(f"{path}: not a readable mask; give a PNG, TIFF or BMP file") from None


@contextlib.contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """Open a picture by Pillow, at the main page of a TIFF; its size is checked before a pixel is decoded.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    PIL.Image.Image
        The picture, not yet decoded.

    Raises
    ------
    UnidentifiedImageError
        If Pillow does not know the format.
    SlideOpenError
        If it cannot be opened, or an error arises inside the context.
    """
    with warnings.catch_warnings():
        # Pillow only warns up to twice its limit, and of odd tags; check_decoded refuses the former.
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=PLAIN_FORMATS) as image:
                if image.format == "TIFF":
                    image.seek(main_page_number(path))
                    _check_compression(image, path)
                check_decoded(image.size, path)
                yield image
        except UnidentifiedImageError:
            raise
        except Image.DecompressionBombError as error:
            advice = "convert it to a tiled pyramidal TIFF"
            raise SlideOpenError(f"{path}: {one_line(error)}; {advice}") from error
        except (OSError, SyntaxError, ValueError, MemoryError, EOFError) as error:
            raise SlideOpenError(f"{path}: not a readable image: {one_line(error)}; copy it again") from error


def _check_compression(image: Image.Image, path: Path) -> None:
    """Refuse a TIFF in WebP: Pillow knows the name, and its libtiff only fails on the pixels."""
    if image.info.get("compression") == "webp":
        raise SlideOpenError(
            f"{path}: is a TIFF compressed in WebP, which is not read; convert it to a TIFF in JPEG or LZW"
        )


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as a TIFF; SlideOpenError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) in TIFF_MAGIC
    except OSError as error:
        raise unreadable(path, error) from error


def is_deep(image: Image.Image) -> bool:
    """Return whether a picture's samples have more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def _of_tiff(path: Path) -> Image.Image:
    """Decode a TIFF by our own reader, which knows more of colours in JPEG tiles than Pillow."""
    levels = TiffLevels(path)
    try:
        size = levels.sizes[0]
        check_decoded(size, path)
        pixels, _ = levels.read_level(0, (0, 0), size)
        return Image.fromarray(turn(pixels, levels.orientation))
    except SlideReadError as error:
        raise SlideOpenError(one_line(error)) from error
    finally:
        levels.close()


def plain(image: Image.Image, path: Path) -> Image.Image:
    """Return an opened picture upright, in 8 bits and on white.

    Parameters
    ----------
    image : PIL.Image.Image
        The picture.
    path : Path
        Its file, for errors.

    Returns
    -------
    PIL.Image.Image
        Mode L or RGB.

    Raises
    ------
    SlideOpenError
        If its pixels cannot be shown without a guess.
    """
    if image.mode == "LAB":
        raise SlideOpenError(f"{path}: has LAB colours; convert it to RGB")
    # Pillow inverts pictures of 8 bits in which 0 is white, but not those of 16.
    white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    image = ImageOps.exif_transpose(image)
    if is_deep(image):
        grey = _of_8_bits(image, path)
        return Image.fromarray(255 - grey if white_is_zero else grey)
    if image.has_transparency_data:
        return Image.fromarray(on_white(image.convert("RGBA")))
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _of_8_bits(image: Image.Image, path: Path) -> Pixels:
    """Return grey of up to 16 bits scaled to 8, uint8 (H, W)."""
    values: NDArray[Any] = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() >= 1 << DEPTHS[-1]:
        raise SlideOpenError(
            f"{path}: has {values.dtype.name} pixels from {values.min():g} to {values.max():g}; "
            "want grey of 8 or 16 bits: scale it and save it again"
        )
    return np.rint(values * (255 / _white_of(values))).astype(np.uint8)


def _white_of(values: NDArray[np.integer[Any]]) -> int:
    """Return the value that stands for white: 1023 where the brightest is 900."""
    brightest = int(values.max())
    if brightest > 255 and not (values % 257).any():
        return 65_535
    return next((1 << bits) - 1 for bits in DEPTHS if brightest < 1 << bits)


def on_white(image: Image.Image) -> Pixels:
    """Return an RGBA picture laid on white glass, uint8 (H, W, 3)."""
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return np.asarray(image.convert("RGB"))
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image.convert("RGB"), mask=alpha)
    return np.asarray(white)
