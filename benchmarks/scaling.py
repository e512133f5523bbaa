"""Measure how kernels' time, recall and memory grow with the archive: ours, the published key, other indexes.

This is about kernels, in memory and with k = 10. `benchmarks.archive` measures the calls that a user makes.

    python -m benchmarks.scaling --json scaling.json --plot scaling.png
    python -m benchmarks.scaling --quick

The codes come from `benchmarks.dense_codes`: real tissue, encoded once and kept in the cache folder. Archives
of 10,000 to a million patches are random draws from the real windows. Ten million patches are all of these
and the varied ones. Three fields are left out of every archive. There are two sets of queries. *near* are
windows left out at random; their neighbours in the archive overlap them. *unseen* are windows of the fields
left out, like a new slide.

Every index answers queries one at a time and 50 at once (the column `batch`) on one thread. Ours and those of
faiss also answer 50 at once on two threads (the column `threads`). An index answers the first third of the
queries at every setting, then the second and the last third, so that a disturbance of the machine hits all
indexes alike. Times are of the clock and for one query, medians over all queries or batches. Recall is by
distance: it counts the results, of the first ten, that are no farther than the true tenth neighbour. Times at
recall 0.90, 0.95 and 0.99 are interpolated linearly between the two settings around it. An index counts with
its best parameters.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import dense_codes, mapped_search, rivals
from benchmarks.dense_codes import Codes
from benchmarks.rivals import Contender, K, Way, contenders, distances
from benchmarks.scaling_report import Row, plot, summary
from sish.errors import SishError
from sish.index.table import KeyTable
from sish.index.texture.cells import Cells
from sish.index.texture.tree import TextureTree
from sish.outputs import write_output

SIZES, QUICK_SIZES = (10_000, 100_000, 1_000_000, 10_000_000), (10_000, 100_000)
COMPARED = 1_000_000
"""The largest size at which every index is built."""
_HELD_OUT, _QUICK_FIELDS, _QUICK_HELD_OUT = (17, 52, 83), 8, (4,)
_ROUNDS = 3
_SLOW_US = 5_000  # an index this slow answers fewer queries
_CHANGED = 1000
_PART = 8192  # rows that stay in the processor's cache while all queries are compared with them


@dataclass(frozen=True, slots=True)
class Questions:
    """Queries, with the distance of each one's tenth neighbour."""

    name: str
    """``near`` or ``unseen``."""
    codes: Codes
    """The queries."""
    tenth: NDArray[np.int32]
    """Distance of the tenth neighbour of each query, int32 (Q,)."""


class Pool:
    """The codes from which archives and queries are drawn."""

    def __init__(self, data: Path, cache: Path, quick: bool, n_queries: int) -> None:
        """Read the codes from the cache, or make them."""
        self._cache, self._data = cache, data
        self._real = dense_codes.real(data, cache, _QUICK_FIELDS if quick else None)
        field = dense_codes.field_of_real(len(self._real.keys), _QUICK_FIELDS if quick else None)
        self._held = _QUICK_HELD_OUT if quick else _HELD_OUT
        rng = np.random.default_rng(0)
        held = np.isin(field, self._held)
        known = rng.permutation(np.flatnonzero(~held))
        self.near = _taken(self._real, known[:n_queries])
        self.unseen = _taken(self._real, rng.permutation(np.flatnonzero(held))[:n_queries])
        self.newcomers = _taken(self._real, rng.permutation(np.flatnonzero(held))[:_CHANGED]).barcodes
        self._archive = known[n_queries:]

    def archive(self, n: int) -> Codes:
        """Draw `n` patches without the queries and the fields left out; SishError if there are too few."""
        codes = _taken(self._real, np.sort(self._archive[:n]))
        lacking = n - len(codes.keys)
        if lacking <= 0:
            return codes
        more = dense_codes.varied(self._data, self._cache)
        allowed = np.flatnonzero(~np.isin(dense_codes.field_of_varied(len(more.keys)), self._held))
        if lacking > len(allowed):
            raise SishError(f"got {n} patches to draw; there are {len(codes.keys) + len(allowed)} at most")
        extra = _taken(more, np.sort(np.random.default_rng(1).permutation(allowed)[:lacking]))
        return Codes(
            np.concatenate([codes.barcodes, extra.barcodes]), np.concatenate([codes.keys, extra.keys])
        )


def _taken(codes: Codes, rows: NDArray[np.int64]) -> Codes:
    return Codes(np.ascontiguousarray(codes.barcodes[rows]), codes.keys[rows])


