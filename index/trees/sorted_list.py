"""An ordered set on `sortedcontainers`: short sorted lists, quick to change in plain Python."""

import operator
from collections.abc import Iterator
from typing import Self, SupportsIndex

from numpy.typing import ArrayLike
from sortedcontainers import SortedSet

from sish.index.trees.ordered_set import as_key, distinct_keys


class SortedListSet:
    """A set of n keys in a `sortedcontainers.SortedSet` (`sish.index.trees.ordered_set.OrderedSet`).

    Complexities are amortised. A change also moves about n ** (1 / 3) keys in memory, which is never noticed.

    Examples
    --------
    >>> keys = SortedListSet.of([30, 10, 20, 20])
    >>> len(keys), list(keys), 20 in keys
    (3, [10, 20, 30], True)
    >>> keys.successor(10), keys.successor(11), keys.successor(30), keys.predecessor(10)
    (20, 20, None, None)
    >>> keys.walk(10, 5), keys.walk(30, -1), keys.min(), keys.max()
    ([20, 30], [20], 10, 30)
    >>> keys.add(15)
    >>> keys.discard(20)
    >>> list(keys)
    [10, 15, 30]
    """

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        """Make an empty set."""
        self._keys = SortedSet()

    @classmethod
    def of(cls, keys: ArrayLike) -> Self:
        """Return the set of integer `keys` (N,), in any order, O(N log N)."""
        made = cls()
        made._keys = SortedSet(distinct_keys(keys).tolist())
        return made

    def add(self, key: SupportsIndex) -> None:
        """Put `key` in, O(log n)."""
        self._keys.add(as_key(key))

    def discard(self, key: SupportsIndex) -> None:
        """Take `key` out, O(log n)."""
        self._keys.discard(operator.index(key))

    def successor(self, key: SupportsIndex) -> int | None:
        """Return the smallest key strictly greater than `key`, or None; O(log n)."""
        return self._at(self._keys.bisect_right(operator.index(key)))

    def predecessor(self, key: SupportsIndex) -> int | None:
        """Return the greatest key strictly smaller than `key`, or None; O(log n)."""
        return self._at(self._keys.bisect_left(operator.index(key)) - 1)

    def walk(self, key: SupportsIndex, steps: int) -> list[int]:
        """Return the next `steps` keys after `key`, if negative those before it; O(log n + steps)."""
        if steps < 0:
            end = self._keys.bisect_left(operator.index(key))
            return list(self._keys[max(end + steps, 0) : end][::-1])
        start = self._keys.bisect_right(operator.index(key))
        return list(self._keys[start : start + steps])

    def min(self) -> int | None:
        """Return the smallest key, or None; O(1)."""
        return self._at(0)

    def max(self) -> int | None:
        """Return the greatest key, or None; O(1)."""
        return self._at(len(self._keys) - 1)

    def __contains__(self, key: SupportsIndex) -> bool:
        """Return whether `key` is in the set, O(1)."""
        return operator.index(key) in self._keys

    def __len__(self) -> int:
        """Return the number of keys, O(1)."""
        return len(self._keys)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the keys, ascending, O(n)."""
        return iter(self._keys)

    def _at(self, place: int) -> int | None:
        """Return the key at `place`, or None outside."""
        return int(self._keys[place]) if 0 <= place < len(self._keys) else None

    def _check(self) -> None:
        """Assert the invariants."""
        self._keys._check()
        assert all(type(key) is int for key in self._keys)
