"""Leica slides for tests: BigTIFFs whose pixels are a part of a larger glass, so OpenSlide knows bounds."""

from pathlib import Path

import numpy as np
import tifffile
from pyramids import shrink

_XML = """<?xml version="1.0" encoding="utf-8"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:0">
<collection name="glass" uuid="urn:uuid:1" sizeX="{glass[0]}" sizeY="{glass[1]}" barcode="">
<image name="macro" uuid="urn:uuid:2"><creationDate>2020-01-01T00:00:00Z</creationDate>
<device model="Leica SCN400" version="1"/>
<pixels sizeX="{macro[0]}" sizeY="{macro[1]}">
<dimension sizeX="{macro[0]}" sizeY="{macro[1]}" r="0" ifd="0"/></pixels>
<view sizeX="{glass[0]}" sizeY="{glass[1]}" offsetX="0" offsetY="0" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>0.6</objective></objectiveSettings>
<illuminationSettings><numericalAperture>0.05</numericalAperture>
<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>
<image name="scan" uuid="urn:uuid:3"><creationDate>2020-01-01T00:00:00Z</creationDate>
<device model="Leica SCN400" version="1"/>
<pixels sizeX="{size[0]}" sizeY="{size[1]}">{levels}</pixels>
<view sizeX="{view[0]}" sizeY="{view[1]}" offsetX="{offset[0]}" offsetY="{offset[1]}" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>
<illuminationSettings><numericalAperture>0.4</numericalAperture>
<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>
</collection></scn>"""


def write_leica(
    path: Path, pixels: np.ndarray, l0_xy: tuple[int, int], glass: tuple[int, int], mpp: float = 0.5
) -> None:
    """Write uint8 (H, W, 3) as the scanned part, at `l0_xy`, of a glass of so many level-0 pixels (w, h)."""
    height, width = pixels.shape[:2]
    nm = 1000 * mpp
    levels = [pixels if factor == 1 else shrink(pixels, factor) for factor in (1, 4)]
    macro = np.full((64, 32, 3), 240, np.uint8)
    text = _XML.format(
        glass=[round(side * nm) for side in glass],
        macro=(32, 64),
        size=(width, height),
        view=(round(width * nm), round(height * nm)),
        offset=[round(place * nm) for place in l0_xy],
        levels="".join(
            f'<dimension sizeX="{wide}" sizeY="{high}" r="{number}" ifd="{number + 1}"/>'
            for number, (high, wide, _) in enumerate(level.shape for level in levels)
        ),
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, level in enumerate([macro, *levels]):
            tiff.write(
                level,
                tile=(128, 128),
                photometric="rgb",
                compression="deflate",
                description=text if not number else None,
                resolution=(10_000 / mpp,) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )
