"""A real server in a thread, on this machine only, for tests."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from sish.serve.server import Address, Service
from sish.slide_index import Index


@contextmanager
def served(index: Index, slides: Path | None = None) -> Iterator[Service]:
    """A server of an index on a free port; it stops at the end, and must not have failed."""
    service = Service(index, Address(port=0), slides)
    failures = Failures()  # after uvicorn has set its loggers up
    thread = threading.Thread(target=service.run, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.stop()
        thread.join(10)
        failures.stop()
    assert not failures.told, failures.told[0]


class Failures(logging.Handler):
    """Collects what a server tells of its own failures."""

    def __init__(self) -> None:
        """Begin to listen."""
        super().__init__(logging.ERROR)
        self.told: list[str] = []
        logging.getLogger("uvicorn.error").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Note a failure."""
        self.told.append(self.format(record))

    def stop(self) -> None:
        """Listen no more."""
        logging.getLogger("uvicorn.error").removeHandler(self)


def client_of(service: Service) -> httpx.Client:
    """A client that shows the token."""
    head = {"Authorization": f"Bearer {service.token}"}
    return httpx.Client(base_url=service.origin, headers=head, timeout=300)  # the first search compiles
