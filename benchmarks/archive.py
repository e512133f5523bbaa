"""Measure what a user waits for as the archive grows: searches, filters, changes, a process's first answer.

    python -m benchmarks.archive --slides 1000 10000 100000 --json archive.json --plot archive.png
    python -m benchmarks.archive --quick

Every row is a call of `sish.Index`, or a run of the command, from the call to the answer. Nothing is encoded:
queries are indexed slides, or codes that are given.

An archive has about 50 patches a slide. Their barcodes are those of 2,000 crops of tissue (BACH fields in
`--data`; without them painted slides, and the program says so) with noise. A slide takes eight of the
crops; a thirty-second of the bits is flipped in the whole slide, and a sixteenth in each patch alone.
Slides have labels, patients and two columns of metadata: `half`, which half of the slides share, and
`rare`, which two slides have. The archive is written through the library, 2,000 slides a commit, so it has
several segments, and its tree was learnt as it grew. With `--keys paper`, `search_id` is measured along each
ordered set that can hold the keys; all other calls walk along the sorted array.

`cpu_ms` is the processor time of all threads of the process, with one search thread; medians and 95th
percentiles are over the repetitions. `memory` is anonymous memory after the first search of a new process.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from sish.demo.synthetic import write_slides
from sish.encode import SlideEncoder
from sish.errors import SishError
from sish.index.params import OrderedSetName
from sish.index.store import SlideRow, Store, slide_snapshot
from sish.outputs import write_output
from sish.queries import indexed_query, stored_codes
from sish.recipe import Keys, Recipe
from sish.searchers import TextureKeys
from sish.slide_index import Index
from sish.slides import find_slides, open_slide
from sish.thresholds import keep_threshold

SLIDES, QUICK_SLIDES = (1000, 10_000, 100_000), (200, 400)
_CROPS, _QUICK_CROPS = 2000, 120
_PATCHES = 50  # a slide, on average
_TEXTURES = 8  # crops that a slide is made of
_COMMIT = 2000  # slides
_LABELS = 20
Times = tuple[str, list[float], list[float]]
"""What was called, and the milliseconds of each call: processor time, and time on the clock."""
_SEEDS = {"crops": 1, "asked": 2, "new": 3}


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of one archive."""

    slides: int
    """Slides in the archive."""
    what: str
    """The call that is measured; `memory` and `disk` are sizes."""
    keys: Keys
    """The keys of its patches."""
    ordered_set: str
    """What the search walks along: a directory of cells, or a set of the paper's keys."""
    patches: int = 0
    """Patches in the archive."""
    cpu_ms_median: float = 0.0
    """Processor time of a call."""
    cpu_ms_p95: float = 0.0
    """Its 95th percentile."""
    wall_ms_median: float = 0.0
    """Time on the clock."""
    bytes: int = 0
    """A size."""


# ---- archives


