"""The pyramid of tiles that viewers ask for: DeepZoom, over the scanned part of a slide."""

from __future__ import annotations

from dataclasses import dataclass

TILE_PX = 254
"""Side of a tile without its overlap, as OpenSlide's own DeepZoom has it."""
OVERLAP_PX = 1
"""Pixels that a tile shares with each neighbour, so that no seam shows between them."""


@dataclass(frozen=True, slots=True)
class TileBox:
    """The pixels of a level that a tile shows."""

    x: int
    """Left edge in pixels of the level."""
    y: int
    """Top edge in pixels of the level."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""


@dataclass(frozen=True, slots=True)
class DeepZoom:
    """Levels of a picture, each half as large as the next; level 0 is one pixel, the last is full size.

    Examples
    --------
    >>> zoom = DeepZoom(1000, 600)
    >>> zoom.levels, zoom.size(10), zoom.size(9), zoom.columns_and_rows(10)
    (11, (1000, 600), (500, 300), (4, 3))
    >>> zoom.box(10, 3, 2)
    TileBox(x=761, y=507, width=239, height=93)
    """

    width: int
    """Width of the picture in pixels."""
    height: int
    """Height of the picture in pixels."""

    @property
    def levels(self) -> int:
        """The number of levels."""
        return (max(self.width, self.height) - 1).bit_length() + 1

    def step(self, level: int) -> int:
        """Return how many pixels of the picture a pixel of a level spans on a side."""
        return 1 << (self.levels - 1 - level)

    def size(self, level: int) -> tuple[int, int]:
        """Return width and height of a level in its pixels."""
        step = self.step(level)
        return -(-self.width // step), -(-self.height // step)

    def columns_and_rows(self, level: int) -> tuple[int, int]:
        """Return how many tiles a level has in each direction."""
        width, height = self.size(level)
        return -(-width // TILE_PX), -(-height // TILE_PX)

    def box(self, level: int, column: int, row: int) -> TileBox | None:
        """Return the pixels that a tile shows, its overlap included; None if there is no such tile."""
        if not 0 <= level < self.levels:
            return None
        columns, rows = self.columns_and_rows(level)
        if not (0 <= column < columns and 0 <= row < rows):
            return None
        width, height = self.size(level)
        left, top = max(0, column * TILE_PX - OVERLAP_PX), max(0, row * TILE_PX - OVERLAP_PX)
        right = min(width, (column + 1) * TILE_PX + OVERLAP_PX)
        bottom = min(height, (row + 1) * TILE_PX + OVERLAP_PX)
        return TileBox(left, top, right - left, bottom - top)

    def to_dict(self) -> dict[str, int]:
        """Return plain values for JSON, as viewers need them."""
        return {
            "tile_px": TILE_PX,
            "overlap": OVERLAP_PX,
            "levels": self.levels,
            "width": self.width,
            "height": self.height,
        }
