"""Scale bars: a round length in micrometres or millimetres, and how to draw it on a picture of a slide."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from sish.errors import ParameterError

_STEPS = (5, 2, 1)
_SHARE = 0.3  # of the picture's width, at most
_INK, _PLATE = (0, 0, 0), (255, 255, 255, 215)
_SMALLEST_TEXT_PX = 9


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A bar beside which a picture tells its scale."""

    um: float
    """Its length on the slide in micrometres: 1, 2 or 5 times a power of ten."""
    px: float
    """Its length in pixels of the picture."""

    @property
    def text(self) -> str:
        """Its length in words, such as ``200 um`` or ``5 mm``.

        >>> ScaleBar(5000.0, 100.0).text, ScaleBar(0.5, 100.0).text
        ('5 mm', '0.5 um')
        """
        return f"{self.um / 1000:g} mm" if self.um >= 1000 else f"{self.um:g} um"


def scale_bar(mpp: float, room_px: float) -> ScaleBar:
    """Return the longest scale bar of a round length that fits.

    Parameters
    ----------
    mpp : float
        Scale of the picture in micrometres per pixel of the picture (not of the slide's level 0).
    room_px : float
        Room for the bar in pixels of the picture.

    Returns
    -------
    ScaleBar
        At most `room_px` long, and longer than two fifths of it.

    Raises
    ------
    ParameterError
        If one of the two is not a number above 0.

    Examples
    --------
    A picture of 512 px shows a slide of 20 mm; the bar may take 150 px.

    >>> bar = scale_bar(20_000 / 512, room_px=150)
    >>> bar.text, round(bar.px)
    ('5 mm', 128)
    """
    for name, value in (("mpp", mpp), ("room_px", room_px)):
        if not (math.isfinite(value) and value > 0):
            raise ParameterError(f"got {name}={value}; want a number above 0")
    room_um = mpp * room_px * (1 + 1e-9)  # a length that fits exactly fits
    exponent = math.floor(math.log10(room_um))
    lengths = (step * 10.0**power for power in (exponent, exponent - 1) for step in _STEPS)
    um = next(length for length in lengths if length <= room_um)
    return ScaleBar(um, um / mpp)


def draw_scale_bar(picture: Image.Image, mpp: float) -> Image.Image:
    """Return a copy of a picture with a scale bar and its length at the bottom right.

    Parameters
    ----------
    picture : PIL.Image.Image
        A picture of a slide.
    mpp : float
        Its scale in micrometres per pixel of the picture.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, of the same size. On a picture too small for the text the bar stands alone.

    Raises
    ------
    ParameterError
        If `mpp` is not a number above 0.
    """
    drawn = picture.convert("RGB")
    drawn = drawn.copy() if drawn is picture else drawn
    bar = scale_bar(mpp, max(1.0, _SHARE * drawn.width))
    draw = ImageDraw.Draw(drawn, "RGBA")  # in this mode the plate's colour is blended
    gap = max(1, round(max(drawn.size) / 90))
    font = ImageFont.load_default(max(_SMALLEST_TEXT_PX, round(max(drawn.size) / 30)))
    _, top, text_width, bottom = draw.textbbox((0, 0), bar.text, font=font)
    text_height = bottom - top
    width, height = max(bar.px, text_width) + 2 * gap, text_height + 4 * gap
    has_text = width + gap <= drawn.width and height + gap <= drawn.height
    width, height = (width, height) if has_text else (bar.px + 2 * gap, 3 * gap)
    left, up = drawn.width - gap - width, drawn.height - gap - height
    draw.rectangle((left, up, left + width - 1, up + height - 1), fill=_PLATE)
    begin, base = round(left + (width - bar.px) / 2), round(up + height - 2 * gap)
    draw.rectangle((begin, base, begin + max(1, round(bar.px)) - 1, base + gap - 1), fill=_INK)
    if has_text:
        draw.text((left + (width - text_width) / 2, up + gap - top), bar.text, fill=_INK, font=font)
    return drawn
