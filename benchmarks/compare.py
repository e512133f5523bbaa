"""Compare two runs of `benchmarks.retrieval` on the same queries, such as two encoders.

    python -m benchmarks.retrieval DATA/crc5 --mpp 1.1 --json before.json --weights OLD
    python -m benchmarks.retrieval DATA/crc5 --mpp 1.1 --json after.json
    python -m benchmarks.compare before.json after.json

A row of the one file is compared with the row of the other that has the same data set, method and search. The
difference is *paired*: each query is compared with itself. Its 95 % interval is a percentile bootstrap over
queries, drawn within their class; an interval without 0 is a difference that these queries show. *gained*
counts the queries that only the second run answers right, *lost* those that only the first does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import write_rows
from sish.errors import ParameterError, SishError
from sish.metrics import bootstrap_interval

FIGURES = {
    "mv1": "top-1 right",
    "mv3": "MV@3 right",
    "mv5": "MV@5 right",
    "precision5": "precision@5",
    "ap5": "AP@5",
    "avg5": "AvG@5",
    "avg10": "AvG@10",
}
"""The figures of a query by their column in `per_query`, and their names in the table."""

Row = Mapping[str, Any]
"""A row of `benchmarks.rows`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How much a figure of the same queries differs between two runs."""

    dataset: str
    """The data set."""
    method: str
    """The method, as in both files."""
    search: str
    """``tree`` or ``exhaustive``."""
    figure: str
    """One of `FIGURES`, by its column."""
    queries: int
    """Number of queries."""
    before: float
    """Mean over the queries, first run."""
    after: float
    """The same, second run."""
    difference: float
    """After minus before."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""
    gained: int
    """Number of queries that the second run answers better."""
    lost: int
    """Number of queries that it answers worse."""
    over_classes: float
    """The difference of the means over classes, where every class weighs alike."""
    over_classes_low: float
    """Lower end of its 95 % interval."""
    over_classes_high: float
    """Upper end."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    def line(self) -> str:
        """Return its line of a Markdown table."""
        cells = [
            self.dataset,
            self.method,
            self.search,
            FIGURES[self.figure],
            str(self.queries),
            f"{self.before:.3f}",
            f"{self.after:.3f}",
            f"{self.difference:+.3f} ({self.low:+.3f} to {self.high:+.3f})",
            f"{self.over_classes:+.3f} ({self.over_classes_low:+.3f} to {self.over_classes_high:+.3f})",
            str(self.gained),
            str(self.lost),
        ]
        return f"| {' | '.join(cells)} |"


HEADINGS = (
    "data set", "method", "search", "figure", "queries", "before", "after", "difference (95 %)",
    "mean over classes (95 %)", "gained", "lost",
)  # fmt: skip


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows that a benchmark wrote with ``--json``.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    list of dict
        Its rows.

    Raises
    ------
    ParameterError
        If it cannot be read, or its rows have no answers by query.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"{path} cannot be read as JSON ({error}); give a file that benchmarks.retrieval --json wrote"
        ) from None
    whole = isinstance(rows, list) and all(isinstance(row, dict) and "per_query" in row for row in rows)
    if not whole or not rows:
        raise ParameterError(
            f"{path} has no rows with answers by query; write it again with benchmarks.retrieval --json"
        )
    return list(rows)


def compare(before: Sequence[Row], after: Sequence[Row]) -> list[Difference]:
    """Compare the rows of two runs that have the same data set, method and search.

    Parameters
    ----------
    before, after : sequence of mapping
        Rows of `benchmarks.rows.row_of`.

    Returns
    -------
    list of Difference
        For each pair of rows and each figure of its queries.

    Raises
    ------
    ParameterError
        If no row has a counterpart, or the queries of a pair differ.
    """
    others = {_name(row): row for row in after}
    pairs = [(row, others[_name(row)]) for row in before if _name(row) in others]
    if not pairs:
        raise ParameterError(
            f"no row of one run has a counterpart in the other: got {_names(before)} and {_names(after)}; "
            "want the same data set and some of the same methods"
        )
    return [each for first, second in pairs for each in _differences(first, second)]


def table(differences: Sequence[Difference]) -> str:
    """Return differences as a Markdown table.

    Parameters
    ----------
    differences : sequence of Difference
        The differences.

    Returns
    -------
    str
        The table.
    """
    head = [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    return "\n".join([*head, *(each.line() for each in differences)])


def _name(row: Row) -> tuple[str, str, str]:
    """Return what a row must share with its counterpart."""
    return row["dataset"], row["method"], row["search"]


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(" ".join(_name(row)) for row in rows[:3]) + (", ..." if len(rows) > 3 else "")


def _differences(first: Row, second: Row) -> list[Difference]:
    """Return the differences of two rows, a figure each."""
    one, other = first["per_query"], second["per_query"]
    if _asked(one) != _asked(other):
        lacking = len(set(_asked(one)) ^ set(_asked(other)))
        raise ParameterError(
            f"{' '.join(_name(first))}: {lacking} queries or their labels are of one run only; "
            "measure both runs on the same labels.csv, both whole or both --quick"
        )
    labels = one.get("label") or [""] * len(one["query"])
    return [
        _difference(first, name, _values(one, name), _values(other, name), labels)
        for name in FIGURES
        if name in one and name in other
    ]


def _asked(columns: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the queries of a row with their labels, in order."""
    return list(zip(columns["query"], columns.get("label") or columns["query"], strict=True))


def _values(columns: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    """Return a figure of each query, (Q,); of a majority label, whether it is right."""
    if name.startswith("mv"):
        pairs = zip(columns[name], columns["label"], strict=True)
        return np.array([float(vote == label) for vote, label in pairs])
    return np.array(columns[name], np.float64)


def _difference(
    row: Row,
    figure: str,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    labels: Sequence[str],
) -> Difference:
    change = after - before
    low, high = bootstrap_interval(change.tolist(), labels, over_classes=False)
    by_class = bootstrap_interval(change.tolist(), labels)
    own = np.array(labels)
    return Difference(
        *_name(row),
        figure=figure,
        queries=len(change),
        before=float(before.mean()),
        after=float(after.mean()),
        difference=float(change.mean()),
        low=low,
        high=high,
        gained=int(np.count_nonzero(change > 0)),
        lost=int(np.count_nonzero(change < 0)),
        over_classes=float(np.mean([change[own == label].mean() for label in sorted(set(labels))])),
        over_classes_low=by_class[0],
        over_classes_high=by_class[1],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("before", type=Path, help="rows of the first run")
    parser.add_argument("after", type=Path, help="rows of the second run")
    parser.add_argument("--json", type=Path, help="write the differences here")
    parser.add_argument(
        "--figures",
        nargs="+",
        choices=list(FIGURES),
        default=list(FIGURES),
        metavar="FIGURE",
        help=f"some of {', '.join(FIGURES)}",
    )
    options = parser.parse_args(arguments)
    try:
        found = compare(read_rows(options.before), read_rows(options.after))
        found = [each for each in found if each.figure in options.figures]
        if options.json:
            write_rows(options.json, [each.to_dict() for each in found])
    except SishError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
