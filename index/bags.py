"""Bags: the results of a search, a list for each query patch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Bags:
    """The results of Q query patches: a bag for each query patch, best result first, R results in all.

    Examples
    --------
    >>> bags = Bags(np.array([0, 2, 3]), np.array([5, 9, 5]), np.array([0, 4, 7], np.int32))
    >>> len(bags), bags.lengths().tolist()
    (2, [2, 1])
    """

    offset: NDArray[np.int64]
    """Bag q holds entries offset[q] to offset[q + 1], exclusive, of the other arrays, (Q + 1,)."""
    patch: NDArray[np.int64]
    """The caller's number of each patch that was found, (R,)."""
    hamming: NDArray[np.int32]
    """Distance in bits of each result, (R,)."""

    def __len__(self) -> int:
        """Return the number of query patches."""
        return len(self.offset) - 1

    def lengths(self) -> NDArray[np.int64]:
        """Return the number of results of each query patch, (Q,)."""
        return np.diff(self.offset)


def joined(parts: Sequence[Bags]) -> Bags:
    """Return the bags of several searches, one after another.

    Parameters
    ----------
    parts : sequence of Bags
        One or more.

    Returns
    -------
    Bags
        A bag for each query patch of all parts.

    Examples
    --------
    >>> bags = Bags(np.array([0, 2]), np.array([5, 9]), np.array([0, 4], np.int32))
    >>> joined([bags, bags]).offset.tolist()
    [0, 2, 4]
    """
    lengths = np.concatenate([part.lengths() for part in parts])
    return Bags(
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.patch for part in parts]),
        np.concatenate([part.hamming for part in parts]),
    )
