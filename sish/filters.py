"""Filters of a search: which slides may be found, by the columns of the labels file.

``where`` maps the name of a column to a condition: ``label``, ``site``, ``patient`` or another column of the
labels file. A slide must meet the conditions of all columns::

    index.search("q.svs", where={"site": ["lung", "breast"], "age": ">=50"})

================== =======================================================================================
condition          slides that pass
================== =======================================================================================
``"lung"``         their value is this text, upper and lower case apart
``50``, ``0.5``    their value is this number, however it is written: ``50``, ``50.0``, ``5e1``
``">=50"``         their value is a number of at least 50; so with ``"<=50"``, ``">50"`` and ``"<50"``
``"50..70"``       their value is a number from 50 to 70, both included
``"!=lung"``       their value is any other text; slides without a value pass, too
``"=>=50"``        their value is the text ``>=50``: after a first ``=``, everything is text
``["a", "50..70"]`` any of these; slides that a ``!=`` among them names do not pass
================== =======================================================================================

A slide whose value is missing, or is no number, passes no condition on numbers. So ``[">=50", "!=67"]`` means
50 and more without 67, and ``["!=a", "!=b"]`` neither of the two. ``"1..x"`` is a text: ``x`` is no number.

On the command line, ``--where`` takes COLUMN and a condition in one word, and may be given again: for another
column, or for the same one, as in the list above. Quotes keep the shell from reading ``>`` and ``<``::

    sish search q.svs --index archive.sish --where site=lung --where site=breast --where 'age>=50'
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError, QueryError
from sish.nearest import nearest_to

if TYPE_CHECKING:
    from sish.index.store.slide_list import SlideList

Value = str | float
"""A condition."""
Where = Mapping[str, Value | Collection[Value]]
"""Conditions by column; the docstring of :mod:`sish.filters` describes them."""

TEXT_COLUMNS = ("label", "patient", "site")
"""The columns that every index has; all others are metadata."""

_Compare = Callable[[Any, float], Any]
_Bound = tuple[_Compare, float]
_COMPARED: Mapping[str, _Compare] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"(>=|<=|!=|>|<|=)(.*)", re.DOTALL)
_WORD = re.compile(r"((?![<>=]|!=).+?)((?:>=|<=|!=|>|<|=).*)", re.DOTALL)
_WANTED = "a text, a number, '>=50' (or <=, >, <), '50..70', '!=TEXT', '=TEXT', or a list of these"


@dataclass(frozen=True, slots=True)
class Filter:
    """The condition on a column."""

    column: str
    """Name of the column."""
    given: tuple[Value, ...]
    """The condition, or the members of its list, as given."""
    texts: frozenset[str]
    """Slides with one of these values pass."""
    intervals: tuple[tuple[_Bound, ...], ...]
    """So do those whose value is a number and meets all comparisons of one of these."""
    excluded: frozenset[str]
    """Slides with one of these values do not pass; if there is nothing else, all others do."""

    @classmethod
    def of(cls, column: str, wanted: Value | Collection[Value]) -> Filter:
        """Return the filter of one column; ParameterError if it makes no sense."""
        given = _members(column, wanted)
        texts, intervals, excluded = set(), list[tuple[_Bound, ...]](), set()
        for one in given:
            sign, text = _split(one)
            if sign == "!=":
                excluded.add(text)
            elif bounds := _bounds(column, one):
                intervals.append(bounds)
            else:
                texts.add(text)
        _refuse_all_numbers(column, intervals)
        return cls(column, given, frozenset(texts), tuple(intervals), frozenset(excluded))

    def passes(self, values: Sequence[str | None]) -> NDArray[np.bool_]:
        """Return which values of the column pass, bool (V,); None is a missing value."""
        anything = not self.texts and not self.intervals
        passing = np.array([anything or value in self.texts for value in values], bool)
        if self.intervals:
            numbers = np.array([_number(value) for value in values], np.float64)
            for bounds in self.intervals:
                passing |= np.all([compare(numbers, bound) for compare, bound in bounds], axis=0)
        passing &= np.array([value not in self.excluded for value in values], bool)
        return passing

    def passed(self, slides: SlideList) -> NDArray[np.bool_]:
        """Return which slides pass, bool (N,); QueryError if no slide has the column."""
        # each distinct value is looked at once; a single text, the commonest filter, needs none of them
        known = self.column in TEXT_COLUMNS
        if len(self.texts) == 1 and not self.intervals and not self.excluded:
            (text,) = self.texts
            found = slides.has(self.column, text) if known else slides.has_metadata(self.column, text)
            if found.any():
                return found
        number, values = self._values(slides)
        if not values:
            raise _no_column(self.column, slides)
        return self.passes([*values, None])[number]  # the last is for -1

    def why_none(self, slides: SlideList, found: NDArray[np.bool_]) -> str:
        """Return why no slide that can be found passes, with what comes near; empty if one does."""
        if (self.passed(slides) & found).any():
            return ""
        number, values = self._values(slides)
        there = {values[place] for place in np.unique(number[found]).tolist() if place >= 0} - {""}
        return f"none has {self.column} {' or '.join(map(repr, self.given))}{self._near(there)}"

    def _near(self, there: set[str]) -> str:
        """Return the end of a message: similar values, or the numbers that there are."""
        near = next(filter(None, (nearest_to(text, there) for text in sorted(self.texts))), "")
        if not self.intervals:
            return near
        numbers = [number for number in map(_number, there) if not math.isnan(number)]
        if not numbers:
            return f"{near}; none of its values is a number"
        return f"{near}; its numbers are from {min(numbers):g} to {max(numbers):g}"

    def _values(self, slides: SlideList) -> tuple[NDArray[np.int64], list[str]]:
        """Return the number of each slide's value, -1 for none, and the values."""
        return (
            slides.values(self.column) if self.column in TEXT_COLUMNS else slides.metadata_values(self.column)
        )


