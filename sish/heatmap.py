"""Heatmaps: every tissue tile of an indexed slide against a query.

The value of a tile is the distance in bits to the nearest patch of the query, as a search tells it: 0 for
equal patches, half of the bits for unrelated ones. A picture has the tiles over the slide's thumbnail,
coloured by distance, and a legend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sish.distances import nearest_asked
from sish.encode import SlideCodes
from sish.errors import EncoderMismatchError, ParameterError, QueryError
from sish.index.store import SlideRow
from sish.indexed_files import open_indexed
from sish.rerank import Rerank
from sish.tile_codes import TileCodes

COLOURS = "viridis"
"""The colour map of matplotlib, which colour-blind eyes tell apart; its bright end is what is near."""

_OPACITY = 0.6  # of a tile's colour
_NARROWEST_PX = 460  # of a picture: its legend's
_MARGIN_PX, _BAR_PX, _TEXT_PX = 12, 14, 13
_LEGEND_PX = 2 * _MARGIN_PX + _BAR_PX + 2 * _TEXT_PX + 8
_INK = (30, 30, 30)


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """N tissue tiles of a slide, each with its distance to a query."""

    row: SlideRow
    """The slide, as the index names it."""
    l0_xy: NDArray[np.int64]
    """Shape (N, 2), x first: top left corners in level-0 pixels."""
    hamming: NDArray[np.int32]
    """Shape (N,): distance in bits to the nearest patch of the query."""
    query_row: NDArray[np.int64]
    """Shape (N,): number of that patch among the query's patches, from 0."""
    threshold: int
    """Largest distance in bits at which two patches count as similar."""
    n_bits: int
    """Bits of a barcode; unrelated patches differ in about half of them."""

    @classmethod
    def of(
        cls, tiles: TileCodes, asked: SlideCodes, *, threshold: int, rerank: Rerank | None = None
    ) -> Heatmap:
        """Compare the tiles of a slide with a query.

        Parameters
        ----------
        tiles : TileCodes
            The tiles.
        asked : SlideCodes
            The codes of a query, one patch at least, by the same encoder.
        threshold : int
            The threshold in bits.
        rerank : Rerank, optional
            How the index keeps vectors, where it does.

        Returns
        -------
        Heatmap
            The distances.

        Raises
        ------
        EncoderMismatchError
            If the codes are of different lengths.
        """
        row, width = tiles.row, tiles.codes.barcodes.shape[1]
        if asked.barcodes.shape[1] != width:
            raise EncoderMismatchError(
                f"got tiles of {8 * width} bits, a query of {8 * asked.barcodes.shape[1]}; want codes of one "
                "encoder"
            )
        query_row, hamming = nearest_asked(asked, tiles.codes, rerank)
        l0_xy = np.empty((0, 2), np.int64) if tiles.codes.l0_xy is None else tiles.codes.l0_xy
        return cls(
            row=row,
            l0_xy=l0_xy,
            hamming=hamming,
            query_row=query_row,
            threshold=threshold,
            n_bits=8 * width,
        )

    def __len__(self) -> int:
        """Return N."""
        return len(self.hamming)

    @property
    def slide_id(self) -> str:
        """The slide's name in the index."""
        return self.row.slide_id

    @property
    def mpp(self) -> float | None:
        """Micrometres per level-0 pixel; None if not known."""
        return self.row.mpp or None

    @property
    def patch_l0_px(self) -> float:
        """Side of a tile in level-0 pixels."""
        return self.row.patch_l0_px

    @property
    def n_similar(self) -> int:
        """Number of tiles within the threshold."""
        return int(np.count_nonzero(self.hamming <= self.threshold))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "slide_id": self.slide_id,
            "mpp": self.mpp,
            "patch_l0_px": self.patch_l0_px,
            "n_bits": self.n_bits,
            "threshold": self.threshold,
            "xy": self.l0_xy.tolist(),
            "hamming": self.hamming.tolist(),
            "query_row": self.query_row.tolist(),
        }

    def draw(self, *, max_px: int = 1024) -> Image.Image:
        """Draw the tiles over the slide's thumbnail, with a legend below; needs the slide's file.

        Parameters
        ----------
        max_px : int
            Largest side of the thumbnail; small images are not enlarged.

        Returns
        -------
        PIL.Image.Image
            Mode RGB.

        Raises
        ------
        SlideError
            If the slide's file is gone, or is another file now.
        QueryError
            If the slide was given as vectors.
        ParameterError
            If `max_px` is below 1.
        """
        if max_px < 1:
            raise ParameterError(f"got max_px={max_px}; want at least 1")
        tiles = _with_tiles(self, max_px)
        picture = Image.new("RGB", (max(_NARROWEST_PX, tiles.width), tiles.height + _LEGEND_PX), "white")
        picture.paste(tiles, ((picture.width - tiles.width) // 2, 0))
        _draw_legend(picture, tiles.height, self)
        return picture


def _with_tiles(heatmap: Heatmap, max_px: int) -> Image.Image:
    """Return the slide's thumbnail with the tiles over it."""
    if not heatmap.row.path:
        raise QueryError(
            f"got {heatmap.slide_id!r}, which was given as vectors: there is no picture of it to draw on",
            slide_id=heatmap.slide_id,
        )
    with open_indexed(heatmap.row) as slide:
        left, top, width, height = slide.bounds
        step = max(1.0, max(width, height) / max_px)
        picture = Image.fromarray(slide.overview(step * slide.mpp)[:max_px, :max_px])
    draw = ImageDraw.Draw(picture, "RGBA")  # in this mode, what is drawn is blended
    places = (heatmap.l0_xy - np.array([left, top])) / step
    low, high = np.rint(places), np.rint(places + heatmap.patch_l0_px / step) - 1
    for box, colour in zip(np.hstack([low, np.maximum(low, high)]).tolist(), colours(heatmap), strict=True):
        draw.rectangle(box, fill=(*colour.tolist(), round(255 * _OPACITY)))
    return picture


def colours(heatmap: Heatmap) -> NDArray[np.uint8]:
    """Return the colour of each tile, uint8 (N, 3)."""
    return _ramp(heatmap.hamming / _unrelated(heatmap))


def _unrelated(heatmap: Heatmap) -> int:
    """Return the distance in bits of unrelated patches, the dark end of the colours."""
    return heatmap.n_bits // 2


def _ramp(share: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return colours uint8 (N, 3) of shares of the way from near (0) to unrelated (1)."""
    from matplotlib import colormaps

    rgba: NDArray[np.uint8] = colormaps[COLOURS](1 - np.clip(share, 0, 1), bytes=True)
    return rgba[:, :3]


def _draw_legend(picture: Image.Image, top: int, heatmap: Heatmap) -> None:
    """Draw the colours with their distances below the picture."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=_TEXT_PX)
    left, width = _MARGIN_PX, picture.width - 2 * _MARGIN_PX
    above = top + _MARGIN_PX + _TEXT_PX + 4
    bar = Image.fromarray(np.tile(_ramp(np.linspace(0, 1, width)), (_BAR_PX, 1, 1)))
    picture.paste(bar, (left, above))
    draw.text((left, above - 4), "distance to the nearest patch of the query", _INK, font, anchor="ls")
    below, unrelated = above + _BAR_PX + 4, _unrelated(heatmap)
    draw.text((left, below), "0 bits: equal", _INK, font, anchor="la")
    draw.text((left + width, below), f"{unrelated}: unrelated", _INK, font, anchor="ra")
    place = left + round(width * min(1.0, heatmap.threshold / unrelated))
    draw.line((place, above - 3, place, below + 1), _INK, 2)
    said = f"threshold {heatmap.threshold}"
    draw.text((place, above - 4), said, _INK, font, anchor="rs" if place > picture.width / 2 else "ms")
