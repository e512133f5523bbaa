"""Measure every search system on every data set that it applies to; print one table for each task.

    python -m benchmarks.systems [DATA] [--quick] [--tasks slides patches ...] [--systems smily ...]
                                 [--json ROWS.json] [--out DIR]

DATA holds the folders `bach`, `pcam`, `lc25000_lung`, `ham10000` and `nih_cxr`, each with its `labels.csv`. A
missing folder is left out and reported. Images are encoded once for all systems; the time that a system would
have spent on it alone is added to its `build_s`. A query is timed from its description to the ranked list.
`--out` writes `systems.md`, `systems.json` and `systems.png`.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.datasets import Dataset
from benchmarks.rows import SHARED_K, K, Run, row_of, table, write_rows
from benchmarks.systems_plot import plot
from benchmarks.systems_tasks import TASKS, Bench, Entry, Task, entries_of, read_task
from sish.errors import SishError
from sish.outputs import write_output
from sish.systems.base import System
from sish.systems.item import Item
from sish.systems.patch_features import PatchFeatures

DATA = Path("../shared/data")
COLUMNS = (
    "method", "n", "queries", "mmv5", "mmv3", "mmv1", "macro_f1_1", "macro_f1_3", "macro_f1_5",
    "hit3", "hit5", "map5", "map_paper", "avg5", "avg10", "short", "train_s", "build_s", "query_ms_median",
    "query_ms_p95", "bytes_per_item", "looked_at", "patches_per_item", "recall", "iou",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 2 where it cannot be run as asked."""
    options = _parser().parse_args(arguments)
    try:
        rows = []
        for row in _all_rows(options):
            rows.append(row)
            if options.json:  # finished rows are kept if a later system fails
                write_rows(options.json, rows)
        if not rows:
            raise SishError(
                f"{options.data} holds none of the data sets asked for; give the folder above them"
            )
        if options.out:
            write_rows(options.out / "systems.json", rows)
            write_output(options.out / "systems.md", _report(rows, COLUMNS).encode(), replaces=(".md",))
            plot(rows, options.out / "systems.png")
    except SishError as error:
        sys.stderr.write(f"benchmarks.systems: {error}\n")
        return 2
    print(_report(rows, options.columns))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.systems",
        description="Every search system on every data set it applies to.",
    )
    parser.add_argument(
        "data",
        type=Path,
        nargs="?",
        default=Path(os.environ.get("SISH_DATA", DATA)),
        help="folder that holds the data sets; default: $SISH_DATA",
    )
    parser.add_argument("--quick", action="store_true", help="a sample of each data set: a check, no result")
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=list(TASKS),
        default=list(TASKS),
        help="kinds of data sets; default: all",
    )
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="only systems of these names")
    parser.add_argument(
        "--columns",
        nargs="+",
        choices=COLUMNS,
        default=COLUMNS,
        metavar="COLUMN",
        help=f"of the printed tables: some of {', '.join(COLUMNS)}",
    )
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--out", type=Path, help="folder for the tables, the rows and the plot")
    return parser


def _all_rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of all tasks; report each when it is measured."""
    for name in options.tasks:
        task = TASKS[name]
        for folder in task.folders:
            if not (options.data / folder).is_dir():
                sys.stderr.write(f"left out: there is no {options.data / folder}\n")
                continue
            yield from _rows_of(task, options.data / folder, options)


def _rows_of(task: Task, folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of one data set."""
    bench = read_task(task, folder, quick=options.quick)
    exact: dict[str, Sequence[Sequence[str]]] = {}
    for entry in entries_of(task):
        if options.systems and entry.system not in options.systems:
            continue
        start = time.perf_counter()
        run = measured(bench, entry)
        exact[entry.method] = run.found
        if entry.exact in exact:
            run = replace(run, extra={**run.extra, "recall": _recall(exact[entry.exact], run.found)})
        yield row_of(bench.dataset, run) | {"task": task.title}
        _told(bench.dataset.name, entry.method, start)
    for system, rows_of in task.rows.items():
        if not options.systems or system in options.systems:
            start = time.perf_counter()
            for row in rows_of(bench.dataset, bench.quick):
                yield row | {"task": task.title, "quick": bench.quick}
            _told(bench.dataset.name, system, start)


