"""Run the server, and open its page."""

from __future__ import annotations

import secrets
import socket
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from sish.errors import ParameterError
from sish.printing import print_error, print_line
from sish.serve.app import make_app
from sish.serve.archive import UPLOAD_BYTES, Archive
from sish.serve.guard import Door
from sish.slide_index import Index

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""The hosts of this machine."""
_ALL = ("0.0.0.0", "::")  # the names of all addresses of this machine
_CONNECTIONS = 512


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens, and how it is called."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 8080
    """The port; 0 takes any that is free."""
    names: Sequence[str] = field(default=())
    """Other names under which it is reached, such as that of a proxy."""

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach it."""
        return self.host in ("127.0.0.1", "localhost", "::1")


class Service:
    """A server that listens already; it answers once it runs.

    Parameters
    ----------
    index : Index
        The index.
    address : Address, optional
        Where to listen. Default: port 8080 of this machine.
    slides : Path, optional
        Where its slides are now, if they were moved, or if only features were added.

    Raises
    ------
    ParameterError
        If the address is in use, or is none of this machine.
    """

    def __init__(self, index: Index, address: Address | None = None, slides: Path | None = None) -> None:
        """Listen."""
        where = address or Address()
        self._socket = _listening(where)
        port = self._socket.getsockname()[1]
        self.token = secrets.token_urlsafe(24)
        host = socket.gethostname() if where.host in _ALL else where.host
        host = f"[{host}]" if ":" in host else host
        self.origin = f"http://{host}:{port}"
        self.archive = Archive(index, slides)
        names = [*LOOPBACK, host, *where.names]
        config = uvicorn.Config(
            make_app(self.archive, Door.of(self.token, names, port, UPLOAD_BYTES)),
            log_level="warning",
            access_log=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=2,
            server_header=False,
            lifespan="off",
            ws="none",
        )
        self._server = uvicorn.Server(config)

    @property
    def url(self) -> str:
        """The address of its page, with the token that lets in."""
        return f"{self.origin}/?token={self.token}"

    def run(self) -> None:
        """Answer until it is stopped or interrupted."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self.archive.pool.close()

    def stop(self) -> None:
        """Let `run` return soon; it may run in another thread."""
        self._server.should_exit = True


def run_server(
    index: Index, address: Address | None = None, *, slides: Path | None = None, opens_browser: bool = True
) -> None:
    """Serve an index until it is interrupted; print the address first. See :class:`Service`."""
    service = Service(index, address, slides)
    if address is not None and not address.is_local:
        print_error(
            f"sish: warning: other machines may reach {address.host}, without encryption, and whoever has "
            "the address below sees all slides: put a proxy with TLS before it"
        )
    with suppress(KeyboardInterrupt):
        print_line(service.url)
        sys.stdout.flush()
        if opens_browser:
            webbrowser.open(service.url)
        service.run()


def _listening(where: Address) -> socket.socket:
    """Return a socket that listens; ParameterError if the address cannot be had."""
    if not where.host:  # to the system it means all addresses
        raise ParameterError("cannot listen on no host; give 127.0.0.1, or 0.0.0.0 for all addresses")
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((where.host, where.port))
        listening.listen(_CONNECTIONS)  # so that the address answers as soon as it is printed
    except (OSError, OverflowError) as error:
        listening.close()
        raise ParameterError(
            f"cannot listen on {where.host} port {where.port}: {error}; give another --port, or --port 0"
        ) from error
    return listening
