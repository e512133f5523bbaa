"""What every search system is: describe an image or slide, build a database of descriptions, rank it.

A system says three things, :meth:`System.describe`, :meth:`System.build` and :meth:`System.score` (and how
many bytes it holds); everything that all of them must do alike is here once: fitting, leaving out the
query's own group, ordering, ties, short answers, errors.

>>> from pathlib import Path
>>> class Brightness(System[float]):
...     name = "brightness"
...     def describe(self, item):
...         return float(len(item.item_id))             # a real one reads item.path
...     def build(self, descriptions):
...         self.known = np.array(descriptions)
...     def score(self, description, allowed, k):
...         return Scores(-abs(self.known - description))
...     def nbytes(self):
...         return self.known.nbytes
>>> items = [Item(name, Path(f"{name}.png")) for name in ("a", "bb", "cccc")]
>>> [hit.item_id for hit in Brightness().fit(items).search(items[0], k=5)]
['bb', 'cccc']
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from sish.errors import LabelsError, ParameterError, QueryError, SlideError, errors_about
from sish.results import HitList, Skipped
from sish.systems.item import Item

__all__ = ["Allowed", "ItemHit", "ItemResults", "OnError", "Scores", "System", "check_item_ids"]

D = TypeVar("D")
"""What a system keeps of an item while it builds."""

Allowed = NDArray[np.bool_]
"""bool (N,): which items of the database may be found."""

OnError = Literal["raise", "skip"]
"""What `fit` does with an item that cannot be described: stop with its error, or go on and keep account."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How similar items of the database are to a query."""

    value: NDArray[np.floating]
    """(M,): larger is more similar; minus infinity where an item is not to be found."""
    place: NDArray[np.integer] | None = None
    """(M,): places in the database that the values are of, each once; equal values rank as they come here.
    None: one value for each item."""
    looked_at: int | None = None
    """Items that the query was compared with; None: all that were allowed."""
    placed: NDArray[np.bool_] | None = None
    """(M,): which of them the ranking itself placed, where others fill the list up to k; None: all."""


@dataclass(frozen=True, slots=True)
class ItemHit:
    """An item that a search found."""

    rank: int
    """Place in the ranking, from 1."""
    item: Item
    """The item."""
    score: float
    """Similarity as the system defines it; never larger further down the list."""
    placed: bool = True
    """False where the ranking left it out, and it fills the list."""

    @property
    def item_id(self) -> str:
        """The item's name."""
        return self.item.item_id

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "rank": self.rank,
            "item_id": self.item_id,
            "path": str(self.item.path),
            "labels": sorted(self.item.labels),
            "score": self.score,
            "placed": self.placed,
        }


@dataclass(frozen=True, slots=True)
class ItemResults(HitList[Item, ItemHit]):
    """The answer of a system: a :class:`sish.results.HitList` of items, as `sish.Results` is of slides."""

    looked_at: int = 0
    """Items of the database that the query was compared with."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: those of every answer, and ``looked_at``."""
        return HitList.to_dict(self) | {"looked_at": self.looked_at}


