"""The application: calls, the page, and what errors become. ``GET /api/docs`` shows the calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sish.errors import SishError, SlideOpenError, SlideReadError, StoreError, UnknownSlideError
from sish.serve.archive import Archive, SlowSlide, reason_of
from sish.serve.calls import Call
from sish.serve.guard import Door, Guard
from sish.serve.openapi import openapi_of
from sish.serve.search_calls import SEARCH_CALLS
from sish.serve.searches import Busy, Cancelled
from sish.serve.slide_calls import SLIDE_CALLS

CALLS = (*SLIDE_CALLS, *SEARCH_CALLS)
"""All calls."""

_STATUS: tuple[tuple[type[SishError], int], ...] = (
    (UnknownSlideError, 404),
    (Cancelled, 409),
    (SlowSlide, 504),
    (SlideOpenError, 410),
    (Busy, 503),
    (SlideReadError, 500),
    (StoreError, 500),
)
"""Statuses by error, the first that fits; 400 for all others."""


def make_app(archive: Archive, door: Door) -> Guard:
    """Return the application.

    Parameters
    ----------
    archive : Archive
        What it shows.
    door : Door
        Who may come in.

    Returns
    -------
    Guard
        The ASGI application, behind its guard.
    """
    page = resources.files("sish.serve").joinpath("page")
    described = JSONResponse(openapi_of(CALLS))
    routes = [
        *(Route(call.path, _endpoint(archive, call), methods=[call.method]) for call in CALLS),
        Route("/api/openapi.json", lambda _request: described),
        Route("/api/docs", lambda _request: FileResponse(str(page.joinpath("docs.html")))),
        Mount("/page", StaticFiles(directory=str(page))),
        Route("/", lambda _request: FileResponse(str(page.joinpath("index.html")))),
    ]
    handlers = {
        SishError: _error,
        HTTPException: _http_error,
        ClientDisconnect: _nobody_is_there,
        Exception: _fault,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, door)


def _endpoint(archive: Archive, call: Call) -> Callable[[Request], Awaitable[Response]]:
    """Return a call's handler, of requests alone."""

    async def endpoint(request: Request) -> Response:
        return await call.handler(archive, request)

    return endpoint


async def _error(_request: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 400)
    return JSONResponse({"error": reason_of(error)}, status)


async def _fault(_request: Request, error: Exception) -> Response:
    """Return the answer to a fault of the server itself, whose traceback it prints."""
    told = f"the server failed ({type(error).__name__}); its terminal shows where"
    return JSONResponse({"error": told}, 500)


async def _nobody_is_there(_request: Request, _error: Exception) -> Response:
    """Return what nobody gets: the asker left before all of the question was sent."""
    return Response(status_code=400)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)