def crops(data: Path, count: int, folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return barcodes (N, 128) and the paper's keys (N,) of crops of real tissue, or of painted slides."""
    paths = sorted((data / "bach" / "fields").glob("*.*"))
    mpp: float | None = 0.42
    if not paths:
        print(f"no fields in {data / 'bach' / 'fields'}: generated slides are used")
        write_slides(folder / "painted", n_slides=8, side_um=1500)
        paths, mpp = find_slides(folder / "painted"), None
    rng, encoder = np.random.default_rng(_SEEDS["crops"]), SlideEncoder(Recipe(keys="paper"))
    coded = []
    for number, path in enumerate(paths):
        with open_slide(path, override_mpp=mpp) as slide:
            room = np.maximum(1, np.array(slide.dimensions) - int(256 / slide.mpp))
            places = rng.integers(0, room, (len(range(number, count, len(paths))), 2))
            pixels = [slide.read((x, y), 256, 1.0) for x, y in places.tolist()]
        if pixels:
            coded.append(encoder.encode_patches(np.stack(pixels)))
    barcodes = np.concatenate([codes.barcodes for codes in coded])
    return barcodes, np.concatenate([codes.keys[:, 0] for codes in coded])


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes slides of an archive, each by its number alone."""

    barcodes: NDArray[np.uint8]
    """Of the crops, (N, 128)."""
    paper_keys: NDArray[np.int64]
    """Of the crops, (N,)."""
    keys: Keys
    """The keys of the archive."""

    def row(self, number: int, patches: int) -> SlideRow:
        """Return the row of a slide."""
        name = f"slide-{number:07d}"
        metadata = {"half": "ab"[number % 2]} | ({"rare": "yes"} if number in (7, 101) else {})
        return SlideRow(
            name, f"/archive/{name}.svs", patches, 512.0, 0.5, "vendor", 40_000, 30_000,
            f"label {number % _LABELS}", f"patient-{number // 2:07d}", None, metadata=metadata,
        )  # fmt: skip

    def codes(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return keys (M,) and barcodes (M, 128) of a slide."""
        rng = np.random.default_rng((number, len(self.barcodes)))
        mine = rng.integers(len(self.barcodes), size=_TEXTURES)
        chosen = mine[rng.integers(_TEXTURES, size=rng.poisson(_PATCHES) + 1)]
        shape = (len(chosen), self.barcodes.shape[1])
        in_slide = np.bitwise_and.reduce(rng.integers(0, 256, (5, shape[1]), np.uint8))
        in_patch = np.bitwise_and.reduce(rng.integers(0, 256, (4, *shape), np.uint8))
        return self.paper_keys[chosen] + rng.integers(0, 10**9, len(chosen)), self.barcodes[
            chosen
        ] ^ in_slide ^ in_patch

    def add(self, store: Store, numbers: Sequence[int]) -> None:
        """Add slides in one commit, as `Index.add` does once they are encoded."""
        texture = TextureKeys(store, seed=0) if self.keys == "texture" else None
        parts = []
        for number in numbers:
            keys, barcodes = self.codes(number)
            own = keys[:, None] if texture is None else texture.of(barcodes)
            l0_xy = np.stack(np.divmod(np.arange(len(barcodes)), 8), 1) * 512
            parts.append(slide_snapshot(self.row(number, len(barcodes)), own, barcodes, l0_xy))
        store.append_many(parts)
        if texture is not None:
            texture.grow(sum(map(len, parts)))
            keep_threshold(store, [part.slides[0] for part in parts])


def built(maker: Maker, path: Path, slides: int) -> Index:
    """Return a new archive of so many slides."""
    index = Index.create(path, recipe=Recipe(keys=maker.keys))
    with Store.open(path, write=True) as store:
        for first in range(0, slides, _COMMIT):
            maker.add(store, range(first, min(slides, first + _COMMIT)))
    return index


# ---- measurements


def timed(what: str, calls: Sequence[Callable[[], object]]) -> Times:
    """Return the name, and the processor and clock times of calls in milliseconds."""
    cpu, wall = [], []
    for call in calls:
        start, begin = time.process_time(), time.perf_counter()
        call()
        cpu.append(1e3 * (time.process_time() - start))
        wall.append(1e3 * (time.perf_counter() - begin))
    return what, cpu, wall


def searches(index: Index, asked: Sequence[str]) -> Iterator[Times]:
    """Yield the times of searches and look-ups."""
    yield timed("search_id", [partial(index.search, name) for name in asked])
    state, view = index.state_and_view()
    codes = []
    for name in asked:
        segment, number = next(
            (segment, place)
            for segment in state.segments
            for place, row in enumerate(segment.patches.slides)
            if row.slide_id == name
        )
        (found,) = stored_codes(segment.patches, [number])
        codes.append((indexed_query(segment.patches.slides[number], found), found))
    yield timed("search_path_codes", [partial(view.search, *it) for it in codes])
    for what, options in (
        ("search_exclude_patient", {"exclude_patient": True}),
        ("search_where_common", {"where": {"half": "a"}}),
        ("search_where_rare", {"where": {"rare": "yes"}}),
        ("search_similarity", {"ranking": "similarity"}),
    ):
        index.search(asked[0], **options)
        yield timed(what, [partial(index.search, name, **options) for name in asked])
    yield timed("contains", [partial(index.__contains__, name) for name in asked])
    begin = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(index.search, asked))
    yield "search_id_two_threads", [0.0], [1e3 * (time.perf_counter() - begin) / len(asked)]


