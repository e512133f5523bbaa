"""The bodies of requests: what a search is asked for, checked before anything is done."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sish.errors import ParameterError, QueryError, SlideError
from sish.nearest import nearest_to
from sish.refinement import Concept
from sish.slides.formats.pictures import decode_picture
from sish.slides.region import Box

MOST_HITS = 1000
"""Hits of the longest answer."""
FIELDS = (
    "slide_id",
    "image",
    "mpp",
    "region",
    "angle",
    "k",
    "ranking",
    "where",
    "exclude_patient",
    "relevant",
    "irrelevant",
    "concept",
    "search",
)
"""The fields of the body of ``POST /api/search``."""


def body_of(raw: bytes) -> Any:
    """Return the body of a request as plain values; ParameterError if it is no JSON, or nested too deep."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise ParameterError("got a body that is no JSON; want an object") from None


def question_of(body: Any) -> dict[str, Any]:
    """Return the arguments of `sish.Index.search` that the body of a request asks for.

    Parameters
    ----------
    body : object
        What the body is as JSON.

    Returns
    -------
    dict
        ``query`` and the options.

    Raises
    ------
    ParameterError
        If it has other fields than `FIELDS`, or a value of the wrong kind.
    QueryError
        If it names no slide and holds no picture, or both.
    """
    if not isinstance(body, Mapping):
        raise ParameterError('got a body that is no JSON object; want one, as in {"slide_id": "a"}')
    for name in body:
        if name not in FIELDS:
            raise ParameterError(f"got a field {name!r}{nearest_to(name, FIELDS)}; want {', '.join(FIELDS)}")
    given = {name: value for name, value in body.items() if value is not None}
    return _query(given) | _options(given)


def _query(given: Mapping[str, Any]) -> dict[str, Any]:
    if ("slide_id" in given) == ("image" in given):
        raise QueryError("got a slide_id and an image, or neither; want one of the two")
    if "slide_id" in given:
        _want(given, "slide_id", str, "the id of a slide")
        if "mpp" in given:
            raise QueryError("got mpp with slide_id, whose scale is known; want it with an image only")
        return {"query": given["slide_id"]}
    _want(given, "image", str, "a data: URL with base64")
    if not _is_number(given.get("mpp")):
        raise ParameterError(
            f"got mpp={_brief(given.get('mpp'))}; want the scale of the image in um per pixel"
        )
    return {"query": picture_of(given["image"]), "mpp": float(given["mpp"])}


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    k = given.get("k", 5)
    if type(k) is not int or not 1 <= k <= MOST_HITS:
        raise ParameterError(f"got k={k!r}; want a whole number from 1 to {MOST_HITS}")
    options: dict[str, Any] = {"k": k}
    if "region" in given:
        options["region"] = region_of(given["region"], given.get("angle", 0))
    for name, kind, wanted in (
        ("ranking", str, "auto, uncertainty or similarity"),
        ("where", Mapping, "conditions by column"),
        ("exclude_patient", bool, "true or false"),
        ("search", Mapping, "search parameters by name"),
    ):
        if name in given:
            _want(given, name, kind, wanted)
            options[name] = given[name]
    for name, option in (("relevant", "like"), ("irrelevant", "unlike")):
        if name in given:
            options[option] = examples_of(given[name], name)
    if "concept" in given:
        options["concept"] = _concept(given["concept"])
    return options


def _concept(given: Any) -> Concept:
    """Return a concept as :meth:`sish.Index.search` takes it; ParameterError if it is none."""
    if not isinstance(given, Mapping) or not set(given) <= {"positive", "negative", "strength"}:
        raise ParameterError(
            f"got concept={_brief(given)}; want an object with positive, negative and strength"
        )
    positive, negative = (examples_of(given.get(name, []), name) for name in ("positive", "negative"))
    return Concept(positive, negative, given.get("strength", 0.5))


def slides_in(asked: Mapping[str, Any]) -> list[str]:
    """Return the ids of all slides that the arguments of a search name, each once."""
    query = [asked["query"]] if isinstance(asked["query"], str) else []
    return list(dict.fromkeys((*query, *(slide_id for slide_id, _ in _marks(asked)))))


def reads_pixels(asked: Mapping[str, Any]) -> bool:
    """Return whether the arguments of a search ask for codes that no index holds, so pixels are encoded."""
    is_stored = isinstance(asked["query"], str) and "region" not in asked
    return not is_stored or any(region is not None for _, region in _marks(asked))


def _marks(asked: Mapping[str, Any]) -> list[tuple[str, Box | None]]:
    """Return all slides, and boxes on slides, that are marked."""
    marked = [*asked.get("like", ()), *asked.get("unlike", ())]
    concept = asked.get("concept")
    if concept is not None:
        marked += [(mark.slide_id, mark.region) for mark in (*concept.positive, *concept.negative)]
    return [one if isinstance(one, tuple) else (one, None) for one in marked]


def region_of(region: Any, angle: Any = 0) -> Box:
    """Return a region as :meth:`sish.Index.search` takes it; ParameterError if it is none."""
    if not isinstance(region, list) or len(region) != 4 or not all(map(_is_number, region)):
        raise ParameterError(f"got region={_brief(region)}; want [x, y, width, height] in level-0 pixels")
    if not _is_number(angle):
        raise ParameterError(f"got angle={_brief(angle)}; want degrees")
    x, y, width, height = (round(side) for side in region)
    return Box(x, y, width, height, float(angle))


def examples_of(given: Any, name: str) -> list[Any]:
    """Return marked slides, or regions of slides, as ``like`` and ``unlike`` take them."""
    if not isinstance(given, list):
        raise ParameterError(
            f"got {name}={_brief(given)}; want a list of slide ids, or of slide_id and region"
        )
    return [_example(one, name) for one in given]


def _example(one: Any, name: str) -> Any:
    if isinstance(one, str):
        return one
    is_example = isinstance(one, Mapping) and set(one) <= {"slide_id", "region", "angle"}
    if is_example and isinstance(one.get("slide_id"), str):
        if one.get("region") is None:
            return one["slide_id"]
        return one["slide_id"], region_of(one["region"], one.get("angle", 0))
    raise ParameterError(
        f"got {_brief(one)} in {name}; want a slide id, or an object with slide_id, region and angle"
    )


def picture_of(url: str) -> Any:
    """Return the pixels of a ``data:image/...;base64,...`` URL, uint8 (H, W, 3); SishError if it has none."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise ParameterError("got an image that is no data URL; want data:image/png;base64,...")
    try:
        raw = base64.b64decode(data, validate=True)
    except ValueError as error:
        raise ParameterError("got an image whose base64 is broken; want it as a browser makes it") from error
    with tempfile.TemporaryDirectory() as folder:  # decoders want a file
        file = Path(folder, "image")
        file.write_bytes(raw)
        try:
            return np.asarray(decode_picture(file).convert("RGB"))
        except SlideError as error:
            raise QueryError(str(error).replace(str(file), "the image")) from None


def _want(given: Mapping[str, Any], name: str, kind: Any, wanted: str) -> None:
    value = given.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ParameterError(f"got {name}={_brief(value)}; want {wanted}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1 << 40


def _brief(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:57]}..."
