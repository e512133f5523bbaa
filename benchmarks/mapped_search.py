"""Search an index larger than the allowed memory: it is mapped from its files and read where a search looks.

    python -m benchmarks.mapped_search FOLDER

`write` puts an index into a folder, and `measure` starts this program on it, as `benchmarks.scaling` does.
The program limits its memory to a quarter of the index (`RLIMIT_DATA`: everything but mapped files), beyond
what Python and numba have taken by then. It asks the system to drop the pages of the files, so that
they are read from the disk again. It opens the index and answers the queries twice. Then it tries to copy the
barcodes. The copy must fail, or there was no limit. Linux only.

The system may still keep pages that were read, as long as no other process needs the memory; `read_mb` says
how much of the index was read at all.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sish.index.table import KeyTable
from sish.index.texture.cells import Cells
from sish.index.texture.tree import TextureTree

_ARRAYS = ("keys", "barcodes", "slide", "row")
_POSITION = "position"
_SHARE = 4  # the memory allowed is one such part of the index
_K = 10


@dataclass(frozen=True, slots=True)
class MappedRun:
    """The figures of one run."""

    index_mb: float
    """Size of the index's files, megabytes."""
    allowed_mb: float
    """Memory that the process may take, megabytes."""
    open_s: float
    """Seconds to open it."""
    cold_us: float
    """Median microseconds of a query the first time, when nothing had been read."""
    warm_us: float
    """Median microseconds of a query the second time."""
    read_mb: float
    """Megabytes read from the disk in total."""
    copy_failed: bool
    """Whether a copy of the barcodes was refused, as it must be."""
    patches: list[list[int]]
    """Patches found for each query."""


def write(folder: Path, cells: Cells, queries: NDArray[np.uint8]) -> None:
    """Write the only table of `cells`, its tree, and queries uint8 (Q, B) to files."""
    (table,) = cells.tables
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(table, name))
    np.save(folder / f"{_POSITION}.npy", table.callers(np.arange(len(table))))
    np.savez(folder / "tree.npz", allow_pickle=False, **cells.tree.to_arrays())
    np.save(folder / "queries.npy", queries)


def measure(folder: Path) -> MappedRun:
    """Search the files of `write` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.mapped_search", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return MappedRun(**json.loads(done.stdout))


def _run(folder: Path) -> MappedRun:
    _compile()
    files = [folder / f"{name}.npy" for name in (*_ARRAYS, _POSITION)]
    size = sum(file.stat().st_size for file in files)
    allowed = size // _SHARE
    resource.setrlimit(resource.RLIMIT_DATA, (_own_bytes() + allowed, resource.RLIM_INFINITY))
    for file in files:
        _forget(file)
    read = _read_bytes()
    start = time.perf_counter()
    with np.load(folder / "tree.npz") as arrays:
        tree = TextureTree.from_arrays(arrays)
    table = KeyTable(*(np.load(file, mmap_mode="r") for file in files))
    cells = Cells.of(tree, [table])
    seconds = time.perf_counter() - start
    queries = np.load(folder / "queries.npy")
    cold, patches = _ask(cells, queries)
    warm, _ = _ask(cells, queries)
    read = _read_bytes() - read
    return MappedRun(
        size / 1e6, allowed / 1e6, seconds, cold, warm, read / 1e6, _copy_fails(table), patches
    )  # fmt: skip


def _compile() -> None:
    """Search a tiny index, so that numba has all its memory."""
    barcodes = np.random.default_rng(0).integers(0, 256, (2000, 128), dtype=np.uint8)
    tree = TextureTree.learn(barcodes[:64], branching=(4, 4))
    table = KeyTable.build(tree.keys(barcodes), barcodes, np.zeros(len(barcodes), np.int32))
    Cells.of(tree, [table]).search(barcodes[:1], k=_K, budget=100)


def _own_bytes() -> int:
    """Return the bytes of this process that the limit counts."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData"))


def _read_bytes() -> int:
    """Return the bytes that were read from disks for this process."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _forget(file: Path) -> None:
    """Ask the system to drop the pages that it keeps of a file."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _ask(cells: Cells, queries: NDArray[np.uint8]) -> tuple[float, list[list[int]]]:
    """Return the median microseconds of a query, and the patches found."""
    spent, patches = [], []
    for number in range(len(queries)):
        start = time.perf_counter()
        found = cells.search(queries[number : number + 1], k=_K)
        spent.append(time.perf_counter() - start)
        patches.append(found.patch.tolist())
    return float(np.median(spent) * 1e6), patches


def _copy_fails(table: KeyTable) -> bool:
    try:
        np.array(table.barcodes)
    except MemoryError:
        return True
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Search the index of a folder and print the figures as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mapped_search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="what `write` wrote, as benchmarks.scaling does")
    folder = parser.parse_args(arguments).folder
    if not all((folder / f"{name}.npy").is_file() for name in _ARRAYS):
        parser.error(f"{folder} holds no index of this benchmark; python -m benchmarks.scaling writes one")
    print(json.dumps(asdict(_run(folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
