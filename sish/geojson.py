"""GeoJSON as QuPath reads it: objects with a place, a name, a class with its colour, and measurements.

LazySlide, TIAToolbox and TissUUmaps read the same files. Rules of QuPath's reader (0.5 and later):

- the ``id`` of an object is a UUID. Here it is made of what the object is, so a second export gives the same
  file, and an importer can replace what it imported before
- a polygon is closed, in level-0 pixels of the image as QuPath shows it: without the margins that OpenSlide's
  bounds leave out (:data:`Origin`)
- a class has a name and a colour: a name without a colour is refused
- measurements are one mapping of names to finite numbers, metadata one of names to text

>>> square = Feature("annotation", "a box", box_ring((10, 20), (5, 5)), identity=("slide", "a box"))
>>> square.to_dict(origin_xy=(10, 10))["geometry"]
{'type': 'Polygon', 'coordinates': [[[0, 10], [5, 10], [5, 15], [0, 15], [0, 10]]]}
"""

from __future__ import annotations

import colorsys
import hashlib
import json
import math
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sish.errors import ParameterError
from sish.outputs import check_output, write_output
from sish.printing import printable
from sish.slides.slide import Slide, read_bounds
from sish.version import __version__

Colour = tuple[int, int, int]
"""Red, green, blue from 0 to 255."""

Outline = tuple[tuple[float, float], ...]
"""Corners in level-0 pixels, x first, each once."""

Origin = Literal["bounds", "slide"]
"""The place that is (0, 0) in a file: the corner of OpenSlide's bounds, as QuPath shows a slide unless it was
opened with ``--no-crop``; or the corner of level 0. Most scanners write no bounds: then both are one."""

ENDINGS = (".geojson", ".json")
"""Endings of the files."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://sish/geojson")
_MARK = b'{"type": "FeatureCollection", "sish": '
_DECIMALS = 2  # as QuPath writes


@dataclass(frozen=True, slots=True)
class Feature:
    """An object of QuPath: a polygon and what is told of it."""

    kind: Literal["annotation", "detection", "tile"]
    """Its type: annotations are few, and users change them; detections and tiles may be many."""
    name: str
    """Its name."""
    ring: Outline
    """Its outline."""
    identity: tuple[str | int | float, ...]
    """What it is, unlike all others: its id is made of this."""
    holes: tuple[Outline, ...] = ()
    """Outlines of its holes."""
    class_name: str | None = None
    """The name of its class; None for none."""
    colour: Colour | None = None
    """The colour of its class. Default: made of the class's name."""
    measurements: Mapping[str, float | None] = field(default_factory=dict)
    """Numbers; those that are None or not finite are left out."""
    metadata: Mapping[str, str | None] = field(default_factory=dict)
    """Texts; those that are None are left out."""
    is_locked: bool = False
    """Whether QuPath keeps it from being moved by accident."""

    def to_dict(self, origin_xy: tuple[float, float] = (0, 0)) -> dict[str, Any]:
        """Return it as GeoJSON, with `origin_xy` (level-0 pixels) as the place (0, 0)."""
        properties: dict[str, Any] = {
            "objectType": self.kind,
            "name": printable(self.name),
            "isLocked": self.is_locked,
            "measurements": {name: value for name, value in self.measurements.items() if _is_number(value)},
            "metadata": {name: text for name, text in self.metadata.items() if text is not None},
        }
        if name := class_name_of(self.class_name):
            properties["classification"] = {"name": name, "color": list(self.colour or colour_of(name))}
        return {
            "type": "Feature",
            "id": str(uuid.uuid5(_NAMESPACE, json.dumps(self.identity))),
            "geometry": {
                "type": "Polygon",
                "coordinates": [_closed(ring, origin_xy) for ring in (self.ring, *self.holes)],
            },
            "properties": properties,
        }


def box_ring(l0_xy: tuple[float, float], l0_size: tuple[float, float]) -> Outline:
    """Return the outline of a rectangle from its top left corner and its width and height."""
    (x, y), (width, height) = l0_xy, l0_size
    return (x, y), (x + width, y), (x + width, y + height), (x, y + height)


def class_name_of(label: str | None) -> str | None:
    """Return a label as the name of a class in QuPath, which has no line breaks and no colons in it.

    Parameters
    ----------
    label : str or None
        A label.

    Returns
    -------
    str or None
        The name; None if nothing is left of it.

    Examples
    --------
    >>> class_name_of("grade: 3"), class_name_of(" ")
    ('grade- 3', None)
    """
    return printable(label or "").replace(":", "-").strip() or None


