"""Measure a few calls that users make, keep the figures, and compare them with those of earlier commits.

    make bench-compare    # measure, and compare with the last record
    make bench-record     # the same, and keep the figures

Each row is a call, its quality, and processor time in seconds on one thread: the median of the rounds, with
the least and the most in brackets. All calls take turns in each round. So does a scan of barcodes by numpy
alone, which is the same in every version of sish.

The last record of the same kind of machine (system, processor, cores) is compared by its seconds. A record of
another kind is compared by the ratios of seconds to those of the scan in the same round. A call is called
slower or faster only where the brackets do not overlap.

Exits with 1 if a call is slower by more than a tenth, or its quality is lower. `benchmarks/history.jsonl` has
a record on each line, the newest last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from llvmlite import binding

from benchmarks.vector_data import hits, mixture
from sish.demo.synthetic import write_slides
from sish.doctor.machine import allowed_cores
from sish.errors import ParameterError, SishError
from sish.index import VectorIndex
from sish.printing import aligned, print_error, print_line
from sish.slide_index import Index

HISTORY = Path(__file__).with_name("history.jsonl")
SCAN = "numpy scan"
"""The row that says how fast the machine is."""
SLIDES, SIDE_UM = 12, 400
ROUNDS = 7
VECTORS, VECTOR_QUERIES = 20_000, 200
TOLERATED = 1.1
"""A call that is slower by a smaller factor is told, and is no error."""
_SEED = 17
_PACKAGES = ("numpy", "numba", "onnxruntime", "openslide-bin", "torch")


@dataclass(frozen=True, slots=True)
class Row:
    """A call in all rounds."""

    name: str
    """The call."""
    seconds: tuple[float, ...]
    """Processor time of each round."""
    quality: float | None
    """Share of right answers; None where nothing can be wrong."""


@dataclass(frozen=True, slots=True)
class Record:
    """One run of all calls."""

    date: str
    """The day, UTC."""
    commit: str
    """The commit, with a plus if files were changed."""
    machine: str
    """System, processor and cores; no name."""
    load: float
    """Processes that wanted a core in the minute before."""
    versions: dict[str, str]
    """Of Python and the packages that compute."""
    rows: tuple[Row, ...]
    """The calls."""

    def to_line(self) -> str:
        """Return the record as a line of the history."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Record:
        """Read a line of the history.

        Returns
        -------
        Record
            The record.

        Raises
        ------
        ParameterError
            If it is no record.
        """
        try:
            told = json.loads(line)
            rows = tuple(Row(row["name"], tuple(row["seconds"]), row["quality"]) for row in told.pop("rows"))
            return cls(**told, rows=rows)
        except (ValueError, TypeError, KeyError) as error:
            raise ParameterError(
                f"{line[:40]!r} is no record ({error}): take it out of the history"
            ) from error

    def relative(self) -> Record:
        """Return the record with seconds divided by those of the scan in the same round."""
        scan = next(row.seconds for row in self.rows if row.name == SCAN)
        rows = (
            Row(row.name, tuple(a / b for a, b in zip(row.seconds, scan, strict=True)), row.quality)
            for row in self.rows
            if row.name != SCAN
        )
        return Record(self.date, self.commit, self.machine, self.load, self.versions, tuple(rows))


# ---- measure


@dataclass(frozen=True, slots=True)
class Call:
    """Something to measure."""

    name: str
    """What it does."""
    run: Callable[[], Any]
    """Does it once and returns the answer."""
    quality: Callable[[Any], float | None]
    """Judges the answer."""


def calls(folder: Path) -> Iterator[Call]:
    """Prepare all calls in a folder; what they need is made outside their time."""
    labels = write_slides(folder / "slides", n_slides=SLIDES, side_um=SIDE_UM)
    archive = _added(labels, folder / "archive.sish")
    known = {row.slide_id: row.label for row in archive.slides}
    files = sorted(labels.parent.glob("*.tif"))[:4]

    def is_right(answers: Sequence[Any]) -> float:
        """Return the share of queries whose nearest other slide shows the same tissue."""
        nearest = [next(hit for hit in answer if hit.slide_id != answer.query.slide_id) for answer in answers]
        asked = [known[answer.query.slide_id] for answer in answers]
        return float(np.mean([hit.label == label for hit, label in zip(nearest, asked, strict=True)]))

    def add() -> int:
        """Return how many slides were added to a new index."""
        with tempfile.TemporaryDirectory(dir=folder) as place:
            return len(_added(labels, Path(place, "new.sish")))

    rng = np.random.default_rng(_SEED)
    barcodes = rng.integers(0, 2**63, (20_000, 30), np.int64).view(np.uint64)
    yield Call(SCAN, lambda: [_scan(barcodes, row) for row in barcodes[:50]], lambda nearest: None)
    yield Call(f"add {SLIDES} slides", add, lambda added: added / SLIDES)
    yield Call(
        f"search {SLIDES} ids, 20 times",
        lambda: [archive.search(slide, k=3) for _ in range(20) for slide in known],
        lambda answers: is_right(answers[-SLIDES:]),
    )
    yield Call(f"search {len(files)} files", lambda: [archive.search(file, k=3) for file in files], is_right)
    mixed = mixture(VECTORS, VECTOR_QUERIES, folder)
    index = VectorIndex()
    index.add(mixed.vectors)
    yield Call(
        f"search {VECTOR_QUERIES} of {VECTORS} vectors",
        lambda: index.search(mixed.queries, k=10)[0],
        lambda found: hits(mixed, found, slice(None)),
    )


