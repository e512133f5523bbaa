"""A van Emde Boas tree of 63-bit keys whose memory is proportional to the keys in it.

The tree of the paper takes one array slot for each cluster that could be, 2**32 in the root alone, and so
34 GB before the first key. Here clusters are in a dict, and exist only while they hold something; below
64 values a cluster is one machine word of bits.

A key of b bits is split into its upper and lower half. A node of b bits keeps its smallest key itself; each
other key goes into the cluster of its upper half, a tree for the lower half; a tree of upper halves, the
*summary*, says which clusters there are. Each operation goes on in the cluster or in the summary, never in
both, so 63 bits take five steps: 63, 32, 16, 8, and a word (van Emde Boas 1975; Cormen et al., chapter 20).
"""

import operator
from collections.abc import Iterator
from typing import Self, SupportsIndex

from numpy.typing import ArrayLike

from sish.index.ordered_set import LARGEST_KEY, as_key, distinct_keys

__all__ = ["VanEmdeBoas"]

_KEY_BITS = LARGEST_KEY.bit_length()
_WORD_BITS = 6  # log2 of the values in a leaf: a word of 64 bits


class VanEmdeBoas:
    """Keys in a van Emde Boas tree, U = 2**63; see `sish.index.ordered_set.OrderedSet`.

    >>> keys = VanEmdeBoas.of([30, 10, 20])
    >>> keys.successor(10), keys.predecessor(10), 20 in keys, list(keys)
    (20, None, True, [10, 20, 30])
    """

    __slots__ = ("_root", "_size")

    def __init__(self) -> None:
        """An empty set."""
        self._root: _Tree | None = None
        self._size = 0

    @classmethod
    def of(cls, keys: ArrayLike) -> Self:
        """The set of integer `keys` (N,), O(N log N).

        >>> len(VanEmdeBoas.of([3, 3, 1]))
        2
        """
        made = cls()
        for key in distinct_keys(keys).tolist():
            made.add(key)
        return made

    def add(self, key: SupportsIndex) -> None:
        """Put `key` in, O(log log U).

        >>> keys = VanEmdeBoas.of([1, 3])
        >>> keys.add(2)
        >>> list(keys)
        [1, 2, 3]
        """
        number = as_key(key)
        if self._root is None:
            self._root = _tree(_KEY_BITS, number)
        elif self._root.holds(number):
            return
        else:
            self._root.add(number)
        self._size += 1

    def discard(self, key: SupportsIndex) -> None:
        """Take `key` out, O(log log U).

        >>> keys = VanEmdeBoas.of([1, 3])
        >>> keys.discard(1)
        >>> list(keys)
        [3]
        """
        if self._root is None or key not in self:
            return
        if not self._root.remove(operator.index(key)):
            self._root = None
        self._size -= 1

    def successor(self, key: SupportsIndex) -> int | None:
        """The smallest key strictly greater than `key`, O(log log U).

        >>> VanEmdeBoas.of([1, 3]).successor(1)
        3
        """
        number = operator.index(key)
        if self._root is None or number >= self._root.most:
            return None
        return self._root.after(max(number, -1))

    def predecessor(self, key: SupportsIndex) -> int | None:
        """The greatest key strictly smaller than `key`, O(log log U).

        >>> VanEmdeBoas.of([1, 3]).predecessor(3)
        1
        """
        number = operator.index(key)
        if self._root is None or number <= self._root.least:
            return None
        return self._root.before(min(number, LARGEST_KEY + 1))

    def min(self) -> int | None:
        """The smallest key, O(1).

        >>> VanEmdeBoas.of([1, 3]).min()
        1
        """
        return None if self._root is None else self._root.least

    def max(self) -> int | None:
        """The greatest key, O(1).

        >>> VanEmdeBoas.of([1, 3]).max()
        3
        """
        return None if self._root is None else self._root.most

    def __contains__(self, key: SupportsIndex) -> bool:
        """Whether `key` is in the set, O(log log U)."""
        number = operator.index(key)
        return self._root is not None and 0 <= number <= LARGEST_KEY and self._root.holds(number)

    def __len__(self) -> int:
        """Number of keys, O(1)."""
        return self._size

    def __iter__(self) -> Iterator[int]:
        """The keys, ascending, O(n log log U)."""
        key = self.min()
        while key is not None:
            yield key
            key = self.successor(key)

    def _check(self) -> None:
        """Assert the invariants."""
        size = 0 if self._root is None else self._root.check()
        assert size == self._size == len(list(self))


