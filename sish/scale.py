"""How many micrometres a level-0 pixel covers, and who says so.

Everything else in sish is said in micrometres per pixel (mpp), so a slide without a scale is refused
rather than guessed. The sources, from the most to the least trusted: the user, the scanner vendor's
field, the TIFF resolution tags, the objective power.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sish.errors import MissingMppError, ParameterError

__all__ = ["MAX_MPP", "MIN_MPP", "Scale", "find_scale"]

MIN_MPP = 0.05
MAX_MPP = 4.0
"""Outside this range a number is no microscope's: the 72 and 96 dpi of other images are 353 and 265 um."""

MAX_ASPECT = 1.1
"""Pixels may differ this much between x and y; beyond it one number cannot describe them."""

UM_PER_UNIT = {"centimeter": 10_000.0, "inch": 25_400.0}
"""Micrometres in one TIFF resolution unit."""

UM_TIMES_POWER = 10.0
"""A 10x objective gives about 1 um/px, 20x 0.5, 40x 0.25: the custom of all scanner vendors."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a level-0 pixel."""

    mpp: float
    """Micrometres per pixel, the mean of x and y."""
    source: str
    """Who says so: "given", "vendor", "tiff-resolution" or "objective-power"."""


def find_scale(properties: Mapping[str, str], given: float | None, name: str) -> Scale:
    """Decide the scale of a slide from what the user gave and its ``properties`` (OpenSlide's names).

    >>> find_scale({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}, None, "a.svs")
    Scale(mpp=0.25, source='vendor')
    >>> find_scale({"openslide.objective-power": "20"}, None, "a.svs")
    Scale(mpp=0.5, source='objective-power')
    >>> dpi = {"tiff.XResolution": "96", "tiff.YResolution": "96", "tiff.ResolutionUnit": "inch"}
    >>> find_scale(dpi, None, "a.tif")
    Traceback (most recent call last):
    sish.errors.MissingMppError: a.tif: nothing in it tells its micrometres per pixel; give mpp=... or --mpp

    Raises ParameterError where ``given`` is out of range, MissingMppError where nothing (sane) is known.
    """
    if given is not None:
        if not is_sane(given):
            raise ParameterError(
                f"{name}: mpp {given:g} is out of range; "
                f"give micrometres per pixel between {MIN_MPP} and {MAX_MPP}"
            )
        return Scale(float(given), "given")
    vendor = numbers(properties, "openslide.mpp-x", "openslide.mpp-y")
    # OpenSlide's generic TIFF driver has no vendor to ask: its mpp is the resolution tags.
    vendor_source = "tiff-resolution" if properties.get("openslide.vendor") == "generic-tiff" else "vendor"
    for pair, source in (
        (vendor, vendor_source),
        (tiff_resolution(properties), "tiff-resolution"),
        (objective_power(properties), "objective-power"),
    ):
        if pair is not None and all(is_sane(value) for value in pair):
            return Scale(square(pair, name), source)
    raise MissingMppError(f"{name}: nothing in it tells its micrometres per pixel; give mpp=... or --mpp")


def is_sane(mpp: float) -> bool:
    """Whether a microscope could have made pixels of this size."""
    return MIN_MPP <= mpp <= MAX_MPP


def square(pair: tuple[float, float], name: str) -> float:
    """The mean of the two sides of a pixel, refused if they differ too much."""
    x, y = pair
    if max(x, y) > MAX_ASPECT * min(x, y):
        raise MissingMppError(f"{name}: its pixels are {x:g} x {y:g} um, not square; give mpp=... or --mpp")
    return x if x == y else (x + y) / 2


def numbers(properties: Mapping[str, str], *names: str) -> tuple[float, float] | None:
    """The positive numbers of two properties, None if one is missing or is none."""
    try:
        x, y = (float(properties[name]) for name in names)
    except (KeyError, ValueError):
        return None
    return (x, y) if all(math.isfinite(value) and value > 0 for value in (x, y)) else None


def tiff_resolution(properties: Mapping[str, str]) -> tuple[float, float] | None:
    """Pixel size from TIFF resolution tags, None without a physical unit."""
    per_unit = numbers(properties, "tiff.XResolution", "tiff.YResolution")
    unit_um = UM_PER_UNIT.get(properties.get("tiff.ResolutionUnit", "").lower())
    if per_unit is None or unit_um is None:
        return None
    return unit_um / per_unit[0], unit_um / per_unit[1]


def objective_power(properties: Mapping[str, str]) -> tuple[float, float] | None:
    """Pixel size that the objective's power stands for."""
    power = numbers(properties, "openslide.objective-power", "openslide.objective-power")
    return None if power is None else (UM_TIMES_POWER / power[0], UM_TIMES_POWER / power[1])