def walks(index: Index, asked: Sequence[str]) -> Iterator[tuple[str, Times]]:
    """Yield the times of searches along the trees that can hold the paper's keys, which are made before."""
    for name in get_args(OrderedSetName)[1:]:
        index.params = {"ordered_set": name}
        index.search(asked[0])
        yield name, timed("search_id", [partial(index.search, slide) for slide in asked])
    index.params = {"ordered_set": "sorted_array"}


def changes(index: Index, maker: Maker, slides: int, asked: Sequence[str], folder: Path) -> Iterator[Times]:
    """Yield the times of changes, and of a reader's first search after one."""

    def add(numbers: Sequence[int]) -> None:
        with Store.open(Path(str(index.path)), write=True) as store:
            maker.add(store, numbers)

    new = iter(range(slides, slides + 10_000))
    yield timed("add_one", [partial(add, [next(new)]) for _ in asked])
    yield timed("add_hundred", [partial(add, [next(new) for _ in range(100)]) for _ in asked[:3]])
    yield timed(
        "remove_one",
        [partial(index.remove, f"slide-{number:07d}") for number in range(slides, slides + len(asked))],
    )
    labels = folder / "labels.csv"

    def relabel(name: str) -> None:
        labels.write_text(f"slide_id,label\n{name},another\n")
        index.relabel(labels)

    yield timed("relabel_one", [partial(relabel, name) for name in asked])
    cpu, wall = [], []
    for name in asked[:5]:
        index.search(name)
        other = multiprocessing.get_context("spawn").Process(
            target=_add_in_another_process, args=(Path(str(index.path)), maker, next(new))
        )
        other.start()
        other.join()
        _, (one,), (clock,) = timed("", [partial(index.search, name)])
        cpu.append(one)
        wall.append(clock)
    yield "reader_after_commit", cpu, wall


def _add_in_another_process(path: Path, maker: Maker, number: int) -> None:
    with Store.open(path, write=True) as store:
        maker.add(store, [number])


