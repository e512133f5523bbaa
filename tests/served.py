"""A real server in a thread, on this machine only, for tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from sish.serve.server import Address, Service
from sish.slide_index import Index


@contextmanager
def served(index: Index, slides: Path | None = None) -> Iterator[Service]:
    """A server of an index on a free port; it stops at the end."""
    service = Service(index, Address(port=0), slides)
    thread = threading.Thread(target=service.run, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.stop()
        thread.join(10)


def client_of(service: Service) -> httpx.Client:
    """A client that shows the token."""
    head = {"Authorization": f"Bearer {service.token}"}
    return httpx.Client(base_url=service.origin, headers=head, timeout=60)
