"""Bags: what a search found for each query patch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bags"]


@dataclass(frozen=True, slots=True)
class Bags:
    """The results of several query patches: a bag each, best first."""

    offset: NDArray[np.int64]
    """Bag q is entries offset[q] to offset[q + 1] of the other arrays, (Q + 1,)."""
    patch: NDArray[np.int64]
    """The caller's number of each result, (R,)."""
    hamming: NDArray[np.int32]
    """Its distance in bits, (R,)."""

    def __len__(self) -> int:
        """Number of query patches."""
        return len(self.offset) - 1

    def lengths(self) -> NDArray[np.int64]:
        """Number of results of each query patch, (Q,)."""
        return np.diff(self.offset)
