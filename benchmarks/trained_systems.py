"""Measure the systems that train a network more closely than `benchmarks.systems` does.

    python -m benchmarks.trained_systems --data ../shared/data --output trained.json

X-ray codes (`nih_cxr`): patients are dealt into five folds, and each fold is the queries once. The images of
the other four folds, with their findings, train the generator and are searched. No patient is on both sides;
`sish train-codes fit --data.fold N` leaves out the same patients. Four ways are compared on the same
databases: the nearest communities, all codes, an untrained generator, and random lists.

Lesion masks (`ham10000`): the predictor learns from four fifths of the lesions. Its masks of the last fifth
are measured, and are queries.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.datasets import Dataset, load_dataset
from benchmarks.rows import Run, row_of, table, write_rows
from benchmarks.systems_baselines import RandomOrder
from sish.systems.base import System
from sish.systems.item import Item
from sish.systems.lesions.mask_predictor import MaskPredictor, intersection_over_union
from sish.systems.lesions.similarity import LesionDescriber, LesionSimilarity
from sish.systems.small_pictures import read_given_mask, read_picture
from sish.systems.training.data import fold_of
from sish.systems.training.modules import train_code_generator, train_mask_predictor, untrained_code_generator
from sish.systems.xray.codes import XrayCodes

FOLDS = 5
XRAY_K, LESION_K = 10, 5
PROBES = (1, 2, 3)
XRAYS, LESIONS = "x-ray codes", "lesion measures"


@dataclass(slots=True)
class _Tally:
    """The answers of one method over all folds."""

    found: dict[str, list[str]] = field(default_factory=dict)
    """Ids found, best first, by the query's id."""
    query_ms: list[float] = field(default_factory=list)
    """Milliseconds of each ranking."""
    looked_at: list[int] = field(default_factory=list)
    """Images that each query was compared with."""
    database: list[int] = field(default_factory=list)
    """Images of each database."""
    build_s: float = 0.0
    """Seconds to build the databases, describing included."""
    train_s: float = 0.0
    """Seconds of training before that."""
    nbytes: int = 0
    """Bytes of the databases."""

    def search(self, system: System[Any], database: Sequence[Item], queries: Sequence[Item], k: int) -> None:
        """Build a database and search it for every query."""
        start = time.perf_counter()
        system.fit(database)
        self.build_s += time.perf_counter() - start
        self.nbytes += system.nbytes()
        self.rank(system, queries, [system.describe_query(query) for query in queries], k)

    def rank(self, system: System[Any], queries: Sequence[Item], seen: Sequence[Any], k: int) -> None:
        """Search a built database for described queries."""
        self.database.append(len(system))
        for query, description in zip(queries, seen, strict=True):
            start = time.perf_counter()
            results = system.rank(query, description, k)
            self.query_ms.append(1000 * (time.perf_counter() - start))
            self.found[query.item_id] = [hit.item_id for hit in results]
            self.looked_at.append(results.looked_at)

    def row(self, dataset: Dataset, system: str, method: str, search: str, **extra: Any) -> dict[str, Any]:
        """Measure all answers and return their row."""
        run = Run(
            method=method,
            search=search,
            found=[self.found[query.item_id] for query in dataset.queries],
            query_ms=self.query_ms,
            build_s=self.build_s,
            bytes_per_item=self.nbytes / sum(self.database),
            system=system,
            extra={
                "n": round(float(np.mean(self.database))),
                "looked_at": float(np.mean(self.looked_at)),
                "train_s": self.train_s,
                **extra,
            },
        )
        return row_of(dataset, run)


# ---- X-rays


def xray_rows(dataset: Dataset, *, quick: bool = False, seed: int = 0) -> list[dict[str, Any]]:
    """Return a row for each way to search; `n` and `looked_at` are means over the five databases."""
    folds = range(1) if quick else range(FOLDS)
    tallies: dict[tuple[str, str], _Tally] = {}
    for fold in folds:
        database, queries = _archive_and_queries(dataset.items, fold)
        sys.stderr.write(f"{dataset.name}: fold {fold + 1} of {len(folds)}\n")
        start = time.perf_counter()
        trained = train_code_generator(database, max_epochs=10 if quick else 20, seed=seed)
        train_s = time.perf_counter() - start
        untrained = untrained_code_generator(database, seed=seed)
        systems: dict[tuple[str, str], System[Any]] = {
            **{(f"codes, {_opened(p)}", "communities"): XrayCodes(trained, probe=p) for p in PROBES},
            ("codes", "exhaustive"): XrayCodes(trained, probe=None),
            ("untrained codes, 2 communities", "communities"): XrayCodes(untrained, probe=2),
            ("untrained codes", "exhaustive"): XrayCodes(untrained, probe=None),
            ("random", "none"): RandomOrder(),
        }
        for name, system in systems.items():
            tally = tallies.setdefault(name, _Tally())
            tally.search(system, database, queries, XRAY_K)
            tally.train_s += train_s if name[0].startswith("codes") else 0.0
    asked = set(next(iter(tallies.values())).found)
    dataset = replace(dataset, queries=tuple(query for query in dataset.queries if query.item_id in asked))
    return [
        tally.row(dataset, XRAYS, *name, **_of_findings(dataset, tally)) for name, tally in tallies.items()
    ]


