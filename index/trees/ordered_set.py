"""The interface of this package's ordered sets of integer keys.

`VanEmdeBoas`, `SortedArray` and `SortedListSet` implement it and pass one test suite. Each has its use
(``python -m benchmarks.ordered_sets``; a million random keys, one thread, medians, calls from Python):

    SortedArray     least memory (8 bytes a key) and the fastest successor (3 us); adding or discarding a key
                    moves all keys behind it (630 us)
    VanEmdeBoas     changes and successor in 4.5 us, 16 bytes a key; the times hardly grow with the number of
                    keys: at ten thousand they are 2.6 and 2.8 us
    SortedListSet   as fast at a million, faster at ten thousand (1.6 us), in 74 bytes a key

The guided search walks along a sorted array by default. An archive is searched much more often than it
changes, its segments are written once, and compiled code streams through an array of keys, where a tree
follows pointers (`sish.index.guided.kernel`). The other two are for sets that change key by key. The search
walks along them too (`SearchParams.ordered_set`), with the same answers (`sish.index.guided.tree_walk`).
"""

import operator
from collections.abc import Iterator
from typing import Protocol, Self, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError

LARGEST_KEY = 2**63 - 1
"""The largest key; keys are integers from 0. The argument of a query may be any integer."""


class OrderedSet(Protocol):
    """A set of integer keys 0 to 2**63 - 1 that knows the neighbours of any integer."""

    @classmethod
    def of(cls, keys: ArrayLike) -> Self:
        """Return the set of integer `keys` (N,), in any order; ParameterError out of range."""

    def add(self, key: SupportsIndex) -> None:
        """Put `key` in; nothing happens if it is there. ParameterError out of range."""

    def discard(self, key: SupportsIndex) -> None:
        """Take `key` out; nothing happens if it is not there."""

    def successor(self, key: SupportsIndex) -> int | None:
        """Return the smallest key strictly greater than `key`, which need not be in the set, or None."""

    def predecessor(self, key: SupportsIndex) -> int | None:
        """Return the greatest key strictly smaller than `key`, which need not be in the set, or None."""

    def walk(self, key: SupportsIndex, steps: int) -> list[int]:
        """Return the next `steps` keys after `key`, ascending; if negative, those before it, descending."""

    def min(self) -> int | None:
        """Return the smallest key, or None in an empty set."""

    def max(self) -> int | None:
        """Return the greatest key, or None in an empty set."""

    def __contains__(self, key: SupportsIndex) -> bool:
        """Return whether `key` is in the set."""

    def __len__(self) -> int:
        """Return the number of keys."""

    def __iter__(self) -> Iterator[int]:
        """Iterate over the keys, ascending."""

    def _check(self) -> None:
        """Assert the invariants; for tests."""


def as_key(key: SupportsIndex) -> int:
    """Return `key` as a Python integer, or raise ParameterError if no set can hold it."""
    number = operator.index(key)
    if not 0 <= number <= LARGEST_KEY:
        raise ParameterError(f"key {number} is out of range; keys are 0 to 2**63 - 1")
    return number


def distinct_keys(keys: ArrayLike) -> NDArray[np.int64]:
    """Return integer `keys` (N,) ascending, each once, or raise ParameterError if no set can hold them."""
    array = np.asarray(keys)
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ParameterError(f"keys are {array.dtype} {array.shape}; give integers of shape (N,)")
    distinct = np.unique(array)
    as_key(int(distinct[0]))
    as_key(int(distinct[-1]))
    return distinct.astype(np.int64)
