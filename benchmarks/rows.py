"""Make a row for each method, data set and search: every figure with its 95 % interval, as JSON or a table.

A benchmark puts the answers of a method into a `Run`, and `row_of` measures it. `row_of` refuses answers that
break the rules of the data set: an image of the query's own group, an image twice, or one that is not in the
database.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.datasets import Dataset, may_find
from sish.answers import Answered, group_rows, never_found, never_majority, query_rows
from sish.errors import ParameterError, StoreError
from sish.metrics import Interval, average_shared, bootstrap_interval, retrieval_metrics
from sish.outputs import write_output
from sish.systems.item import Item

K = 5
"""Results that vote for the majority."""
SHARED_K = (5, 10)
"""Numbers of results over which shared labels are averaged."""
FIGURES = (
    "mmv1", "mmv3", "mmv5", "macro_f1_1", "macro_f1_3", "macro_f1_5", "hit3", "hit5", "map5", "map_paper",
    "avg5", "avg10",
)  # fmt: skip
HEADINGS = {
    "dataset": "data set",
    "system": "system",
    "method": "method",
    "search": "search",
    "n": "images",
    "queries": "queries",
    "mmv5": "mMV@5 (95 %)",
    "mmv3": "mMV@3",
    "mmv1": "mMV@1",
    "macro_f1_1": "macro-F1 of top-1",
    "macro_f1_3": "of MV@3",
    "macro_f1_5": "of MV@5",
    "hit3": "hit@3",
    "hit5": "hit@5",
    "map5": "mAP@5",
    "map_paper": "mAP, paper",
    "avg5": "AvG@5 (95 %)",
    "avg10": "AvG@10 (95 %)",
    "failed": "failed",
    "short": "short",
    "build_s": "build, s",
    "query_ms_median": "query, ms",
    "query_ms_p95": "95th, ms",
    "bytes_per_item": "bytes an image",
    "looked_at": "looked at",
    "patches_per_item": "patches an image",
    "recall": "recall",
    "iou": "IoU",
    "train_s": "training, s",
    "avg5_findings": "AvG@5, with findings",
    "avg10_findings": "AvG@10, with findings",
}
WITH_INTERVAL = ("mmv5", "avg5", "avg10")


@dataclass(frozen=True, slots=True)
class Run:
    """The answers of a method to the queries of a data set, and their cost."""

    method: str
    """The method: what is compared, and how."""
    search: str
    """``exhaustive`` if every image was compared, ``tree`` if a bounded number was."""
    found: Sequence[Sequence[str]]
    """Ids of the images found, best first, a list a query: 10 if images have several labels, else 5."""
    query_ms: Sequence[float]
    """Milliseconds from the features to the list, for each query, or for each batch divided by its size."""
    build_s: float
    """Seconds to build the database, reading and encoding included."""
    bytes_per_item: float
    """Bytes kept for each image of the database."""
    system: str = ""
    """The system of the method, where systems are compared."""
    placed: Sequence[int] | None = None
    """How many results of each list the ranking itself placed; the others fill the list."""
    failed: Set[str] = frozenset()
    """Ids of the queries that could not be read, or show no tissue; they find nothing and count as misses."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further columns, plain values."""


