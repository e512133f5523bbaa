"""Measure what an archive loses that grows away from the slides on which its features were measured.

The calibration of an index is fixed at its first add. Here the first add is of a part of an archive, such as
one tile, one stain group, one class or another organ; then the rest is added. The share of right answers is
compared with that of the same archive after ``sish index recalibrate``, in the same run, with the same
features. Parts of the colon are measured also without shipped patches, as an encoder without statistics would
be.

A query is a tile. Its answer is the label that most of the five nearest tiles have; tiles of its own group do
not count. The share is the mean over classes. The interval is of the paired difference, by bootstrap over
groups.

Only data that may be used to choose numbers are read: the odd-numbered groups of crc5, and PCam ``train``.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import load_dataset
from benchmarks.rows import write_rows
from sish.barcoder import Barcoder
from sish.calibration import Calibration
from sish.demo.synthetic import write_slides
from sish.encode import SlideEncoder
from sish.metrics import majority_label
from sish.printing import print_line
from sish.sampling import Sample, take_sample
from sish.slides.slide import open_slide
from sish.systems import Item

K = 5
_LYMPH_TILES = 800
_DRAWS = 2000
_UNMIXED = ", unmixed"


@dataclass(frozen=True, slots=True)
class Tiles:
    """Patches of an archive."""

    features: NDArray[np.float32]
    """Float32 (N, F)."""
    label: NDArray[np.str_]
    """Label of each, (N,)."""
    group: NDArray[np.str_]
    """Slide or stain group of each, (N,)."""

    def and_(self, other: "Tiles") -> "Tiles":
        """Return these and others."""
        return Tiles(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.label, other.label]),
            np.concatenate([self.group, other.group]),
        )


@dataclass(frozen=True, slots=True)
class Row:
    """The share of right answers of one archive, by the part of it that was measured."""

    archive: str
    """The archive, and the tiles that are searched for."""
    measured_on: str
    """The part on which features were measured."""
    patches: int
    """Patches of it."""
    shipped: int
    """Shipped patches that are mixed in."""
    right: float
    """Mean over classes of the share of right answers."""
    difference: float
    """Share of right answers after a recalibration less this one; of tiles, not over classes."""
    interval: tuple[float, float]
    """95 % interval of the difference."""


def tiles_of(encoder: SlideEncoder, items: Sequence[Item]) -> Tiles:
    """Return the patches of images, as an index measures them (2,000 at most)."""
    by_path = {item.path: item for item in items}
    openers = {
        path: partial(open_slide, path, mpp=item.mpp, override_mpp=item.override_mpp)
        for path, item in by_path.items()
    }
    sample: Sample = take_sample(encoder, openers, show_progress=True)
    names = [path for path, slide in sample.slides.items() for _ in slide.seen.rows]
    label = np.array([by_path[path].label for path in names])
    group = np.array([by_path[path].group or by_path[path].item_id for path in names])
    return Tiles(sample.features, label, group)


def answers(encoder: SlideEncoder, tiles: Tiles, calibration: Calibration) -> NDArray[np.bool_]:
    """Return whether the answer to each tile is right, (N,)."""
    bits = np.unpackbits(Barcoder.of(encoder.model, calibration).barcodes(tiles.features), axis=1)
    signs = bits.astype(np.float32) - 0.5
    likeness = signs @ signs.T
    likeness[tiles.group[:, None] == tiles.group[None]] = -np.inf
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :K]
    votes = [majority_label(tiles.label[rows].tolist(), K) for rows in nearest]
    return np.array([vote == label for vote, label in zip(votes, tiles.label, strict=True)])


def rows_of(
    encoder: SlideEncoder, name: str, tiles: Tiles, asked: NDArray[np.bool_], parts: dict[str, Tiles]
) -> list[Row]:
    """Return a row for each part on which features are measured; `asked` (N,) are the queries."""
    model = encoder.model
    again = answers(encoder, tiles, Calibration.learn(tiles.features, model.parts, model.statistics))[asked]
    rows = []
    for part, measured in {**parts, "all of it (recalibrated)": tiles}.items():
        prior = None if part.endswith(_UNMIXED) else model.statistics
        calibration = Calibration.learn(measured.features, model.parts, prior)
        right = answers(encoder, tiles, calibration)[asked]
        label = tiles.label[asked]
        mean = float(np.mean([right[label == one].mean() for one in np.unique(label)]))
        gain = again.astype(float) - right
        interval = _interval(gain, tiles.group[asked])
        rows.append(
            Row(name, part, calibration.patches, calibration.shipped, mean, float(gain.mean()), interval)
        )
    return rows


def _interval(values: NDArray[np.float64], group: NDArray[np.str_]) -> tuple[float, float]:
    """Return the 95 % interval of a mean, by bootstrap over groups."""
    _, number = np.unique(group, return_inverse=True)
    sums, counts = np.bincount(number, values), np.bincount(number)
    drawn = np.random.default_rng(0).integers(len(counts), size=(_DRAWS, len(counts)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)


def _part(tiles: Tiles, chosen: NDArray[np.bool_]) -> Tiles:
    return Tiles(tiles.features[chosen], tiles.label[chosen], tiles.group[chosen])


def colon_items(folder: Path) -> list[Item]:
    """Return the tiles of the odd-numbered groups of crc5."""
    items = load_dataset(folder, mpp=1.1).database
    return [item for item in items if int(item.group.rpartition("-")[2]) % 2]


def lymph_items(folder: Path, count: int) -> list[Item]:
    """Return tiles of PCam `train`, evenly from its list."""
    items = load_dataset(folder, mpp=0.97).database
    return [items[number * len(items) // count] for number in range(count)]


def painted_items(folder: Path, seed: int) -> list[Item]:
    """Return painted slides, in place of data that are missing."""
    write_slides(folder, n_slides=12, seed=seed, side_um=800)
    return list(load_dataset(folder).database)


def measure(colon: Tiles, lymph: Tiles, encoder: SlideEncoder) -> list[Row]:
    """Return the rows of an archive of colon alone, and of one that began with lymph nodes."""
    first = colon.group == np.unique(colon.group)[0]
    classes = {f"only {name}": _part(colon, colon.label == name) for name in np.unique(colon.label)}
    one = np.arange(len(colon.label)) == 0
    parts = {"one group": _part(colon, first), **classes}
    parts |= {f"{name}{_UNMIXED}": part for name, part in parts.items()}
    parts = {"one tile": _part(colon, one), **parts}
    everything = np.ones(len(colon.label), bool)
    rows = rows_of(encoder, "colon", colon, everything, parts)
    both = lymph.and_(colon)
    is_colon = np.arange(len(both.label)) >= len(lymph.label)
    grown = {"lymph nodes alone": lymph, "colon alone": colon}
    rows += rows_of(encoder, "lymph nodes, then colon; colon asked", both, is_colon, grown)
    rows += rows_of(encoder, "lymph nodes, then colon; lymph nodes asked", both, ~is_colon, grown)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [
        f"{'archive':44} {'measured on':34} {'own':>5} {'shipped':>7} {'right':>6}  recalibrated gains (95 %)"
    ]
    for row in rows:
        low, high = row.interval
        lines.append(
            f"{row.archive:44} {row.measured_on:34} {row.patches:5} {row.shipped:7} {row.right:6.3f}  "
            f"{row.difference:+.3f} ({low:+.3f}, {high:+.3f})"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    beside = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("SISH_DATA", beside)),
        help="folder with crc5 and pcam; default $SISH_DATA",
    )
    parser.add_argument("--quick", action="store_true", help="a sixth of the tiles")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    given = parser.parse_args(arguments)
    encoder, step = SlideEncoder(), 6 if given.quick else 1
    with tempfile.TemporaryDirectory() as scratch:
        if (given.data / "crc5").is_dir() and (given.data / "pcam").is_dir():
            colon = colon_items(given.data / "crc5")[::step]
            lymph = lymph_items(given.data / "pcam", _LYMPH_TILES // step)
        else:
            print_line(f"no crc5 and pcam in {given.data}: painted slides stand for both")
            colon, lymph = (painted_items(Path(scratch, str(seed)), seed) for seed in (0, 1))
        rows = measure(tiles_of(encoder, colon), tiles_of(encoder, lymph), encoder)
    print_line(f"encoder {encoder.fingerprint}")
    for line in table(rows).splitlines():
        print_line(line)
    if given.json:
        write_rows(given.json, [asdict(row) for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
