"""Slides for the benchmark of the server: pyramids of real tissue, or painted ones where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from sish.demo.painting import Look, paint
from sish.slides.slide import open_slide

Pixels = NDArray[np.uint8]
MPP = 0.5
"""Micrometres per level-0 pixel of the slides that are written."""
_REAL = "slides/tcga-cr-7395-01a-01-ts1.svs"
_TILE_PX = 256
_SMALLEST_PX = 512


def tissue(data: Path | None) -> tuple[Pixels, str]:
    """Return a piece of tissue, uint8 (H, W, 3), and where it is from."""
    path = None if data is None else data / _REAL
    if path is None or not path.is_file():
        look = Look(1.0, 1.0, (0.0, 0.0, 0.0), 1.0, 1.0)
        return paint("glandular", (1500, 2000), look, seed=0), "painted tissue (no data folder)"
    with open_slide(path, override_mpp=MPP) as slide:
        return slide.read((0, 0), slide.dimensions, MPP), path.name


def write_slide(path: Path, pixels: Pixels, size_px: int, shift: int) -> None:
    """Write a pyramid of JPEG tiles, as scanners do: the tissue again and again, shifted, up to a size.

    Parameters
    ----------
    path : Path
        The TIFF to write.
    pixels : uint8 (H, W, 3)
        Tissue.
    size_px : int
        Side of level 0 in pixels.
    shift : int
        Pixels by which the tissue is rolled, so that slides differ.
    """
    high, wide = (-(-size_px // side) for side in pixels.shape[:2])
    level = np.tile(np.roll(pixels, shift, axis=(0, 1)), (high, wide, 1))[:size_px, :size_px]
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        mpp = MPP
        while True:
            tiff.write(
                np.ascontiguousarray(level),
                tile=(_TILE_PX, _TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 80},
                subfiletype=int(mpp > MPP),
                resolution=(10_000 / mpp,) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )
            if min(level.shape[:2]) // 4 < _SMALLEST_PX:
                return
            level, mpp = np.asarray(Image.fromarray(level).reduce(4)), 4 * mpp
