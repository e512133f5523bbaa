"""The list of slides that the page shows: in order of ids, searched by words, filtered by columns.

It reads the columns of the index's tables, and the rows of only those slides that are shown: an archive of
100,000 slides opens without making 100,000 rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.filters import TEXT_COLUMNS, Where, filters_of
from sish.index.store import SlideRow, State
from sish.index.store.segment import DamagedSegment
from sish.index.store.slide_list import SlideList
from sish.index.store.slide_table import SlideTable

_MOST_VALUES = 200


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The N slides of one state of an index."""

    state: State
    """The state."""
    slides: SlideList
    """Its slides as they are stored, removed ones among them."""
    order: NDArray[np.int64]
    """int64 (N,): numbers of its live slides in `slides`, in order of their ids."""

    @classmethod
    def of(cls, state: State) -> Catalogue:
        """Return the catalogue of a state."""
        tables, live = [], [np.zeros(0, bool)]
        for part in state.parts:
            if isinstance(part, DamagedSegment):
                tables.append(SlideTable.of(part.slides))
                live.append(np.ones(len(part.slides), bool))
            else:
                tables.append(part.patches.slides)
                live.append(~part.removed_mask)
        slides = SlideList(tuple(tables))
        return cls(state, slides, slides.id_order[np.concatenate(live)[slides.id_order]])

    def __len__(self) -> int:
        """Return N, the number of slides."""
        return len(self.order)

    @property
    def generation(self) -> int:
        """The state's number."""
        return self.state.generation

    @cached_property
    def columns(self) -> list[dict[str, Any]]:
        """Each column with its commonest values and their counts, as ``GET /api/info`` tells them."""
        names = self.slides.metadata_names() - set(TEXT_COLUMNS)
        return [self._column(name) for name in (*TEXT_COLUMNS, *sorted(names))]

    def row(self, slide_id: str) -> SlideRow | None:
        """Return the row of a slide; None if there is none of this id."""
        return self.state.row(slide_id)

    def rows(self, places: NDArray[np.int64]) -> list[SlideRow]:
        """Return the rows of the slides at some places in the order of ids."""
        return [self.slides[number] for number in self.order[places].tolist()]

    def find(self, words: str = "", where: Where | None = None) -> NDArray[np.int64]:
        """Return the places of the slides that have all words and pass all filters, ascending.

        Parameters
        ----------
        words : str
            Words that must occur in a slide's id, label, site, patient or metadata, upper and lower case
            alike.
        where : mapping, optional
            Conditions by column (:mod:`sish.filters`).

        Returns
        -------
        int64 (F,)
            Places in the order of ids.

        Raises
        ------
        ParameterError
            If a condition makes no sense.
        QueryError
            If no slide has a column of `where`.
        """
        passing = np.ones(len(self), bool)
        for it in filters_of(where):
            passing &= it.passed(self.slides)[self.order]
        places = np.flatnonzero(passing)
        wanted = words.casefold().split()
        if not wanted:
            return places
        kept = [place for place in places.tolist() if all(word in self._texts[place] for word in wanted)]
        return np.array(kept, np.int64)

    @cached_property
    def _texts(self) -> list[str]:
        """Return what the words of a query are looked for in, a text for each slide."""
        columns = [self._words(name) for name in ("slide_id", *TEXT_COLUMNS)]
        for name in sorted(self.slides.metadata_names()):
            columns.append([value and f"{name}\n{value}" for value in self._words(name)])
        return ["\n".join(filter(None, words)).casefold() for words in zip(*columns, strict=True)]

    def _words(self, column: str) -> list[str]:
        """Return a column's value of each slide; an empty text for none."""
        number, values = self._values(column)
        named = [*values, ""]  # the last is for -1
        return [named[it] for it in number.tolist()]

    def _values(self, column: str) -> tuple[NDArray[np.int64], list[str]]:
        """Return the number of each slide's value, int64 (N,), -1 for none; and the values."""
        stored = column in ("slide_id", *TEXT_COLUMNS)
        number, values = self.slides.values(column) if stored else self.slides.metadata_values(column)
        return number[self.order], values

    def _column(self, name: str) -> dict[str, Any]:
        number, values = self._values(name)
        counts = np.bincount(number[number >= 0], minlength=len(values)).tolist()
        there = [(value, count) for value, count in zip(values, counts, strict=True) if value and count]
        commonest = sorted(there, key=lambda pair: (-pair[1], pair[0]))[:_MOST_VALUES]
        told = [{"value": value, "count": count} for value, count in commonest]
        return {"name": name, "values": told, "distinct": len(there)}


def short(row: SlideRow) -> dict[str, Any]:
    """Return the facts on a slide that a list shows."""
    return {
        "slide_id": row.slide_id,
        "label": row.label,
        "site": row.site,
        "patient": row.patient,
        "n_patches": row.n_patches,
        "width": row.width,
        "height": row.height,
        "mpp": row.mpp or None,
        "metadata": dict(row.metadata),
    }
