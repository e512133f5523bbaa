"""Small SpatialData as LazySlide's own library writes them (wsidata), and what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tifffile

spatialdata = pytest.importorskip("spatialdata", reason="needs the extra spatial (make test-spatial)")
wsidata = pytest.importorskip("wsidata", reason="LazySlide's library is not installed (make test-spatial)")

WIDTH, TILE = 24, 128
GRID = 8  # tiles a side
MPP = 0.5


class Written(NamedTuple):
    """One slide."""

    path: Path
    """Its zarr."""
    features: np.ndarray
    """Float32 (64, 24), as written."""
    l0_xy: np.ndarray
    """Corners, in the order of the rows."""


def open_slide(folder: Path, name: str):
    """A pyramid of one level, 1,024 pixels a side, at 0.5 um per pixel, opened by wsidata."""
    pixels = np.full((GRID * TILE, GRID * TILE, 3), 230, np.uint8)
    scale = 1e4 / MPP
    tifffile.imwrite(folder / name, pixels, tile=(256, 256), resolution=(scale, scale), resolutionunit=3)
    return wsidata.open_wsi(folder / name)


def tiled(wsi, key: str = "tiles", tile_px: int = TILE, mpp: float = MPP) -> np.ndarray:
    """Add tiles as LazySlide's tile_tissues does, in columns; return their corners."""
    spec = wsidata.TileSpec.from_wsidata(wsi, tile_px=tile_px, mpp=mpp)
    step = np.arange(0, GRID * TILE, spec.base_width)
    l0_xy = np.array([(x, y) for x in step for y in step])
    wsidata.io.add_tiles(wsi, key, l0_xy, spec, np.zeros(len(l0_xy), np.int64))
    return l0_xy


def write_slide(folder: Path, name: str, kind: int, tables: tuple[str, ...] = ("uni",)) -> Written:
    """Write a slide whose features are those of one of several kinds of tissue."""
    rng = np.random.default_rng([kind, *name.encode()])
    centre = np.random.default_rng(kind).normal(size=WIDTH) * 2
    wsi = open_slide(folder, f"{name}.tif")
    l0_xy = tiled(wsi)
    features = (centre + rng.normal(size=(len(l0_xy), WIDTH))).astype(np.float32)
    for table in tables:
        wsidata.io.add_features(wsi, f"{table}_tiles", "tiles", features)
    wsi.write()
    return Written(folder / f"{name}.zarr", features, l0_xy)
