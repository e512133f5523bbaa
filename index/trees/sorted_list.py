"""An ordered set on `sortedcontainers`: a list of short sorted lists, quick to change in plain Python."""

import operator
from collections.abc import Iterator
from typing import Self, SupportsIndex

from numpy.typing import ArrayLike
from sortedcontainers import SortedSet

from sish.index.trees.ordered_set import as_key, distinct_keys

__all__ = ["SortedListSet"]


class SortedListSet:
    """Keys in a `sortedcontainers.SortedSet`; see `sish.index.trees.ordered_set.OrderedSet`.

    Complexities are amortised; the list's own ~ n ** (1 / 3) part is a memory move and never seen.

    >>> keys = SortedListSet.of([30, 10, 20])
    >>> keys.successor(10), keys.predecessor(10), 20 in keys, list(keys)
    (20, None, True, [10, 20, 30])
    """

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        """An empty set."""
        self._keys = SortedSet()

    @classmethod
    def of(cls, keys: ArrayLike) -> Self:
        """The set of integer `keys` (N,), O(N log N).

        >>> len(SortedListSet.of([3, 3, 1]))
        2
        """
        made = cls()
        made._keys = SortedSet(distinct_keys(keys).tolist())
        return made

    def add(self, key: SupportsIndex) -> None:
        """Put `key` in, O(log n).

        >>> keys = SortedListSet.of([1, 3])
        >>> keys.add(2)
        >>> list(keys)
        [1, 2, 3]
        """
        self._keys.add(as_key(key))

    def discard(self, key: SupportsIndex) -> None:
        """Take `key` out, O(log n).

        >>> keys = SortedListSet.of([1, 3])
        >>> keys.discard(1)
        >>> list(keys)
        [3]
        """
        self._keys.discard(operator.index(key))

    def successor(self, key: SupportsIndex) -> int | None:
        """The smallest key strictly greater than `key`, O(log n).

        >>> SortedListSet.of([1, 3]).successor(1)
        3
        """
        return self._at(self._keys.bisect_right(operator.index(key)))

    def predecessor(self, key: SupportsIndex) -> int | None:
        """The greatest key strictly smaller than `key`, O(log n).

        >>> SortedListSet.of([1, 3]).predecessor(3)
        1
        """
        return self._at(self._keys.bisect_left(operator.index(key)) - 1)

    def walk(self, key: SupportsIndex, steps: int) -> list[int]:
        """The next `steps` keys after `key`, or before it if negative, as they come; O(log n + steps).

        >>> SortedListSet.of([1, 3, 5]).walk(5, -2)
        [3, 1]
        """
        if steps < 0:
            end = self._keys.bisect_left(operator.index(key))
            return list(self._keys[max(end + steps, 0) : end][::-1])
        start = self._keys.bisect_right(operator.index(key))
        return list(self._keys[start : start + steps])

    def min(self) -> int | None:
        """The smallest key, O(1).

        >>> SortedListSet.of([1, 3]).min()
        1
        """
        return self._at(0)

    def max(self) -> int | None:
        """The greatest key, O(1).

        >>> SortedListSet.of([1, 3]).max()
        3
        """
        return self._at(len(self._keys) - 1)

    def __contains__(self, key: SupportsIndex) -> bool:
        """Whether `key` is in the set, O(1)."""
        return operator.index(key) in self._keys

    def __len__(self) -> int:
        """Number of keys, O(1)."""
        return len(self._keys)

    def __iter__(self) -> Iterator[int]:
        """The keys, ascending, O(n)."""
        return iter(self._keys)

    def _at(self, place: int) -> int | None:
        """The key at `place`; None outside."""
        return int(self._keys[place]) if 0 <= place < len(self._keys) else None

    def _check(self) -> None:
        """Assert the invariants."""
        self._keys._check()
        assert all(type(key) is int for key in self._keys)
