"""An ordered set that is a sorted numpy array: the smallest there is, made for sets that do not change."""

import operator
from collections.abc import Iterator
from typing import Self, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.index.trees.ordered_set import LARGEST_KEY, as_key, distinct_keys

__all__ = ["SortedArray"]


class SortedArray:
    """Keys in a sorted array, 8 bytes each; see `sish.index.trees.ordered_set.OrderedSet`.

    >>> keys = SortedArray.of([30, 10, 20])
    >>> keys.successor(10), keys.predecessor(10), 20 in keys, list(keys)
    (20, None, True, [10, 20, 30])
    """

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        """An empty set."""
        self._keys: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    @classmethod
    def of(cls, keys: ArrayLike) -> Self:
        """The set of integer `keys` (N,), O(N log N).

        >>> len(SortedArray.of([3, 3, 1]))
        2
        """
        made = cls()
        made._keys = distinct_keys(keys)
        return made

    def add(self, key: SupportsIndex) -> None:
        """Put `key` in, O(n): everything behind it moves.

        >>> keys = SortedArray.of([1, 3])
        >>> keys.add(2)
        >>> list(keys)
        [1, 2, 3]
        """
        number = as_key(key)
        if number not in self:
            self._keys = np.insert(self._keys, self._below(number), number)

    def discard(self, key: SupportsIndex) -> None:
        """Take `key` out, O(n).

        >>> keys = SortedArray.of([1, 3])
        >>> keys.discard(1)
        >>> list(keys)
        [3]
        """
        if key in self:
            self._keys = np.delete(self._keys, self._below(operator.index(key)))

    def successor(self, key: SupportsIndex) -> int | None:
        """The smallest key strictly greater than `key`, O(log n).

        >>> SortedArray.of([1, 3]).successor(1)
        3
        """
        return self._at(self._below(operator.index(key) + 1))

    def predecessor(self, key: SupportsIndex) -> int | None:
        """The greatest key strictly smaller than `key`, O(log n).

        >>> SortedArray.of([1, 3]).predecessor(3)
        1
        """
        return self._at(self._below(operator.index(key)) - 1)

    def walk(self, key: SupportsIndex, steps: int) -> list[int]:
        """The next `steps` keys after `key`, or before it if negative, as they come; O(log n + steps).

        >>> SortedArray.of([1, 3, 5]).walk(5, -2)
        [3, 1]
        """
        if steps < 0:
            end = self._below(operator.index(key))
            found = self._keys[max(end + steps, 0) : end][::-1]
        else:
            start = self._below(operator.index(key) + 1)
            found = self._keys[start : start + steps]
        walked: list[int] = found.tolist()
        return walked

    def min(self) -> int | None:
        """The smallest key, O(1).

        >>> SortedArray.of([1, 3]).min()
        1
        """
        return self._at(0)

    def max(self) -> int | None:
        """The greatest key, O(1).

        >>> SortedArray.of([1, 3]).max()
        3
        """
        return self._at(len(self._keys) - 1)

    def __contains__(self, key: SupportsIndex) -> bool:
        """Whether `key` is in the set, O(log n)."""
        number = operator.index(key)
        return self._at(self._below(number)) == number

    def __len__(self) -> int:
        """Number of keys, O(1)."""
        return len(self._keys)

    def __iter__(self) -> Iterator[int]:
        """The keys, ascending, O(n)."""
        return iter(self._keys.tolist())

    def _below(self, number: int) -> int:
        """Number of keys smaller than `number`, which may be any integer."""
        if number > LARGEST_KEY:
            return len(self._keys)
        return int(np.searchsorted(self._keys, max(number, 0), side="left"))

    def _at(self, place: int) -> int | None:
        """The key at `place`; None outside."""
        return int(self._keys[place]) if 0 <= place < len(self._keys) else None

    def _check(self) -> None:
        """Assert the invariants."""
        assert self._keys.dtype == np.int64
        assert (np.diff(self._keys) > 0).all()
        assert len(self._keys) == 0 or self._keys[0] >= 0