class System(ABC, Generic[D]):
    """A search system. Subclasses say how an item is described and how descriptions compare.

    ``fit`` describes a database and builds; ``search`` describes a query and ranks. Both halves are also
    there alone (``describe`` and ``rank``), so that a benchmark describes once and times the ranking.

    What is asked of every system, and kept by this class:

    - the query's own group is never found; a query with an empty group leaves out only itself (by its id);
    - equal scores are in the order of the database, unless the system has an order of its own;
    - fewer than k items that may be found give a short answer with a note, none an empty one: no error;
    - an empty database is allowed, and gives empty answers;
    - searching before `fit` is a QueryError, k below 1 and two items of one id are ParameterErrors;
    - a system that learns from labels (``needs_labels``) raises LabelsError where the database has none, or
      only one class;
    - a file that does not open or tell its scale raises a SlideError (MissingMppError where the scale is
      missing), an item without the mask that its system needs MissingMaskError, one in which there is
      nothing to describe QueryError; ``fit(..., on_error="skip")`` keeps account of them in ``skipped``
      and goes on.
    """

    name: str
    """Short name, as in tables and on the command line."""
    needs_labels: ClassVar[bool] = False
    """Whether `build` learns from labels."""

    _items: tuple[Item, ...] | None = None
    _groups: NDArray[np.object_]
    skipped: tuple[Skipped, ...] = ()
    """Items that the last `fit` could not describe, with the reason."""

    # ---- what a system says

    @abstractmethod
    def describe(self, item: Item) -> D:
        """What the system needs to know of an item: reads its pixels; the expensive part.

        Raises
        ------
        SlideError
            If its file does not open (SlideOpenError), does not tell its scale (MissingMppError) or lacks
            its mask (MissingMaskError) where the system needs them.
        QueryError
            If there is nothing to describe in it, as on a slide without tissue.
        """

    def describe_query(self, item: Item) -> D:
        """What the system needs to know of a query; the same, unless it asks more of queries."""
        return self.describe(item)

    @abstractmethod
    def build(self, descriptions: Sequence[D]) -> None:
        """Make the database of the descriptions of ``self.items``, in their order; there may be none."""

    @abstractmethod
    def score(self, description: D, allowed: Allowed, k: int) -> Scores:
        """Compare a query with the database. Never called with an empty one.

        `allowed` bool (N,) are the items that may be found, at least one, and `k` is how many are wanted.
        What is said of other items is not looked at, so a system that compares with everything may ignore
        both; one that looks at a part of the database needs them.
        """

    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that the database takes: what must be kept to answer a query, without items and weights."""

    # ---- what all of them do

    @property
    def items(self) -> tuple[Item, ...]:
        """The database, in order. QueryError before `fit`."""
        if self._items is None:
            raise QueryError(f"{self.name}: got a search before there is a database; call fit(items) first")
        return self._items

    def __len__(self) -> int:
        """Items in the database."""
        return len(self.items)

    def fit(
        self,
        items: Iterable[Item],
        descriptions: Sequence[D] | None = None,
        *,
        on_error: OnError = "raise",
    ) -> Self:
        """Describe items and build the database of them; a database that was there is replaced.

        Parameters
        ----------
        items : iterable of Item
            The database; ids differ. It may be empty.
        descriptions : sequence, optional
            What `describe` gave for each item, where that is known already.
        on_error : {"raise", "skip"}
            What to do with an item that cannot be described. A description that is given is not made again.
        """
        given = tuple(items)
        check_item_ids(given, self.name)
        if self.needs_labels:
            _check_labels(given, self.name)
        if descriptions is None:
            given, descriptions = self.describe_all(given, on_error)
        elif len(descriptions) != len(given):
            raise ParameterError(
                f"{self.name}: got {len(descriptions)} descriptions of {len(given)} items; give one each"
            )
        else:
            self.skipped = ()
        self.set_items(given)
        self.build(descriptions)
        return self

    def set_items(self, items: Sequence[Item]) -> None:
        """Say what the database is of; for systems that come by their database otherwise than by `fit`."""
        self._items = tuple(items)
        self._groups = np.array([item.group or None for item in items], dtype=object)

    def describe_all(
        self, items: Sequence[Item], on_error: OnError, describe: Callable[[Item], D] | None = None
    ) -> tuple[tuple[Item, ...], list[D]]:
        """The items that can be described, and their descriptions; `skipped` tells of the others.

        ``describe`` stands in for the method of that name, as one that keeps what it has made.
        """
        describe = describe or self.describe
        done: list[Item] = []
        found: list[D] = []
        skipped: list[Skipped] = []
        for item in items:
            try:
                with errors_about(item.path, item.item_id):
                    found.append(describe(item))
                done.append(item)
            except (SlideError, QueryError) as error:
                if on_error == "raise":
                    raise
                skipped.append(Skipped(str(item.path), str(error)))
        self.skipped = tuple(skipped)
        return tuple(done), found

    def search(self, query: Item, k: int = 5) -> ItemResults:
        """The `k` items most like a query, which need not be in the database; own group left out."""
        _check_k(k)
        _ = self.items  # a search before fit() is refused before anything is read
        return self.rank(query, self.describe_query(query), k)

    def rank(self, query: Item, description: D, k: int = 5) -> ItemResults:
        """:meth:`search` for a query that is described already: no pixels are read."""
        _check_k(k)
        allowed = self.allowed(query)
        n_allowed = int(np.count_nonzero(allowed))
        if not n_allowed:
            note = "nothing is left outside the query's own group" if len(self) else "the database is empty"
            return ItemResults(query, self.name, (), note)
        scores = self.score(description, allowed, k)
        best = _best(scores, allowed, k, self.name)
        hits = tuple(
            ItemHit(rank, self.items[place], score, placed)
            for rank, (place, score, placed) in enumerate(zip(*best, strict=True), start=1)
        )
        looked_at = n_allowed if scores.looked_at is None else scores.looked_at
        return ItemResults(query, self.name, hits, short_note(len(hits), k), looked_at)

    def allowed(self, query: Item) -> Allowed:
        """Items that a query may find: those outside its group, and never itself; bool (N,)."""
        own = np.array([item.item_id == query.item_id for item in self.items], bool)
        return ~own if not query.group else ~(own | (self._groups == query.group))

    @property
    def bytes_per_item(self) -> float:
        """Bytes of the database an item; 0 for an empty one."""
        return self.nbytes() / len(self) if len(self) else 0.0


def short_note(found: int, k: int) -> str:
    """Return the note of an answer that holds fewer hits than wanted; empty for a full one."""
    return "" if found == k else f"{found} of {k} wanted: no more could be found"


def _check_k(k: int) -> None:
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise ParameterError(f"got k={k!r}; want a whole number of at least 1")


def check_item_ids(items: Sequence[Item], name: str) -> None:
    """ParameterError where two items have one id."""
    twice = [item_id for item_id, count in Counter(item.item_id for item in items).items() if count > 1]
    if twice:
        raise ParameterError(f"{name}: got several items with the id {twice[0]!r}; give each its own")


def _check_labels(items: Sequence[Item], name: str) -> None:
    """LabelsError where there is nothing to learn from: no labels, or the same for all."""
    known = {item.labels for item in items}
    if items and not any(known):
        raise LabelsError(
            f"{name} learns from labels, and none of {len(items)} items has one; give them labels"
        )
    if len(known) == 1:
        only = items[0].label
        raise LabelsError(
            f"{name} learns from labels, and all items have {only!r}; give two classes at least"
        )


def _best(scores: Scores, allowed: Allowed, k: int, name: str) -> tuple[list[int], list[float], list[bool]]:
    """The `k` best allowed items, best first, ties as they come: places, values, whether they were placed."""
    value = np.asarray(scores.value, np.float64)
    place = np.arange(len(allowed)) if scores.place is None else np.asarray(scores.place)
    if value.shape != place.shape:
        raise ParameterError(f"{name}: got {value.shape} scores for {place.shape} items; give one each")
    if np.isnan(value).any():
        raise QueryError(f"{name}: got scores that are no numbers; want finite features")
    keep = np.flatnonzero(allowed[place] & (value > -np.inf))
    if 4 * k < len(keep):  # all that are as good as the k-th best, ties included
        least = np.partition(value[keep], len(keep) - k)[len(keep) - k]
        keep = keep[value[keep] >= least]
    best = keep[np.argsort(-value[keep], kind="stable")[:k]]
    placed = [True] * len(best) if scores.placed is None else scores.placed[best].tolist()
    return place[best].tolist(), value[best].tolist(), placed
