"""The walk of a search through the cells of a tree, as stretches of patches that a server can be asked for.

`sish.index.texture.kernel` walks through the patches of a query's nearest cells in a fixed order, until it
has compared with enough. Here the same places are computed without the patches: from how many patches each
key has, and from where the excluded ones lie. A stretch of the walk is a list of keys, whose first and last
may be cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sish.index.texture.kernel import CELL_KEY, CELL_WHOLE

_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some patches of a walk: all of these keys, but for the begin of the first and the end of the last."""

    keys: _Ints
    """Keys, (K,)."""
    first_nth: int
    """The first key's patches from this one on."""
    last_nth: int
    """The last key's patches up to this one, exclusive."""
    patches: int
    """How many they are."""


@dataclass(frozen=True, slots=True)
class Walk:
    """The walk of one query patch. A place is the number of a patch in the order of the walk."""

    begins: _Ints
    """Where each key begins among all patches in key order, (keys + 1,)."""
    first_key: _Ints
    """First key of each cell, (C,)."""
    keys: _Ints
    """Number of keys of each cell, (C,)."""
    ends: _Ints
    """The place behind each cell, (C,)."""
    hidden: _Ints
    """Places of the excluded patches, ascending."""

    @classmethod
    def of(cls, cells: _Ints, begins: _Ints, leaves: int, hidden: _Ints) -> Walk:
        """Return the walk through cells.

        Parameters
        ----------
        cells : int64 (C,)
            As `sish.index.texture.kernel.nearest_cells` gives them.
        begins : int64 (keys + 1,)
            Where each key begins.
        leaves : int
            Keys of a node.
        hidden : int64 (H,)
            Places of the excluded patches in key order, ascending.

        Returns
        -------
        Walk
            The walk.

        Examples
        --------
        >>> walk = Walk.of(np.array([7, 2]), np.array([0, 1, 1, 4, 4, 4, 4, 4, 6]), 4, np.array([2]))
        >>> walk.ends.tolist(), walk.hidden.tolist(), walk.end(4, 99), walk.end(4, 2)
        ([2, 5], [3], 5, 2)
        >>> found = walk.stretch(1, 5)
        >>> found.keys.tolist(), found.first_nth, found.last_nth
        ([7, 2], 1, 3)
        """
        first, keys = cells & CELL_KEY, np.where(cells & CELL_WHOLE, leaves, 1)
        low, high = begins[first], begins[first + keys]
        ends = np.cumsum(high - low)
        if not len(hidden):
            return cls(begins, first, keys, ends, hidden)
        before, behind = np.searchsorted(hidden, low), np.searchsorted(hidden, high)
        own = [
            hidden[first_hidden:end] - start
            for first_hidden, end, start in zip(before, behind, high - ends, strict=True)
            if first_hidden < end
        ]
        return cls(begins, first, keys, ends, np.concatenate([np.empty(0, np.int64), *own]))

    def end(self, goal: int, limit: int) -> int:
        """Return the place behind the `goal`-th patch that is not excluded, at most `limit`."""
        apart = self.hidden - np.arange(len(self.hidden))
        place = goal + int(np.searchsorted(apart, goal - 1, "right"))
        return min(place, limit, int(self.ends[-1]) if len(self.ends) else 0)

    def stretch(self, begin: int, end: int) -> Stretch:
        """Return the patches from a place up to another one, exclusive."""
        first, last = np.searchsorted(self.ends, (begin, end - 1), "right").tolist()
        low, high = self._in_key_order(first, begin), self._in_key_order(last, end - 1)
        low_key, high_key = (np.searchsorted(self.begins, (low, high), "right") - 1).tolist()
        cells = slice(first, last + 1)
        if (self.keys[cells] == 1).all():
            keys = self.first_key[cells]
        else:
            ranges = zip(self.first_key[cells].tolist(), self.keys[cells].tolist(), strict=True)
            spans = [np.arange(key, key + count) for key, count in ranges]
            spans[-1] = spans[-1][spans[-1] <= high_key]
            spans[0] = spans[0][spans[0] >= low_key]
            keys = np.concatenate(spans)
            keys = keys[self.begins[keys + 1] > self.begins[keys]]
        first_nth, last_nth = low - int(self.begins[low_key]), high + 1 - int(self.begins[high_key])
        return Stretch(keys, first_nth, last_nth, end - begin)

    def _in_key_order(self, cell: int, place: int) -> int:
        """Return the place in key order of a place within a cell."""
        behind = int(self.begins[self.first_key[cell] + self.keys[cell]])
        return behind - int(self.ends[cell]) + place
