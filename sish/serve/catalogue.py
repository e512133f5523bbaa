"""The list of slides that the page shows: in order of ids, searched by words, filtered by columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import QueryError
from sish.filters import TEXT_COLUMNS, Filter, Where, filters_of
from sish.index.store import SlideRow, State
from sish.nearest import nearest_to

_MOST_VALUES = 200


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The slides of one state of an index."""

    rows: Sequence[SlideRow]
    """All slides, in order of their ids."""
    generation: int
    """The state's number."""

    @classmethod
    def of(cls, state: State) -> Catalogue:
        """Return the catalogue of a state."""
        return cls(sorted(state.slides, key=lambda row: row.slide_id), state.generation)

    @cached_property
    def _by_id(self) -> dict[str, SlideRow]:
        return {row.slide_id: row for row in self.rows}

    @cached_property
    def _texts(self) -> list[str]:
        """What the words of a query are looked for in, a text for each slide."""
        return ["\n".join(_words(row)).casefold() for row in self.rows]

    @cached_property
    def columns(self) -> list[dict[str, Any]]:
        """Each column with its commonest values and their counts, as ``GET /api/info`` tells them."""
        names = {name for row in self.rows for name in row.metadata}
        return [self._column(name) for name in (*TEXT_COLUMNS, *sorted(names - set(TEXT_COLUMNS)))]

    def row(self, slide_id: str) -> SlideRow | None:
        """Return the row of a slide; None if there is none of this id."""
        return self._by_id.get(slide_id)

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
            Places in `rows`.

        Raises
        ------
        ParameterError
            If a condition makes no sense.
        QueryError
            If no slide has a column of `where`.
        """
        passing = np.ones(len(self.rows), bool)
        for it in filters_of(where):
            passing &= self._passed(it)
        wanted = words.casefold().split()
        places = np.flatnonzero(passing)
        if not wanted:
            return places
        kept = [place for place in places.tolist() if all(word in self._texts[place] for word in wanted)]
        return np.array(kept, np.int64)

    def _passed(self, it: Filter) -> NDArray[np.bool_]:
        values = [_value(row, it.column) for row in self.rows]
        if not any(value is not None for value in values):
            near = nearest_to(it.column, (column["name"] for column in self.columns))
            raise QueryError(f"got a filter on {it.column!r}, which no slide has{near}; want another column")
        return it.passes(values)

    def _column(self, name: str) -> dict[str, Any]:
        counts = Counter(value for row in self.rows if (value := _value(row, name)) is not None)
        values = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_VALUES]
        told = [{"value": value, "count": count} for value, count in values]
        return {"name": name, "values": told, "distinct": len(counts)}


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


def _value(row: SlideRow, column: str) -> str | None:
    value = getattr(row, column) if column in TEXT_COLUMNS else row.metadata.get(column)
    return value or None


def _words(row: SlideRow) -> Iterator[str]:
    yield from filter(None, (row.slide_id, row.label, row.site, row.patient))
    for pair in row.metadata.items():
        yield from pair
