"""A cache that never grows beyond a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class BoundedCache(Generic[V]):
    """The last used values by key; the least recently used ones make room. Safe in threads.

    Parameters
    ----------
    most_bytes : int
        Bytes of all values together.

    Examples
    --------
    >>> cache = BoundedCache(5)
    >>> for key, value in [("a", b"123"), ("b", b"45"), ("c", b"6")]:
    ...     cache.put(key, value, len(value))
    >>> cache.get("a"), cache.get("b"), cache.nbytes
    (None, b'45', 3)
    """

    def __init__(self, most_bytes: int) -> None:
        """Begin empty."""
        self._most = most_bytes
        self._values: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0

    def get(self, key: Hashable) -> V | None:
        """Return a value, O(1); None if it is not there."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: V, nbytes: int) -> None:
        """Keep a value of so many bytes; one larger than the cache is not kept."""
        if nbytes > self._most:
            return
        with self._lock:
            if key in self._values:
                self.nbytes -= self._values.pop(key)[1]
            self._values[key] = value, nbytes
            self.nbytes += nbytes
            while self.nbytes > self._most:
                self.nbytes -= self._values.popitem(last=False)[1][1]