def colour_of(name: str) -> Colour:
    """Return a colour made of a class's name: the same in every file.

    Parameters
    ----------
    name : str
        The name.

    Returns
    -------
    tuple of int
        Red, green, blue.

    Examples
    --------
    >>> colour_of("benign") == colour_of("benign") != colour_of("malignant")
    True
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    hue, value = int.from_bytes(digest[:4]) / 2**32, (0.6, 0.75, 0.9)[digest[4] % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def origin_of(slide: Slide | str | os.PathLike[str], origin: Origin) -> tuple[int, int]:
    """Return the level-0 place of a slide that is (0, 0) in a file.

    Parameters
    ----------
    slide : Slide or path-like
        The slide. It is not opened for ``origin="slide"``.
    origin : {"bounds", "slide"}
        Which place.

    Returns
    -------
    x, y
        Level-0 pixels.

    Raises
    ------
    ParameterError
        If `origin` is none of these.
    SlideOpenError
        If the bounds are wanted and the slide cannot be opened.
    """
    check_origin(origin)
    if origin == "slide":
        return 0, 0
    bounds = slide.bounds if isinstance(slide, Slide) else read_bounds(slide)
    return bounds[:2]


def check_origin(origin: str) -> None:
    """Refuse an origin that is neither ``bounds`` nor ``slide`` (ParameterError)."""
    if origin not in ("bounds", "slide"):
        raise ParameterError(f"got origin={origin!r}; want 'bounds' (as QuPath shows slides) or 'slide'")


def collection(
    features: Iterable[Feature], *, slide: str, origin: Origin, origin_xy: tuple[int, int]
) -> bytes:
    """Return a file's content: a FeatureCollection, with a member ``sish`` that marks it as ours.

    Parameters
    ----------
    features : iterable of Feature
        The objects.
    slide : str
        The name of the slide's file, by which an importer finds the image.
    origin : {"bounds", "slide"}
        What ``origin_xy`` is.
    origin_xy : tuple of int
        The level-0 place that is (0, 0) in the file.

    Returns
    -------
    bytes
        JSON in ASCII, one object a line.
    """
    about = {"version": __version__, "slide": slide, "origin": origin, "origin_xy": list(origin_xy)}
    lines = (json.dumps(it.to_dict(origin_xy), allow_nan=False) for it in features)
    head = _MARK.decode() + json.dumps(about)
    return (head + ', "features": [\n' + ",\n".join(lines) + "\n]}\n").encode("ascii")


def write_collection(
    path: str | os.PathLike[str], data: bytes, *, inputs: Sequence[str | os.PathLike[str]] = ()
) -> Path:
    """Write a file of :func:`collection`; errors as :func:`check_geojson` and `sish.outputs.write_output`."""
    check_geojson(path, inputs=inputs)
    return write_output(path, data, inputs=inputs, replaces=ENDINGS)


def check_geojson(path: str | os.PathLike[str], *, inputs: Sequence[str | os.PathLike[str]] = ()) -> None:
    """Refuse a path that must not be written to, before the work for it is done.

    Parameters
    ----------
    path : path-like
        The file to write.
    inputs : sequence of path-like
        Files that must not be replaced.

    Raises
    ------
    ParameterError
        If its ending is of no such file, it lies inside an index, is an input, or was not written by sish: it
        may hold annotations that someone drew.
    """
    if Path(path).suffix.lower() not in ENDINGS:
        raise ParameterError(f"cannot write {path}: want a name that ends with .geojson", path=path)
    check_output(path, inputs=inputs, replaces=ENDINGS)
    if os.path.isfile(path) and not _is_ours(path):  # noqa: PTH113  Path.is_file raises for a name too long
        raise ParameterError(
            f"{path} is there and was not written by sish (its annotations may be someone's work), so it "
            "stays: give another path to write to",
            path=path,
        )


def _is_ours(path: str | os.PathLike[str]) -> bool:
    with Path(path).open("rb") as file:
        return file.read(len(_MARK)) == _MARK


def _closed(ring: Outline, origin_xy: tuple[float, float]) -> list[list[float]]:
    """Return the corners from an origin, with the first one again at the end."""
    x, y = origin_xy
    corners = [[_short(place[0] - x), _short(place[1] - y)] for place in ring]
    return [*corners, corners[0]]


def _short(value: float) -> float:
    """Return a coordinate with the decimals that QuPath keeps; a whole one as an integer."""
    rounded = round(float(value), _DECIMALS)
    return int(rounded) if rounded.is_integer() else rounded


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
