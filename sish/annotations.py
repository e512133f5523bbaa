"""Annotations that were drawn in QuPath: each becomes a part of a slide to search for.

>>> import tempfile
>>> folder = tempfile.mkdtemp()
>>> file = Path(folder, "drawn.geojson")
>>> _ = file.write_text('{"type": "Polygon", "coordinates": [[[3, 5], [9, 5], [9, 8], [3, 5]]]}')
>>> from sish.slides.slide import slide_from_array
>>> slide = slide_from_array(np.zeros((30, 40, 3), np.uint8), 0.5)
>>> read_annotations(file, slide)
(Annotation(name='annotation 1', region=(3, 5, 6, 3)),)
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sish.errors import AnnotationsError, AnnotationsNotFoundError, about_its_path
from sish.geojson import Origin, check_origin
from sish.printing import counted, printable
from sish.slides.region import Region
from sish.slides.slide import Slide, read_bounds

_GEOMETRIES: Final = {
    "Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 3,
}  # fmt: skip
"""Types of shapes, and how many lists are around a place."""

_NO_ANNOTATIONS = frozenset(
    ("detection", "cell", "tile", "tmaCore", "tma_core", "root", "PathDetectionObject", "PathCellObject")
) | {"PathTileObject", "TMACoreObject", "PathRootObject"}
"""Types of QuPath's other objects, now and in older versions; QuPath takes any other type for annotations."""

_MAX_BYTES = 256 << 20
"""Larger files hold detections: Python would need some ten times as much memory."""

_WANTED = "want GeoJSON as QuPath exports it"


@dataclass(frozen=True, slots=True)
class Annotation:
    """An annotation, as a part of its slide."""

    name: str
    """Its name in QuPath; without one its class, else its number in the file."""
    region: Region
    """The box around it: x, y, width, height in level-0 pixels of the slide."""


@about_its_path
def read_annotations(
    path: str | os.PathLike[str], slide: Slide | str | os.PathLike[str], *, origin: Origin = "bounds"
) -> tuple[Annotation, ...]:
    """Read the annotations of a slide: GeoJSON that QuPath exported, plain or as a zip file.

    A shape of any kind (polygon, ellipse, line, brush) gives the box around it, since a query is a rectangle.
    Detections, cells, tiles and cores of tissue arrays are left out.

    Parameters
    ----------
    path : path-like
        A feature, a collection or a list of them, or bare shapes.
    slide : Slide or path-like
        The slide that they were drawn on.
    origin : {"bounds", "slide"}
        The place that is (0, 0) in the file: the corner of OpenSlide's bounds, as QuPath shows a slide unless
        it was opened with ``--no-crop``; or the corner of level 0.

    Returns
    -------
    tuple of Annotation
        At least one, in the order of the file.

    Raises
    ------
    AnnotationsError
        If the file is not there or no GeoJSON, holds no annotation, or holds one without an area or outside
        the slide.
    SlideOpenError
        If the slide cannot be opened.
    ParameterError
        If `origin` is none of these.
    """
    check_origin(origin)
    bounds = slide.bounds if isinstance(slide, Slide) else read_bounds(slide)
    return annotations_of(_parsed(Path(path)), bounds, origin, Path(path))


def annotations_of(page: Any, bounds: Region, origin: Origin, path: Path) -> tuple[Annotation, ...]:
    """Return the annotations in a file's JSON; `bounds` are the slide's, errors as `read_annotations`."""
    shift = bounds[:2] if origin == "bounds" else (0, 0)
    try:
        features = list(_features(page, path))
        drawn = [it for it in features if _kind(it) not in _NO_ANNOTATIONS]
        found = [_annotation(it, number, shift, path) for number, it in enumerate(drawn, 1)]
    except RecursionError as error:
        raise AnnotationsError(f"{path}: its lists are nested too deeply; {_WANTED}") from error
    if not found:
        there = f"{counted(len(features), 'object')} of other types" if features else "it is empty"
        raise AnnotationsError(f"{path}: holds no annotation ({there}); draw a box in QuPath and export it")
    for annotation in found:
        _check_meets(annotation, bounds, origin, path)
    return tuple(found)


def _parsed(path: Path) -> Any:
    """Return the JSON of a file."""
    data = _content(path)
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise AnnotationsError(f"{path}: is no JSON ({why}); {_WANTED}") from error


