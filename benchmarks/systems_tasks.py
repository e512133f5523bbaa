"""Tasks with their data sets, and systems with their settings, for `benchmarks.systems`.

To add a system, add a line to `ENTRIES`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.datasets import Dataset, load_dataset
from benchmarks.nonnegative import CODES, DEVIATIONS, Columns, NonNegative
from benchmarks.systems_baselines import ColourHistogram, GradientWords, RandomOrder
from benchmarks.trained_systems import FOLDS, mask_rows, xray_rows
from benchmarks.watched import Memory
from sish.encoders import TISSUE, load
from sish.systems.base import System
from sish.systems.item import Item
from sish.systems.lesions.measures import MEASURES, PARTS, Measure, Part
from sish.systems.lesions.similarity import LesionDescriber, LesionDescription, LesionSimilarity
from sish.systems.mean_vector import MeanVector
from sish.systems.patch_features import PatchDescriber, Tiles, WholePicture
from sish.systems.sish_system import Sish
from sish.systems.slide_similarity import GridTiles, SlideSimilarity
from sish.systems.smily.regions import MPPS, Smily
from sish.systems.training.data import fold_of
from sish.systems.yottixel import Yottixel


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of search, and its data sets."""

    title: str
    """Its name in the tables."""
    folders: tuple[str, ...]
    """Its data sets."""
    mpp: float | None = None
    """Micrometres per pixel of the images, if systems need it."""
    whole: bool = True
    """True if an image is one patch; else it is cut into patches, as a slide is."""
    quick: tuple[int, int] = (120, 40)
    """Number of images and of queries of a quick run."""
    rows: Mapping[str, Callable[[Dataset, bool], Sequence[dict[str, Any]]]] = field(default_factory=dict)
    """By system, the function of another benchmark that measures it on a data set, quickly or not."""
    folds: int = 1
    """Number of splits by patient, for systems that must be trained: each split is the queries once."""


def _masks(dataset: Dataset, quick: bool) -> list[dict[str, Any]]:
    """Measure Dice with given and with predicted masks, on lesions that the predictor has not seen."""
    return mask_rows(dataset, quick=quick)


def _codes(dataset: Dataset, quick: bool) -> list[dict[str, Any]]:
    """Measure X-ray codes; the row of random lists is left out, since `ENTRIES` has it."""
    return [row for row in xray_rows(dataset, quick=quick) if row["method"] != "random"]


TASKS = {
    "slides": Task("Slides", ("bach",), mpp=0.42, whole=False, quick=(16, 8)),
    "patches": Task("Patches", ("pcam", "lc25000_lung")),
    "lesions": Task("Photographs of lesions", ("ham10000",), rows={"lesion measures": _masks}),
    "xrays": Task(
        "X-rays with several findings",
        ("nih_cxr",),
        quick=(200, 200),
        rows={"x-ray codes": _codes},
        folds=FOLDS,
    ),
}


