"""Measure recall at default settings on archives that are dense, unequal, drifting or random.

    python -m benchmarks.hard_archives --json hard.json
    python -m benchmarks.hard_archives --quick

Every archive is written through the library, slide after slide, so its tree was learnt when the library
learnt it. A query is a patch that is not in the archive, made in the same way. 50 queries are asked together,
as a search of a slide asks them. `default` marks the call that `Index.search` makes, with no setting changed,
but for the threshold: any distance counts, because recall is about neighbours and not about similarity. A
patch that is found counts if it is no farther than the tenth true neighbour. `us` is the processor time of a
query patch, on one thread. `budget` is the number of patches of the archive that a query patch is to be
compared with at least, and for faiss the number that its probed lists hold on average. The time of writing a
patch, with all trees and measurements, is printed.

Codes of tissue are those of 2,000 crops (`benchmarks.archive.crops`). *Slide noise* flips a thirty-second of
the bits in a whole slide, *patch noise* a sixteenth in each patch alone. The archives:

- `reference`: a slide takes eight of the crops, with both kinds of noise;
- `one-organ`: the same of 80 crops;
- `zipf`: the n-th crop has a share of 1 / n ** 1.5, with both kinds of noise;
- `three-codes`, `one-code`: so many crops, and 3 % of the bits of each patch are flipped;
- `drift`: as the archive grows, slides take crops from a window that moves over all of them;
- `alien`: after 5 of 16 slides, they take crops whose bits are in another order, as of another tissue;
- `duplicates`: half of the patches are exact copies of 200 crops, the others are as in `reference`;
- `mixture-0`, `-1`, `-2`: the signs of 1,024 random projections of points of 500 Gaussian clusters in 64
  dimensions, the n-th of which has a deviation of 1, 1 / n, or 1 / n ** 2;
- `random-queries`: `reference`, asked for random bits;
- `uniform`: random bits, asked for random bits.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.archive import crops
from sish.encode import SlideCodes
from sish.errors import SishError
from sish.index.barcode import nearest
from sish.index.params import BUDGET, SearchParams
from sish.index.store import SlideRow, Store, slide_snapshot
from sish.outputs import write_output
from sish.searchers import Searcher, TextureKeys, searcher_of

K = 10
_SEEDS = {"archive": 5, "queries": 6}  # the search's constants were chosen with 0 and 1
_CROPS, _QUICK_CROPS = 2000, 120
_PATCHES, _QUICK_PATCHES = 100_000, 12_000
_QUERIES, _QUICK_QUERIES = 400, 50
_TOGETHER = 50  # queries
_SLIDE, _COMMIT = 50, 100  # patches of a slide, slides of a commit
_TEXTURES = 8  # crops that a slide is made of
_LISTS, _PROBES = 256, 16
_SMALLER_BUDGET = 400
Bits = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Row:
    """One index of one archive."""

    archive: str
    """Its name; see the module's docstring."""
    index: str
    """`sish`, or begins with `faiss`."""
    patches: int
    """Patches in the archive."""
    budget: int
    """Patches that a query patch is to be compared with."""
    default: bool
    """Whether these are the settings of a user who sets nothing."""
    recall_at_10: float
    """Share of the ten nearest that were found."""
    us: float
    """Processor time of a query patch."""


# ---- archives


def flipped(rng: np.random.Generator, shape: tuple[int, ...], halvings: int) -> Bits:
    """Return bytes whose bits are set with a chance of 0.5 ** halvings."""
    return np.asarray(np.bitwise_and.reduce(rng.integers(0, 256, (halvings, *shape), np.uint8)))


