"""Clients of the server: keep-alive connections without a library, so that they cost little themselves."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

CLIENTS = 8


@dataclass(frozen=True, slots=True)
class Rate:
    """What some clients got, together."""

    requests: int
    """Answers."""
    per_second: float
    """Answers a second."""
    median_ms: float
    """Median time of one, milliseconds."""
    p95_ms: float
    """95 of 100 take no longer, milliseconds."""


class Client:
    """One connection to a server.

    Parameters
    ----------
    address : str
        The address that ``sish serve`` prints, token included.
    """

    def __init__(self, address: str) -> None:
        """Connect."""
        parts = urlsplit(address)
        self._host = parts.netloc
        self._token = parts.query.partition("=")[2]
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port or 80))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def get(self, path: str) -> bytes:
        """Return the body of the answer to a GET; RuntimeError for any status but 200."""
        return self._ask("GET", path)

    def post(self, path: str, body: bytes) -> bytes:
        """Return the body of the answer to a POST of JSON."""
        return self._ask("POST", path, body)

    def close(self) -> None:
        """End the connection."""
        self._file.close()
        self._socket.close()

    def _ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body)
        status = self._file.readline().split()
        length = 0
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        data = self._file.read(length)
        if status[1:2] != [b"200"]:
            raise RuntimeError(f"{method} {path}: {b' '.join(status).decode()}: {data[:200]!r}")
        return data


def ask_all(address: str, paths: Sequence[str], clients: int = CLIENTS) -> Rate:
    """Ask for some paths with several clients at once, and return how fast they were answered."""
    times: list[float] = []
    errors: list[BaseException] = []

    def work(own: Sequence[str]) -> None:
        client = Client(address)
        try:
            for path in own:
                start = time.perf_counter()
                client.get(path)
                times.append(time.perf_counter() - start)
        except BaseException as error:
            errors.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=work, args=(paths[number::clients],)) for number in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    if errors:
        raise errors[0]
    times.sort()
    ms = [1e3 * times[int(share * (len(times) - 1))] for share in (0.5, 0.95)]
    return Rate(len(times), len(times) / seconds, ms[0], ms[1])