def filters_of(where: Where | None) -> tuple[Filter, ...]:
    """Return the filters of a search.

    Parameters
    ----------
    where : mapping, optional
        Conditions by column, as the docstring of this module describes them.

    Returns
    -------
    tuple of Filter
        One for each column.

    Raises
    ------
    ParameterError
        If it is no mapping of names to conditions.

    Examples
    --------
    >>> (age,) = filters_of({"age": [">=50", "unknown", "!=67"]})
    >>> age.passes(["49", "50.5", "67", "unknown", None]).tolist()
    [False, True, False, True, False]
    """
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise ParameterError(
            f"got where={_short(where)}; want conditions by column, as in "
            "where={'site': ['lung', 'breast'], 'age': '>=50'}"
        )
    for column in where:
        if not isinstance(column, str):
            raise ParameterError(f"got a filter on {_short(column)}; want the name of a column, a text")
    return tuple(Filter.of(column, wanted) for column, wanted in where.items())


def where_of(words: Iterable[str]) -> dict[str, list[str]]:
    """Return the filters of a command line, the conditions of a column together.

    Parameters
    ----------
    words : iterable of str
        COLUMN and condition in one, as in ``site=lung``, ``age>=50``, ``age=50..70``.

    Returns
    -------
    dict of str to list of str
        As `filters_of` takes it.

    Raises
    ------
    ParameterError
        If a word has no column or no condition.

    Examples
    --------
    >>> where_of(["site=lung", "age>=50", "site=breast", "stage==>3"])
    {'site': ['lung', 'breast'], 'age': ['>=50'], 'stage': ['=>3']}
    """
    where: dict[str, list[str]] = {}
    for word in words:
        parts = _WORD.fullmatch(word)
        if parts is None:
            raise ParameterError(
                f"got --where {word}; want COLUMN=VALUE, as in --where site=lung, or --where 'age>=50', "
                "'age=50..70', 'stain!=H&E'"
            )
        column, condition = parts.groups()
        where.setdefault(column, []).append(condition.removeprefix("="))
    return where


