"""Who may come in: the token, the hosts, the size of what is sent, and the policy that pages run under.

The server is for one person on one machine. A random token in the address of the first page is kept as a
cookie, and programs may send it as a bearer token. A page of another origin cannot use the cookie: it is sent
to the same site only, and a request that changes something is refused if its origin is not this server.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPENSEADRAGON_STYLE = (
    "@media (hover: none) {    .openseadragon-canvas:focus {        outline: none !important;    }}"
)
"""The style that OpenSeadragon 6.1.1 adds to its page; a test compares it with the vendored file."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'sha256-{}'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
).format(base64.b64encode(hashlib.sha256(OPENSEADRAGON_STYLE.encode()).digest()).decode())
"""The content security policy of every answer: nothing from elsewhere, no inline script, no eval."""

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NO_TOKEN = (
    "got no token, or a wrong one; open the address that sish serve printed, or send its token as "
    "'Authorization: Bearer TOKEN'"
)
_TOO_LARGE = "got more than {} bytes; want a smaller picture"
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))


@dataclass(frozen=True, slots=True)
class Door:
    """The conditions on a request."""

    token: str
    """What a request must show."""
    hosts: frozenset[str]
    """Values of the Host header that are answered, in lower case."""
    cookie: str
    """Name of the cookie that keeps the token; cookies of other ports share the machine's name."""
    most_bytes: int
    """Bytes of the largest body that is read."""

    @classmethod
    def of(cls, token: str, hosts: Iterable[str], port: int, most_bytes: int) -> Door:
        """Return the door of a server on a port."""
        names = [host.lower() for host in hosts]
        full = frozenset(names) | {f"{name}:{port}" for name in names}
        return cls(token, full, f"sish-{port}", most_bytes)

    def refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the answer to a request that may not come in; None for one that may."""
        host = headers.get("host", "").lower()
        if host not in self.hosts:
            return _refused(400, f"got host {host[:80]!r}; want {', '.join(sorted(self.hosts))}")
        if not self._shows_token(scope, headers):
            return _no_token(headers)
        if scope["method"] not in _SAFE and not _is_own(headers, host):
            return _refused(403, "got a request from a page of another origin; want one from this server")
        if int(headers.get("content-length") or 0) > self.most_bytes:
            return _refused(413, _TOO_LARGE.format(self.most_bytes))
        return None

    def is_arrival(self, scope: Scope) -> bool:
        """Return whether a request carries the right token in its address, so that it gets the cookie."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
        return scope["path"] == "/" and self._is_token(given)

    def _shows_token(self, scope: Scope, headers: Headers) -> bool:
        kept = cookie_parser(headers.get("cookie", "")).get(self.cookie, "")
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        return (
            self._is_token(kept)
            or (scheme.lower() == "bearer" and self._is_token(sent.strip()))
            or self.is_arrival(scope)
        )

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


class Guard:
    """Middleware that lets requests through a :class:`Door`, and adds the headers of safety to answers."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        """Stand before an application."""
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # ids of slides are one segment of the path, whatever is in them: routes see them quoted
        scope["path"] = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
        arrives = self._door.is_arrival(scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    out[name] = value
                if arrives:
                    out.append("set-cookie", self._set_cookie())
            await send(message)

        refusal = self._door.refusal(scope, headers)
        await (refusal or self._app)(scope, _bounded(receive, self._door.most_bytes), guarded)

    def _set_cookie(self) -> str:
        return f"{self._door.cookie}={self._door.token}; Path=/; HttpOnly; SameSite=Strict"


def _bounded(receive: Receive, most_bytes: int) -> Callable[[], Awaitable[Message]]:
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most_bytes:  # whatever its length was said to be
            raise HTTPException(413, _TOO_LARGE.format(most_bytes))
        return message

    return bounded


def _is_own(headers: Headers, host: str) -> bool:
    """Return whether a request is from a page of this server, or from a program."""
    origin = headers.get("origin")
    return (origin is None or origin.lower().partition("://")[2] == host) and headers.get(
        "sec-fetch-site", "none"
    ) in ("none", "same-origin")


def _refused(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)


def _no_token(headers: Headers) -> Response:
    if "text/html" in headers.get("accept", ""):
        return HTMLResponse(f"<!doctype html><title>sish</title><p>{_NO_TOKEN}.</p>", 401)
    return _refused(401, _NO_TOKEN)
