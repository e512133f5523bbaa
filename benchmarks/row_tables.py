"""Tables of benchmark rows by class and by site, and all of them as files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.rows import K, write_rows
from sish.answers import csv_of, never_lines
from sish.confusion import confusion_png
from sish.outputs import write_output

Row = Mapping[str, Any]
"""A row of `benchmarks.rows`."""

_TABLES = {"by_label": "by_label.csv", "by_site": "by_site.csv"}
_NEVER = ("never_found", "never_majority")
_NOT_FIGURES = ("ci", "by_label", "by_site", "per_query", *_NEVER)


def group_table(rows: Sequence[Row], by: Literal["label", "site"]) -> str:
    """Return the share of right majorities of each class or site as Markdown, a column for each method.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of one data set.
    by : {"label", "site"}
        What makes a group.

    Returns
    -------
    str
        The table; empty if the rows have no such groups.

    Examples
    --------
    >>> groups = [{"label": "a", "queries": 3, "failed": 0, "findable": 2, "mv5": 0.5}]
    >>> print(group_table([{"method": "sish", "search": "tree", "by_label": groups}], "label"))
    | MV@5 by label | queries | failed | findable | sish, tree |
    |---|---|---|---|---|
    | a | 3 | 0 | 2 | 0.50 |
    """
    rows = [row for row in rows if row.get(f"by_{by}")]
    if not rows:
        return ""
    head = [f"MV@{K} by {by}", "queries", "failed", "findable", *map(_title, rows)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for place, group in enumerate(rows[0][f"by_{by}"]):
        failed = max(row[f"by_{by}"][place]["failed"] for row in rows)
        counts = [group[by] or f"(no {by})", group["queries"], failed, group["findable"]]
        shares = [f"{row[f'by_{by}'][place][f'mv{K}']:.2f}" for row in rows]
        lines.append(f"| {' | '.join(map(str, [*counts, *shares]))} |")
    return "\n".join(lines)


def missed_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines that name the classes that a method misses, for each method.

    Parameters
    ----------
    rows : sequence of mapping
        The rows.

    Yields
    ------
    str
        The method and the classes.

    Examples
    --------
    >>> groups = [{"label": "b", "findable": 3}, {"label": "c", "findable": 0}]
    >>> row = {"method": "random", "search": "exhaustive", "by_label": groups}
    >>> list(missed_lines([row | {"never_found": ["c"], "never_majority": []}]))
    ['random, exhaustive: never among the first 5: c (nothing to find)']
    """
    for row in rows:
        if row.get("by_label"):
            for line in never_lines(row["by_label"], row["never_found"], row["never_majority"], K):
                yield f"{_title(row)}: {line}"


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    """Write rows as `rows.json` and `rows.csv`, their groups as CSV, and the first row's confusion as PNG.

    Parameters
    ----------
    folder : Path
        Where; it is made.
    rows : sequence of mapping
        The rows.

    Raises
    ------
    StoreError, OutputError
        If a file cannot be written.
    """
    write_rows(folder / "rows.json", rows)
    write_output(folder / "rows.csv", csv_of(_flat(rows)).encode(), replaces=(".csv",))
    for name, file in _TABLES.items():
        groups = [_named(row) | group for row in rows for group in row.get(name, ())]
        if groups:
            write_output(folder / file, csv_of(groups).encode(), replaces=(".csv",))
    first = next((row for row in rows if row.get("by_label")), None)
    if first is not None:
        votes = first["per_query"]
        picture = confusion_png(votes["label"], votes[f"mv{K}"], title=f"{first['dataset']}: {_title(first)}")
        write_output(folder / "confusion.png", picture, replaces=(".png",))


def _title(row: Row) -> str:
    """Return a row's method and kind of search."""
    return f"{row['method']}, {row['search']}"


def _named(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in ("dataset", "method", "search")}


def _flat(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows with the ends of their intervals as columns, all with the same columns."""
    flat = [
        {name: value for name, value in row.items() if name not in _NOT_FIGURES}
        | {f"{name}_{end}": ends[at] for name, ends in row["ci"].items() for at, end in enumerate(_ENDS)}
        | {name: "|".join(row.get(name, ())) for name in _NEVER}
        for row in rows
    ]
    columns = dict.fromkeys(name for row in flat for name in row)
    return [{name: row.get(name) for name in columns} for row in flat]


_ENDS = ("low", "high")
