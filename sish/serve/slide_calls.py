"""Calls about slides: the list, the facts on one, its pictures, and the map of all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sish.encode import SlideEncoder
from sish.errors import SishError
from sish.filters import where_of
from sish.index.store import SlideRow
from sish.serve.archive import Archive, reason_of
from sish.serve.calls import Call, in_thread, number_of, row_of, unless_gone
from sish.serve.catalogue import short
from sish.serve.shown_slide import ShownSlide
from sish.slides.outlines import on_slide, outlines
from sish.slides.tissue import find_tissue

_JPEG = "image/jpeg"
_KEPT = {"Cache-Control": "private, max-age=3600"}
_TILE = re.compile(r"(\d{1,7})_(\d{1,7})\.jpg")


async def _tile(archive: Archive, request: Request) -> Response:
    name = _TILE.fullmatch(request.path_params["tile"])
    level = request.path_params["level"]
    if name is None or not level.isdecimal() or len(level) > 2:
        raise HTTPException(404, "got no tile; want tiles/LEVEL/COLUMN_ROW.jpg")
    place = (int(level), int(name[1]), int(name[2]))
    row = await row_of(archive, request)
    return await _picture(archive, request, row, place, lambda shown: shown.tile(*place))


async def _thumbnail(archive: Archive, request: Request) -> Response:
    size = number_of(request.query_params, "size", 256, 64, 1024)
    row = await row_of(archive, request)
    return await _picture(archive, request, row, ("thumbnail", size), lambda shown: shown.thumbnail(size))


async def _patch(archive: Archive, request: Request) -> Response:
    asked = request.query_params
    far = 1 << 24
    xy = (number_of(asked, "x", None, -far, far), number_of(asked, "y", None, -far, far))
    size = number_of(asked, "size", 256, 32, 1024)
    row, encoder = await row_of(archive, request), archive.index.encoder
    name = ("patch", *xy, size)
    draw = partial(_drawn_patch, row=row, xy=xy, size=size, encoder=encoder)
    return await _picture(archive, request, row, name, draw)


async def _picture(
    archive: Archive,
    request: Request,
    row: SlideRow,
    name: tuple[Any, ...],
    draw: Callable[[ShownSlide], bytes | None],
) -> Response:
    """Return a picture of a slide; 404 if there is none of this name."""
    data = await unless_gone(request, archive.picture(row, name, draw))
    if data is None:
        raise HTTPException(404, f"got {name}, which the slide does not have")
    return Response(data, media_type=_JPEG, headers=_KEPT)


def _drawn_patch(
    shown: ShownSlide, row: SlideRow, xy: tuple[int, int], size: int, encoder: SlideEncoder
) -> bytes:
    """Return a patch of a slide as JPEG."""
    recipe = encoder.recipe
    if encoder.lacks_encoder or not recipe.mpp:  # the patches of files of features
        side = row.patch_l0_px
        return shown.square(xy, side, size)
    return shown.patch(xy, recipe.patch_px, recipe.mpp, encoder.step_px, size)


async def _mosaic(archive: Archive, request: Request) -> Response:
    row = await row_of(archive, request)
    patches = await in_thread(archive.index.patches, row.slide_id)
    places = [] if patches.l0_xy is None else patches.l0_xy.tolist()
    return JSONResponse({"patch_l0_px": patches.patch_l0_px, "patches": places})


async def _tissue(archive: Archive, request: Request) -> Response:
    row, recipe = await row_of(archive, request), archive.index.recipe

    def draw(shown: ShownSlide) -> bytes:
        tissue = find_tissue(
            shown.slide, min_speck_um2=recipe.min_speck_um2, leave_out_ink=recipe.leave_out_ink
        )
        pieces = [
            [np.rint(on_slide(ring, tissue, shown.slide)).astype(int).tolist() for ring in piece]
            for piece in outlines(tissue.mask)
        ]
        return json.dumps({"polygons": pieces}).encode()

    data = await unless_gone(request, archive.picture(row, ("tissue",), draw))
    return Response(data, media_type="application/json")


async def _slide(archive: Archive, request: Request) -> Response:
    row = await row_of(archive, request)
    facts: dict[str, Any] = {
        **short(row),
        "patch_l0_px": row.patch_l0_px or None,
        "mpp_source": row.mpp_source,
        "status": row.status,
        "available": True,
        "reason": "",
    }
    try:
        facts |= await archive.of_slide(row, _facts)
    except SishError as error:
        facts |= {"available": False, "reason": reason_of(error)}
    return JSONResponse(facts)


def _facts(shown: ShownSlide) -> dict[str, Any]:
    """Return what only the slide's file tells."""
    slide = shown.slide
    return {
        "bounds": list(slide.bounds),
        "width": slide.dimensions[0],
        "height": slide.dimensions[1],
        "mpp": slide.mpp,
        "dzi": shown.zoom.to_dict(),
        "properties": {name: text[:200] for name, text in slide.properties.items()},
    }