def first_answers(index: Index, asked: Sequence[str]) -> Times:
    """Return the times of the command, each in a new process."""
    cpu, wall = [], []
    for name in asked[:3]:
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "sish", "search", name, "--index", Path(str(index.path))],
            check=True,
            capture_output=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(1e3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
        wall.append(1e3 * (time.perf_counter() - begin))
    return "open_first_answer", cpu, wall


_ANONYMOUS = """
import sys, sish
sish.Index.open(sys.argv[1]).search(sys.argv[2])
lines = open("/proc/self/smaps_rollup").read().splitlines()
print(1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")))
"""


def sizes(index: Index, name: str) -> dict[str, int]:
    """Return anonymous memory after a first search, and the bytes of the folder."""
    told = subprocess.run(
        [sys.executable, "-c", _ANONYMOUS, Path(str(index.path)), name],
        check=True,
        capture_output=True,
        text=True,
    )
    return {
        "memory": int(told.stdout),
        "disk": sum(path.stat().st_size for path in Path(str(index.path)).rglob("*") if path.is_file()),
    }


def measure(maker: Maker, slides: int, repeats: int, folder: Path) -> Iterator[Row]:
    """Yield the rows of one archive."""
    path = folder / f"{maker.keys}-{slides}.sish"
    index = built(maker, path, slides)
    usual = "cells" if maker.keys == "texture" else "sorted_array"
    patches = index.info().patches
    rng = np.random.default_rng(_SEEDS["asked"])
    asked = [f"slide-{number:07d}" for number in rng.choice(slides, repeats, replace=False).tolist()]
    index.search(asked[0])  # compiles, or loads what was compiled, and makes the view
    for what, size in sizes(index, asked[0]).items():
        yield Row(slides, what, maker.keys, usual, patches, bytes=size)
    for ordered_set, (what, cpu, wall) in (
        *((usual, times) for times in searches(index, asked)),
        *(walks(index, asked[:5]) if maker.keys == "paper" else ()),
        (usual, first_answers(index, asked)),
        *((usual, times) for times in changes(index, maker, slides, asked, folder)),
    ):
        median, p95, clock = float(np.median(cpu)), float(np.percentile(cpu, 95)), float(np.median(wall))
        yield Row(slides, what, maker.keys, ordered_set, patches, median, p95, clock)
    shutil.rmtree(path)


# ---- what is printed


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text, a line for each call and a column for each size of the archive."""
    counts = sorted({row.slides for row in rows})
    heading = f"{'keys':8} {'ordered set':13} {'what':24}"
    lines = [heading + "".join(f"{count:>14,}" for count in counts) + "   slides"]
    for kind in dict.fromkeys((row.keys, row.ordered_set, row.what) for row in rows):
        mine = {row.slides: row for row in rows if (row.keys, row.ordered_set, row.what) == kind}
        cells = [_cell(mine.get(count)) for count in counts]
        lines.append("{:8} {:13} {:24}".format(*kind) + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    if row.bytes:
        return f"{row.bytes / 1e6:.1f} MB"
    return f"{row.cpu_ms_median or row.wall_ms_median:.3g} ms"


_PANELS = {
    "searches": {
        "search_id": "by the id of a slide",
        "search_exclude_patient": "without the query's patient",
        "search_where_common": "with a filter that keeps half of the slides",
        "search_where_rare": "with a filter that keeps two slides",
        "search_similarity": "ranked by similarity",
    },
    "other calls": {
        "open_first_answer": "the first answer of a new process",
        "reader_after_commit": "a reader's next search after a commit",
        "add_one": "adding one encoded slide",
        "remove_one": "removing one slide",
        "relabel_one": "giving one slide another label",
        "contains": "slide_id in index",
    },
}
"""The panels of the plot: their calls, and what these are called there."""


def plot(rows: Sequence[Row], file: Path) -> None:
    """Draw the times of the texture keys against the size of the archive."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    medians = {(row.what, row.slides): row.cpu_ms_median for row in rows if row.keys == "texture"}
    slides = sorted({row.slides for row in rows})
    for axes, (title, calls) in zip(figure.subplots(1, 2), _PANELS.items(), strict=True):
        for what, words in calls.items():
            if (what, slides[0]) not in medians:
                continue
            axes.plot(slides, [medians[what, count] for count in slides], marker="o", label=words)
        axes.set(xscale="log", yscale="log", title=title, xlabel="slides in the archive")
        axes.grid(alpha=0.3)
    searches, _ = figure.axes
    searches.set(ylabel="processor time of a call, ms")
    first = medians["search_id", slides[0]]
    growing = [first * count / slides[0] for count in slides]
    searches.plot(slides, growing, "--", color="grey", label="if it grew as the archive does")
    for axes in figure.axes:
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_output(file, buffer.getvalue(), replaces=(".png",))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.archive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    beside = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument(
        "--slides", type=int, nargs="+", help="sizes of the archives; default 1,000 to 100,000"
    )
    parser.add_argument(
        "--keys", nargs="+", choices=("texture", "paper"), default=["texture"], help="keys of the archives"
    )
    parser.add_argument("--repeats", type=int, default=20, help="calls of each kind")
    parser.add_argument(
        "--quick", action="store_true", help="small archives, a few calls: a check of the program"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("SISH_DATA", beside)),
        help="folder with bach; default $SISH_DATA",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw times against size here")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            coded = crops(given.data, _QUICK_CROPS if given.quick else _CROPS, folder)
            for keys in given.keys:
                for slides in given.slides or (QUICK_SLIDES if given.quick else SLIDES):
                    print(f"{slides} slides, {keys} keys", flush=True)
                    rows += measure(Maker(*coded, keys), slides, 3 if given.quick else given.repeats, folder)
    except SishError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    if given.json:
        write_output(
            given.json,
            (json.dumps([asdict(row) for row in rows], indent=1) + "\n").encode(),
            replaces=(".json",),
        )
    if given.plot:
        plot(rows, given.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
