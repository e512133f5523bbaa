"""The size of a level-0 pixel in micrometres, and its source.

All sizes in sish are in micrometres per pixel (mpp), so a slide without a scale is refused: no scale is
guessed. The sources, from the most to the least trusted, are ``override_mpp`` of the user, the scanner
vendor's field, the OME-XML, the TIFF resolution tags, the objective power, and ``mpp`` of the user. So
``mpp`` is used where a file tells nothing that can be believed, and ``override_mpp`` replaces what files
tell.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

from sish.errors import MissingMppError, ParameterError
from sish.slides.formats.levels import is_generic
from sish.slides.formats.ome import number, ome_pixel_size

MIN_MPP = 0.05
MAX_MPP = 4.0
"""A number outside this range is no microscope's: the 72 and 96 dpi of other images are 353 and 265 um."""

MAX_ASPECT = 1.1
"""Pixels may differ this much between x and y; beyond it one number cannot describe them."""

UM_PER_UNIT = {"centimeter": 10_000.0, "inch": 25_400.0}
"""Micrometres in one TIFF resolution unit."""

UM_TIMES_POWER = 10.0
"""A 10x objective gives about 1 um/px, 20x 0.5, 40x 0.25: the custom of all scanner vendors."""

GIVEN = "given"
"""Source of a scale that the user gave as `mpp`."""

OVERRIDE = "override"
"""Source of a scale that the user gave as `override_mpp`."""

TOLERANCE = 0.05
"""A given scale that differs from the file's own by less than this share does not contradict it."""

Pair = tuple[float, float]
"""Micrometres that a pixel covers in x and y."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a level-0 pixel."""

    mpp: float
    """Micrometres per pixel, the mean of x and y."""
    source: str
    """Its source: "override", "vendor", "ome-xml", "tiff-resolution", "objective-power" or "given"."""


def find_scale(
    properties: Mapping[str, str], name: str, *, mpp: float | None = None, override_mpp: float | None = None
) -> Scale:
    """Decide the scale of a slide.

    Parameters
    ----------
    properties : mapping of str to str
        What its file tells, under OpenSlide's names.
    name : str
        What errors call the slide.
    mpp : float, optional
        Micrometres per level-0 pixel, used where the properties tell nothing that can be believed.
    override_mpp : float, optional
        Micrometres per level-0 pixel, whatever they tell.

    Returns
    -------
    Scale
        The scale and its source.

    Raises
    ------
    ParameterError
        If a given scale is out of range.
    MissingMppError
        If nothing that can be believed is known.

    Examples
    --------
    >>> told = {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}
    >>> find_scale(told, "a.svs", mpp=0.5)
    Scale(mpp=0.25, source='vendor')
    >>> find_scale(told, "a.svs", override_mpp=0.5)
    Scale(mpp=0.5, source='override')
    >>> find_scale({"openslide.objective-power": "20"}, "a.svs")
    Scale(mpp=0.5, source='objective-power')
    >>> dpi = {"tiff.XResolution": "96", "tiff.YResolution": "96", "tiff.ResolutionUnit": "inch"}
    >>> find_scale(dpi, "a.tif", mpp=0.5)
    Scale(mpp=0.5, source='given')
    >>> find_scale(dpi, "a.tif")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    sish.errors.MissingMppError: a.tif: tells 264.583 um/px (tiff-resolution), which no scanner gives; ...
    """
    check_given(mpp, override_mpp, name)
    if override_mpp is not None:
        return Scale(float(override_mpp), OVERRIDE)
    told, doubts = _told(properties)
    if told is not None:
        return told
    if mpp is not None:
        return Scale(float(mpp), GIVEN)
    why = "; ".join(dict.fromkeys(doubts)) or "nothing in it tells its micrometres per pixel"
    raise MissingMppError(f"{name}: {why}; give mpp=... or --mpp")


