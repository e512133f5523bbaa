"""A cache of encoded pictures that never grows beyond a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable


class ByteCache:
    """The last used values by key; the least recently used ones make room. Safe in threads.

    Parameters
    ----------
    most_bytes : int
        Bytes of all values together.

    Examples
    --------
    >>> cache = ByteCache(5)
    >>> cache.put("a", b"123"); cache.put("b", b"45"); cache.put("c", b"6")
    >>> cache.get("a"), cache.get("b"), cache.nbytes
    (None, b'45', 3)
    """

    def __init__(self, most_bytes: int) -> None:
        """Begin empty."""
        self._most = most_bytes
        self._values: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0

    def get(self, key: Hashable) -> bytes | None:
        """Return a value, O(1); None if it is not there."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Hashable, value: bytes) -> None:
        """Keep a value; one larger than the cache is not kept."""
        if len(value) > self._most:
            return
        with self._lock:
            self.nbytes += len(value) - len(self._values.pop(key, b""))
            self._values[key] = value
            while self.nbytes > self._most:
                self.nbytes -= len(self._values.popitem(last=False)[1])
