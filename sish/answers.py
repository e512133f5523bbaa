"""Tables of answered queries: by class, by site and by query.

`sish.metrics` measures all queries at once. These tables show where the right and wrong answers are, as plain
rows: a dict for each row, with the same columns in all rows of a table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sish.metrics import Answer, average_precision, bootstrap_interval, f1_of, majority_label

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
FEWER = (1, 3)
"""Majority votes of this many results are reported beside those of k."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A labelled query and the labels that its search found."""

    query: str
    """Id of the query."""
    label: str
    """Its label."""
    found: tuple[str, ...]
    """Labels of its results, best first; none if it failed."""
    relevant: int
    """Number of slides with its label that it could find."""
    site: str = ""
    """Its site; empty if not known."""
    failed: str = ""
    """Why it was not searched for, such as ``no tissue``; such a query counts as a miss. Empty: it was."""

    @property
    def answer(self) -> Answer:
        """Return the label and the labels found, as `sish.metrics` takes them."""
        return self.label, self.found


def numbers_of_votes(k: int) -> tuple[int, ...]:
    """Return the numbers of results whose majority is reported: k, and 1 and 3 if these are smaller.

    Parameters
    ----------
    k : int
        Number of results looked at.

    Returns
    -------
    tuple of int
        Ascending.

    Examples
    --------
    >>> numbers_of_votes(5), numbers_of_votes(2)
    ((1, 3, 5), (1, 2))
    """
    return (*(at for at in FEWER if at < k), k)


def query_rows(answers: Sequence[Answered], k: int = 5) -> list[dict[str, Any]]:
    """Return a row for each query: its label, what the majorities say, and why it failed.

    Parameters
    ----------
    answers : sequence of Answered
        The queries.
    k : int
        Number of results looked at.

    Returns
    -------
    list of dict
        Columns ``query``, ``label``, ``site``, ``relevant``, ``failed``, ``mv1``, ``mv3`` and ``mv5`` for
        k = 5 (the majority label, empty if there is none), ``precision5`` and ``ap5``.

    Examples
    --------
    >>> query_rows([Answered("q", "a", ("a", "b", "b"), relevant=2)], k=3)[0]["mv3"]
    'b'
    """
    return [
        {
            "query": one.query,
            "label": one.label,
            "site": one.site,
            "relevant": one.relevant,
            "failed": one.failed,
            **{f"mv{at}": majority_label(one.found, at) or "" for at in numbers_of_votes(k)},
            f"precision{k}": one.found[:k].count(one.label) / k,
            f"ap{k}": average_precision(one.answer, k, relevant=one.relevant),
        }
        for one in answers
    ]


def group_rows(answers: Sequence[Answered], by: Literal["label", "site"], k: int = 5) -> list[dict[str, Any]]:
    """Return a row for each class, or for each site.

    Parameters
    ----------
    answers : sequence of Answered
        The queries.
    by : {"label", "site"}
        What makes a group.
    k : int
        Number of results looked at.

    Returns
    -------
    list of dict
        In alphabetical order, with these columns for k = 5:

        - ``label`` or ``site``;
        - ``queries``; ``failed``, those that were not searched for; ``findable``, those for which the archive
          holds a right result;
        - ``mv1``, ``mv3``, ``mv5``: share of queries with the right majority label (``mv1``: right at rank
          1), and ``mv5_low`` and ``mv5_high``, its 95 % interval;
        - ``hit3``, ``hit5``: share of queries with a right result among the first 3 or 5;
        - ``precision5``, ``map5``: their means over queries;
        - ``f1_1``, ``f1_3``, ``f1_5``: F1 of the majority label; of a site, the mean over its classes.

    Examples
    --------
    >>> rows = group_rows([Answered("q", "a", ("a",), 1), Answered("r", "b", ("a",), 1)], "label", k=1)
    >>> [(row["label"], row["mv1"], round(row["f1_1"], 2)) for row in rows]
    [('a', 1.0, 0.67), ('b', 0.0, 0.0)]
    """
    f1 = _f1_of_classes(answers, k) if by == "label" else _f1_of_sites(answers, k)
    return [
        {by: name, **_shares([one for one in answers if getattr(one, by) == name], k), **f1[name]}
        for name in sorted({getattr(one, by) for one in answers})
    ]


def never_found(answers: Sequence[Answered], k: int = 5) -> list[str]:
    """Return the classes of which no query has a right result among the first `k`, in alphabetical order.

    Parameters
    ----------
    answers : sequence of Answered
        The queries.
    k : int
        Number of results looked at.

    Returns
    -------
    list of str
        The classes.

    Examples
    --------
    >>> never_found([Answered("q", "a", ("b", "a"), 1), Answered("r", "b", ("a", "a"), 1)], k=2)
    ['b']
    """
    found = {one.label for one in answers if one.label in one.found[:k]}
    return sorted({one.label for one in answers} - found)


