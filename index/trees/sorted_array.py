"""An ordered set in a sorted numpy array: least memory, and made for sets that rarely change."""

import operator
from collections.abc import Iterator
from typing import Self, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.index.trees.ordered_set import LARGEST_KEY, as_key, distinct_keys


class SortedArray:
    """A set of n keys in a sorted array, 8 bytes each (`sish.index.trees.ordered_set.OrderedSet`).

    Examples
    --------
    >>> keys = SortedArray.of([30, 10, 20, 20])
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
        self._keys: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    @classmethod
    def of(cls, keys: ArrayLike) -> Self:
        """Return the set of integer `keys` (N,), in any order, O(N log N)."""
        made = cls()
        made._keys = distinct_keys(keys)
        return made

    def add(self, key: SupportsIndex) -> None:
        """Put `key` in, O(n): all keys behind it move."""
        number = as_key(key)
        if number not in self:
            self._keys = np.insert(self._keys, self._below(number), number)

    def discard(self, key: SupportsIndex) -> None:
        """Take `key` out, O(n)."""
        if key in self:
            self._keys = np.delete(self._keys, self._below(operator.index(key)))

    def successor(self, key: SupportsIndex) -> int | None:
        """Return the smallest key strictly greater than `key`, or None; O(log n)."""
        return self._at(self._below(operator.index(key) + 1))

    def predecessor(self, key: SupportsIndex) -> int | None:
        """Return the greatest key strictly smaller than `key`, or None; O(log n)."""
        return self._at(self._below(operator.index(key)) - 1)

    def walk(self, key: SupportsIndex, steps: int) -> list[int]:
        """Return the next `steps` keys after `key`, if negative those before it; O(log n + steps)."""
        if steps < 0:
            end = self._below(operator.index(key))
            found = self._keys[max(end + steps, 0) : end][::-1]
        else:
            start = self._below(operator.index(key) + 1)
            found = self._keys[start : start + steps]
        walked: list[int] = found.tolist()
        return walked

    def min(self) -> int | None:
        """Return the smallest key, or None; O(1)."""
        return self._at(0)

    def max(self) -> int | None:
        """Return the greatest key, or None; O(1)."""
        return self._at(len(self._keys) - 1)

    def __contains__(self, key: SupportsIndex) -> bool:
        """Return whether `key` is in the set, O(log n)."""
        number = operator.index(key)
        return self._at(self._below(number)) == number

    def __len__(self) -> int:
        """Return the number of keys, O(1)."""
        return len(self._keys)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the keys, ascending, O(n)."""
        return iter(self._keys.tolist())

    def _below(self, number: int) -> int:
        """Return the number of keys smaller than `number`, which may be any integer."""
        if number > LARGEST_KEY:
            return len(self._keys)
        return int(np.searchsorted(self._keys, max(number, 0), side="left"))

    def _at(self, place: int) -> int | None:
        """Return the key at `place`, or None outside."""
        return int(self._keys[place]) if 0 <= place < len(self._keys) else None

    def _check(self) -> None:
        """Assert the invariants."""
        assert self._keys.dtype == np.int64
        assert (np.diff(self._keys) > 0).all()
        assert len(self._keys) == 0 or self._keys[0] >= 0