def measure(pool: Pool, n: int, quick: bool) -> tuple[list[Row], list[str]]:
    """Measure one size; return its rows, and lines of what else was measured."""
    print(f"{n} patches", flush=True)
    codes = pool.archive(n)
    built = contenders(codes, quick)
    ours = next(one for one in built if one.index == "sish")
    cells: Cells = ours.search.cells  # type: ignore[attr-defined]  # ours keeps them for this
    rows: list[Row] = []
    for name, queries in (("near", pool.near), ("unseen", pool.unseen)):
        questions = Questions(name, queries, tenth_distance(codes.barcodes, queries.barcodes))
        print(f"  {len(queries.keys)} {name} queries", flush=True)
        for one in built:
            if one.index == "sish-paper":
                one.search.know(queries)  # type: ignore[attr-defined]  # only the published search needs keys
        rows += _measured(built, questions, n)
    lines = _changes(cells, pool, n) if n >= min(COMPARED, 100_000) else []
    return rows, lines + (_mapped(cells, pool, n) if n > COMPARED // 10 else [])


def tenth_distance(barcodes: NDArray[np.uint8], queries: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Scan for the distance of each query's tenth neighbour, in parts that fit the processor's cache."""
    trivial = TextureTree.learn(barcodes[:1], branching=(1, 1))
    best = np.full((len(queries), K), 8 * barcodes.shape[1], np.int32)
    for first in range(0, len(barcodes), _PART):
        part = barcodes[first : first + _PART]
        numbers = np.zeros(len(part), np.int32)
        table = KeyTable(numbers.astype(np.int64), part, numbers, numbers)
        bags = Cells.of(trivial, [table]).search(queries, k=K, budget=_PART)
        found = bags.hamming.reshape(len(queries), -1)
        best = np.partition(np.concatenate([best, found], axis=1), K - 1, axis=1)[:, :K]
    return np.asarray(best.max(axis=1))


def _measured(built: Sequence[Contender], questions: Questions, n: int) -> list[Row]:
    times: dict[tuple[int, int, Way], list[float]] = {}
    hits: dict[tuple[int, int, Way], list[float]] = {}
    thirds = np.array_split(np.arange(len(questions.tenth)), _ROUNDS)
    for third in thirds:
        for number, one in enumerate(built):
            for key in ((number, setting, way) for setting in one.settings for way in one.ways):
                _ask(
                    one, key[1], key[2], questions, third, times.setdefault(key, []), hits.setdefault(key, [])
                )
    return [
        Row(
            index=built[number].index, params=f"{built[number].params} {built[number].setting}={setting}",
            n=n, threads=threads, recall_at_10=float(np.mean(hits[number, setting, (batch, threads)])),
            query_us_median=float(np.median(spent) * 1e6), query_us_p95=float(np.percentile(spent, 95) * 1e6),
            build_s=built[number].build_s, bytes_per_patch=built[number].bytes_per_patch,
            queries=questions.name, n_queries=len(hits[number, setting, (batch, threads)]),
            built=built[number].params, setting=setting, batch=batch,
        )
        for (number, setting, (batch, threads)), spent in times.items()
    ]  # fmt: skip


def _ask(
    one: Contender, setting: int, way: Way, questions: Questions, some: NDArray[np.int64],
    times: list[float], hits: list[float],
) -> None:  # fmt: skip
    """Measure time and recall of some queries; a slow index answers only every tenth."""
    barcodes, (batch, threads) = questions.codes.barcodes, way
    one.search(barcodes[some[:1]], setting, threads)
    start = time.perf_counter()
    one.search(barcodes[some[:1]], setting, threads)
    step = 10 if (time.perf_counter() - start) * 1e6 > _SLOW_US else 1
    for first in range(0, len(some), batch * step):
        asked = some[first : first + batch]
        queries = barcodes[asked]
        start = time.perf_counter()
        found = one.search(queries, setting, threads)
        times.append((time.perf_counter() - start) / len(asked))
        for query, near in zip(asked, distances(found, len(asked)), strict=True):
            hits.append(np.count_nonzero(near <= questions.tenth[query]) / K)


def _changes(cells: Cells, pool: Pool, n: int) -> list[str]:
    """Add a slide of 1,000 patches, find it, remove it, and search beside many tables."""
    new = pool.newcomers
    n_slides = int(cells.tables[-1].slide.max()) + 1
    added, removed = [], []
    for _ in range(5):
        start = time.perf_counter()
        table = KeyTable.build(cells.tree.keys(new), new, np.zeros(len(new), np.int32), first_slide=n_slides)
        more = cells.adding(table)
        found = more.search(new[:1], k=1)
        added.append(time.perf_counter() - start)
        exclude = np.zeros(n_slides + 1, bool)
        start = time.perf_counter()
        exclude[n_slides] = True
        gone = more.search(new[:1], k=1, exclude=exclude)
        removed.append(time.perf_counter() - start)
    same = gone.patch.tolist() == cells.search(new[:1], k=1).patch.tolist()
    right = found.hamming.tolist() == [0] and same
    lines = [
        f"{n} patches: adding {len(new)} and finding one of them {1e3 * np.median(added):.2f} ms, removing "
        f"them and searching without {1e3 * np.median(removed):.3f} ms ({'right' if right else 'WRONG'})"
    ]
    many = _halved(cells)
    both = [_median_us(one, pool.near.barcodes) for one in (cells, many)]
    return [*lines, f"{n} patches in {len(many.tables)} tables: {both[1]:.1f} us, in one {both[0]:.1f} us"]


def _halved(cells: Cells) -> Cells:
    """Split the patches into tables of a half, a quarter, ... of all, as after many appends to a store."""
    (table,) = cells.tables
    in_order = np.argsort(table.row)
    tables, first = [], 0
    while first < len(table):
        size = max(1000, (len(table) - first) // 2)
        rows = in_order[first : first + size]
        keys = table.keys[rows]
        tables.append(KeyTable.build(keys, table.barcodes[rows], table.slide[rows]))
        first += size
    return Cells.of(cells.tree, tables)


def _median_us(cells: Cells, queries: NDArray[np.uint8]) -> float:
    spent = []
    for number in range(len(queries)):
        start = time.perf_counter()
        cells.search(queries[number : number + 1], k=K)
        spent.append(time.perf_counter() - start)
    return float(np.median(spent) * 1e6)


def _mapped(cells: Cells, pool: Pool, n: int) -> list[str]:
    """Write the table, map it into memory in a process too small to hold it, and search it there."""
    queries = pool.near.barcodes
    with tempfile.TemporaryDirectory() as folder:
        mapped_search.write(Path(folder), cells, queries)
        run = mapped_search.measure(Path(folder))
    want = cells.search(queries, k=K).patch.reshape(len(queries), -1).tolist()
    return [
        f"{n} patches, {run.index_mb:.0f} MB, mapped by a process that may take {run.allowed_mb:.0f} MB "
        f"({'a copy fails' if run.copy_failed else 'NOT ENFORCED'}): opened in {run.open_s:.3f} s, a query "
        f"{run.cold_us:.0f} us from the disk and {run.warm_us:.1f} us again, {run.read_mb:.0f} MB read "
        f"({'the same answers' if run.patches == want else 'OTHER ANSWERS'})"
    ]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all sizes; return rows and lines as JSON holds them."""
    if arguments.earlier:
        return _joined(arguments.earlier)
    torch.set_num_threads(1)
    pool = Pool(arguments.data, arguments.cache, arguments.quick, arguments.queries)
    rows: list[Row] = []
    lines = [f"not installed, so without rows: {', '.join(rivals.missing())}"] if rivals.missing() else []
    for n in arguments.sizes or (QUICK_SIZES if arguments.quick else SIZES):
        more_rows, more_lines = measure(pool, n, arguments.quick)
        rows += more_rows
        lines += more_lines
        gc.collect()
    text = summary(rows, lines)
    print(text)
    return {"rows": [asdict(row) for row in rows], "notes": lines}


def _joined(files: Sequence[Path]) -> dict[str, Any]:
    """Join the results of earlier runs; if several measured one size, the last counts."""
    rows: dict[int, list[Row]] = {}
    lines: list[str] = []
    for file in files:
        results = json.loads(file.read_text())
        mine: dict[int, list[Row]] = {}
        for row in results["rows"]:
            mine.setdefault(row["n"], []).append(Row(**row))
        rows |= mine
        lines += results["notes"]
    together = [row for n in sorted(rows) for row in rows[n]]
    print(summary(together, lines))
    return {"rows": [asdict(row) for row in together], "notes": lines}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    beside = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument(
        "--quick", action="store_true", help="8 fields, 10,000 and 100,000 patches, no graphs"
    )
    parser.add_argument("--sizes", type=int, nargs="+", help="patches in the archives")
    parser.add_argument("--queries", type=int, default=600, help="queries of each set (default 600)")
    parser.add_argument("--data", type=Path, default=beside, help="folder with bach and pcam")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir(), "sish-benchmarks"), help="for the codes"
    )
    parser.add_argument("--json", type=Path, help="write all rows here")
    parser.add_argument("--plot", type=Path, help="draw time against recall and size here")
    parser.add_argument(
        "--from", type=Path, nargs="+", dest="earlier", help="show earlier runs' JSON files, measure nothing"
    )
    options = parser.parse_args(arguments)
    try:
        results = run(options)
    except SishError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        write_output(options.json, (json.dumps(results, indent=1) + "\n").encode(), replaces=(".json",))
    if options.plot:
        plot([Row(**row) for row in results["rows"]], options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