@dataclass(slots=True)
class Bench:
    """One data set, and the encoders that its systems share."""

    task: Task
    """The kind of search."""
    dataset: Dataset
    """All queries and all items that they may find, or a sample."""
    splits: tuple[Dataset, ...]
    """Databases with their queries: the data set itself, or one for each fold."""
    quick: bool
    """True for a sample."""
    lesions_spared_s: float = 0.0
    """Seconds that were saved, since another measure had described the same photograph."""
    _encoder: Memory | None = None
    _tissue: Memory | None = None
    _nonnegative: Memory | None = None
    _lesions: RememberingLesions | None = None

    @property
    def encoder(self) -> Memory:
        """The autoencoder, whose features most systems read."""
        if self._encoder is None:  # loading counts for no system
            from sish.vqvae.pretrained import load_encoder

            self._encoder = Memory(load_encoder())
        return self._encoder

    @property
    def tissue(self) -> Memory:
        """The encoder of an index by default, which SISH reads."""
        if self._tissue is None:
            self._tissue = Memory(load(TISSUE))
        return self._tissue

    @property
    def nonnegative(self) -> Memory:
        """The encoder whose features are not negative."""
        if self._nonnegative is None:
            self._nonnegative = Memory(NonNegative())
        return self._nonnegative

    @property
    def spared_s(self) -> float:
        """Seconds of encoding that were saved, since another system had encoded the same."""
        there = (self._encoder, self._tissue, self._nonnegative)
        memories = [memory for memory in there if memory is not None]
        return self.lesions_spared_s + sum(memory.seconds - memory.spent for memory in memories)

    @property
    def lesions(self) -> RememberingLesions:
        """The describer of photographs for all measures."""
        if self._lesions is None:
            self._lesions = RememberingLesions(self)
        return self._lesions

    def describer(self, encoder: Memory, *, keys: bool = False) -> PatchDescriber:
        """Return a describer of whole pictures, or of a mosaic of tiles, with the paper's keys if wanted."""
        return PatchDescriber(WholePicture() if self.task.whole else Tiles(), encoder, keys=keys)

    def tiles_describer(self, mpp: float, columns: slice | None) -> PatchDescriber:
        """Return a describer of whole pictures, or of all tiles at a scale, by features of either encoder."""
        looks = WholePicture() if self.task.whole else GridTiles(mpp)
        encoder = self.encoder if columns is None else Columns(self.nonnegative, columns)
        return PatchDescriber(looks, encoder)


class RememberingLesions(LesionDescriber):
    """Describes each photograph once for all measures, and counts the time saved."""

    def __init__(self, bench: Bench) -> None:
        """Use the shipped encoder and given masks."""
        super().__init__()
        self._bench = bench
        self._known: dict[tuple[str, ...], tuple[LesionDescription, float]] = {}

    def describe(self, item: Item, parts: Collection[Part]) -> LesionDescription:
        """Describe as the base class does; the pass for texture gives the features too."""
        pixels: list[Part] = ["euclidean", "style"] if "style" in parts else ["euclidean"]
        of_pixels = self._once(item, pixels) if set(parts) - {"dice"} else _NOTHING
        mask = self._once(item, ["dice"]).mask if "dice" in parts else None
        return replace(of_pixels, mask=mask)

    def _once(self, item: Item, parts: Sequence[Part]) -> LesionDescription:
        key = item.item_id, *parts
        if key in self._known:
            self._bench.lesions_spared_s += self._known[key][1]
        else:
            start = time.perf_counter()
            self._known[key] = super().describe(item, parts), time.perf_counter() - start
        return self._known[key][0]