def _opened(probe: int) -> str:
    return "1 community" if probe == 1 else f"{probe} communities"


def _archive_and_queries(items: Sequence[Item], fold: int) -> tuple[list[Item], list[Item]]:
    """Split the images into the archive and the queries of a fold; no patient is in both."""
    sides: tuple[list[Item], list[Item]] = [], []
    for item in items:
        sides[fold_of(item, FOLDS) == fold].append(item)
    return sides


def _of_findings(dataset: Dataset, tally: _Tally) -> dict[str, Any]:
    """Return the AvG of the queries with a finding; the others share nothing with any image and have 0."""
    asked = replace(dataset, queries=tuple(query for query in dataset.queries if query.labels))
    some = _Tally(tally.found, tally.query_ms, tally.looked_at, tally.database)
    row = some.row(asked, XRAYS, "", "")
    return {"avg5_findings": row["avg5"], "avg10_findings": row["avg10"], "queries_findings": row["queries"]}


# ---- lesions


def mask_rows(dataset: Dataset, *, quick: bool = False, seed: int = 0) -> list[dict[str, Any]]:
    """Search by Dice with given and with predicted masks, for lesions that the predictor has not seen.

    Parameters
    ----------
    dataset : Dataset
        Images of lesions with masks.
    quick : bool
        Train for fewer epochs.
    seed : int
        Seed of the training.

    Returns
    -------
    list of dict
        A row for given and one for predicted masks. `iou` is the predictor's mean intersection over union on
        the queries, at its own size.
    """
    learnt = [item for item in dataset.items if fold_of(item, FOLDS) != 0]
    start = time.perf_counter()
    predictor = train_mask_predictor(learnt, max_epochs=2 if quick else 10, seed=seed)
    train_s = time.perf_counter() - start
    asked = replace(dataset, queries=tuple(item for item in dataset.queries if fold_of(item, FOLDS) == 0))
    iou = _iou(predictor, asked.queries)
    rows = []
    for name, strip in (("given", False), ("predicted", True)):
        queries = [replace(query, mask=None) if strip else query for query in asked.queries]
        tally = _Tally(train_s=train_s if strip else 0.0)
        describer = LesionDescriber(
            masks=predictor
        )  # masks are compared at the predictor's size, given ones too
        tally.search(LesionSimilarity("dice", describer), dataset.database, queries, LESION_K)
        title = f"dice, the query's mask {name}"
        rows.append(tally.row(asked, LESIONS, title, "exhaustive", **({"iou": iou} if strip else {})))
    return rows


def _iou(predictor: MaskPredictor, items: Sequence[Item]) -> float:
    given = np.stack([read_given_mask(item, predictor.size_px) for item in items])
    drawn = predictor.masks(np.stack([read_picture(item.path, predictor.size_px) for item in items]))
    return float(intersection_over_union(drawn, given).mean())


# ---- the command


def main(argv: Sequence[str] | None = None) -> int:
    """Print one table a data set and write the rows."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trained_systems",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    default = Path(os.environ.get("SISH_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=default, help="folder that holds nih_cxr and ham10000")
    parser.add_argument("--output", type=Path, help="JSON file to write the rows to")
    parser.add_argument("--quick", action="store_true", help="less of everything: does it run?")
    parser.add_argument("--only", choices=["xrays", "masks"], help="one table only")
    arguments = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    jobs: dict[str, tuple[str, Callable[[Dataset], list[dict[str, Any]]], list[str]]] = {
        "xrays": ("nih_cxr", lambda data: xray_rows(data, quick=arguments.quick), _XRAY_COLUMNS),
        "masks": ("ham10000", lambda data: mask_rows(data, quick=arguments.quick), _MASK_COLUMNS),
    }
    rows = []
    for name, (folder, job, columns) in jobs.items():
        if arguments.only in (None, name):
            dataset = load_dataset(arguments.data / folder)
            found = job(dataset.sample(250) if arguments.quick and folder == "ham10000" else dataset)
            print(f"## {name}\n\n{table(found, columns)}\n", flush=True)
            rows += found
    if arguments.output:
        write_rows(arguments.output, rows)
    return 0


_TIMES = ["build_s", "query_ms_median", "query_ms_p95", "bytes_per_item"]
_SHARED = ["avg5", "avg10", "avg5_findings", "avg10_findings", "looked_at", "train_s"]
_XRAY_COLUMNS = ["method", "n", "queries", *_SHARED, *_TIMES]
_MASK_COLUMNS = ["method", "n", "queries", "mmv5", "hit5", "map5", "iou", "train_s", *_TIMES]

if __name__ == "__main__":
    sys.exit(main())