class _Word:
    """A leaf: up to 64 values as the bits of one integer. Never empty. All O(1)."""

    __slots__ = ("_bits",)

    def __init__(self, value: int) -> None:
        self._bits = 1 << value

    @property
    def least(self) -> int:
        return (self._bits & -self._bits).bit_length() - 1

    @property
    def most(self) -> int:
        return self._bits.bit_length() - 1

    def holds(self, value: int) -> bool:
        return bool(self._bits >> value & 1)

    def add(self, value: int) -> None:
        self._bits |= 1 << value

    def remove(self, value: int) -> bool:
        """Take out a value that is there; whether any is left."""
        self._bits &= ~(1 << value)
        return self._bits != 0

    def after(self, value: int) -> int:
        """The smallest value greater than `value` < most."""
        above = self._bits >> (value + 1)
        return value + (above & -above).bit_length()

    def before(self, value: int) -> int:
        """The greatest value smaller than `value` > least."""
        return (self._bits & ((1 << value) - 1)).bit_length() - 1

    def check(self) -> int:
        assert 0 < self._bits < 1 << (1 << _WORD_BITS)
        return self._bits.bit_count()


class _Node:
    """A tree of values of `bits` bits, split in the middle. Never empty; `least` is in no cluster."""

    __slots__ = ("_clusters", "_half", "_summary", "_upper_bits", "least", "most")

    def __init__(self, bits: int, value: int) -> None:
        self._half = bits // 2
        self._upper_bits = bits - self._half
        self.least = self.most = value
        self._clusters: dict[int, _Tree] | None = None  # None while there is only `least`
        self._summary: _Tree | None = None

    def holds(self, value: int) -> bool:
        if value in (self.least, self.most):
            return True
        if self._clusters is None:
            return False
        upper, lower = value >> self._half, value & ((1 << self._half) - 1)
        cluster = self._clusters.get(upper)
        return cluster is not None and cluster.holds(lower)

    def add(self, value: int) -> None:
        """Put in a value that is not there."""
        if value < self.least:
            self.least, value = value, self.least
        self.most = max(self.most, value)
        upper, lower = value >> self._half, value & ((1 << self._half) - 1)
        if self._clusters is None or self._summary is None:
            self._clusters = {upper: _tree(self._half, lower)}
            self._summary = _tree(self._upper_bits, upper)
        elif upper in self._clusters:
            self._clusters[upper].add(lower)
        else:
            self._clusters[upper] = _tree(self._half, lower)
            self._summary.add(upper)

    def remove(self, value: int) -> bool:
        """Take out a value that is there; whether any is left."""
        if self._clusters is None or self._summary is None:
            return False
        if value == self.least:  # the next one takes its place, and goes from its cluster
            upper = self._summary.least
            self.least = value = upper << self._half | self._clusters[upper].least
        upper, lower = value >> self._half, value & ((1 << self._half) - 1)
        if not self._clusters[upper].remove(lower):
            del self._clusters[upper]
            if not self._summary.remove(upper):
                self._clusters = self._summary = None
                self.most = self.least
                return True
        if value == self.most:
            upper = self._summary.most
            self.most = upper << self._half | self._clusters[upper].most
        return True

    def after(self, value: int) -> int:
        """The smallest value greater than `value` < most."""
        if value < self.least or self._clusters is None or self._summary is None:
            return self.least
        upper, lower = value >> self._half, value & ((1 << self._half) - 1)
        cluster = self._clusters.get(upper)
        if cluster is not None and lower < cluster.most:
            return upper << self._half | cluster.after(lower)
        upper = self._summary.after(upper)
        return upper << self._half | self._clusters[upper].least

    def before(self, value: int) -> int:
        """The greatest value smaller than `value` > least."""
        if value > self.most or self._clusters is None or self._summary is None:
            return self.most
        upper, lower = value >> self._half, value & ((1 << self._half) - 1)
        cluster = self._clusters.get(upper)
        if cluster is not None and lower > cluster.least:
            return upper << self._half | cluster.before(lower)
        if upper <= self._summary.least:
            return self.least
        upper = self._summary.before(upper)
        return upper << self._half | self._clusters[upper].most

    def check(self) -> int:
        """Assert the invariants of the tree from here; its number of values."""
        if self._clusters is None or self._summary is None:
            assert self._clusters is None
            assert self._summary is None
            assert self.least == self.most
            return 1
        uppers = sorted(self._clusters)
        assert self._summary.check() == len(uppers)
        assert all(self._summary.holds(upper) for upper in uppers)
        assert self.least < (uppers[0] << self._half | self._clusters[uppers[0]].least)
        assert self.most == uppers[-1] << self._half | self._clusters[uppers[-1]].most
        return 1 + sum(cluster.check() for cluster in self._clusters.values())


_Tree = _Node | _Word


def _tree(bits: int, value: int) -> _Tree:
    """The tree of one value of `bits` bits."""
    return _Word(value) if bits <= _WORD_BITS else _Node(bits, value)