def _told(dataset: str, method: str, start: float) -> None:
    sys.stderr.write(f"{dataset}: {method}: {time.perf_counter() - start:.1f} s\n")
    gc.collect()


def measured(bench: Bench, entry: Entry) -> Run:
    """Return the answers of a system to all queries of a data set, and their cost."""
    tally = Tally()
    spared, start = bench.spared_s, time.perf_counter()
    systems = []
    for split in bench.splits:
        system = entry.make(bench)
        items, described = system.describe_all(split.database, "raise")
        system.fit(items, described)
        systems.append((system, split, dict(zip((item.item_id for item in items), described, strict=True))))
    build_s = time.perf_counter() - start + bench.spared_s - spared
    for system, split, known in systems:
        tally.search(system, split, known)
    extra: dict[str, Any] = {"looked_at": float(np.mean(tally.looked_at)), "quick": bench.quick}
    counts = [len(it) for _, _, known in systems for it in known.values() if isinstance(it, PatchFeatures)]
    if counts:
        extra["patches_per_item"] = float(np.mean(counts))
    if bench.task.folds > 1:
        extra["n"] = round(float(np.mean([len(system) for system, _, _ in systems])))
    return Run(
        method=entry.method,
        search=entry.search,
        found=[tally.found[query.item_id] for query in bench.dataset.queries],
        query_ms=tally.query_ms,
        build_s=build_s,
        bytes_per_item=sum(it.nbytes() for it, _, _ in systems) / sum(len(it) for it, _, _ in systems),
        system=entry.system,
        placed=[tally.placed[query.item_id] for query in bench.dataset.queries],
        extra=extra,
    )


@dataclass(slots=True)
class Tally:
    """The answers of a system, by the query's id."""

    found: dict[str, list[str]] = field(default_factory=dict)
    """Ids found, best first."""
    placed: dict[str, int] = field(default_factory=dict)
    """How many of them the ranking placed."""
    looked_at: list[int] = field(default_factory=list)
    """Number of items that each query was compared with."""
    query_ms: list[float] = field(default_factory=list)
    """Milliseconds of each ranking."""

    def search(self, system: System[Any], split: Dataset, known: dict[str, Any]) -> None:
        """Search for all queries of a split."""
        k = max(SHARED_K) if split.multi_label else K
        first = split.queries[0]
        system.rank(first, _described(system, first, known), k)  # compiles the kernels
        for query in split.queries:
            description = _described(system, query, known)
            begin = time.perf_counter()
            results = system.rank(query, description, k)
            self.query_ms.append(1000 * (time.perf_counter() - begin))
            self.found[query.item_id] = [hit.item_id for hit in results]
            self.placed[query.item_id] = sum(hit.placed for hit in results)
            self.looked_at.append(results.looked_at)


def _described(system: System[Any], query: Item, known: dict[str, Any]) -> Any:
    """Return a query's description: that in the database, unless the system needs more of a query."""
    same = type(system).describe_query is System.describe_query
    return known[query.item_id] if same and query.item_id in known else system.describe_query(query)


def _recall(exact: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> float:
    """Return the share of the hits of exact answers that are in the other answers."""
    kept = sum(len(set(a) & set(b)) for a, b in zip(exact, found, strict=True))
    return kept / max(1, sum(map(len, exact)))


def _report(rows: Sequence[dict[str, Any]], wanted: Sequence[str]) -> str:
    """Return one Markdown table for each data set, under its task."""
    parts = []
    for title, name in dict.fromkeys((row["task"], row["dataset"]) for row in rows):
        own = [row for row in rows if (row["task"], row["dataset"]) == (title, name)]
        columns = [column for column in wanted if any(row.get(column) is not None for row in own)]
        parts.append(f"## {title}: {name}\n\n{table(own, columns)}\n")
    if any(row["quick"] for row in rows):
        parts.insert(0, "A quick run on samples: a check of the programs, no result.\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
