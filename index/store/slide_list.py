"""The slides of several tables as one list: rows, filters and the order of ids, without reading every row."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sish.index.store.slide_row import SlideRow
from sish.index.store.slide_table import SlideRows, SlideTable


@dataclass(frozen=True, eq=False)
class SlideList(SlideRows):
    """N slides, table after table; a slide's number is its place here.

    Examples
    --------
    >>> rows = [SlideRow(name, "/x", 3, 256.0, 0.5, "given", 9, 9, None, "p", None) for name in "ba"]
    >>> slides = SlideList(tuple(SlideTable.of([row]) for row in rows))
    >>> len(slides), slides[1].slide_id, slides.id_order.tolist(), slides.has("patient", "p").tolist()
    (2, 'a', [1, 0], [True, True])
    """

    tables: tuple[SlideTable, ...]
    """The tables; removed slides are among theirs."""

    def __len__(self) -> int:
        """Return N, the number of slides."""
        return int(self._firsts[-1])

    def _row(self, number: int) -> SlideRow:
        table = int(np.searchsorted(self._firsts, number, "right")) - 1
        return self.tables[table][number - int(self._firsts[table])]

    @cached_property
    def _firsts(self) -> npt.NDArray[np.int64]:
        return np.cumsum([0, *map(len, self.tables)], dtype=np.int64)

    @cached_property
    def n_patches(self) -> npt.NDArray[np.int64]:
        """int64 (N,): how many patches each slide has."""
        return np.concatenate([np.empty(0, np.int64), *(table.n_patches for table in self.tables)])

    @cached_property
    def id_order(self) -> npt.NDArray[np.int64]:
        """int64 (N,): the numbers of the slides in order of their ids; slides of one id keep their order."""
        if not self.tables:
            return np.empty(0, np.int64)
        # each table is a sorted run, and a stable sort merges runs
        numbers = [table.id_order + first for table, first in zip(self.tables, self._firsts, strict=False)]
        ids = np.concatenate([table.sorted_ids for table in self.tables])
        return np.concatenate(numbers)[np.argsort(ids, kind="stable")]

    def numbers(self, column: str) -> npt.NDArray[Any]:
        """Return a column of numbers, int64 or float64 (N,)."""
        return np.concatenate([np.empty(0, np.int64), *(table.numbers(column) for table in self.tables)])

    def has(self, column: str, value: str) -> npt.NDArray[np.bool_]:
        """Return which slides have a value in a column of text, bool (N,)."""
        return _joined(table.has(column, value) for table in self.tables)

    def has_metadata(self, name: str, value: str) -> npt.NDArray[np.bool_]:
        """Return which slides have a value in a field of metadata, bool (N,)."""
        return _joined(table.has_metadata(name, value) for table in self.tables)

    def values(self, column: str) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Return the number of each slide's value in a column, int64 (N,), -1 for none; and the values."""
        return _together(table.values(column) for table in self.tables)

    def metadata_values(self, name: str) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Return a field of metadata as `values` returns a column."""
        return _together(table.metadata_values(name) for table in self.tables)

    def metadata_names(self) -> set[str]:
        """Return the names of the fields of metadata that slides have."""
        return {name for table in self.tables for name in table.metadata_names()}


def _joined(parts: Iterable[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    return np.concatenate([np.zeros(0, bool), *parts])


def _together(
    columns: Iterable[tuple[npt.NDArray[np.int64], list[str]]],
) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return one column of several, with the values in the order first seen."""
    numbers, names = [np.empty(0, np.int64)], dict[str, int]()
    for number, values in columns:
        places = [names.setdefault(value, len(names)) for value in values]
        numbers.append(np.array([*places, -1], np.int64)[number])
    return np.concatenate(numbers), list(names)