def exactly(value: str) -> str:
    """Return the condition that a value is this text, whatever it begins with: ``=>=50`` for ``>=50``."""
    return f"={value}"


def _members(column: str, wanted: object) -> tuple[Value, ...]:
    """Return a condition as a tuple, or the members of a list of them."""
    if isinstance(wanted, str | Real):
        given: list[object] = [wanted]
    elif _is_list(wanted):
        given = list(wanted)
    else:
        raise _not_a_condition(column, wanted)
    if not given:
        raise ParameterError(f"got an empty list for {column}, which no slide passes; want {_WANTED}")
    return tuple(_checked(column, one) for one in given)


def _is_list(it: object) -> TypeGuard[Collection[object]]:
    one_row = getattr(it, "ndim", 1) == 1  # of arrays and frames
    return isinstance(it, Collection) and not isinstance(it, bytes | Mapping) and one_row


def _checked(column: str, one: object) -> Value:
    if isinstance(one, str):
        return str(one)  # numpy's texts, too
    number = math.nan if isinstance(one, bool) or not isinstance(one, Real) else _number(str(one))
    if math.isnan(number):
        raise _not_a_condition(column, one)
    return number


def _not_a_condition(column: str, one: object) -> ParameterError:
    hint = "; write it as the labels file does" if isinstance(one, bool | np.bool_) else ""
    return ParameterError(f"got {_short(one)} as the condition on {column}{hint}; want {_WANTED}")


def _split(one: Value) -> tuple[str, str]:
    """Return the sign before a condition, empty if it has none, and the rest."""
    parts = _CONDITION.fullmatch(str(one))
    return (parts[1], parts[2]) if parts else ("", str(one))


def _bounds(column: str, one: Value) -> tuple[_Bound, ...]:
    """Return the comparisons of a condition on numbers; none if it is a text."""
    if not isinstance(one, str):
        return ((operator.eq, one),)
    sign, text = _split(one)
    if sign in _COMPARED:
        bound = _number(text)
        if math.isnan(bound):
            raise ParameterError(
                f"got {one!r} as the condition on {column}; want a number after {sign}, as in {sign}50. "
                f"A text that begins so is written {exactly(one)!r}"
            )
        return ((_COMPARED[sign], bound),)
    first, dots, last = text.partition("..")
    low, high = _number(first), _number(last)
    if sign or not dots or math.isnan(low) or math.isnan(high):
        return ()
    if low > high:
        raise ParameterError(f"got {one!r} as the condition on {column}; want the smaller number first")
    return ((operator.ge, low), (operator.le, high))


def _refuse_all_numbers(column: str, intervals: Iterable[tuple[_Bound, ...]]) -> None:
    """Refuse a list such as ['>=50', '<70'], which every number passes: both were meant to hold."""
    single = [bounds[0] for bounds in intervals if len(bounds) == 1]
    lowest = min((at for compare, at in single if compare in (operator.ge, operator.gt)), default=math.inf)
    highest = max((at for compare, at in single if compare in (operator.le, operator.lt)), default=-math.inf)
    if lowest < highest:
        raise ParameterError(
            f"got conditions on {column} of which every number meets one: a list means any of them. "
            f"Write a range as {column}={lowest:g}..{highest:g}"
        )


def _number(text: str | None) -> float:
    """Return the finite number that a text is; NaN, which meets no comparison, if it is none."""
    try:
        number = math.nan if text is None or "_" in text else float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _no_column(column: str, slides: SlideList) -> QueryError:
    near = nearest_to(column, {*TEXT_COLUMNS, *slides.metadata_names()})
    return QueryError(
        f"got a filter on {column!r}, which no slide has{near}; "
        "want label, patient, site or a column of the labels file"
    )


def _short(it: object) -> str:
    words = repr(it)
    return words if len(words) <= 60 else f"{words[:57]}..."
