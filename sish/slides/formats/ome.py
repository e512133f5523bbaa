"""The size of a pixel as an OME-TIFF tells it: in the OME-XML of its description.

The XML comes with the file and is not trusted. It is read as a stream, up to the image that is looked for. A
document type is refused: without one no entity can be declared or expanded.

https://docs.openmicroscopy.org/ome-model/6.2.2/ome-tiff/specification.html
"""

from collections.abc import Mapping
from xml.parsers import expat

UM_PER_UNIT = {
    "nm": 1e-3,
    "\N{MICRO SIGN}m": 1.0,
    "\N{GREEK SMALL LETTER MU}m": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
}
"""Micrometres in the units that programs write; where an axis names none, the schema says micrometres."""

NO_LENGTHS = ("pixel", "reference frame")
"""Units of the schema that are no lengths."""

SHOWN = 32
"""Characters of a file's text that an error shows, at most."""


def ome_pixel_size(text: str, size: tuple[int, int] | None = None) -> tuple[float, float] | None:
    """Return the size of a pixel that an OME-XML tells.

    The XML may describe several images: the one of this `size` is meant. So a file that was scaled down by a
    program that kept the XML is not taken at its old scale. Where only one axis has a length, the other one
    is as long.

    Parameters
    ----------
    text : str
        The description of a TIFF.
    size : tuple of int, optional
        Width and height of the image in pixels. Default: the first image.

    Returns
    -------
    tuple of float or None
        Micrometres that a pixel covers in x and y; None where the text is no OME-XML or tells none.

    Raises
    ------
    ValueError
        With the reason on one line, if the XML is broken or of other images, or a length is no number or has
        an unknown unit.

    Examples
    --------
    >>> pixels = '<Pixels SizeX="20" SizeY="10" PhysicalSizeX="250" PhysicalSizeXUnit="nm"/>'
    >>> ome_pixel_size(f"<OME><Image>{pixels}</Image></OME>", (20, 10))
    (0.25, 0.25)
    """
    if not text.lstrip("\ufeff \t\r\n").startswith("<"):
        return None
    pixels = _Reader(size).read(text)
    x, y = (_length(pixels, axis) for axis in "XY")
    x, y = (y if x is None else x), (x if y is None else y)
    return None if x is None or y is None else (x, y)


def number(text: str) -> float:
    """Return the number that a file says; a decimal comma is read as a point.

    Parameters
    ----------
    text : str
        What the file says.

    Returns
    -------
    float
        The number.

    Raises
    ------
    ValueError
        With the reason on one line, if it is none.

    Examples
    --------
    >>> number("0,25"), number(" 0.25 ")
    (0.25, 0.25)
    """
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise ValueError(f"tells {text[:SHOWN]!r}, which is no number") from None


class _Done(Exception):
    """No more of the XML needs to be read."""


class _Reader:
    """Finds the element ``Pixels`` of an image."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        self._size = None if size is None else tuple(map(str, size))
        self._is_first = True
        self._found: Mapping[str, str] = {}
        self._others = 0

    def read(self, text: str) -> Mapping[str, str]:
        """Return the attributes of the ``Pixels`` of the wanted size; none where the XML is not OME's."""
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.StartDoctypeDeclHandler = _refuse
        try:
            parser.Parse(text, True)
        except _Done:
            return self._found
        except expat.ExpatError as error:
            raise ValueError(f"has a broken XML ({error})") from error
        if self._others:
            raise ValueError("has an OME-XML that describes images of other sizes")
        return {}

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        """Keep the attributes of the wanted ``Pixels``, and count those of other sizes."""
        kind = name.rpartition(":")[2]
        if self._is_first and kind != "OME":
            raise _Done
        self._is_first = False
        if kind != "Pixels":
            return
        if self._size in (None, (attributes.get("SizeX"), attributes.get("SizeY"))):
            self._found = attributes
            raise _Done
        self._others += 1


def _refuse(*_: object) -> None:
    """Refuse a document type."""
    raise ValueError("has an XML with a document type, which is not read")


def _length(pixels: Mapping[str, str], axis: str) -> float | None:
    """Return the micrometres of a pixel along an axis, None where they are not told or are no length."""
    told = pixels.get(f"PhysicalSize{axis}")
    unit = pixels.get(f"PhysicalSize{axis}Unit", "um").strip()
    if told is None or unit in NO_LENGTHS:
        return None
    if unit not in UM_PER_UNIT:
        raise ValueError(f"tells a pixel of {told[:SHOWN]!r} {unit[:SHOWN]!r}, a unit that is not known here")
    return number(told) * UM_PER_UNIT[unit]