def noisy(barcodes: Bits, rng: np.random.Generator) -> Bits:
    """Return barcodes, slide after slide, with slide noise and patch noise."""
    in_slide = flipped(rng, (-(-len(barcodes) // _SLIDE), barcodes.shape[1]), 5)
    return barcodes ^ np.repeat(in_slide, _SLIDE, 0)[: len(barcodes)] ^ flipped(rng, barcodes.shape, 4)


def of_slides(codes: Bits, n: int, rng: np.random.Generator) -> Bits:
    """Return n patches of slides with eight crops each."""
    mine = rng.integers(len(codes), size=(-(-n // _SLIDE), _TEXTURES))
    chosen = np.take_along_axis(mine, rng.integers(_TEXTURES, size=(len(mine), _SLIDE)), 1)
    return noisy(codes[chosen.ravel()[:n]], rng)


def zipf(codes: Bits, n: int, rng: np.random.Generator) -> Bits:
    """Return n patches of clusters of very unequal sizes."""
    share = np.arange(1, len(codes) + 1) ** -1.5
    return noisy(codes[rng.choice(len(codes), n, p=share / share.sum())], rng)


def around(codes: Bits, n: int, rng: np.random.Generator) -> Bits:
    """Return n patches with 3 % of the bits of a crop flipped."""
    noise = np.packbits(rng.random((n, 8 * codes.shape[1]), np.float32) < 0.03, axis=1)
    return codes[rng.integers(len(codes), size=n)] ^ noise


def drift(codes: Bits, n: int, rng: np.random.Generator) -> Bits:
    """Return n patches of slides whose crops lie in a window that moves."""
    slides, window = -(-n // _SLIDE), len(codes) // 4
    first = np.linspace(0, len(codes) - window, slides).astype(np.int64)
    mine = first[:, None] + rng.integers(window, size=(slides, _TEXTURES))
    chosen = np.take_along_axis(mine, rng.integers(_TEXTURES, size=(slides, _SLIDE)), 1)
    return noisy(codes[chosen.ravel()[:n]], rng)


def reordered(codes: Bits) -> Bits:
    """Return codes with their bits in another order."""
    order = np.random.default_rng(0).permutation(8 * codes.shape[1])
    return np.packbits(np.unpackbits(codes, axis=1)[:, order], axis=1)


def alien(codes: Bits, n: int, rng: np.random.Generator) -> Bits:
    """Return n patches, after the first quarter of crops in another order of bits."""
    first = of_slides(codes, n * 5 // 16, rng)
    return np.concatenate([first, of_slides(reordered(codes), n - len(first), rng)])


def duplicates(codes: Bits, n: int, rng: np.random.Generator) -> Bits:
    """Return n patches, half of them exact copies of 200 crops."""
    patches, copies = of_slides(codes, n, rng), rng.random(n) < 0.5
    patches[copies] = codes[rng.integers(min(200, len(codes)), size=int(copies.sum()))]
    return patches


def mixture(power: int) -> Callable[[Bits, int, np.random.Generator], Bits]:
    """Return what makes patches of Gaussian clusters of one spectrum."""

    def made(codes: Bits, n: int, rng: np.random.Generator) -> Bits:
        fixed, scale = np.random.default_rng(1), np.arange(1, 65) ** -float(power)
        centres, plane = fixed.normal(size=(500, 64)) * scale, fixed.normal(size=(64, 8 * codes.shape[1]))
        out = np.empty((n, codes.shape[1]), np.uint8)
        for first in range(0, n, 10_000):
            size = min(10_000, n - first)
            points = centres[rng.integers(500, size=size)] + rng.normal(size=(size, 64)) * scale / 2
            out[first : first + size] = np.packbits(points @ plane > 0, axis=1)
        return out

    return made


def uniform(codes: Bits, n: int, rng: np.random.Generator) -> Bits:
    """Return n patches of random bits."""
    return rng.integers(0, 256, (n, codes.shape[1]), np.uint8)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of archive."""

    make: Callable[[Bits, int, np.random.Generator], Bits]
    """Makes patches in the order in which they are added, from codes, a number and random numbers."""
    size: float = 1.0
    """Its patches, in those of the reference archive."""
    crops: int = 10**9
    """How many of the crops it takes at most."""
    queries: Callable[[Bits, int, np.random.Generator], Bits] | None = None
    """Makes the queries, if they are made in another way; of drift and alien, patches are drawn from all."""


KINDS = {
    "reference": Kind(of_slides),
    "reference-large": Kind(of_slides, size=4),
    "one-organ": Kind(of_slides, crops=80),
    "one-organ-large": Kind(of_slides, size=4, crops=80),
    "zipf": Kind(zipf),
    "three-codes": Kind(around, crops=3),
    "one-code": Kind(around, crops=1),
    "drift": Kind(drift, size=3.2),
    "alien": Kind(alien, size=0.8),
    "duplicates": Kind(duplicates),
    "mixture-0": Kind(mixture(0)),
    "mixture-1": Kind(mixture(1)),
    "mixture-2": Kind(mixture(2)),
    "random-queries": Kind(of_slides, queries=uniform),
    "uniform": Kind(uniform),
}


def stored(barcodes: Bits, path: Path) -> Searcher:
    """Write an archive as `Index.add` does once slides are encoded, and return its searcher."""
    with Store.create(path, {}) as store:
        keys = TextureKeys(store, seed=0)
        for first in range(0, len(barcodes), _SLIDE * _COMMIT):
            parts = []
            for begin in range(first, min(len(barcodes), first + _SLIDE * _COMMIT), _SLIDE):
                own = barcodes[begin : begin + _SLIDE]
                row = SlideRow(
                    f"slide-{begin // _SLIDE:07d}", "/archive/slide.svs", len(own), 512.0, 0.5, "vendor",
                    40_000, 30_000, None, "patient", None,
                )  # fmt: skip
                l0_xy = np.stack(np.divmod(np.arange(len(own)), 8), 1) * 512
                parts.append(slide_snapshot(row, keys.of(own), own, l0_xy))
            store.append_many(parts)
            keys.grow(sum(map(len, parts)))
    return searcher_of(Store.open(path), "texture", SearchParams())


# ---- measurements


def measured(
    answer: Callable[[Bits], Sequence[NDArray[Any]]], queries: Bits, truth: NDArray[Any]
) -> tuple[float, float]:
    """Return recall at 10 and microseconds a query; `answer` gives the distances found for each."""
    found: list[NDArray[Any]] = []
    answer(queries[:2])
    start = time.process_time()
    for first in range(0, len(queries), _TOGETHER):
        found += answer(queries[first : first + _TOGETHER])
    us = 1e6 * (time.process_time() - start) / len(queries)
    hits = [int((own[:K] <= tenth).sum()) for own, tenth in zip(found, truth[:, -1], strict=True)]
    return sum(hits) / truth.size, us


def sish_rows(name: str, searcher: Searcher, queries: Bits, truth: NDArray[Any]) -> Iterator[Row]:
    """Yield the rows of sish."""
    patches = int(sum(slide.n_patches for slide in searcher.slides))
    for budget in (BUDGET, _SMALLER_BUDGET):
        params = SearchParams(budget=budget, threshold=searcher.n_bits)

        def answer(asked: Bits, params: SearchParams = params) -> list[NDArray[Any]]:
            keys, l0_xy = np.zeros((len(asked), 1), np.int64), np.zeros((len(asked), 2), np.int64)
            bags = searcher.bags(SlideCodes(keys, asked, l0_xy), None, params)
            return np.split(bags.hamming, bags.offset[1:-1])

        recall, us = measured(answer, queries, truth)
        yield Row(name, "sish", patches, budget, budget == BUDGET, recall, us)


def faiss_rows(name: str, barcodes: Bits, queries: Bits, truth: NDArray[Any]) -> Iterator[Row]:
    """Yield the rows of faiss, none if it is not installed: inverted lists, and a scan of everything."""
    try:
        faiss = importlib.import_module("faiss")
    except ImportError:
        return
    faiss.omp_set_num_threads(1)
    bits, lists = 8 * barcodes.shape[1], min(_LISTS, max(1, len(barcodes) // 40))
    ivf = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(bits), bits, lists)
    ivf.cp.min_points_per_centroid = 1
    ivf.train(barcodes)
    ivf.add(barcodes)
    ivf.nprobe = _PROBES
    flat = faiss.IndexBinaryFlat(bits)
    flat.add(barcodes)
    for index, found, budget in (
        (f"faiss-ivf{lists}", ivf, len(barcodes) * _PROBES // lists),
        ("faiss-flat", flat, len(barcodes)),
    ):

        def answer(asked: Bits, found: Any = found) -> list[NDArray[Any]]:
            return list(found.search(asked, K)[0])

        recall, us = measured(answer, queries, truth)
        yield Row(name, index, len(barcodes), budget, False, recall, us)


def measure(name: str, codes: Bits, patches: int, asked: int, folder: Path) -> Iterator[Row]:
    """Yield the rows of one archive."""
    kind = KINDS[name]
    mine, n = codes[: kind.crops], int(kind.size * patches)
    barcodes = kind.make(mine, n, np.random.default_rng(_SEEDS["archive"]))
    rng = np.random.default_rng(_SEEDS["queries"])
    if kind.make in (drift, alien):  # new patches of a time are beside old ones of that time
        queries = rng.permutation(kind.make(mine, n, rng))[:asked]
    else:
        queries = (kind.queries or kind.make)(mine, asked, rng)
    truth = nearest(barcodes, queries, K).hamming
    start = time.process_time()
    searcher = stored(barcodes, folder / f"{name}.sish")
    print(f"{name:16} written in {1e6 * (time.process_time() - start) / n:.1f} us a patch", flush=True)
    yield from sish_rows(name, searcher, queries, truth)
    yield from faiss_rows(name, barcodes, queries, truth)


# ---- what is printed


def line(row: Row) -> str:
    """Return a row as text."""
    default = "default" if row.default else ""
    return (
        f"{row.archive:16} {row.index:14} {row.patches:>9,} {row.budget:>8,} {default:8} "
        f"{row.recall_at_10:6.3f} {row.us:9.0f} us"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hard_archives",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    beside = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("--archives", nargs="+", choices=KINDS, default=list(KINDS), metavar="NAME")
    parser.add_argument(
        "--quick", action="store_true", help="small archives, few queries: a check of the program"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("SISH_DATA", beside)),
        help="folder with bach; default $SISH_DATA",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    patches, asked = (_QUICK_PATCHES, _QUICK_QUERIES) if given.quick else (_PATCHES, _QUERIES)
    try:
        with tempfile.TemporaryDirectory() as name:
            codes, _ = crops(given.data, _QUICK_CROPS if given.quick else _CROPS, Path(name))
            for archive in given.archives:
                for row in measure(archive, codes, patches, asked, Path(name)):
                    print(line(row), flush=True)
                    rows.append(row)
    except SishError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if importlib.util.find_spec("faiss") is None:
        print("faiss is not installed; its rows are missing (pip install -e '.[bench]')")
    if given.json:
        write_output(
            given.json,
            (json.dumps([asdict(row) for row in rows], indent=1) + "\n").encode(),
            replaces=(".json",),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
