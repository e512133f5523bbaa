"""A slide as viewers see it: tiles, thumbnail and patches as JPEG."""

from __future__ import annotations

import io
from functools import cached_property

from PIL import Image

from sish.serve.deep_zoom import DeepZoom, TileBox
from sish.slides.formats.levels import Pixels
from sish.slides.mosaic import read_patch
from sish.slides.slide import Slide

_OVERVIEW_PX = 1024
_QUALITY = 85


class ShownSlide:
    """An open slide with its DeepZoom pyramid over the part that was scanned.

    Parameters
    ----------
    slide : Slide
        The slide.
    """

    def __init__(self, slide: Slide) -> None:
        """Nothing is read yet."""
        self.slide = slide
        self.zoom = DeepZoom(*slide.bounds[2:])

    def tile(self, level: int, column: int, row: int) -> bytes | None:
        """Return a tile of DeepZoom as JPEG; None if there is no such tile."""
        box = self.zoom.box(level, column, row)
        return None if box is None else _jpeg(self._pixels(level, box))

    def thumbnail(self, size_px: int) -> bytes:
        """Return the scanned part as JPEG, its longest side at most so many pixels."""
        picture = Image.fromarray(self._overview)
        picture.thumbnail((size_px, size_px), Image.Resampling.BOX, reducing_gap=None)
        return _jpeg(picture)

    def patch(self, l0_xy: tuple[int, int], size_px: int, mpp: float, step_px: int, shown_px: int) -> bytes:
        """Return a patch as JPEG, as the encoder sees it: see :func:`sish.slides.mosaic.read_patch`."""
        picture = Image.fromarray(read_patch(self.slide, l0_xy, size_px, mpp, step_px=step_px))
        return _jpeg(picture.resize((shown_px, shown_px)))

    def square(self, l0_xy: tuple[int, int], l0_px: float, shown_px: int) -> bytes:
        """Return a square of so many level-0 pixels as JPEG."""
        return _jpeg(self.slide.read(l0_xy, shown_px, l0_px * self.slide.mpp / shown_px))

    @cached_property
    def _overview_level(self) -> int:
        """The finest level of at most `_OVERVIEW_PX`: it and coarser ones are cut from one picture."""
        fits = (level for level in range(self.zoom.levels) if max(self.zoom.size(level)) <= _OVERVIEW_PX)
        return max(fits)

    @cached_property
    def _overview(self) -> Pixels:
        step, (width, height) = self.zoom.step(self._overview_level), self.zoom.size(self._overview_level)
        return self.slide.read(self.slide.bounds[:2], (width, height), step * self.slide.mpp)

    def _pixels(self, level: int, box: TileBox) -> Pixels | Image.Image:
        if level > self._overview_level:
            step, (x, y, _, _) = self.zoom.step(level), self.slide.bounds
            corner = (x + box.x * step, y + box.y * step)
            return self.slide.read(corner, (box.width, box.height), step * self.slide.mpp)
        halved = Image.fromarray(self._overview).reduce(1 << (self._overview_level - level))
        return halved.crop((box.x, box.y, box.x + box.width, box.y + box.height))


def _jpeg(picture: Pixels | Image.Image) -> bytes:
    stream = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(
        stream, "JPEG", quality=_QUALITY
    )
    return stream.getvalue()