def _content(path: Path) -> bytes:
    """Return the bytes of a file, of a zip file those of the file in it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise AnnotationsError(f"{path}: is not a regular file; {_WANTED}")
        if zipfile.is_zipfile(path):
            return _unzipped(path)
        _check_size(path.stat().st_size, path)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise AnnotationsNotFoundError(f"{path}: there is no such file; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, AnnotationsError):
            raise
        raise AnnotationsError(f"{path}: cannot be read: {error}; {_WANTED}") from error


def _unzipped(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            files = [it for it in archive.infolist() if it.filename.lower().endswith((".geojson", ".json"))]
            if len(files) != 1:
                raise AnnotationsError(f"{path}: holds {len(files)} GeoJSON files; want one")
            _check_size(files[0].file_size, path)
            return archive.read(files[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise AnnotationsError(
            f"{path}: is a damaged or locked zip file ({error}); export it again"
        ) from error


def _check_size(size: int, path: Path) -> None:
    if size > _MAX_BYTES:
        raise AnnotationsError(
            f"{path}: holds {size >> 20} MiB, want at most {_MAX_BYTES >> 20}: select the annotations in "
            "QuPath and export only these"
        )


def _features(node: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Yield the features of a file; a bare shape becomes one. QuPath writes and reads all these forms."""
    if isinstance(node, list):
        for one in node:
            yield from _features(one, path)
        return
    kind = node.get("type") if isinstance(node, dict) else None
    if kind == "FeatureCollection" and isinstance(node.get("features"), list):
        yield from _features(node["features"], path)
    elif kind == "Feature":
        yield node
        yield from _features(_children(node), path)
    elif isinstance(kind, str) and (kind in _GEOMETRIES or kind == "GeometryCollection"):
        yield {"geometry": node}
    else:
        got = (
            f"an object of type {kind!r}" if isinstance(node, dict) else f"{type(node).__name__} {node!r:.40}"
        )
        raise AnnotationsError(f"{path}: got {got}; {_WANTED}: a FeatureCollection")


def _children(feature: dict[str, Any]) -> list[Any]:
    """Return the objects inside an object, where a whole hierarchy was exported."""
    properties = _mapping(feature.get("properties"))
    children = properties.get("childObjects", properties.get("children"))
    return children if isinstance(children, list) else []


def _kind(feature: dict[str, Any]) -> Any:
    """Return an object's type, as this or an older version of QuPath writes it."""
    properties = _mapping(feature.get("properties"))
    names = (properties.get(name) for name in ("objectType", "object_type", "type"))
    kind = next((name for name in names if name is not None), feature.get("id"))
    return kind if isinstance(kind, str) else None


def _annotation(feature: dict[str, Any], number: int, shift: tuple[int, int], path: Path) -> Annotation:
    """Return a feature as an annotation, in level-0 pixels of the slide."""
    name = _name(feature, number)
    about = f"{path}: {printable(name)}"
    places = np.array(list(_places(feature.get("geometry"), about)), np.float64).reshape(-1, 2)
    if not len(places) or not (places.min(axis=0) < places.max(axis=0)).all():
        raise AnnotationsError(f"{about} has no area; draw a box around what is to be searched for")
    low, high = np.floor(places.min(axis=0)) + shift, np.ceil(places.max(axis=0)) + shift
    x, y, right, below = (int(side) for side in (*low, *high))
    return Annotation(name, (x, y, right - x, below - y))


def _name(feature: dict[str, Any], number: int) -> str:
    """Return an object's name, else its class, else its number."""
    properties = _mapping(feature.get("properties"))
    classification = properties.get("classification")
    told = _mapping(classification)
    names = told.get("names")
    joined = ": ".join(map(str, names)) if isinstance(names, list) else None
    given = (properties.get("name"), told.get("name"), joined, classification)
    return next((name for name in given if isinstance(name, str) and name.strip()), f"annotation {number}")


def _places(geometry: Any, about: str) -> Iterator[tuple[float, float]]:
    """Yield the places of a shape, as they are in the file."""
    shape = _mapping(geometry)
    kind = shape.get("type")
    if kind == "GeometryCollection":
        for one in _listed(shape.get("geometries"), about):
            yield from _places(one, about)
    elif isinstance(kind, str) and kind in _GEOMETRIES:
        yield from _nested(shape.get("coordinates"), _GEOMETRIES[kind], about)
    else:
        raise AnnotationsError(f"{about} has no shape that GeoJSON knows (got {kind!r}); draw it again")


def _nested(node: Any, depth: int, about: str) -> Iterator[tuple[float, float]]:
    """Yield the places in so many lists."""
    if depth:
        for one in _listed(node, about):
            yield from _nested(one, depth - 1, about)
        return
    place = _listed(node, about)
    if len(place) < 2 or not all(map(_is_coordinate, place[:2])):
        raise AnnotationsError(
            f"{about} has a place that is no pair of numbers ({node!r:.40}); export it again"
        )
    yield float(place[0]), float(place[1])


def _is_coordinate(value: Any) -> bool:
    """Return whether a value is a number that can be a pixel."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < 2**31  # NaN is not; math.isfinite takes no integer beyond all floats


def _listed(node: Any, about: str) -> list[Any]:
    if not isinstance(node, list):
        raise AnnotationsError(f"{about} has no list of places ({node!r:.40}); export it again")
    return node


def _mapping(node: Any) -> dict[str, Any]:
    return node if isinstance(node, dict) else {}


def _check_meets(annotation: Annotation, bounds: Region, origin: Origin, path: Path) -> None:
    """Refuse an annotation outside the slide: it was drawn on another one, or from another origin."""
    (x, y, width, height), (left, top, wide, high) = annotation.region, bounds
    if x < left + wide and y < top + high and left < x + width and top < y + height:
        return
    other = "slide" if origin == "bounds" else "bounds"
    raise AnnotationsError(
        f"{path}: {printable(annotation.name)} lies outside the slide, at {annotation.region}, and the slide "
        f"is {bounds}: give the slide that it was drawn on, or --origin {other}"
    )
