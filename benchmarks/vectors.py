"""Compare `sish.index.VectorIndex` with other libraries' indexes of float vectors: recall, time and size.

    OMP_NUM_THREADS=1 python -m benchmarks.vectors --json vectors.json
    python -m benchmarks.vectors --quick

Archives are features of real tissue (PatchCamelyon: training patches, asked for validation patches) by the
default encoder and by EfficientNet-lite0 alone, and mixtures with the spectrum of such features
(`benchmarks.vector_data`). Queries are not in the archive. Rivals are those of `benchmarks.vector_rivals`.

Every engine is measured along its knobs: recall@10 of cosine neighbours against exact search, and processor
time of a query on one thread, single and in batches of 50. The fastest setting that reaches a recall of 0.95,
and of 0.99, on the first half of the queries is measured again on the second half: `us` is the median of
repeats, with the least and the most in brackets. `bytes` are those of the saved index for each vector.
`build, s` is processor time of building. The last table divides: a time ratio above 1 says that ours is
faster than the fastest rival at that recall, a ratio of bytes below 1 that ours is smaller than it.

`--cache` keeps the archives and the built indexes, so that a second run only measures. A mixture of a
million takes 4 GB there, and all indexes of it 15 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import table
from benchmarks.vector_data import Archive, Floats, K, hits, mixture, tissue
from benchmarks.vector_rivals import Engine, Setting, missing, ready, rivals
from sish.errors import SishError
from sish.index.vectors.index import VectorIndex
from sish.index.vectors.rule import RerankKind
from sish.outputs import write_output

TARGETS = 0.95, 0.99
"""Recalls at which engines are compared."""
BATCH = 50
"""Queries that are given at once: about the patches of a slide."""
WAYS = 1, BATCH
"""Numbers of queries that are given at once."""
_SIZES, _QUERIES = (100_000, 1_000_000), 1000
_QUICK_SIZES, _QUICK_QUERIES, _QUICK_PATCHES = (20_000,), 200, 600
_QUICK_ENGINES = "sish int8-256", "faiss hnsw-sq8", "faiss ivf-pq", "hnswlib"
_REPEATS, _TIMED = 5, 200  # repeats of what is reported; queries that time a setting of a curve
_BUDGETS = 250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000
_SHORTLISTS = 25, 50, 100, 200, 400, 800, 1600
_COLUMNS = ("archive", "at once", "target", "engine", "setting", "recall", "us", "bytes", "build, s")


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of an engine, on the first half of the queries."""

    setting: Setting
    """Values of its knobs."""
    recall: float
    """Recall@10."""
    us: tuple[float, ...]
    """Processor microseconds of a query, for each of `WAYS`."""


@dataclass(frozen=True, slots=True)
class Curve:
    """An engine along its knobs."""

    archive: str
    """The archive."""
    engine: str
    """The engine."""
    ours: bool
    """Whether it is sish."""
    knobs: tuple[str, ...]
    """Names of the knobs."""
    bytes_per_vector: float
    """Bytes of the saved index."""
    build_s: float
    """Processor seconds of building."""
    points: tuple[Point, ...]
    """All settings."""


@dataclass(frozen=True, slots=True)
class Row:
    """The fastest setting of an engine that reaches a recall, on the second half of the queries."""

    archive: str
    """The archive."""
    at_once: int
    """Queries that are given at once."""
    target: float
    """The recall that the setting had to reach on the first half."""
    engine: str
    """The engine."""
    ours: bool
    """Whether it is sish."""
    setting: str
    """The knobs with their values; empty if no setting reaches the recall."""
    recall: float
    """Recall@10; the best of all settings, on the first half, if none reaches the target."""
    us: tuple[float, float, float] | None
    """Processor microseconds of a query: median, least and most of the repeats; None if none reaches it."""
    bytes_per_vector: float
    """Bytes of the saved index."""
    build_s: float
    """Processor seconds of building."""


class Sish(Engine):
    """Our index."""

    library = "sish"
    knobs = ("budget", "shortlist")

    def __init__(self, name: str, rerank: RerankKind, dims: int | None = None) -> None:
        """Take how vectors are stored, and how many numbers of them, None for all."""
        self.name, self._rerank, self._dims = name, rerank, dims

    def settings(self) -> list[Setting]:
        """Return the values of the knobs that are tried."""
        return list(product(_BUDGETS, _SHORTLISTS))

    def prepared(self, queries: Floats) -> NDArray[Any]:
        """Return queries as the library takes them."""
        return queries

    def build(self, vectors: Floats) -> None:
        """Build the index."""
        dims = self._dims or vectors.shape[1]
        self.index = VectorIndex(rerank=self._rerank, rerank_dims=dims)
        self.index.add(vectors)

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        self.index.save(path)

    def load(self, path: Path, dims: int) -> None:
        """Read the index from a file."""
        self.index = VectorIndex.load(path)

    def search(self, queries: NDArray[Any], setting: Setting) -> NDArray[np.int64]:
        """Return the rows of the K nearest vectors, (Q, K)."""
        budget, shortlist = setting
        return np.asarray(self.index.search(queries, K, budget=budget, shortlist=shortlist)[0])


