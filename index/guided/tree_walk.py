"""The guided search along an ordered set of keys, as published: the set says which key comes next.

`sish.index.guided.walk` says what is computed. Its compiled loops step through the sorted keys of the table;
here any `OrderedSet` is asked for the predecessors or the successors of a seed, so that the trees of the
literature can be compared in the same search. The bags are the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sish.index.bags import Bags
from sish.index.barcode import hamming
from sish.index.params import KEY_UNIT, GuidedParams
from sish.index.table import KeyTable
from sish.index.trees.ordered_set import OrderedSet

_AT_ONCE = 512  # keys that a tree is asked for in one call
_FAR = 1 << 30  # the distance of excluded entries
_PLACE = (1 << 32) - 1

Found = list[tuple[int, int]]
"""Places in the table and their distances."""


@dataclass(frozen=True, slots=True)
class TreeWalk:
    """The search of some queries along a tree."""

    tree: OrderedSet
    """The distinct keys of the table."""
    table: KeyTable
    """The patches."""
    excluded: NDArray[np.bool_]
    """True for the slides that are left out, (n_slides,)."""
    params: GuidedParams
    """The bounds of the walks."""

    def search(self, keys: Sequence[int], barcodes: NDArray[np.uint8]) -> Bags:
        """Return the bags of query patches, keys (Q,) and barcodes uint8 (Q, B); patches are places."""
        bags = [self._bag(key, barcode) for key, barcode in zip(keys, barcodes, strict=True)]
        found = np.array([result for bag in bags for result in bag], np.int64).reshape(-1, 2)
        offset = np.cumsum([0, *map(len, bags)], dtype=np.int64)
        return Bags(offset, found[:, 0].copy(), found[:, 1].astype(np.int32))

    def _bag(self, key: int, query: NDArray[np.uint8]) -> Found:
        """Return the results of one query patch, nearest first; of equals, the first that was met."""
        closed: set[int] = set()
        bag: Found = []
        if self.params.visit_query_key:
            bag = self._at(key, query)
            closed |= {key} if bag else set()
        spacing = self.params.interval * KEY_UNIT
        for away in (-spacing, spacing):
            for t in range(self.params.n_seeds):
                bag += self._walk(key + t * away, -1, query, closed)
                bag += self._walk(key + t * away, 1, query, closed)
        return sorted(bag, key=lambda result: result[1])

    def _walk(self, seed: int, sign: int, query: NDArray[np.uint8], closed: set[int]) -> Found:
        """Return the hits of a walk down (-1) or up (1) from a seed, and close their keys."""
        found: Found = []
        steps, skips = self.params.succ_step if sign > 0 else self.params.pre_step, self.params.skip_step
        for key, place, bits in self._keys(seed, sign * min(steps, _AT_ONCE), query):
            if steps <= 0 or skips < 0 or key in closed:
                break
            if bits == _FAR:
                skips -= 1
                continue
            steps -= 1
            if bits <= self.params.threshold:
                found.append((place, bits))
                closed.add(key)
        return found

    def _keys(self, seed: int, steps: int, query: NDArray[np.uint8]) -> Iterator[tuple[int, int, int]]:
        """Yield key after key from a seed, and place and distance of the nearest entry at each key."""
        # the tree is asked for some keys at once: a call a key would cost more than all distances
        while steps and (keys := self.tree.walk(seed, steps)):
            seed, ascending = keys[-1], keys[:: 1 if steps > 0 else -1]
            first, stop = self._span(ascending[0], ascending[-1])
            begins = np.searchsorted(self.table.keys[first:stop], ascending)
            packed = self._distances(first, stop, query).astype(np.int64) << 32 | np.arange(stop - first)
            nearest = np.minimum.reduceat(packed, begins)[:: 1 if steps > 0 else -1].tolist()
            for key, one in zip(keys, nearest, strict=True):
                yield key, first + (one & _PLACE), one >> 32

    def _distances(self, first: int, stop: int, query: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return the distances of entries `first` to `stop`; those of excluded ones are `_FAR`."""
        bits = hamming(self.table.barcodes[first:stop], query)
        slide = self.table.slide[first:stop]
        bits[np.append(self.excluded, False)[np.minimum(slide, len(self.excluded))]] = _FAR
        return bits

    def _at(self, key: int, query: NDArray[np.uint8]) -> Found:
        """Return all entries at a key within the threshold."""
        first, stop = self._span(key, key)
        bits = self._distances(first, stop, query)
        return [(first + i, int(bits[i])) for i in np.flatnonzero(bits <= self.params.threshold).tolist()]

    def _span(self, low: int, high: int) -> tuple[int, int]:
        """Return where the entries at keys from `low` to `high` begin and end."""
        keys = self.table.keys
        return int(np.searchsorted(keys, low)), int(np.searchsorted(keys, high, "right"))
