"""What a tree of keys can do: the interface of this package's ordered sets.

`VanEmdeBoas`, `SortedArray` and `SortedListSet` implement it and pass one test suite. What each is best for
(``python -m benchmarks.ordered_sets``; a million random keys, one thread, medians, calls from Python):

    SortedArray     least memory (8 bytes a key) and the fastest successor (3 us); but a key in or out moves
                    all behind it (630 us)
    VanEmdeBoas     changes and successor in 4.5 us, 16 bytes a key; the times barely grow with the keys: at
                    ten thousand they are 2.6 and 2.8 us
    SortedListSet   the same speed at a million, faster below (1.6 us at ten thousand), in 74 bytes a key

So the search uses a sorted array: an archive is searched much more often than it changes, its segments are
written once, and compiled code walks an array of keys by streaming through it, where a tree follows
pointers (`sish.index.guided.kernel`). The other two are for sets that change key by key, and the reference
that the search is tested against.
"""

import operator
from collections.abc import Iterator
from typing import Protocol, Self, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError

__all__ = ["LARGEST_KEY", "OrderedSet", "as_key", "distinct_keys"]

LARGEST_KEY = 2**63 - 1
"""Keys are integers from 0 to this; queries may be any integer."""


class OrderedSet(Protocol):
    """A set of integer keys 0 to 2**63 - 1 that knows the neighbours of any integer."""

    @classmethod
    def of(cls, keys: ArrayLike) -> Self:
        """The set of integer `keys` (N,), in any order, repeated or not; ParameterError out of range."""

    def add(self, key: SupportsIndex) -> None:
        """Put `key` in; nothing happens if it is there. ParameterError out of range."""

    def discard(self, key: SupportsIndex) -> None:
        """Take `key` out; nothing happens if it is not there."""

    def successor(self, key: SupportsIndex) -> int | None:
        """The smallest key strictly greater than `key`, which need not be in the set; None if none."""

    def predecessor(self, key: SupportsIndex) -> int | None:
        """The greatest key strictly smaller than `key`, which need not be in the set; None if none."""

    def walk(self, key: SupportsIndex, steps: int) -> list[int]:
        """The next `steps` keys after `key`, ascending; if negative, those before it, descending."""

    def min(self) -> int | None:
        """The smallest key; None in an empty set."""

    def max(self) -> int | None:
        """The greatest key; None in an empty set."""

    def __contains__(self, key: SupportsIndex) -> bool:
        """Whether `key` is in the set."""

    def __len__(self) -> int:
        """Number of keys."""

    def __iter__(self) -> Iterator[int]:
        """The keys, ascending."""

    def _check(self) -> None:
        """Assert the invariants; for tests."""


def as_key(key: SupportsIndex) -> int:
    """`key` as a Python integer; ParameterError where no set can hold it."""
    number = operator.index(key)
    if not 0 <= number <= LARGEST_KEY:
        raise ParameterError(f"key {number} is out of range; keys are 0 to 2**63 - 1")
    return number


def distinct_keys(keys: ArrayLike) -> NDArray[np.int64]:
    """Integer `keys` (N,) ascending, each once; ParameterError where no set can hold them."""
    array = np.asarray(keys)
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ParameterError(f"keys are {array.dtype} {array.shape}; give integers of shape (N,)")
    distinct = np.unique(array)
    as_key(int(distinct[0]))
    as_key(int(distinct[-1]))
    return distinct.astype(np.int64)
