"""Time the ordered sets of `sish.index` on random keys of the paper's range, to choose one for each job.

For each size and each set it times building from an unsorted array, adding and discarding single keys, the
successor of a key that is not in the set, and a walk of 375 keys (the paper's), and it measures the memory of
a key. Each call goes through the same Python interface. Its overhead, about a microsecond for the compiled
tree, is part of the figure. Times are medians over repetitions; the spread is half the range between the
first and the third quartile.
"""

import argparse
import gc
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import write_rows
from sish.index.trees.sorted_array import SortedArray
from sish.index.trees.sorted_list import SortedListSet
from sish.index.trees.veb import VanEmdeBoas

KINDS: tuple[Any, ...] = (VanEmdeBoas, SortedArray, SortedListSet)
SIZES = (10_000, 100_000, 1_000_000)
QUICK_SIZES = (1_000, 10_000)
UPPER = int(8e14)  # keys of the paper reach so far
STEPS = 375
CALLS = 200  # single calls timed together
REPETITIONS = 9
MEASURES = ("build_ms", "insert_us", "delete_us", "successor_us", "walk_375_us")


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one set at one size."""

    set: str
    """Its class."""
    n: int
    """Keys in it."""
    median: dict[str, float]
    """Median of each of `MEASURES`."""
    spread: dict[str, float]
    """Half the interquartile range of each."""
    bytes_per_key: float
    """Bytes of a key."""


def measure(kind: Any, n: int, repetitions: int = REPETITIONS) -> Row:
    """Time one set at one size."""
    random = np.random.default_rng(n)
    keys = random.integers(0, UPPER, n)
    filled = kind.of(keys)
    times: dict[str, list[float]] = {name: [] for name in MEASURES}
    for _ in range(repetitions):
        fresh = [int(key) for key in random.integers(0, UPPER, CALLS)]
        times["build_ms"].append(1e3 * _seconds(lambda: kind.of(keys)))
        times["successor_us"].append(_per_call(filled.successor, fresh))
        times["walk_375_us"].append(_per_call(lambda key: filled.walk(key, STEPS), fresh))
        times["insert_us"].append(_per_call(filled.add, fresh))
        times["delete_us"].append(_per_call(filled.discard, fresh))
    median = {name: float(np.median(values)) for name, values in times.items()}
    spread = {
        name: float(np.subtract(*np.percentile(values, [75, 25])) / 2) for name, values in times.items()
    }
    return Row(kind.__name__, n, median, spread, _bytes_per_key(kind, keys))


def _seconds(call: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _per_call(call: Callable[[int], object], keys: Sequence[int]) -> float:
    """Return the microseconds of a call."""

    def run() -> None:
        for key in keys:
            call(key)

    return 1e6 * _seconds(run) / len(keys)


def _bytes_per_key(kind: Any, keys: NDArray[np.int64]) -> float:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        filled = kind.of(keys)
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / len(filled)
    finally:
        tracemalloc.stop()


def verdict(rows: Sequence[Row]) -> str:
    """Say which set is best for which job at the largest size."""
    largest = [row for row in rows if row.n == max(row.n for row in rows)]
    best: dict[str, list[str]] = {}
    for name in (*MEASURES, "bytes_per_key"):
        winner = min(
            largest, key=lambda row: row.bytes_per_key if name == "bytes_per_key" else row.median[name]
        )
        best.setdefault(winner.set, []).append(name.rsplit("_", 1)[0] if name in MEASURES else "memory")
    parts = [f"{kind} for {', '.join(names)}" for kind, names in best.items()]
    return f"Best at {largest[0].n:,} keys: {'; '.join(parts)}."


def table(rows: Sequence[Row]) -> str:
    """Return the figures as text."""
    heads = (*(name.replace("_ms", " ms").replace("_us", " us") for name in MEASURES), "bytes/key")
    lines = [f"{'set':14} {'keys':>11} " + " ".join(f"{head:>19}" for head in heads)]
    for row in rows:
        cells = [f"{row.median[name]:,.2f} +- {row.spread[name]:,.2f}" for name in MEASURES]
        cells.append(f"{row.bytes_per_key:.1f}")
        lines.append(f"{row.set:14} {row.n:11,} " + " ".join(f"{cell:>19}" for cell in cells))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and the verdict, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ordered_sets", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and fewer repetitions")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of keys")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    given = parser.parse_args(arguments)
    sizes = given.sizes or (QUICK_SIZES if given.quick else SIZES)
    for kind in KINDS:
        measure(kind, 1000, 1)  # compiles, and loads what is loaded late
    rows = [measure(kind, n, 3 if given.quick else REPETITIONS) for n in sizes for kind in KINDS]
    print(table(rows))
    print(verdict(rows))
    if given.json:
        write_rows(given.json, [asdict(row) for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
