"""The interface of search systems: describe images or slides, build a database of descriptions, rank it.

A system implements :meth:`System.describe`, :meth:`System.build`, :meth:`System.score` and
:meth:`System.nbytes`. This module does the rest for all of them: it fits, leaves out the query's own group,
orders hits and ties, notes short answers and raises the errors.

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

D = TypeVar("D")
"""Description of an item: what `describe` returns and `build` takes."""

Allowed = NDArray[np.bool_]
"""bool (N,): true for items of the database that may be found."""

OnError = Literal["raise", "skip"]
"""What `fit` does with an item that cannot be described: raise its error, or note it in `skipped`."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The similarity of items of the database to a query.

    Examples
    --------
    >>> Scores(np.array([0.9, 0.2])).looked_at is None      # one value for each item; all were compared
    True
    >>> Scores(np.array([0.9]), place=np.array([7]), looked_at=3).place.tolist()      # only item 7 was found
    [7]
    """

    value: NDArray[np.floating]
    """(M,): larger is more similar; an item with minus infinity is not found."""
    place: NDArray[np.integer] | None = None
    """(M,): the place in the database of each value's item, each place once. Equal values keep this order.
    None: there is one value for each item of the database."""
    looked_at: int | None = None
    """Number of items that the query was compared with; None: all that were allowed."""
    placed: NDArray[np.bool_] | None = None
    """(M,): true for items that the ranking placed, false for those that fill the list. None: all placed."""


@dataclass(frozen=True, slots=True)
class ItemHit:
    """An item that a search found.

    >>> from pathlib import Path
    >>> hit = ItemHit(1, Item("a", Path("a.png")), 0.75)
    >>> hit.item_id, hit.score, hit.placed
    ('a', 0.75, True)
    """

    rank: int
    """Place in the ranking, from 1."""
    item: Item
    """The item."""
    score: float
    """Similarity as the system defines it; never larger further down the list."""
    placed: bool = True
    """False if the ranking left it out, and it only fills the list."""

    @property
    def item_id(self) -> str:
        """Name of the item."""
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


@dataclass(frozen=True, slots=True, repr=False)
class ItemResults(HitList[Item, ItemHit]):
    """The answer of a system: a :class:`sish.results.HitList` of items, as `sish.Results` is of slides.

    >>> from pathlib import Path
    >>> query, found = Item("a", Path("a.png")), Item("b", Path("b.png"))
    >>> results = ItemResults(query, "yottixel", (ItemHit(1, found, 0.9),), looked_at=12)
    >>> [(hit.rank, hit.item_id, hit.score) for hit in results], results.looked_at
    ([(1, 'b', 0.9)], 12)
    """

    HIT_FIELDS: ClassVar[tuple[str, ...]] = ("rank", "item_id", "path", "labels", "score", "placed")

    looked_at: int = 0
    """Number of items of the database that the query was compared with."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: those of every answer, and ``looked_at``."""
        return HitList.to_dict(self) | {"looked_at": self.looked_at}


