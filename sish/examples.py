"""Examples that a search asks with beside its query: slides, or parts of slides, that were marked.

`Examples.like` and `Examples.unlike` are the relevant and irrelevant documents of relevance feedback
(Rocchio, 1971, in Salton, The SMART Retrieval System). Rocchio moves one query vector toward the mean of the
relevant and away from the mean of the irrelevant. A query here is a set of barcodes, and the mean of a set
is like no tissue. So the same idea is applied patch by patch:

- The patches of liked examples join those of the query. An example weighs as much as the query, however many
  patches it has.
- A patch of the archive that is nearer to an unliked patch than to the asking patch that found it is no match
  of this patch.

Nothing is tuned: there is no constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sish.encode import SlideCodes
from sish.index.bags import Bags


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A slide, or a part of one, that was marked."""

    slide_id: str
    """The slide."""
    codes: SlideCodes
    """Its patches that count."""
    is_whole: bool
    """Whether the slide was marked, not a part of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """The examples of a search."""

    like: tuple[Example, ...] = ()
    """More like these."""
    unlike: tuple[Example, ...] = ()
    """Not like these."""

    def asking(self, codes: SlideCodes) -> SlideCodes:
        """Return the patches that may find something: the query's, then the liked ones; without places."""
        return _joined([codes, *(it.codes for it in self.like)])

    def all_of(self, codes: SlideCodes) -> SlideCodes:
        """Return the asking patches, then the unliked ones; without places."""
        return _joined([self.asking(codes), *(it.codes for it in self.unlike)])

    def importance(self, n_query: int) -> NDArray[np.float64]:
        """Return the factor of each asking patch's weight, (P,): an example weighs as much as the query."""
        parts = [np.ones(n_query), *(np.full(len(it.codes), n_query / len(it.codes)) for it in self.like)]
        return np.concatenate(parts)

    def kept(self, bags: Bags, n_query: int) -> Bags:
        """Return the bags of the asking patches, without the results that are nearer to an unliked patch.

        Parameters
        ----------
        bags : Bags
            Of the patches of `all_of`, or of those of `asking`, which stay as they are.
        n_query : int
            Patches of the query.

        Returns
        -------
        Bags
            A bag for each asking patch.
        """
        asking = n_query + sum(len(it.codes) for it in self.like)
        if len(bags) == asking:
            return bags
        end = bags.offset[asking]
        unliked, place = np.unique(bags.patch[end:], return_inverse=True)
        nearest = np.full(len(unliked) + 1, np.iinfo(np.int32).max)  # the last is for all other patches
        np.minimum.at(nearest, place, bags.hamming[end:])
        at = np.searchsorted(unliked, bags.patch[:end])
        is_there = at < len(unliked)
        is_there[is_there] = unliked[at[is_there]] == bags.patch[:end][is_there]
        kept = bags.hamming[:end] <= nearest[np.where(is_there, at, len(unliked))]
        offset = np.concatenate([[0], np.cumsum(kept)])[bags.offset[: asking + 1]]
        return Bags(offset, bags.patch[:end][kept], bags.hamming[:end][kept])

    def source(self, number: int, n_query: int) -> tuple[Example, int]:
        """Return the liked example that an asking patch is of, and the patch's number in it."""
        row = number - n_query
        for example in self.like:
            if row < len(example.codes):
                return example, row
            row -= len(example.codes)
        raise IndexError(number)

    @property
    def excluded(self) -> tuple[str, ...]:
        """Ids of the slides that may not be found: those marked as unlike as a whole."""
        return tuple(it.slide_id for it in self.unlike if it.is_whole)


def _joined(parts: Sequence[SlideCodes]) -> SlideCodes:
    """Return the patches of several slides, one after another, without their places."""
    vectors = [it.vectors for it in parts if it.vectors is not None]
    return SlideCodes(
        np.concatenate([it.keys for it in parts]),
        np.concatenate([it.barcodes for it in parts]),
        None,
        np.concatenate(vectors) if len(vectors) == len(parts) else None,
    )
