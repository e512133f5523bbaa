"""The routes of the server: see ``GET /api/docs``, and :mod:`sish.serve.openapi`."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any
from urllib.parse import unquote

import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sish.encode import SlideEncoder
from sish.errors import (
    ParameterError,
    SishError,
    SlideOpenError,
    UnknownSlideError,
)
from sish.filters import where_of
from sish.index.store import SlideRow
from sish.serve.archive import Archive, SlowSlide, reason_of
from sish.serve.catalogue import short
from sish.serve.guard import Door, Guard
from sish.serve.questions import question_of
from sish.serve.searches import Busy, Cancelled, Progress
from sish.serve.shown_slide import ShownSlide
from sish.slides.outlines import Ring, outlines
from sish.slides.tissue import find_tissue

_TILE = re.compile(r"(\d{1,7})_(\d{1,7})\.jpg")
_SEARCH_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
_STATUS: tuple[tuple[type[SishError], int], ...] = (
    (UnknownSlideError, 404),
    (Cancelled, 409),
    (SlowSlide, 504),
    (SlideOpenError, 410),
    (Busy, 503),
)
"""Statuses by error, the first that fits; 400 for all others."""


def make_app(archive: Archive, door: Door) -> Starlette | Guard:
    """Return the application.

    Parameters
    ----------
    archive : Archive
        What it shows.
    door : Door
        Who may come in.

    Returns
    -------
    ASGI application
        The application, behind its guard.
    """
    page = resources.files("sish.serve").joinpath("page")
    slide = "/api/slides/{slide_id}"
    routes = [
        Route(slide + "/tiles/{level}/{tile}", _of(archive, _tile)),
        Route(slide + "/thumbnail", _of(archive, _thumbnail)),
        Route(slide + "/patch", _of(archive, _patch)),
        Route(slide + "/mosaic", _of(archive, _mosaic)),
        Route(slide + "/tissue", _of(archive, _tissue)),
        Route(slide, _of(archive, _slide)),
        Route("/api/slides", _of(archive, _slides)),
        Route("/api/info", _of(archive, _info)),
        Route("/api/search", _of(archive, _search), methods=["POST"]),
        Route("/api/searches/{name}", _of(archive, _watch), methods=["GET"]),
        Route("/api/searches/{name}", _of(archive, _cancel), methods=["DELETE"]),
        Mount("/page", StaticFiles(directory=str(page))),
        Route("/", lambda _request: FileResponse(str(page.joinpath("index.html")))),
    ]
    app = Starlette(routes=routes, exception_handlers={SishError: _error, HTTPException: _http_error})
    return Guard(app, door)


Handler = Callable[[Archive, Request], Awaitable[Response]]


def _of(archive: Archive, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler of requests to an archive."""

    async def endpoint(request: Request) -> Response:
        return await handler(archive, request)

    return endpoint


async def _error(_request: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 400)
    return JSONResponse({"error": reason_of(error)}, status)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _row(archive: Archive, request: Request) -> SlideRow:
    slide_id = unquote(request.path_params["slide_id"])
    row = (await archive.catalogue()).row(slide_id)
    if row is None:
        raise UnknownSlideError(f"got slide {slide_id!r}, which is not in the index", slide_id=slide_id)
    return row


async def _tile(archive: Archive, request: Request) -> Response:
    name = _TILE.fullmatch(request.path_params["tile"])
    level = request.path_params["level"]
    if name is None or not level.isdecimal() or len(level) > 2:
        raise HTTPException(404, "got no tile; want tiles/LEVEL/COLUMN_ROW.jpg")
    place = (int(level), int(name[1]), int(name[2]))
    row = await _row(archive, request)
    data = await _unless_gone(request, archive.picture(row, place, lambda shown: shown.tile(*place)))
    if data is None:
        raise HTTPException(404, f"got tile {place}, which the slide does not have")
    return _jpeg(data)


async def _thumbnail(archive: Archive, request: Request) -> Response:
    size = _number(request.query_params, "size", 256, 64, 1024)
    row = await _row(archive, request)
    draw = archive.picture(row, ("thumbnail", size), lambda shown: shown.thumbnail(size))
    return _jpeg(await _unless_gone(request, draw) or b"")


