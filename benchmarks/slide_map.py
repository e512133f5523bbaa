"""Compare ways to place the slides of an archive in two dimensions: `sish.slide_map` beside PCA and UMAP.

    python -m benchmarks.slide_map --json slide_map.json
    python -m benchmarks.slide_map --quick

Archives: BACH fields, and the odd and the even groups of crc5, each image a slide (in `--data`; what is
missing there is left out, and the program says so), and a generated archive. A generated slide has eight
patches of one of 100 kinds (fewer in a small archive), which are variants of ten; a kind is a label.

`label` is the share of the ten nearest slides that have a slide's label, and `kept` the share of its ten
nearest in all dimensions that are among its ten nearest on the map, over 2,000 slides at most. The row
`means` tells the labels in all dimensions. `cpu_s` is processor time with one thread; that of `layout`
includes reading the barcodes, and the others get means. UMAP (left out where umap-learn is not installed) and
`layout` work on the same 50 axes.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import load_dataset
from sish.errors import SishError
from sish.index.barcode import mean_bits
from sish.index.store import SlideRow, State, Store, slide_snapshot
from sish.outputs import write_output
from sish.slide_index import Index
from sish.slide_map import layout

_SLIDES, _QUICK_SLIDES = 100_000, 300
_COMMIT, _PATCHES, _BITS = 2000, 8, 1024
_PARENTS, _KINDS = 10, 100
_AXES, _NEAREST, _MOST_ASKED = 50, 10, 2000

Places = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Row:
    """One way to place the slides of one archive."""

    archive: str
    """Name of the archive."""
    slides: int
    """Its slides."""
    method: str
    """How they were placed."""
    label: float
    """Share of the nearest slides on the map that have a slide's label."""
    kept: float
    """Share of the nearest slides in all dimensions that are among the nearest on the map."""
    cpu_s: float
    """Processor time."""


# ---- archives


def of_images(data: Path, name: str, mpp: float, folder: Path, groups: str) -> Iterator[tuple[str, State]]:
    """Yield an archive of a data set: of all groups, or of the odd or even ones."""
    try:
        items = load_dataset(data / name, mpp=mpp).items
    except SishError as error:
        print(f"{name} is left out: {error}", flush=True)
        return
    number = {it.item_id: int("".join(filter(str.isdecimal, it.group)) or 0) for it in items}
    wanted = [it for it in items if groups == "all" or (number[it.item_id] % 2 == 1) == (groups == "odd")]
    path = folder / f"{name}-{groups}.sish"
    table = folder / f"{path.stem}.csv"
    table.write_text("path,label\n" + "".join(f"{it.path},{it.label}\n" for it in wanted))
    index = Index.create(path)
    index.add([it.path for it in wanted], labels=table, mpp=mpp, show_progress=False)
    yield f"{name} {groups}", index.state_and_view()[0]


