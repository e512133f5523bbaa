"""The rules of QuPath's reader of GeoJSON, written from their description: a small validator for tests."""

import json
import uuid
from pathlib import Path

TYPES = {"annotation", "detection", "tile"}
PROPERTIES = {"objectType", "name", "isLocked", "measurements", "metadata", "classification"}


def _refuse(constant):
    raise ValueError(f"{constant} is no JSON")


def valid_features(path) -> list[dict]:
    """The features of a file, each checked against every rule."""
    data = Path(path).read_bytes()
    data.decode("ascii")  # older versions read in the system's encoding
    page = json.loads(data, parse_constant=_refuse)
    assert page["type"] == "FeatureCollection" and isinstance(page["features"], list)
    for feature in page["features"]:
        _check_feature(feature)
    ids = [feature["id"] for feature in page["features"]]
    assert len(ids) == len(set(ids))
    return page["features"]


def _check_feature(feature):
    assert set(feature) == {"type", "id", "geometry", "properties"} and feature["type"] == "Feature"
    assert str(uuid.UUID(feature["id"])) == feature["id"]
    _check_geometry(feature["geometry"])
    told = feature["properties"]
    assert set(told) <= PROPERTIES and told["objectType"] in TYPES
    assert isinstance(told["name"], str) and told["name"] and isinstance(told["isLocked"], bool)
    for name, value in told["measurements"].items():
        assert name and type(value) in (int, float) and value - value == 0, "finite"
    assert all(isinstance(text, str) for text in told["metadata"].values())
    if "classification" in told:
        name, colour = told["classification"]["name"], told["classification"]["color"]
        assert name.strip() == name != "" and ":" not in name and "\n" not in name
        assert len(colour) == 3 and all(type(part) is int and 0 <= part <= 255 for part in colour)


def _check_geometry(geometry):
    assert set(geometry) == {"type", "coordinates"} and geometry["type"] in ("Polygon", "MultiPolygon")
    parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    assert geometry["type"] == "Polygon" or len(parts) >= 2
    for ring in (ring for part in parts for ring in part):
        assert ring[0] == ring[-1] and len(ring) >= 4
        assert len({tuple(place) for place in ring}) == len(ring) - 1, "a ring does not touch itself"
        for place in ring:
            assert len(place) == 2 and all(type(side) in (int, float) for side in place)


def box_of(feature) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a feature."""
    (ring, *_) = feature["geometry"]["coordinates"]
    across, down = zip(*ring, strict=True)
    return min(across), min(down), max(across), max(down)