_NOTHING = LesionDescription(None, None, None)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: a system with its settings."""

    system: str
    """Name of the system."""
    method: str
    """Name of the row."""
    tasks: tuple[str, ...]
    """Names of the tasks that it applies to."""
    make: Callable[[Bench], System[Any]]
    """Makes the system."""
    search: Literal["exhaustive", "tree"] = "exhaustive"
    """How it searches."""
    exact: str = ""
    """The row of the same search compared with everything, for the recall of this one."""


SLIDES, PATCHES, LESIONS, XRAYS = (("slides",), ("patches",), ("lesions",), ("xrays",))
ALL = (*SLIDES, *PATCHES, *LESIONS, *XRAYS)


def _sish(keys: Any, ranking: Any) -> Callable[[Bench], System[Any]]:
    return lambda bench: Sish(
        keys=keys, ranking=ranking, describer=bench.describer(bench.tissue, keys=keys == "paper")
    )


def _slide_similarity(mpp: float, columns: slice | None, keep: int | None) -> Callable[[Bench], System[Any]]:
    return lambda bench: SlideSimilarity(keep=keep, describer=bench.tiles_describer(mpp, columns))


def _smily(search: Any) -> Callable[[Bench], System[Any]]:
    return lambda bench: Smily(None if bench.task.whole else MPPS, search=search, encoder=bench.encoder)


def _lesions(measure: Measure) -> Callable[[Bench], System[Any]]:
    return lambda bench: LesionSimilarity(measure, bench.lesions)


def _title(measure: Measure) -> str:
    """Return the name of a measure, with its parts if it has several."""
    parts = PARTS[measure]
    return measure if len(parts) == 1 else f"{measure} ({', '.join(parts)})"


FIELD_SCALES = {"10x": 1.0, "20x": 0.5}
"""Scales in um per pixel at which a field of BACH is 4 or 25 patches; at coarser ones it is one."""

FEATURES: tuple[tuple[str, slice | None, int | None], ...] = (
    ("autoencoder", None, None),
    ("network's deviations", DEVIATIONS, None),
    ("128 of the network's deviations", DEVIATIONS, 128),
    ("code histogram", CODES, None),
)
"""Features of the slide similarity by name: columns (None: the shipped encoder's), and how many are kept.

All but the first are never negative, as the choice of the 128 wants it.
"""


def _similarities() -> Iterable[Entry]:
    """Yield the slide similarity where images have many patches, by scale, and where they are one patch."""
    system, patches = "slide similarity", (*PATCHES, *LESIONS, *XRAYS)
    for features, columns, keep in FEATURES:
        for scale, mpp in FIELD_SCALES.items():
            method = f"slide similarity {scale} ({mpp:g} um/px), {features}"
            yield Entry(system, method, SLIDES, _slide_similarity(mpp, columns, keep))
        method = f"slide similarity, one patch: cosine, {features}"
        yield Entry(system, method, patches, _slide_similarity(1.0, columns, keep))


SINGLE = (*SLIDES, *PATCHES, *LESIONS)
ENTRIES: tuple[Entry, ...] = (
    Entry("random", "random", ALL, lambda bench: RandomOrder()),
    Entry("colour histogram", "colour histogram", ALL, lambda bench: ColourHistogram()),
    Entry("gradient words", "gradient words (as SIFT)", ALL, lambda bench: GradientWords()),
    Entry("sish", "sish, texture keys, uncertainty", SINGLE, _sish("texture", "uncertainty"), "tree"),
    Entry("sish", "sish, texture keys, similarity", ALL, _sish("texture", "similarity"), "tree"),
    Entry("sish", "sish, paper keys, uncertainty", SINGLE, _sish("paper", "uncertainty"), "tree"),
    Entry("sish", "sish, paper keys, similarity", ALL, _sish("paper", "similarity"), "tree"),
    Entry("yottixel", "yottixel", ALL, lambda bench: Yottixel(bench.describer(bench.encoder))),
    Entry("mean vector", "mean vector", ALL, lambda bench: MeanVector(bench.describer(bench.tissue))),
    *_similarities(),
    Entry("smily", "smily, exact", ALL, _smily("exact")),
    Entry("smily", "smily, tree", ALL, _smily("tree"), "tree", "smily, exact"),
    *(Entry("lesion measures", _title(measure), LESIONS, _lesions(measure)) for measure in MEASURES),
)


def entries_of(task: Task) -> list[Entry]:
    """Return the entries of a task, in order."""
    name = next(key for key, value in TASKS.items() if value is task)
    return [entry for entry in ENTRIES if name in entry.tasks]


def read_task(task: Task, folder: Path, *, quick: bool) -> Bench:
    """Read a task's data set, or a sample of it."""
    dataset = load_dataset(folder, mpp=task.mpp)
    if quick:
        dataset = dataset.sample(task.quick[0], queries=task.quick[1])
    if task.folds == 1:
        return Bench(task, dataset, (dataset,), quick)
    splits = []
    for fold in range(1 if quick else task.folds):
        splits.append(_dealt(dataset, fold, task.folds))
    asked = {query.item_id for split in splits for query in split.queries}
    queries_of_all = tuple(query for query in dataset.queries if query.item_id in asked)
    return Bench(task, replace(dataset, queries=queries_of_all), tuple(splits), quick)


def _dealt(dataset: Dataset, fold: int, folds: int) -> Dataset:
    """Return the queries (a fold's patients) and the database (all others), as `trained_systems` does."""
    own = [fold_of(item, folds) == fold for item in dataset.items]
    queries = tuple(item for item, asked in zip(dataset.items, own, strict=True) if asked)
    database = tuple(item for item, asked in zip(dataset.items, own, strict=True) if not asked)
    return replace(dataset, database=database, queries=queries)