async def _patch(archive: Archive, request: Request) -> Response:
    asked = request.query_params
    far = 1 << 24
    xy = (_number(asked, "x", None, -far, far), _number(asked, "y", None, -far, far))
    size = _number(asked, "size", 256, 32, 1024)
    row, encoder = await _row(archive, request), archive.index.encoder
    draw = archive.picture(
        row, ("patch", *xy, size), lambda shown: _drawn_patch(shown, row, xy, size, encoder)
    )
    return _jpeg(await _unless_gone(request, draw) or b"")


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
    row = await _row(archive, request)
    patches = await _in_thread(archive.index.patches, row.slide_id)
    places = [] if patches.l0_xy is None else patches.l0_xy.tolist()
    return JSONResponse({"patch_l0_px": patches.patch_l0_px, "patches": places})


async def _tissue(archive: Archive, request: Request) -> Response:
    row, recipe = await _row(archive, request), archive.index.recipe

    def draw(shown: ShownSlide) -> bytes:
        def rounded(ring: Ring) -> list[list[int]]:
            corners = np.rint(ring * tissue.l0_per_px + tissue.l0_xy).astype(int)
            return corners.tolist()  # type: ignore[no-any-return]

        tissue = find_tissue(
            shown.slide, min_speck_um2=recipe.min_speck_um2, leave_out_ink=recipe.leave_out_ink
        )
        pieces = [[rounded(ring) for ring in piece] for piece in outlines(tissue.mask)]
        return json.dumps({"polygons": pieces}).encode()

    data = await _unless_gone(request, archive.picture(row, ("tissue",), draw))
    return Response(data, media_type="application/json")


async def _slide(archive: Archive, request: Request) -> Response:
    row = await _row(archive, request)
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
    offset = _number(asked, "offset", 0, 0, 1 << 40)
    limit = _number(asked, "limit", 100, 0, 1000)
    catalogue = await archive.catalogue()
    given = {column: wanted for column, wanted in where.items() if wanted}
    places = await _in_thread(catalogue.find, asked.get("query", ""), given)
    return JSONResponse(
        {
            "total": len(places),
            "offset": offset,
            "generation": catalogue.generation,
            "slides": [short(catalogue.rows[place]) for place in places[offset : offset + limit].tolist()],
        }
    )


async def _info(archive: Archive, request: Request) -> Response:
    return JSONResponse(await archive.info() | {"origin": str(request.base_url).rstrip("/")})


async def _search(archive: Archive, request: Request) -> Response:
    name = request.headers.get("x-search-id", str(uuid.uuid4()))
    if not _SEARCH_ID.fullmatch(name):
        raise ParameterError("got a bad X-Search-Id; want 8 to 64 letters, digits and hyphens")
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise ParameterError("got a body that is no JSON; want an object") from None
    asked = await _in_thread(question_of, body)

    def work(progress: Progress) -> Any:
        return archive.index.search(**asked, on_progress=progress)

    results = await archive.searches.run(name, work, request.is_disconnected)
    return JSONResponse(results.to_dict(), headers={"X-Search-Id": name})


async def _watch(archive: Archive, request: Request) -> Response:
    return JSONResponse(_job(archive, request).to_dict())


async def _cancel(archive: Archive, request: Request) -> Response:
    job = _job(archive, request)
    job.cancel()
    return JSONResponse(job.to_dict())


def _job(archive: Archive, request: Request) -> Any:
    job = archive.searches.get(request.path_params["name"])
    if job is None:
        raise HTTPException(404, "got a search that is not known, or was forgotten; ask again")
    return job


async def _in_thread(work: Callable[..., Any], *given: Any) -> Any:
    return await asyncio.to_thread(work, *given)


async def _unless_gone(request: Request, work: Awaitable[bytes | None]) -> bytes | None:
    """Return what work makes, and drop it if the one who asked has left meanwhile."""
    task = asyncio.ensure_future(work)
    while not (await asyncio.wait([task], timeout=0.25))[0]:
        if await request.is_disconnected():
            task.cancel()
    return await task


def _number(asked: QueryParams, name: str, default: int | None, low: int, high: int) -> int:
    """Return a whole number of the address; ParameterError if it is none, or out of range."""
    given = asked.get(name)
    if given is None and default is not None:
        return default
    if given is None or not re.fullmatch(r"-?\d{1,15}", given) or not low <= int(given) <= high:
        raise ParameterError(f"got {name}={(given or '')[:20]!r}; want a whole number from {low} to {high}")
    return int(given)


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})
