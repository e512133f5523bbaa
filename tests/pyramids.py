"""Pyramidal and plain TIFFs for tests, lossless, so that pixels can be compared exactly."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image


def shrink(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Means over ``factor`` pixels; a last pixel that is not whole is dropped."""
    height, width = (int(side / factor) for side in pixels.shape[:2])
    if factor == int(factor):
        n = int(factor)
        whole = pixels[: height * n, : width * n].reshape(height, n, width, n, 3)
        return np.rint(whole.mean(axis=(1, 3))).astype(np.uint8)
    # A scanner's odd factor: all of level 0 is squeezed into a whole number of pixels.
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def write_pyramid(
    path: Path,
    pixels: np.ndarray,
    factors: Sequence[float] = (1, 2, 4),
    mpp: float | None = 0.5,
    tile_px: int = 128,
) -> list[np.ndarray]:
    """Write uint8 (H, W, 3) as a tiled TIFF that OpenSlide reads; returns the pixels of its levels."""
    levels = [pixels if factor == 1 else shrink(pixels, factor) for factor in factors]
    tags = {} if mpp is None else {"resolution": (10_000 / mpp,) * 2, "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            tiff.write(
                level,
                tile=(tile_px, tile_px),
                photometric="rgb",
                compression="deflate",
                subfiletype=1 if number else 0,
                metadata=None,
                **tags,
            )
    return levels


def write_strips(path: Path, pixels: np.ndarray, mpp: float | None = 0.5, rows: int = 37) -> None:
    """Write a TIFF in strips, which OpenSlide does not read."""
    tags = {} if mpp is None else {"resolution": (10_000 / mpp,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(
        path, pixels, rowsperstrip=rows, compression="deflate", photometric="rgb", metadata=None, **tags
    )


def write_huge(
    path: Path,
    side: int,
    kinds: np.ndarray,
    levels: Sequence[tuple[int, int]] = ((1, 512), (8, 512), (32, 128)),
) -> None:
    """Write a slide of ``side`` x ``side`` px at 0.25 um/px from four ready-made tiles.

    kinds: uint8 (n, n), which of the four each part of the slide is made of; 0 is glass.
    levels: downsample and tile side of each; every part must be whole tiles of every level.
    """

    def encode(tile_px: int) -> list[bytes]:
        yy, xx = np.mgrid[:tile_px, :tile_px]
        stripes = ((xx // 64 + yy // 64) % 2)[..., None]
        colours = np.array([[[245, 245, 245]] * 2, [[220, 120, 170], [200, 100, 160]], [[120, 80, 160]] * 2])
        colours = np.concatenate([colours, [[[240, 200, 220], [200, 60, 120]]]])
        return [
            zlib.compress(np.where(stripes == 0, first, second).astype(np.uint8).tobytes(), 1)
            for first, second in colours
        ]

    def tiles(count: int, encoded: list[bytes]) -> Iterator[bytes]:
        for row in range(count):
            for column in range(count):
                yield encoded[kinds[row * len(kinds) // count, column * len(kinds) // count]]

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for factor, tile_px in levels:
            small = side // factor
            assert small % (tile_px * len(kinds)) == 0
            tiff.write(
                tiles(small // tile_px, encode(tile_px)),
                shape=(small, small, 3),
                dtype=np.uint8,
                tile=(tile_px, tile_px),
                photometric="rgb",
                compression="deflate",
                resolution=(40_000 / factor,) * 2,
                resolutionunit="CENTIMETER",
                subfiletype=int(factor > 1),
                metadata=None,
            )