def check_given(mpp: float | None, override_mpp: float | None, name: str = "") -> None:
    """Refuse a given scale that no microscope has (ParameterError)."""
    for word, value in (("mpp", mpp), ("override_mpp", override_mpp)):
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if value is not None and not (is_number and is_sane(value)):
            raise ParameterError(
                f"{name}: {word} {value!r} is out of range; ".removeprefix(": ")
                + f"give micrometres per pixel between {MIN_MPP} and {MAX_MPP}"
            )


def is_unused(mpp: float | None, used: float) -> bool:
    """Return whether a given scale is another one than the slide has.

    Parameters
    ----------
    mpp : float or None
        The given micrometres per pixel.
    used : float
        The slide's.

    Returns
    -------
    bool
        False where none was given.

    Examples
    --------
    >>> is_unused(0.5, 0.25), is_unused(0.25, 0.2528), is_unused(None, 0.25)
    (True, False, False)
    """
    return mpp is not None and abs(mpp - used) > TOLERANCE * used


def _told(properties: Mapping[str, str]) -> tuple[Scale | None, list[str]]:
    """Return a file's most trusted scale that can be believed, and why those before it cannot."""
    doubts = []
    for source, read in SOURCES.items():
        try:
            pair = read(properties)
        except ValueError as error:
            doubts.append(f"{error} ({source})")
            continue
        if pair is None:
            continue
        x, y = pair
        size = f"{x:g}" if x == y else f"{x:g} x {y:g}"
        if not (is_sane(x) and is_sane(y)):
            doubts.append(f"tells {size} um/px ({source}), which no scanner gives")
        elif max(pair) > MAX_ASPECT * min(pair):  # a source of one number would only hide it
            return None, [f"its pixels are {size} um, not square ({source})"]
        else:
            return Scale(x if x == y else (x + y) / 2, source), []
    return None, doubts


def is_sane(mpp: float) -> bool:
    """Return whether a microscope could have made pixels of this size."""
    return MIN_MPP <= mpp <= MAX_MPP


def vendor(properties: Mapping[str, str]) -> Pair | None:
    """Return the pixel size in the field of a scanner's vendor."""
    return None if is_generic(properties) else numbers(properties, "openslide.mpp-x", "openslide.mpp-y")


def ome_xml(properties: Mapping[str, str]) -> Pair | None:
    """Return the pixel size in the OME-XML of level 0."""
    size = numbers(properties, "openslide.level[0].width", "openslide.level[0].height")
    text = properties.get("tiff.ImageDescription", "")
    return ome_pixel_size(text, None if size is None else (int(size[0]), int(size[1])))


def tiff_resolution(properties: Mapping[str, str]) -> Pair | None:
    """Return the pixel size of TIFF resolution tags, None without a physical unit."""
    if is_generic(properties) and "openslide.mpp-x" in properties:
        return numbers(properties, "openslide.mpp-x", "openslide.mpp-y")
    per_unit = numbers(properties, "tiff.XResolution", "tiff.YResolution")
    unit_um = UM_PER_UNIT.get(properties.get("tiff.ResolutionUnit", "").lower())
    if per_unit is None or unit_um is None:
        return None
    x, y = (unit_um / value if value else math.inf for value in per_unit)
    return x, y


def objective_power(properties: Mapping[str, str]) -> Pair | None:
    """Return the pixel size that the objective's power stands for."""
    power = numbers(properties, "openslide.objective-power", "openslide.objective-power")
    size = None if power is None else UM_TIMES_POWER / power[0] if power[0] else math.inf
    return None if size is None else (size, size)


def numbers(properties: Mapping[str, str], *names: str) -> Pair | None:
    """Return the numbers of two properties, None if one is missing; ValueError if one is no number."""
    if any(name not in properties for name in names):
        return None
    x, y = (number(properties[name]) for name in names)
    return x, y


SOURCES = {
    "vendor": vendor,
    "ome-xml": ome_xml,
    "tiff-resolution": tiff_resolution,
    "objective-power": objective_power,
}
"""The sources of a file's scale, the most trusted first."""