async def _slides(archive: Archive, request: Request) -> Response:
    asked = request.query_params
    where: dict[str, list[str]] = where_of(asked.getlist("where"))
    for column in ("label", "site", "patient"):
        where.setdefault(column, []).extend(asked.getlist(column))
    offset = number_of(asked, "offset", 0, 0, 1 << 40)
    limit = number_of(asked, "limit", 100, 0, 1000)
    catalogue = await archive.catalogue()
    given = {column: wanted for column, wanted in where.items() if wanted}
    places = await in_thread(catalogue.find, asked.get("query", ""), given)
    return JSONResponse(
        {
            "total": len(places),
            "offset": offset,
            "generation": catalogue.generation,
            "slides": [short(row) for row in catalogue.rows(places[offset : offset + limit])],
        }
    )


async def _info(archive: Archive, request: Request) -> Response:
    return JSONResponse(await archive.info() | {"origin": str(request.base_url).rstrip("/")})


async def _map(archive: Archive, _request: Request) -> Response:
    return JSONResponse((await archive.slide_map()).to_dict())


_SLIDE = "/api/slides/{slide_id}"

SLIDE_CALLS = (
    Call("GET", _SLIDE + "/tiles/{level}/{tile}", _tile,
         "Return a tile of DeepZoom over the scanned part of a slide; {tile} is COLUMN_ROW.jpg.",
         answers=_JPEG),
    Call("GET", _SLIDE + "/thumbnail", _thumbnail, "Return a small picture of a slide.",
         {"size": "longest side in pixels, 64 to 1024; default 256"}, _JPEG),
    Call("GET", _SLIDE + "/patch", _patch, "Return a patch of a slide, as the encoder sees it.",
         {"x": "left edge, level-0 pixels", "y": "top edge, level-0 pixels",
          "size": "side of the picture in pixels, 32 to 1024; default 256"}, _JPEG),
    Call("GET", _SLIDE + "/mosaic", _mosaic, "Return the places of the patches that stand for a slide."),
    Call("GET", _SLIDE + "/tissue", _tissue, "Return the outline of a slide's tissue, in level-0 pixels."),
    Call("GET", _SLIDE, _slide, "Return the facts on a slide."),
    Call("GET", "/api/slides", _slides, "List slides in order of their ids.",
         {"query": "words that must occur in id, label, site, patient or metadata",
          "label": "only slides with this label; may be given again", "site": "the same for sites",
          "patient": "the same for patients",
          "where": "COLUMN=VALUE, as --where of sish search; may be given again",
          "offset": "slides to pass over", "limit": "slides to return, at most 1,000; default 100"}),
    Call("GET", "/api/map", _map, "Return a place in two dimensions for each slide; like ones lie together."),
    Call("GET", "/api/info", _info, "Return the facts on the index, and the values of its columns."),
)  # fmt: skip
"""The calls, in the order in which routes are tried."""
