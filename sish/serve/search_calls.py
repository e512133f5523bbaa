"""Calls that search, and those about a search: progress, cancelling, explanations, heatmaps, downloads."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sish.errors import ParameterError
from sish.results import Results
from sish.serve.archive import Archive
from sish.serve.calls import Call, in_thread, row_named, row_of
from sish.serve.downloads import as_csv, as_geojson, as_report
from sish.serve.questions import FIELDS, body_of, question_of, reads_pixels, slides_in
from sish.serve.searches import Job, Progress

_NAME = re.compile(r"[A-Za-z0-9-]{8,64}")
_HEADER = "X-Search-Id"


async def _search(archive: Archive, request: Request) -> Response:
    name = _name_of(request)
    job = archive.searches.expect(name)  # before its question is read, which may take seconds
    with job.noting_failure():
        asked = await _asked(archive, request)

    def work(progress: Progress) -> Results:
        return archive.index.search(**archive.placed(asked), on_progress=progress)

    run = archive.searches.run
    job.result = results = await run(job, work, request.is_disconnected, encodes=reads_pixels(asked))
    return JSONResponse(results.to_dict(), headers={_HEADER: name})


async def _asked(archive: Archive, request: Request) -> dict[str, Any]:
    """Return the arguments of `Index.search` that a request asks for."""
    body = await request.body()
    asked = await in_thread(lambda: question_of(body_of(body)))
    for slide_id in slides_in(asked):  # Index.search also takes paths, which nobody may name here
        await row_named(archive, slide_id)
    return asked


def _name_of(request: Request) -> str:
    """Return the name under which some work is watched: the asker's own, or a new one."""
    name = request.headers.get(_HEADER, str(uuid.uuid4()))
    if not _NAME.fullmatch(name):
        raise ParameterError(f"got a bad {_HEADER}; want 8 to 64 letters, digits and hyphens")
    return name


async def _watch(archive: Archive, request: Request) -> Response:
    return JSONResponse(_job(archive, request.path_params["name"]).to_dict())


async def _cancel(archive: Archive, request: Request) -> Response:
    job = _job(archive, request.path_params["name"])
    job.cancel()
    return JSONResponse(job.to_dict())


async def _heatmap(archive: Archive, request: Request) -> Response:
    row = await row_of(archive, request)
    results = _answer(archive, request.query_params.get("search", ""))

    def work(progress: Progress) -> dict[str, Any]:
        tiles = archive.tiles_of(row, progress)
        return archive.index.heatmap(row.slide_id, results, tiles=tiles).to_dict()

    job = archive.searches.expect(_name_of(request))
    return JSONResponse(await archive.searches.run(job, work, request.is_disconnected, encodes=True))


async def _explain(archive: Archive, request: Request) -> Response:
    results = _answer(archive, request.path_params["name"])
    slide_id = request.query_params.get("slide_id", "")
    explanation = await in_thread(archive.index.explain, results, slide_id)
    return JSONResponse(explanation.to_dict())


async def _download(archive: Archive, request: Request) -> Response:
    name, file = request.path_params["name"], request.path_params["file"]
    if file not in _DOWNLOADS:
        raise HTTPException(404, f"got {file!r}; want {', '.join(_DOWNLOADS)}")
    kind, make = _DOWNLOADS[file]
    results = _answer(archive, name)
    data = await in_thread(make, results, archive.index, request.query_params.get("origin", "bounds"))
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return Response(data, media_type=kind, headers=headers)


_DOWNLOADS: dict[str, tuple[str, Callable[..., bytes]]] = {
    "hits.csv": ("text/csv; charset=utf-8", as_csv),
    "report.html": ("text/html; charset=utf-8", as_report),
    "geojson.zip": ("application/zip", as_geojson),
}


def _job(archive: Archive, name: str) -> Job:
    job = archive.searches.get(name)
    if job is None:
        raise HTTPException(404, "got a search that is not known, or was forgotten; ask again")
    return job


def _answer(archive: Archive, name: str) -> Results:
    result = _job(archive, name).result
    if not isinstance(result, Results):
        raise HTTPException(404, "got a search that has no answer; ask again")
    return result


_OF_SEARCH = "/api/searches/{name}"
_FIELDS = {
    "slide_id": "the id of an indexed slide to search for; or else image",
    "image": "a picture to search for: data:image/png;base64,... (PNG, JPEG, TIFF, BMP, WebP)",
    "mpp": "scale of the picture, um per pixel",
    "region": "part of it to search for: [x, y, width, height] in level-0 pixels",
    "angle": "degrees by which the region is turned clockwise about its centre; default 0",
    "k": "hits wanted, 1 to 1,000; default 5",
    "ranking": "auto, uncertainty or similarity; default auto",
    "where": 'conditions on slides, by column: {"site": ["lung", "breast"], "age": ">=50"}',
    "exclude_patient": "true leaves out slides of the query's own patient",
    "relevant": 'slides that are marked as relevant: ids, or {"slide_id", "region", "angle"}',
    "irrelevant": "the same, marked as irrelevant",
    "concept": 'a direction to move the query along: {"positive": [...], "negative": [...], "strength": 0.5}',
    "search": 'search parameters for this search alone, such as {"budget": 1000}',
}
assert tuple(_FIELDS) == FIELDS, "the description of the body names other fields than are taken"

SEARCH_CALLS = (
    Call("POST", "/api/search", _search,
         "Search, and answer as sish search --json does. The header X-Search-Id of the answer, or of the "
         "request, names the search. It is cancelled if the connection ends.", body=_FIELDS),
    Call("GET", _OF_SEARCH, _watch,
         "Return where some work is: waiting, running, done, cancelled or failed; steps done and in all."),
    Call("DELETE", _OF_SEARCH, _cancel, "Cancel some work."),
    Call("GET", _OF_SEARCH + "/explain", _explain, "Explain why a slide is where it is in an answer.",
         {"slide_id": "the slide"}),
    Call("GET", "/api/slides/{slide_id}/heatmap", _heatmap,
         "Compare every tissue tile of a slide with the query of a search, in bits.",
         {"search": "the name of the search"}),
    Call("GET", _OF_SEARCH + "/{file}", _download,
         "Download an answer: {file} is hits.csv, report.html or geojson.zip (for QuPath).",
         {"origin": "the place (0, 0) of GeoJSON: bounds (default) or slide"}, "application/octet-stream"),
)  # fmt: skip
"""The calls, in the order in which routes are tried."""
