"""The calls of the server: each is declared once, for the routes and for the description of the API."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from sish.errors import ParameterError, UnknownSlideError
from sish.index.store import SlideRow
from sish.serve.searches import Cancelled
from sish.slides.reader_threads import start

if TYPE_CHECKING:
    from sish.serve.archive import Archive

T = TypeVar("T")
Handler = Callable[["Archive", Request], Awaitable[Response]]

_LOOK_S = 0.25  # between two looks whether the asker is still there


@dataclass(frozen=True, slots=True)
class Call:
    """A call that programs and the page may make."""

    method: str
    """GET, POST or DELETE."""
    path: str
    """Its path; names in braces are parts that the caller chooses."""
    handler: Handler
    """Answers it."""
    summary: str
    """One sentence on it."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """Its query parameters, with a few words on each."""
    answers: str = "application/json"
    """The type of its answer."""
    body: Mapping[str, str] = field(default_factory=dict)
    """The fields of its JSON body, with a few words on each."""


async def row_of(archive: Archive, request: Request) -> SlideRow:
    """Return the slide that a request is about; UnknownSlideError if there is none of its id."""
    return await row_named(archive, unquote(request.path_params["slide_id"]))


async def row_named(archive: Archive, slide_id: str) -> SlideRow:
    """Return the row of a slide; UnknownSlideError if there is none of this id."""
    row = (await archive.catalogue()).row(slide_id)
    if row is None:
        raise UnknownSlideError(f"got slide {slide_id!r}, which is not in the index", slide_id=slide_id)
    return row


def number_of(asked: QueryParams, name: str, default: int | None, low: int, high: int) -> int:
    """Return a whole number of the address; ParameterError if it is none, or out of range."""
    given = asked.get(name)
    if given is None and default is not None:
        return default
    if given is None or not re.fullmatch(r"-?\d{1,15}", given) or not low <= int(given) <= high:
        raise ParameterError(f"got {name}={(given or '')[:20]!r}; want a whole number from {low} to {high}")
    return int(given)


async def in_thread(work: Callable[..., T], *given: Any) -> T:
    """Return the result of some work that would hold other requests up."""
    return await asyncio.wrap_future(start(work, *given))


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Return the result of some work; if the one who asked has left meanwhile, cancel it: Cancelled."""
    task = asyncio.ensure_future(work)
    while not (await asyncio.wait([task], timeout=_LOOK_S))[0]:
        if await request.is_disconnected():
            task.cancel()
            raise Cancelled("whoever asked for it has left")  # nobody reads it
    return await task
