"""The confusion picture: which class is taken for which, as shares of each class's queries."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sish.errors import QueryError
from sish.printing import printable

_NO_VOTE = "(none)"
_CELL_IN, _MARGIN_IN = 0.45, 2.2  # inches
_MOST_IN = 27.0  # side of all cells together: with more classes cells are smaller, 4,000 px for all
_LEAST_IN = 3.6  # height that the names of the axes need
_FONT_PT = 10.0  # of the classes' names
_SHOWN = 24  # characters of a class's name
_FEW = 30  # classes up to which the counts are written into the cells
_NAMED = 240  # classes up to which names fit beside the cells


def confusion_png(labels: Sequence[str], votes: Sequence[str], *, title: str = "") -> bytes:
    """Draw a confusion matrix.

    A row is a class of the queries, a column is what the majority of their results says. The colour is the
    share of the row, the number is the count of queries. A star marks a class of which no query is right.

    Parameters
    ----------
    labels : sequence of str
        Class of each query.
    votes : sequence of str
        Majority label of each query; empty if there is none.
    title : str
        Written above.

    Returns
    -------
    bytes
        A PNG picture.

    Raises
    ------
    QueryError
        If there are no queries.
    """
    if not labels:
        raise QueryError("got no answers to draw; want a labelled query at least")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns, counts = confusion_of(labels, votes)
    cell = min(_CELL_IN, _MOST_IN / len(columns))
    size = (_MARGIN_IN + 1 + cell * len(columns), max(_LEAST_IN, _MARGIN_IN + cell * len(rows)))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    share = counts / counts.sum(axis=1, keepdims=True)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    right = dict(zip(rows, counts.diagonal(), strict=False))
    font = min(_FONT_PT, 72 * 0.8 * cell)
    across, down = (range(0, len(names), -(-len(names) // _NAMED)) for names in (columns, rows))
    axes.set_xticks(across, [_short(columns[at]) for at in across], rotation=60, ha="right", fontsize=font)
    names = [_short(rows[at]) + ("" if right[rows[at]] else " *") for at in down]
    axes.set_yticks(down, names, fontsize=font)
    axes.set_xlabel("majority of the results")
    axes.set_ylabel("class of the query" + ("" if all(right.values()) else "\n(* never the majority)"))
    axes.set_title(_plain(title), fontsize="medium", wrap=True)
    figure.colorbar(image, ax=axes, label="share of its queries")
    if len(columns) <= _FEW:
        for row, column in np.argwhere(counts).tolist():
            ink = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=ink, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def confusion_of(
    labels: Sequence[str], votes: Sequence[str]
) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Count which class is taken for which.

    Parameters
    ----------
    labels : sequence of str
        Class of each query.
    votes : sequence of str
        Majority label of each query; empty if there is none.

    Returns
    -------
    list of str
        Classes of the queries, the rows.
    list of str
        The columns: these classes, other labels that won a majority, and last the empty label if some
        queries have no majority.
    int64 (rows, columns)
        Number of queries of a class with a majority label.

    Examples
    --------
    >>> rows, columns, counts = confusion_of(["a", "a"], ["b", ""])
    >>> rows, columns, counts.tolist()
    (['a'], ['a', 'b', ''], [[0, 1, 1]])
    """
    rows = sorted(set(labels))
    columns = [*rows, *sorted(set(votes) - set(rows) - {""}), *([""] if "" in votes else [])]
    counts = np.zeros((len(rows), len(columns)), np.int64)
    for label, vote in zip(labels, votes, strict=True):
        counts[rows.index(label), columns.index(vote)] += 1
    return rows, columns, counts


def _short(name: str) -> str:
    """Return a name that fits beside the picture."""
    if not name:
        return _NO_VOTE
    return _plain(name if len(name) <= _SHOWN else name[: _SHOWN - 1] + "…")


def _plain(text: str) -> str:
    """Return text that is drawn as it is: on one line, and no formula between two dollars."""
    return printable(text).replace("$", r"\$")