def never_majority(answers: Sequence[Answered], k: int = 5) -> list[str]:
    """Return the classes that are found, but of which no query has the right majority label.

    Parameters
    ----------
    answers : sequence of Answered
        The queries.
    k : int
        How many results vote.

    Returns
    -------
    list of str
        The classes, in alphabetical order; those of `never_found` are not among them.

    Examples
    --------
    >>> never_majority([Answered("q", "a", ("b", "a"), 1), Answered("r", "b", ("a", "a"), 1)], k=2)
    ['a']
    """
    right = {one.label for one in answers if majority_label(one.found, k) == one.label}
    return sorted({one.label for one in answers} - right - set(never_found(answers, k)))


def never_lines(
    groups: Iterable[Mapping[str, Any]], found: Sequence[str], majority: Sequence[str], k: int = 5
) -> Iterator[str]:
    """Yield the lines that name the classes that a search misses; none if it misses no class.

    Parameters
    ----------
    groups : iterable of mapping
        The rows of the classes (`group_rows`); the lines mark a class without anything to find.
    found : sequence of str
        The classes of `never_found`.
    majority : sequence of str
        The classes of `never_majority`.
    k : int
        Number of results looked at.

    Yields
    ------
    str
        A line.

    Examples
    --------
    >>> groups = [{"label": "a", "findable": 3}, {"label": "b", "findable": 0}]
    >>> list(never_lines(groups, ["b"], ["a"]))
    ['never among the first 5: b (nothing to find)', 'found, but never the majority of 5: a']
    """
    bare = {row["label"] for row in groups if not row["findable"]}
    for words, names in (("never among the first", found), ("found, but never the majority of", majority)):
        if names:
            shown = (f"{name} (nothing to find)" if name in bare else name for name in names)
            yield f"{words} {k}: {', '.join(shown)}"


def csv_of(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    r"""Return rows as CSV with a header; None is an empty field.

    A text that a spreadsheet would run as a formula (it begins with ``=``, ``+``, ``-`` or ``@`` and is no
    number) gets an apostrophe before it. File names of strangers become texts here.

    Parameters
    ----------
    rows : iterable of mapping
        The rows.
    columns : sequence of str, optional
        The columns; a row may lack some. Default: those of the first row.

    Returns
    -------
    str
        The table.

    Examples
    --------
    >>> csv_of([{"label": "a, b", "mv5": None}])
    'label,mv5\r\n"a, b",\r\n'
    >>> csv_of([{"label": "=1+1", "site": "-5"}])
    "label,site\r\n'=1+1,-5\r\n"
    """
    table = list(rows)
    names = list(table[0] if table else ()) if columns is None else columns
    out = io.StringIO()
    writer = csv.writer(out)
    if names:
        writer.writerow(map(_no_formula, names))
    writer.writerows([_no_formula(row.get(name)) for name in names] for row in table)
    return out.getvalue()


def _no_formula(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(_FORMULA) or cell in _FORMULA or _is_number(cell):
        return cell
    return f"'{cell}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shares(own: Sequence[Answered], k: int) -> dict[str, Any]:
    """Return the columns of a group that are counts or means over its queries."""
    rows = query_rows(own, k)
    right = {at: [float(row[f"mv{at}"] == row["label"]) for row in rows] for at in numbers_of_votes(k)}
    low, high = bootstrap_interval(right[k], [""] * len(own))
    return {
        "queries": len(own),
        "failed": sum(bool(one.failed) for one in own),
        "findable": sum(one.relevant > 0 for one in own),
        **{f"mv{at}": float(np.mean(values)) for at, values in right.items()},
        f"mv{k}_low": low,
        f"mv{k}_high": high,
        **{f"hit{at}": float(np.mean([one.label in one.found[:at] for one in own])) for at in (3, 5)},
        f"precision{k}": float(np.mean([row[f"precision{k}"] for row in rows])),
        f"map{k}": float(np.mean([row[f"ap{k}"] for row in rows])),
    }


def _f1_of_classes(answers: Sequence[Answered], k: int) -> dict[str, dict[str, float]]:
    """Return the F1 of each class, by its label."""
    labels = [one.label for one in answers]
    out: dict[str, dict[str, float]] = {label: {} for label in labels}
    for at in numbers_of_votes(k):
        votes = [majority_label(one.found, at) for one in answers]
        for label, row in out.items():
            row[f"f1_{at}"] = f1_of(label, labels, votes)
    return out


def _f1_of_sites(answers: Sequence[Answered], k: int) -> dict[str, dict[str, float]]:
    """Return the mean F1 over the classes of each site, by its name."""
    out: dict[str, dict[str, float]] = {}
    for site in {one.site for one in answers}:
        rows = list(_f1_of_classes([one for one in answers if one.site == site], k).values())
        out[site] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return out