def engines() -> list[Engine]:
    """Return ours and those of the other libraries."""
    axes = [Sish(f"sish int8-{dims}", "int8", dims) for dims in (256, 512)]
    few_bits = [Sish("sish int3", "int3"), Sish("sish int4", "int4"), Sish("sish int6", "int6")]
    return [*axes, *few_bits, Sish("sish int8", "int8"), Sish("sish float16", "float16"), *rivals()]


# ---- measurements


def microseconds(search: Callable[[NDArray[Any]], Any], queries: NDArray[Any], at_once: int) -> float:
    """Return the processor time of a query, asked so many at once."""
    search(queries[:at_once])
    start = time.process_time()
    for first in range(0, len(queries), at_once):
        search(queries[first : first + at_once])
    return 1e6 * (time.process_time() - start) / len(queries)


def curve(archive: Archive, engine: Engine, cost: tuple[float, float]) -> Curve:
    """Measure every setting on the first half of the queries; `cost` is building time and bytes."""
    half = slice(0, len(archive.queries) // 2)
    asked = engine.prepared(archive.queries[half])
    points = []
    for setting in engine.settings():

        def search(queries: NDArray[Any], setting: Setting = setting) -> NDArray[np.int64]:
            return engine.search(queries, setting)

        us = tuple(microseconds(search, asked[:_TIMED], way) for way in WAYS)
        points.append(Point(setting, hits(archive, search(asked), half), us))
    build_s, size = cost
    return Curve(
        archive.name, engine.name, engine.library == "sish", engine.knobs, size, build_s, tuple(points)
    )


def fastest(points: Sequence[Point], target: float, way: int) -> Point | None:
    """Return the fastest setting that reaches a recall, `way` being a place in `WAYS`; None if none does."""
    good = [point for point in points if point.recall >= target]
    return min(good, key=lambda point: point.us[way], default=None)


def row(archive: Archive, engine: Engine, along: Curve, target: float, way: int) -> Row:
    """Choose a setting, and measure it on the second half of the queries."""
    named = (archive.name, WAYS[way], target, engine.name, along.ours)
    cost = along.bytes_per_vector, along.build_s
    chosen = fastest(along.points, target, way)
    if chosen is None:
        return Row(*named, "", max(point.recall for point in along.points), None, *cost)
    half = slice(len(archive.queries) // 2, None)
    asked = engine.prepared(archive.queries[half])

    def search(queries: NDArray[Any]) -> NDArray[np.int64]:
        return engine.search(queries, chosen.setting)

    us = [microseconds(search, asked, WAYS[way]) for _ in range(_REPEATS)]
    setting = " ".join(f"{name}={value}" for name, value in zip(along.knobs, chosen.setting, strict=True))
    recall = hits(archive, search(asked), half)
    return Row(*named, setting, recall, (statistics.median(us), min(us), max(us)), *cost)


def measure(archive: Archive, engines: Sequence[Engine], cache: Path) -> Iterator[tuple[Curve, list[Row]]]:
    """Yield the curve and the rows of each engine; only one index is in memory at a time."""
    for engine in engines:
        name = f"{archive.name} {engine.name}".replace(" ", "-").replace(",", "")
        along = curve(archive, engine, ready(engine, archive.vectors, cache / name))
        yield (
            along,
            [row(archive, engine, along, target, way) for way in range(len(WAYS)) for target in TARGETS],
        )
        engine.index = None


# ---- what is printed


def shown(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table; of those that never reach a recall, the best one is told."""
    lines = []
    for one in rows:
        told: dict[str, Any] = {
            "archive": one.archive,
            "at once": one.at_once,
            "target": f"{one.target:.2f}",
            "engine": one.engine,
            "setting": one.setting or "never",
            "recall": f"{one.recall:.3f}" if one.us else f"(at most {one.recall:.3f})",
            "us": "{:.0f} ({:.0f} to {:.0f})".format(*one.us) if one.us else None,
            "bytes": f"{one.bytes_per_vector:.0f}",
            "build, s": f"{one.build_s:.0f}",
        }
        lines.append(told)
    return table(lines, _COLUMNS)


def against(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return what each row of ours is, beside the fastest rival of the same archive, recall and way.

    Parameters
    ----------
    rows : sequence of Row
        Rows of all engines.

    Returns
    -------
    list of dict
        For each of our rows that reaches its recall: the rival, None if no rival does, its time divided by
        ours, and our bytes divided by its.
    """
    out = []
    for mine in rows:
        if not mine.ours or mine.us is None:
            continue
        same = [one for one in rows if not one.ours and one.us and _place(one) == _place(mine)]
        best = min(same, key=lambda one: one.us[0] if one.us else np.inf, default=None)
        out.append(
            dict(zip(("archive", "at once", "target"), _place(mine), strict=True))
            | {
                "engine": mine.engine,
                "fastest rival": best.engine if best else None,
                "time ratio": best.us[0] / mine.us[0] if best and best.us else None,
                "bytes ratio": mine.bytes_per_vector / best.bytes_per_vector if best else None,
            }
        )
    return out


def progress(along: Curve) -> str:
    """Return a line about an engine that was measured."""
    recall = [point.recall for point in along.points]
    us = [point.us[0] for point in along.points]
    return (
        f"  {along.archive}, {along.engine}: {along.bytes_per_vector:.0f} bytes, recall {min(recall):.3f} to "
        f"{max(recall):.3f} in {min(us):.0f} to {max(us):.0f} us"
    )


def _place(one: Row) -> tuple[str, int, float]:
    return one.archive, one.at_once, one.target


# ---- the command


def archives(given: argparse.Namespace, cache: Path) -> Iterator[Archive]:
    """Yield the archives, each when it is ready."""
    queries = _QUICK_QUERIES if given.quick else _QUERIES
    if "tissue" in given.archives:
        if (given.data / "pcam" / "train").is_dir():
            yield from tissue(given.data, cache, _QUICK_PATCHES if given.quick else None)
        else:
            print(f"no pcam/train in {given.data}: only mixtures are measured", flush=True)
    if "mixture" in given.archives:
        for size in given.sizes or (_QUICK_SIZES if given.quick else _SIZES):
            print(f"mixture of {size:,} vectors, drawn", flush=True)
            yield mixture(size, queries, cache)


def wanted(given: argparse.Namespace) -> list[Engine]:
    """Return the engines that are asked for and can be had; say which cannot."""
    names = given.engines or (_QUICK_ENGINES if given.quick else [engine.name for engine in engines()])
    chosen = [engine for engine in engines() if engine.name in names]
    for library in missing(chosen):
        print(f"{library} is not installed; its rows are missing (pip install -e '.[bench]')", flush=True)
    return [engine for engine in chosen if engine.library not in missing(chosen)]


def run(given: argparse.Namespace, cache: Path) -> None:
    """Measure what was asked for, print it, and write it after every engine."""
    curves: list[Curve] = []
    rows: list[Row] = []
    for archive in archives(given, cache):
        for along, found in measure(archive, wanted(given), cache):
            curves.append(along)
            rows += found
            print(progress(along), flush=True)
            if given.json:
                told = {"curves": list(map(asdict, curves)), "rows": list(map(asdict, rows))}
                text = json.dumps(told | {"against": against(rows)}, indent=1) + "\n"
                write_output(given.json, text.encode(), replaces=(".json",))
    print(f"\n{shown(sorted(rows, key=lambda one: (_place(one), one.us or (np.inf,))))}\n")
    if compared := against(rows):
        print(table(compared, list(compared[0])))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    beside = Path(__file__).parents[2] / "shared" / "data"
    kinds = ("tissue", "mixture")
    names = [engine.name for engine in engines()]
    parser.add_argument("--archives", nargs="+", choices=kinds, default=kinds, metavar="KIND", help="of both")
    parser.add_argument("--sizes", nargs="+", type=int, metavar="N", help="vectors of the mixtures")
    parser.add_argument(
        "--engines", nargs="+", choices=names, metavar="NAME", help=f"some of: {', '.join(names)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="20,000 vectors, few engines: a check of the program"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("SISH_DATA", beside)),
        help="folder with pcam; default $SISH_DATA",
    )
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep archives and built indexes here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write curves and rows here")
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            cache = given.cache or Path(temporary)
            cache.mkdir(parents=True, exist_ok=True)
            run(given, cache)
    except SishError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
