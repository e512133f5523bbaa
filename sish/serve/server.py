"""Run the server, and open its page."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Sequence
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


def run_server(
    index: Index, address: Address | None = None, *, slides: Path | None = None, opens_browser: bool = True
) -> None:
    """Serve an index until it is interrupted.

    Parameters
    ----------
    index : Index
        The index.
    address : Address, optional
        Where to listen. Default: port 8080 of this machine.
    slides : Path, optional
        Where its slides are now, if they were moved, or if only features were added.
    opens_browser : bool
        Whether to show the page in a browser.

    Raises
    ------
    ParameterError
        If the address is in use, or is none of this machine.
    """
    where = address or Address()
    with _listening(where) as listening:
        port = listening.getsockname()[1]
        token = secrets.token_urlsafe(24)
        door = Door.of(token, [*LOOPBACK, where.host, *where.names], port, UPLOAD_BYTES)
        archive = Archive(index, slides)
        shown = "127.0.0.1" if where.is_local else where.host
        url = f"http://{shown}:{port}/?token={token}"
        if not where.is_local:
            print_error(
                f"sish: warning: {where.host} may be reached from other machines, without encryption: "
                "whoever has the address below sees all slides; put a proxy with TLS before it"
            )
        print_line(url)
        if opens_browser:
            webbrowser.open(url)
        config = uvicorn.Config(
            make_app(archive, door),
            log_level="warning",
            access_log=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=2,
            server_header=False,
            lifespan="off",
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            archive.pool.close()


def _listening(where: Address) -> socket.socket:
    """Return a socket that listens; ParameterError if the address cannot be had."""
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