class System(ABC, Generic[D]):
    """A search system. Subclasses say how an item is described and how two descriptions compare.

    ``fit`` describes the items of a database and builds it. ``search`` describes a query and ranks the
    database. A benchmark can call ``describe`` once and time ``rank`` alone.

    This class keeps the following rules for every system:

    - A query never finds items of its own group. A query without a group leaves out only itself, by its id.
    - Equal scores are in the order of the database, unless the system has an order of its own.
    - If fewer than k items may be found, the answer is short and has a note. This is no error.
    - The database may be empty. Its answers are empty.
    - A search before `fit` raises QueryError. k below 1, or two items of one id, raise ParameterError.
    - A system that learns from labels (``needs_labels``) raises LabelsError if the database has no labels, or
      only one class.
    - A file that does not open raises SlideOpenError, a file without a scale MissingMppError, an item without
      the mask that its system needs MissingMaskError, and an item with nothing to describe QueryError.
      ``fit(..., on_error="skip")`` goes on and lists these items in ``skipped``.
    """

    name: str
    """Short name, as in tables."""
    needs_labels: ClassVar[bool] = False
    """Whether `build` learns from labels."""

    _items: tuple[Item, ...] | None = None
    _groups: NDArray[np.object_]
    skipped: tuple[Skipped, ...] = ()
    """Items that the last `fit` could not describe, with the reason."""

    # ---- what a system implements

    @abstractmethod
    def describe(self, item: Item) -> D:
        """Read the pixels of an item and describe it; this is the expensive part.

        Parameters
        ----------
        item : Item
            A slide or image.

        Returns
        -------
        D
            What the system needs to know of it.

        Raises
        ------
        SlideError
            If its file does not open (SlideOpenError), does not tell its scale (MissingMppError) or lacks
            its mask (MissingMaskError), where the system needs them.
        QueryError
            If there is nothing to describe in it, as on a slide without tissue.
        """

    def describe_query(self, item: Item) -> D:
        """Describe a query: as an item of the database, unless the system needs more of a query."""
        return self.describe(item)

    @abstractmethod
    def build(self, descriptions: Sequence[D]) -> None:
        """Build the database from the descriptions of ``self.items``, in their order; there may be none."""

    @abstractmethod
    def score(self, description: D, allowed: Allowed, k: int) -> Scores:
        """Compare a query with the database, which is never empty here.

        A system that compares the query with everything may ignore `allowed` and `k`, since scores of other
        items are not read. One that looks at a part of the database needs both.

        Parameters
        ----------
        description : D
            The query, as `describe_query` returned it.
        allowed : ndarray of bool, (N,)
            Items that may be found, at least one.
        k : int
            How many hits are wanted.

        Returns
        -------
        Scores
            The similarity of the items, or of some of them.
        """

    @abstractmethod
    def nbytes(self) -> int:
        """Return the bytes of what must be kept to answer a query, without the items and the weights."""

    # ---- what all systems do

    @property
    def items(self) -> tuple[Item, ...]:
        """The database, in order; QueryError before `fit`."""
        if self._items is None:
            raise QueryError(f"{self.name}: got a search before there is a database; call fit(items) first")
        return self._items

    def __len__(self) -> int:
        """Return the number of items in the database."""
        return len(self.items)

    def fit(
        self,
        items: Iterable[Item],
        descriptions: Sequence[D] | None = None,
        *,
        on_error: OnError = "raise",
    ) -> Self:
        """Describe items and build the database from them, in place of an older one.

        Parameters
        ----------
        items : iterable of Item
            The database; ids differ. It may be empty.
        descriptions : sequence, optional
            What `describe` returned for each item. By default, every item is described now.
        on_error : {"raise", "skip"}
            What to do with an item that cannot be described.

        Returns
        -------
        System
            This system.

        Raises
        ------
        ParameterError
            If two items have one id, or there is not one description for each item.
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
        """Set the items of the database, for a system that did not get its database from `fit`."""
        self._items = tuple(items)
        self._groups = np.array([item.group or None for item in items], dtype=object)

    def describe_all(
        self, items: Sequence[Item], on_error: OnError, describe: Callable[[Item], D] | None = None
    ) -> tuple[tuple[Item, ...], list[D]]:
        """Describe items, and list those that cannot be described in `skipped`.

        Parameters
        ----------
        items : sequence of Item
            The items.
        on_error : {"raise", "skip"}
            What to do with an item that cannot be described.
        describe : callable, optional
            Used in place of the method `describe`, for example because it keeps what it has made.

        Returns
        -------
        tuple of Item
            The items that were described.
        list
            Their descriptions.

        Raises
        ------
        SlideError
            If the file of an item does not open, or lacks what the system needs.
        QueryError
            If there is nothing to describe in an item. Both only if `on_error` is "raise".
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
        """Find the items most similar to a query, without those of its own group.

        Parameters
        ----------
        query : Item
            A slide or image; it need not be in the database.
        k : int
            How many hits are wanted.

        Returns
        -------
        ItemResults
            At most `k` hits, best first.
        """
        _check_k(k)
        _ = self.items  # a search before fit() is refused before anything is read
        return self.rank(query, self.describe_query(query), k)

    def rank(self, query: Item, description: D, k: int = 5) -> ItemResults:
        """Do as :meth:`search` for a query that is described already: no pixels are read.

        Parameters
        ----------
        query : Item
            A slide or image; it need not be in the database.
        description : D
            What `describe_query` returned for it.
        k : int
            How many hits are wanted.

        Returns
        -------
        ItemResults
            At most `k` hits, best first.
        """
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
        """Return bool (N,): true for items that a query may find, those of other groups."""
        own = np.array([item.item_id == query.item_id for item in self.items], bool)
        return ~own if not query.group else ~(own | (self._groups == query.group))

    @property
    def bytes_per_item(self) -> float:
        """Bytes of the database per item; 0 for an empty one."""
        return self.nbytes() / len(self) if len(self) else 0.0


def short_note(found: int, k: int) -> str:
    """Return the note of an answer that holds fewer hits than wanted; empty for a full one."""
    return "" if found == k else f"{found} of {k} wanted: no more could be found"


def _check_k(k: int) -> None:
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
        raise ParameterError(f"got k={k!r}; want a whole number of at least 1")


def check_item_ids(items: Sequence[Item], name: str) -> None:
    """Refuse two items of one id (ParameterError)."""
    twice = [item_id for item_id, count in Counter(item.item_id for item in items).items() if count > 1]
    if twice:
        raise ParameterError(f"{name}: got several items with the id {twice[0]!r}; give each its own")


def _check_labels(items: Sequence[Item], name: str) -> None:
    """Refuse a database without labels, or with the same for all items (LabelsError)."""
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
    """Return places, values and `placed` of the `k` best allowed items, best first, ties as they come."""
    value = np.asarray(scores.value, np.float64)
    place = np.arange(len(allowed)) if scores.place is None else np.asarray(scores.place)
    if value.shape != place.shape:
        raise ParameterError(f"{name}: got {value.shape} scores for {place.shape} items; give one each")
    if np.isnan(value).any():
        raise QueryError(f"{name}: got scores that are no numbers; want finite features")
    keep = np.flatnonzero(allowed[place] & (value > -np.inf))
    if 4 * k < len(keep):  # keep all items as good as the k-th best, ties included
        least = np.partition(value[keep], len(keep) - k)[len(keep) - k]
        keep = keep[value[keep] >= least]
    best = keep[np.argsort(-value[keep], kind="stable")[:k]]
    placed = [True] * len(best) if scores.placed is None else scores.placed[best].tolist()
    return place[best].tolist(), value[best].tolist(), placed