def generated(slides: int, folder: Path) -> tuple[str, State]:
    """Return an archive of slides of many kinds, which are variants of ten."""
    rng, n_kinds = np.random.default_rng(0), max(_PARENTS, min(_KINDS, slides // 20))
    parents = rng.random((_PARENTS, _BITS)) < 0.5
    kinds = parents[np.arange(n_kinds) % _PARENTS] ^ (rng.random((n_kinds, _BITS)) < 0.15)
    store = Store.create(folder / "generated.sish", {})
    for first in range(0, slides, _COMMIT):
        numbers = range(first, min(slides, first + _COMMIT))
        own = kinds[np.array(numbers) % n_kinds] ^ (rng.random((len(numbers), _BITS)) < 0.1)
        patches = own[:, None] ^ (rng.random((len(numbers), _PATCHES, _BITS), np.float32) < 0.2)
        keys, places = np.zeros((_PATCHES, 1), np.int64), np.zeros((_PATCHES, 2), np.int64)
        store.append_many(
            [
                slide_snapshot(_row(number, number % n_kinds), keys, np.packbits(bits, axis=1), places)
                for number, bits in zip(numbers, patches, strict=True)
            ]
        )
    return "generated", store.state


def _row(number: int, kind: int) -> SlideRow:
    name = f"slide-{number:06d}"
    path, label = f"/{name}.svs", f"kind {kind}"
    return SlideRow(name, path, _PATCHES, 512.0, 0.5, "vendor", 40_000, 30_000, label, name, None)


# ---- ways to place slides


def means_of(state: State) -> NDArray[np.float32]:
    """Return the mean barcode of each slide, (N, bits); no slide was removed or lacks patches."""
    parts = []
    for segment in state.segments:
        table, numbers = segment.patches, np.arange(len(segment.patches.slides))
        parts.append(mean_bits(table.barcodes[table.rows_of(numbers)], np.cumsum(table.slides.n_patches)))
    return np.concatenate(parts)


def axes_of(means: NDArray[np.float32]) -> Places:
    """Return the coordinates along the axes of largest variance."""
    centred = means - means.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ vectors[:, : -_AXES - 1 : -1])


def ways(state: State, means: NDArray[np.float32]) -> Iterator[tuple[str, Places, float]]:
    """Yield each way's name, its places and its processor time."""
    yield "means", means, 0.0
    start = time.process_time()
    axes = axes_of(means)
    yield "pca", axes[:, :2], time.process_time() - start
    start = time.process_time()
    places = layout(state).xy
    yield "layout", places, time.process_time() - start
    if importlib.util.find_spec("umap") is None:
        return
    start = time.process_time()
    from umap import UMAP  # it compiles itself when it is first used, as it would for a user

    places = UMAP(random_state=0, n_jobs=1).fit_transform(axes_of(means))
    yield "umap", np.asarray(places), time.process_time() - start


def nearest(places: Places, asked: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of the ten nearest slides to some slides, (A, 10)."""
    values = np.asarray(places - places.mean(axis=0), np.float32)
    squared = (values**2).sum(axis=1)
    found = []
    for number in asked:
        apart = squared - 2 * (values @ values[number])
        apart[number] = np.inf
        found.append(np.argpartition(apart, _NEAREST)[:_NEAREST])
    return np.array(found)


def measure(name: str, state: State) -> Iterator[Row]:
    """Yield a row for each way to place the slides of an archive."""
    means, labels = means_of(state), np.array([row.label for row in state.slides])
    size = len(means)
    asked = np.sort(np.random.default_rng(1).permutation(size)[:_MOST_ASKED])
    near = nearest(means, asked)
    for method, places, seconds in ways(state, means):
        found = near if method == "means" else nearest(places, asked)
        kept = np.mean([len(set(a) & set(b)) for a, b in zip(near.tolist(), found.tolist(), strict=True)])
        same = np.mean(labels[found] == labels[asked][:, None])
        row = Row(name, size, method, float(same), float(kept) / _NEAREST, seconds)
        print(_told(row), flush=True)
        yield row


def _told(row: Row) -> str:
    return (
        f"{row.archive:10} {row.slides:>7} slides  {row.method:7} "
        f"label {row.label:.3f}  kept {row.kept:.3f}  cpu {row.cpu_s:6.1f} s"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slide_map",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    beside = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("--slides", type=int, help="slides of the generated archive; default 100,000")
    parser.add_argument("--quick", action="store_true", help="a small generated archive alone")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("SISH_DATA", beside)),
        help="folder with bach and crc5; default $SISH_DATA",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = () if given.quick else (("bach", 0.42, "all"), ("crc5", 1.1, "odd"), ("crc5", 1.1, "even"))
        for data, mpp, groups in sets:
            for archive, state in of_images(given.data, data, mpp, folder, groups):
                rows += measure(archive, state)
        rows += measure(*generated(given.slides or (_QUICK_SLIDES if given.quick else _SLIDES), folder))
    if given.json:
        text = json.dumps([asdict(row) for row in rows], indent=1) + "\n"
        write_output(given.json, text.encode(), replaces=(".json",))
    return 0


if __name__ == "__main__":
    sys.exit(main())