def _added(labels: Path, path: Path) -> Index:
    index = Index.create(path)
    index.add(labels.parent, labels=labels, show_progress=False)
    return index


def _scan(barcodes: Any, query: Any) -> int:
    """Return the row of the nearest barcode but the query's own."""
    return int(np.bitwise_count(barcodes ^ query).sum(axis=1).argpartition(1)[1])


def measure(rounds: int) -> tuple[Row, ...]:
    """Measure all calls in turns; the first round, which compiles, is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = list(calls(Path(folder)))
        seconds: dict[str, list[float]] = {call.name: [] for call in prepared}
        answers: dict[str, Any] = {call.name: call.run() for call in prepared}
        for _ in range(rounds):
            for call in prepared:
                start = time.process_time()
                call.run()
                seconds[call.name].append(round(time.process_time() - start, 6))
        return tuple(
            Row(call.name, tuple(seconds[call.name]), call.quality(answers[call.name])) for call in prepared
        )


def record(rounds: int) -> Record:
    """Measure all calls and say where and with what."""
    load = os.getloadavg()[0]
    versions = {name: metadata.version(name) for name in _PACKAGES}
    system = f"{platform.system()} {platform.machine()}"
    return Record(
        date=datetime.now(UTC).date().isoformat(),
        commit=_commit(),
        machine=f"{system}, {binding.get_host_cpu_name()}, {allowed_cores():g} cores",
        load=round(load, 2),
        versions={"python": platform.python_version(), **versions},
        rows=measure(rounds),
    )


def _commit() -> str:
    """Return the commit of the clone; "" where it is none."""
    words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(words, cwd=HISTORY.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip()


# ---- compare


@dataclass(frozen=True, slots=True)
class Verdict:
    """A call now, and in an earlier record."""

    name: str
    """The call."""
    now: str
    """Figures now."""
    before: str
    """Figures of the record."""
    ratio: float
    """Median now, divided by the median before."""
    words: str
    """What it means."""
    is_worse: bool
    """Whether somebody should look at it."""


def compare(now: Record, before: Record) -> list[Verdict]:
    """Compare two records: seconds of the same kind of machine, else ratios to the scan.

    Parameters
    ----------
    now, before : Record
        The records. Calls that only one of them has are left out.

    Returns
    -------
    list of Verdict
        One for each call.
    """
    if now.machine != before.machine:
        now, before = now.relative(), before.relative()
    earlier = {row.name: row for row in before.rows}
    return [_verdict(row, earlier[row.name]) for row in now.rows if row.name in earlier]


def _verdict(now: Row, before: Row) -> Verdict:
    ratio = median(now.seconds) / median(before.seconds)
    words, is_worse = "within the spread", False
    if min(now.seconds) > max(before.seconds):
        words, is_worse = "slower", ratio > TOLERATED and now.name != SCAN
    elif max(now.seconds) < min(before.seconds):
        words = "faster"
    if now.quality is not None and before.quality is not None and now.quality < before.quality:
        words, is_worse = f"{words}, and quality is lower", True
    return Verdict(now.name, _figures(now), _figures(before), ratio, words, is_worse)


def _figures(row: Row) -> str:
    low, mid, high = (f"{value:.3g}" for value in (min(row.seconds), median(row.seconds), max(row.seconds)))
    quality = "" if row.quality is None else f", {row.quality:.3f} right"
    return f"{mid} ({low} to {high}){quality}"


def read_history(path: Path) -> list[Record]:
    """Return all records, the newest last; none where there is no file."""
    if not path.exists():
        return []
    return [Record.from_line(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def nearest_record(machine: str, history: Sequence[Record]) -> Record | None:
    """Return the newest record of a kind of machine, or else the newest of all."""
    same = [each for each in history if each.machine == machine]
    return next(reversed(same or history), None)


def tell(now: Record, before: Record | None) -> int:
    """Print the figures, and the comparison if there is a record; return the exit code."""
    print_line(f"{now.machine}; commit {now.commit or 'unknown'}; load {now.load:g}")
    if before is None:
        for line in aligned([{"call": row.name, "s": _figures(row)} for row in now.rows]):
            print_line(line)
        print_line("nothing to compare with: --record keeps these figures")
        return 0
    unit = "s" if now.machine == before.machine else f"in units of the {SCAN}"
    print_line(f"compared with {before.commit} of {before.date}, on {before.machine}; processor time, {unit}")
    verdicts = compare(now, before)
    rows = [
        {
            "call": each.name,
            "now": each.now,
            "before": each.before,
            "ratio": f"{each.ratio:.2f}",
            "": each.words,
        }
        for each in verdicts
    ]
    for line in aligned(rows):
        print_line(line)
    return int(any(each.is_worse for each in verdicts))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, compare, and keep the figures if that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.history",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each call is measured")
    parser.add_argument("--record", action="store_true", help="keep the figures in the history")
    parser.add_argument("--history", type=Path, default=HISTORY, help="the file of records")
    given = parser.parse_args(argv)
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}; want at least 1")
    try:
        history = read_history(given.history)
        now = record(given.rounds)
        code = tell(now, nearest_record(now.machine, history))
    except SishError as error:
        print_error(f"history: error: {error}")
        return 1
    if given.record:
        with given.history.open("a", encoding="utf-8") as file:
            file.write(now.to_line() + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
