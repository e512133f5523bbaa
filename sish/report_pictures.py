"""The pictures of a report, each with its place on its slide; SlideError where a slide has none to show."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sish.encode import SlideEncoder
from sish.errors import SlideOpenError
from sish.feature_files import is_feature_file
from sish.index.store import SlideRow
from sish.indexed_files import check_is_slide
from sish.preview import draw_mosaic
from sish.results import ExamplePair, Hit, PatchPair, Query
from sish.scale_bar import draw_scale_bar
from sish.slides.mosaic import read_patch
from sish.slides.slide import Slide, open_slide

THUMBNAIL_PX = 512
QUERY_PX = 768
PATCH_PX = 192
"""Largest sides of the pictures."""

_OPEN_SLIDES = 16
"""Number of slides held open at a time; a plain image is held with all its pixels."""
_IN_MEMORY = "given as pixels in memory or as vectors"

Square = tuple[float, float, float, float]
"""A part of a picture: x, y, width, height in its pixels."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a slide's bounds."""

    image: Image.Image
    """Its pixels."""
    mpp: float
    """Scale of level 0 in um per pixel."""
    l0_xy: tuple[int, int]
    """Its top left corner in level-0 pixels."""
    step: float
    """Level-0 pixels per pixel of the picture."""

    def place(self, l0_xy: tuple[float, float]) -> tuple[float, float]:
        """Return the place of a point of level 0 in the picture."""
        (x, y), (left, top) = l0_xy, self.l0_xy
        return (x - left) / self.step, (y - top) / self.step

    def box(self, l0_xy: tuple[float, float], l0_side: float) -> Square:
        """Return the place of a square of level 0 in the picture."""
        side = l0_side / self.step
        return (*self.place(l0_xy), side, side)

    def with_scale_bar(self) -> Image.Image:
        """Return the pixels with a scale bar."""
        return draw_scale_bar(self.image, self.mpp * self.step)


@dataclass(frozen=True, slots=True)
class QueryPicture:
    """A query's picture with its mosaic and tissue, and what its colours mean."""

    picture: Picture
    """The picture."""
    cluster: NDArray[np.int32]
    """Colour cluster of each patch of the mosaic, (M,)."""


class Gallery:
    """Pictures of slides. Leaving the context closes the slides.

    Parameters
    ----------
    encoder : SlideEncoder
        The encoder of the index.
    row_of : callable
        The row of an indexed slide by its id, None if there is none. If another file has taken the place of
        the slide's, it is not shown.
    """

    def __init__(self, encoder: SlideEncoder, row_of: Callable[[str], SlideRow | None]) -> None:
        """Hold no slide open yet."""
        self._encoder = encoder
        self._row_of = row_of
        self._slides: OrderedDict[tuple[str, float], Slide] = OrderedDict()

    def __enter__(self) -> Gallery:
        """Return the gallery."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close all slides."""
        while self._slides:
            self._slides.popitem()[1].close()

    def query(self, query: Query) -> QueryPicture:
        """Return the query's slide with its mosaic and the outline of its tissue."""
        slide = self._open(query.path, query.mpp)
        prepared = self._encoder.prepare(slide, query.box or query.region)
        image = draw_mosaic(slide, prepared.tissue, prepared.mosaic, max_px=QUERY_PX)
        step = max(1.0, max(slide.bounds[2:]) / QUERY_PX)
        grown = max(1, THUMBNAIL_PX // max(image.size))  # a small image would have no room for a scale bar
        image = image.resize((image.width * grown, image.height * grown))
        picture = Picture(image, slide.mpp, slide.bounds[:2], step / grown)
        return QueryPicture(picture, prepared.mosaic.cluster)

    def thumbnail(self, hit: Hit) -> Picture:
        """Return a hit's slide, small."""
        slide = self._open_indexed(hit.slide_id, hit.path, hit.mpp)
        step = max(slide.bounds[2:]) / THUMBNAIL_PX
        pixels = slide.overview(step * slide.mpp)[:THUMBNAIL_PX, :THUMBNAIL_PX]
        return Picture(Image.fromarray(pixels), slide.mpp, slide.bounds[:2], step)

    def query_patch(self, query: Query, pair: PatchPair) -> Image.Image:
        """Return the query's patch of a pair, as the encoder saw it."""
        return self._patch(self._open(query.path, query.mpp), pair.query_xy)

    def example_patch(self, pair: ExamplePair) -> Image.Image:
        """Return the liked example's patch of a pair, as the encoder saw it."""
        row = self._row_of(pair.slide_id)
        if row is None:
            raise SlideOpenError(f"{pair.slide_id} is no longer in the index")
        return self._patch(self._open_indexed(row.slide_id, row.path, row.mpp or None), pair.example_xy)

    def hit_patch(self, hit: Hit, pair: PatchPair | ExamplePair) -> Image.Image:
        """Return the hit's patch of a pair, as the encoder saw it."""
        return self._patch(self._open_indexed(hit.slide_id, hit.path, hit.mpp), pair.xy)

    def _patch(self, slide: Slide, l0_xy: tuple[int, int] | None) -> Image.Image:
        """Return a patch of a slide."""
        if l0_xy is None:
            raise SlideOpenError("the places of its patches are not known")
        recipe = self._encoder.recipe
        pixels = read_patch(slide, l0_xy, recipe.patch_px, recipe.mpp, step_px=self._encoder.step_px)
        height, width = (round(PATCH_PX * side / max(pixels.shape)) for side in pixels.shape[:2])
        return Image.fromarray(pixels).resize((max(1, width), max(1, height)))

    def _open_indexed(self, slide_id: str, path: str, mpp: float | None) -> Slide:
        """Return an indexed slide; SlideOpenError if its file is another one now."""
        row = self._row_of(slide_id)
        is_new = bool(path) and not is_feature_file(path) and (path, mpp) not in self._slides
        if is_new and row is not None:
            check_is_slide(Path(path), row)
        return self._open(path, mpp)

    def _open(self, path: str | None, mpp: float | None) -> Slide:
        """Return a slide at the scale at which it was encoded; close the least recently used ones."""
        if not path or mpp is None:
            raise SlideOpenError(_IN_MEMORY)
        if is_feature_file(path):
            raise SlideOpenError(f"{path}: holds features, not pixels", path=path)
        slide = self._slides.pop((path, mpp), None) or open_slide(path, override_mpp=mpp)
        self._slides[path, mpp] = slide
        if len(self._slides) > _OPEN_SLIDES:
            self._slides.popitem(last=False)[1].close()
        return slide
