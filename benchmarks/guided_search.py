"""Time the published search, compiled, against its plain rendering, and as the archive grows.

Keys are random in the paper's range, and barcodes are random with 1,024 bits. One thread searches with the
paper's parameters (15,000 keys for a query patch). Half of the patches are flipped copies of a few, so that
bags are not empty. Times are medians over repetitions of a batch of query patches. The queries are in the
archive, and one slide is left out. The plain search (`benchmarks.plain_search`: the published loop over a
bisected list instead of a tree) answers some of the same queries, and the line says whether every answer is
identical. Its index is built before the timer starts.
"""

import argparse
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.plain_search import PlainIndex, plain_search
from benchmarks.rows import write_rows
from sish.index.bags import Bags
from sish.index.guided.walk import guided_search
from sish.index.params import SearchParams
from sish.index.table import KeyTable

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
QUICK_SIZES = (1_000, 10_000)
PLAIN_UP_TO = 100_000  # larger archives are not searched by the plain loop
UPPER = int(8e14)
SLIDE = 100  # patches a slide
WORDS = 16
ORIGINALS = 64  # barcodes that half of the patches are near copies of
QUERIES = 200
PLAIN_QUERIES = 8
REPETITIONS = 9


class BisectedList:
    """A sorted list, the plainest tree."""

    def __init__(self, keys: list[int]) -> None:
        """Take keys in ascending order."""
        self.keys = keys

    @classmethod
    def of(cls, keys: NDArray[np.int64]) -> Self:
        """Make the tree of keys in any order."""
        return cls(np.unique(keys).tolist())

    def predecessor(self, key: int) -> int | None:
        """Return the greatest key smaller than `key`, or None."""
        place = bisect_left(self.keys, key)
        return self.keys[place - 1] if place else None

    def successor(self, key: int) -> int | None:
        """Return the smallest key greater than `key`, or None."""
        place = bisect_right(self.keys, key)
        return self.keys[place] if place < len(self.keys) else None


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one archive."""

    n: int
    """Patches in it."""
    query_us_median: float
    """Microseconds of a query patch, compiled."""
    query_us_p95: float
    """95th percentile over the batches."""
    excluding_us_median: float
    """The same with a slide left out."""
    results: float
    """Results of a query patch."""
    plain_us: float | None
    """Microseconds of a query patch, plain; None if it was not run."""
    identical: bool | None
    """Whether all answers of both are the same."""


def random_archive(n: int) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int32]]:
    """Make keys, barcodes and slide numbers of `n` patches."""
    random = np.random.default_rng(n)
    barcodes = random.integers(0, 2**64, (n, WORDS), dtype=np.uint64)
    originals = random.integers(0, 2**64, (ORIGINALS, WORDS), dtype=np.uint64)
    copies = originals[random.integers(0, ORIGINALS, n // 2)]
    flips = np.uint64(1) << random.integers(0, 64, copies.shape, dtype=np.uint64)
    barcodes[::2][: len(copies)] = copies ^ flips
    slide = (np.arange(n) // SLIDE).astype(np.int32)
    return random.integers(0, UPPER, n), barcodes.view(np.uint8), slide


def measure(n: int, repetitions: int = REPETITIONS) -> Row:
    """Time the search of one archive."""
    archive = random_archive(n)
    keys, barcodes, slide = archive
    table = KeyTable.build(*archive)
    queries = np.random.default_rng(1).integers(0, n, QUERIES)
    exclude = np.arange(-(-n // SLIDE)) == slide[queries[0]]
    asked = keys[queries], barcodes[queries]
    guided_search(table, *asked, exclude=exclude)  # compiled by now
    times, excluding = np.empty((2, repetitions))
    for i in range(repetitions):
        times[i], bags = _microseconds(table, asked, None)
        excluding[i], excluded = _microseconds(table, asked, exclude)
    plain_us = identical = None
    if n <= PLAIN_UP_TO:
        index = PlainIndex.build(BisectedList, archive, exclude.tolist())
        start = time.perf_counter()
        want = plain_search(
            index, asked[0][:PLAIN_QUERIES].tolist(), asked[1][:PLAIN_QUERIES], SearchParams()
        )
        plain_us = 1e6 * (time.perf_counter() - start) / PLAIN_QUERIES
        identical = [_bag(excluded, query) for query in range(PLAIN_QUERIES)] == want
    return Row(
        n, float(np.median(times)), float(np.percentile(times, 95)), float(np.median(excluding)),
        len(bags.patch) / QUERIES, plain_us, identical,
    )  # fmt: skip


def _microseconds(table: KeyTable, asked: tuple[Any, Any], exclude: Any) -> tuple[float, Bags]:
    """Return the time of a query patch in one batch, and the answers."""
    start = time.perf_counter()
    bags = guided_search(table, *asked, exclude=exclude)
    return 1e6 * (time.perf_counter() - start) / len(asked[0]), bags


def _bag(bags: Bags, query: int) -> list[tuple[int, int]]:
    span = slice(bags.offset[query], bags.offset[query + 1])
    return list(zip(bags.patch[span].tolist(), bags.hamming[span].tolist(), strict=True))


def line(row: Row) -> str:
    """Return the figures of one archive as a line."""
    text = (
        f"{row.n:>11,} patches: {row.query_us_median:7.0f} us a query patch (p95 {row.query_us_p95:.0f}), "
        f"{row.excluding_us_median:.0f} us with a slide left out, {row.results:.0f} results"
    )
    if row.plain_us is None:
        return text
    same = "identical answers" if row.identical else "DIFFERENT ANSWERS"
    ratio = row.plain_us / row.excluding_us_median
    return f"{text}; plain Python {row.plain_us:,.0f} us, {ratio:,.0f} times slower, {same}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each size, print a line, and return 1 if answers differ, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guided_search", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small archives only")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of patches")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    given = parser.parse_args(arguments)
    rows = []
    for n in given.sizes or (QUICK_SIZES if given.quick else SIZES):
        rows.append(measure(n, 3 if given.quick else REPETITIONS))
        print(line(rows[-1]), flush=True)
    if given.json:
        write_rows(given.json, [asdict(row) for row in rows])
    return int(any(row.identical is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