def row_of(dataset: Dataset, run: Run) -> dict[str, Any]:
    """Measure a run.

    The figures and their intervals (`ci`) are those of `FIGURES`: `avg5` and `avg10` if images have several
    labels, else the others. `failed` counts the queries that could not be searched for, `short` those with
    fewer results than were asked for. `by_label` and `by_site` are the tables of `sish.answers.group_rows`
    (`by_site` is empty without sites), `never_found` and `never_majority` name the classes that a search
    misses. `per_query` holds a list for each column of `sish.answers.query_rows`, or the labels that each
    query shares; `benchmarks.compare` reads it.

    Parameters
    ----------
    dataset : Dataset
        The data set.
    run : Run
        The answers to its queries.

    Returns
    -------
    dict
        Plain values by column; None for a figure that does not apply.

    Raises
    ------
    ParameterError
        If the answers break the rules of the data set.
    """
    _check(dataset, run)
    known = {item.item_id: item for item in dataset.database}
    found = [[known[item_id] for item_id in ids] for ids in run.found]
    answers = _answered(dataset, found, run.failed)
    figures = _shared(dataset, found) if dataset.multi_label else _retrieved(answers)
    wanted = max(SHARED_K) if dataset.multi_label else K
    placed = [len(hits) for hits in found] if run.placed is None else run.placed
    return {
        "dataset": dataset.name,
        **({"system": run.system} if run.system else {}),
        "method": run.method,
        "search": run.search,
        "n": len(dataset.database),
        "queries": len(dataset.queries),
        **{name: figures[name][0] if name in figures else None for name in FIGURES},
        "failed": len(run.failed),
        "short": sum(count < wanted for count in placed),
        "query_ms_median": float(np.median(run.query_ms)),
        "query_ms_p95": float(np.percentile(run.query_ms, 95)),
        "build_s": run.build_s,
        "bytes_per_item": run.bytes_per_item,
        "ci": {name: list(figures[name][1]) for name in FIGURES if name in figures},
        **run.extra,
        **(_shared_tables(dataset, found) if dataset.multi_label else _tables(answers)),
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a JSON list, one row a line.

    Parameters
    ----------
    path : Path
        The file; folders above it are made.
    rows : sequence of mapping
        The rows.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row, allow_nan=False) for row in rows]
        text = "[\n" + ",\n".join(lines) + "\n]\n"
        write_output(path, text.encode(), replaces=(".json",))
    except OSError as error:
        raise StoreError(f"cannot write {path} ({error.strerror}); give a path that can be written") from None
    except ParameterError as error:
        raise StoreError(str(error)) from None


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Return rows as a Markdown table.

    Parameters
    ----------
    rows : sequence of mapping
        The rows.
    columns : sequence of str, optional
        The columns; all that any row fills if None.

    Returns
    -------
    str
        The table.

    Examples
    --------
    >>> print(table([{"method": "ours", "mmv5": 0.5, "ci": {"mmv5": [0.25, 0.75]}, "short": 0}]))
    | method | mMV@5 (95 %) | short |
    |---|---|---|
    | ours | 0.50 (0.25 to 0.75) | 0 |
    """
    if columns is None:
        columns = [name for name in HEADINGS if any(row.get(name) is not None for row in rows)]
    lines = [[HEADINGS.get(name, name) for name in columns], ["---"] * len(columns)]
    lines += [[_cell(row, name) for name in columns] for row in rows]
    body = ["| " + " | ".join(line) + " |" for line in lines]
    body[1] = body[1].replace(" ", "")
    return "\n".join(body)


def _cell(row: Mapping[str, Any], name: str) -> str:
    """Return one value as text, with its interval in the columns that show it."""
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, float):
        shown = f"{value:.2f}" if name in FIGURES else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
        if name in WITH_INTERVAL and name in row.get("ci", {}):
            low, high = row["ci"][name]
            shown += f" ({low:.2f} to {high:.2f})"
        return shown
    return str(value)


def _retrieved(answers: Sequence[Answered]) -> dict[str, tuple[float, Interval]]:
    """Return the figures of images with one label each."""
    pairs = [one.answer for one in answers]
    relevant = [one.relevant for one in answers]
    figures = [retrieval_metrics(pairs, at, relevant=relevant).figures() for at in (1, 3, K)]
    return {name: value for at in figures for name, value in at.items()}


def _answered(dataset: Dataset, found: Sequence[Sequence[Item]], failed: Set[str]) -> list[Answered]:
    """Return the queries with the labels that they found."""
    return [
        Answered(
            query.item_id,
            query.label,
            tuple(hit.label for hit in hits),
            relevant,
            site=query.site,
            failed="not read, or no tissue" if query.item_id in failed else "",
        )
        for query, hits, relevant in zip(dataset.queries, found, _relevant(dataset), strict=True)
    ]


def _tables(answers: Sequence[Answered]) -> dict[str, Any]:
    """Return the tables of images with one label each."""
    rows = query_rows(answers, K)
    return {
        "by_label": group_rows(answers, "label", K),
        "by_site": group_rows(answers, "site", K) if any(one.site for one in answers) else [],
        "never_found": never_found(answers, K),
        "never_majority": never_majority(answers, K),
        "per_query": {column: [row[column] for row in rows] for column in rows[0]},
    }


def _shared_tables(dataset: Dataset, found: Sequence[Sequence[Item]]) -> dict[str, Any]:
    """Return the one table of images with several labels."""
    ids = [query.item_id for query in dataset.queries]
    return {"per_query": {"query": ids, **{f"avg{k}": _shared_by(dataset, found, k) for k in SHARED_K}}}


def _shared(dataset: Dataset, found: Sequence[Sequence[Item]]) -> dict[str, tuple[float, Interval]]:
    """Return the figures of images with several labels: how many the query shares with its results."""
    out: dict[str, tuple[float, Interval]] = {}
    for k in SHARED_K:
        values = _shared_by(dataset, found, k)
        interval = bootstrap_interval(values, [""] * len(values))
        out[f"avg{k}"] = math.fsum(values) / len(values), interval
    return out


def _shared_by(dataset: Dataset, found: Sequence[Sequence[Item]], k: int) -> list[float]:
    """Return the mean number of labels that each query shares with its first k results."""
    return [
        average_shared((query.labels, [hit.labels for hit in hits]), k)
        for query, hits in zip(dataset.queries, found, strict=True)
    ]


def _relevant(dataset: Dataset) -> list[int]:
    """Return how many images of its label each query could find."""

    def place(item: Item) -> str:
        return item.site if dataset.within_site else ""

    by_label = Counter((item.label, place(item)) for item in dataset.database)
    own = Counter((item.label, place(item), item.group or item.item_id) for item in dataset.database)
    return [
        by_label[it.label, place(it)] - own[it.label, place(it), it.group or it.item_id]
        for it in dataset.queries
    ]


def _check(dataset: Dataset, run: Run) -> None:
    """Refuse answers that no search of this data set may give."""
    if len(run.found) != len(dataset.queries) or not len(run.query_ms):
        raise ParameterError(
            f"{run.method}: got {len(run.found)} answers and {len(run.query_ms)} times for "
            f"{len(dataset.queries)} queries; give one answer each, and the times"
        )
    known = {item.item_id: item for item in dataset.database}
    for query, ids in zip(dataset.queries, run.found, strict=True):
        if len(set(ids)) < len(ids):
            raise ParameterError(f"{run.method}: found an image twice for {query.item_id}; give each once")
        for item_id in ids:
            hit = known.get(item_id)
            if hit is None:
                raise ParameterError(f"{run.method}: found {item_id}, which is not in the database")
            if not may_find(query, hit):
                raise ParameterError(
                    f"{run.method}: {query.item_id} found {item_id}, of its own group; leave that out"
                )
            if dataset.within_site and query.site != hit.site:
                raise ParameterError(
                    f"{run.method}: {query.item_id} found {item_id}, of another site; leave that out"
                )
