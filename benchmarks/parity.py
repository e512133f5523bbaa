"""Compare this search with the published one, on test vectors, item by item.

A vector set is ``NAME.npz`` with ``NAME.json`` beside it: the patches of a database, the bag of every query
patch with its patient left out, the ranking of every slide, class weights and metrics. For each set a line
says how many bags and rankings are identical, and differences follow it. Exit code: 0 if everything is
identical, 1 if something differs, 2 if there is nothing to compare.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import SishError
from sish.index.bags import Bags
from sish.index.guided.walk import guided_search
from sish.index.params import SearchParams
from sish.index.table import KeyTable
from sish.metrics import Metrics, retrieval_metrics
from sish.nearest_matches import Ranking
from sish.ranking import SITE_WEIGHT, SUBTYPE_WEIGHT, SlideLabels, rank_by_uncertainty

CLOSE = 1e-9  # of uncertainties, class weights and metrics
K = 5  # results of a ranking in a vector set
_SHOWN = 3  # differences printed per set

_ARRAYS = ("key", "barcode", "slide", "query_patch", "result_offset", "result_patch", "result_hamming")


class VectorSetError(SishError):
    """A folder or file of test vectors that cannot be used."""


@dataclass(frozen=True, slots=True)
class PublishedHit:
    """A slide of a published ranking."""

    slide: str
    """Its name."""
    hamming: float
    """Distance of the match that placed it."""
    label: str
    """Its label."""
    uncertainty: float
    """Entropy of the bag that it came from, in bits."""
    query_patch: int
    """Number of the patch within the query slide."""


@dataclass(frozen=True, slots=True)
class VectorSet:
    """A database and the published answers for it."""

    name: str
    """File name without its ending."""
    table: KeyTable
    """All patches."""
    key: NDArray[np.int64]
    """Key of each patch in insertion order, (P,)."""
    barcode: NDArray[np.uint8]
    """Its barcode, (P, B)."""
    slide: NDArray[np.int32]
    """Its slide number, (P,)."""
    query_patch: NDArray[np.int64]
    """The patch that each query was, (Q,)."""
    bags: Bags
    """The published bags, (Q,)."""
    slides: list[str]
    """Names of the slides."""
    patient: NDArray[np.str_]
    """Patient of each slide."""
    label: list[str]
    """Label of each slide."""
    params: SearchParams
    """Parameters of the published search."""
    class_weight: dict[str, float]
    """Published weight of each label."""
    ranked: dict[str, list[PublishedHit]]
    """Published ranking of each query slide."""
    metrics: dict[str, dict[str, float]]
    """Published metrics of each label."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The agreement on one vector set."""

    name: str
    """Its name."""
    same_bags: int
    """Bags that are identical."""
    bags: int
    """Bags compared."""
    same_rankings: int
    """Rankings that are identical."""
    rankings: int
    """Rankings compared."""
    differences: tuple[str, ...]
    """Differences, a line each; empty if all is identical."""

    def line(self) -> str:
        """Return the verdict as a line."""
        return (
            f"{self.name}: identical: {self.same_bags} of {self.bags} bags, "
            f"{self.same_rankings} of {self.rankings} rankings"
        )


def find_sets(folder: Path) -> list[Path]:
    """Find the vector sets of a folder.

    Parameters
    ----------
    folder : Path
        The folder.

    Returns
    -------
    list of Path
        Its ``.npz`` files with a ``.json`` beside them.

    Raises
    ------
    VectorSetError
        If there are none.
    """
    if not folder.is_dir():
        raise VectorSetError(f"{folder} is not a folder; give one with NAME.npz and NAME.json in it")
    found = sorted(path for path in folder.glob("*.npz") if path.with_suffix(".json").is_file())
    if not found:
        raise VectorSetError(f"{folder} holds no vector set; give one with NAME.npz and NAME.json in it")
    return found


def load_set(path: Path) -> VectorSet:
    """Read a vector set.

    Parameters
    ----------
    path : Path
        ``NAME.npz``, with ``NAME.json`` beside it.

    Returns
    -------
    VectorSet
        The vector set.

    Raises
    ------
    VectorSetError
        If it is malformed.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _ARRAYS}
        return _assemble(path.stem, arrays, json.loads(path.with_suffix(".json").read_text("utf-8")))
    except Exception as error:  # a broken file breaks in many ways, and all of them mean the same here
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise VectorSetError(f"{path} is not a usable vector set ({reason}); see its README") from error


def _assemble(name: str, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> VectorSet:
    """Check that the parts fit and put them together; any exception means that they do not."""
    table = KeyTable.build(arrays["key"], arrays["barcode"], arrays["slide"])
    offset, n_slides = arrays["result_offset"], len(facts["slides"])
    if not len(facts["patient"]) == len(facts["label"]) == n_slides:
        raise ValueError("slides, patient and label differ in length")
    if arrays["slide"].size and not 0 <= arrays["slide"].min() <= arrays["slide"].max() < n_slides:
        raise ValueError("slide holds numbers beyond slides")
    if len(offset) != len(arrays["query_patch"]) + 1 or offset[0] != 0 or (np.diff(offset) < 0).any():
        raise ValueError("result_offset does not fit query_patch")
    if not len(arrays["result_patch"]) == len(arrays["result_hamming"]) == offset[-1]:
        raise ValueError("result_offset does not fit result_patch and result_hamming")
    if len(offset) > 1 and not 0 <= arrays["query_patch"].min() <= arrays["query_patch"].max() < len(table):
        raise ValueError("query_patch holds numbers beyond the patches")
    unknown = set(facts["ranked"]) - set(facts["slides"])
    if unknown:
        raise ValueError(f"ranked names unknown slides: {sorted(unknown)[:_SHOWN]}")
    return VectorSet(
        name, table, arrays["key"], arrays["barcode"], arrays["slide"], arrays["query_patch"],
        Bags(offset, arrays["result_patch"], arrays["result_hamming"]),
        [str(name) for name in facts["slides"]], np.array([str(patient) for patient in facts["patient"]]),
        [str(label) for label in facts["label"]],
        _params(facts["params"]), _floats(facts["class_weight"]),
        {slide: [_hit(entry) for entry in entries] for slide, entries in facts["ranked"].items()},
        {label: _floats(row) for label, row in facts["metrics"].items()},
    )  # fmt: skip


def _params(given: dict[str, Any]) -> SearchParams:
    """Read the search's parameters from their published names."""
    whole = {name: int(given[name]) for name in ("C", "T", "pre_step", "succ_step", "thrsh")}
    if any(given[name] != value for name, value in whole.items()):
        raise ValueError(f"params are not whole numbers: {given}")
    return SearchParams(
        interval=whole["C"], n_seeds=whole["T"], pre_step=whole["pre_step"], succ_step=whole["succ_step"],
        threshold=whole["thrsh"],
    )  # fmt: skip


def _floats(given: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in given.items()}


def _hit(entry: dict[str, Any]) -> PublishedHit:
    return PublishedHit(
        str(entry["slide"]), float(entry["hamming"]), str(entry["label"]), float(entry["uncertainty"]),
        int(entry["query_patch"]),
    )  # fmt: skip


def search_all(vectors: VectorSet) -> Bags:
    """Return our bag of every query of the set, its patient left out, in the order of the queries."""
    own = vectors.patient[vectors.slide[vectors.query_patch]]
    parts: list[tuple[NDArray[np.int64], NDArray[np.int32]]] = [_NOTHING] * len(own)
    for patient in np.unique(own):
        queries = np.flatnonzero(own == patient)
        rows = vectors.query_patch[queries]
        bags = guided_search(
            vectors.table, vectors.key[rows], vectors.barcode[rows],
            exclude=vectors.patient == patient, params=vectors.params,
        )  # fmt: skip
        for place, query in enumerate(queries):
            parts[query] = _bag(bags, place)
    return _joined(parts)


_NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.int32))


def _bag(bags: Bags, place: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return patches and distances of one bag."""
    span = slice(bags.offset[place], bags.offset[place + 1])
    return bags.patch[span], bags.hamming[span]


def _joined(parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int32]]]) -> Bags:
    """Join single bags to Bags."""
    offset = np.cumsum([0, *(len(patch) for patch, _ in parts)])
    patches, distances = zip(_NOTHING, *parts, strict=True)
    return Bags(offset, np.concatenate(patches), np.concatenate(distances))


def rank_all(vectors: VectorSet, bags: Bags) -> dict[str, Ranking]:
    """Rank for every slide that the set asks for, from the bags of its patches in insertion order."""
    labels = class_weights(vectors)
    place = {int(patch): query for query, patch in enumerate(vectors.query_patch)}
    answers = {}
    for name in vectors.ranked:
        patches = np.flatnonzero(vectors.slide == vectors.slides.index(name)).tolist()
        own = _joined([_bag(bags, place[patch]) if patch in place else _NOTHING for patch in patches])
        answers[name] = rank_by_uncertainty(own, vectors.slide[own.patch], labels, k=K)
    return answers


def class_weights(vectors: VectorSet) -> SlideLabels:
    """Return our class weights; the set's own weights tell whether they sum to 10 or 30."""
    total = sum(vectors.class_weight.values())
    return SlideLabels.of(vectors.label, min((SUBTYPE_WEIGHT, SITE_WEIGHT), key=lambda w: abs(w - total)))


def compare(vectors: VectorSet) -> Comparison:
    """Search and rank everything in the set, and compare."""
    bags = search_all(vectors)
    bad_bags = [i for i in range(len(bags)) if not _same_bag(_bag(bags, i), _bag(vectors.bags, i))]
    rankings = rank_all(vectors, bags)
    bad = [name for name, got in rankings.items() if not _same_ranking(vectors, got, vectors.ranked[name])]
    differences = [f"bag of query {i}, patch {vectors.query_patch[i]}" for i in bad_bags]
    differences += [f"ranking of {name}" for name in bad]
    differences += _other_differences(vectors, rankings)
    return Comparison(
        vectors.name, len(bags) - len(bad_bags), len(bags), len(rankings) - len(bad), len(rankings),
        tuple(differences),
    )  # fmt: skip


def _same_bag(got: tuple[NDArray[Any], NDArray[Any]], want: tuple[NDArray[Any], NDArray[Any]]) -> bool:
    return all(np.array_equal(ours, theirs) for ours, theirs in zip(got, want, strict=True))


def _same_ranking(vectors: VectorSet, got: Ranking, want: list[PublishedHit]) -> bool:
    """Return whether slides, order, distances, labels, query patches and uncertainties are the same."""
    if len(got.slides) != len(want):
        return False
    return all(
        vectors.slides[ours.slide] == theirs.slide
        and ours.hamming == theirs.hamming
        and vectors.label[ours.slide] == theirs.label
        and ours.query_patch == theirs.query_patch
        and ours.uncertainty is not None
        and abs(ours.uncertainty - theirs.uncertainty) <= CLOSE
        for ours, theirs in zip(got.slides, want, strict=True)
    )


def _other_differences(vectors: VectorSet, rankings: dict[str, Ranking]) -> list[str]:
    """Return the differences in class weights and metrics."""
    labels = class_weights(vectors)
    weights = dict(zip(labels.names, labels.weight.tolist(), strict=True))
    out = [] if _same_values(weights, vectors.class_weight) else [f"class weights: {weights}"]
    number = {name: i for i, name in enumerate(vectors.slides)}
    answers = [
        (vectors.label[number[name]], [vectors.label[hit.slide] for hit in ranking.slides])
        for name, ranking in rankings.items()
    ]
    rows = _per_label(retrieval_metrics(answers, K)) if answers else {}
    if set(rows) != set(vectors.metrics):
        return [*out, f"metrics: labels {sorted(rows)}, want {sorted(vectors.metrics)}"]
    return out + [
        f"metrics of {label}: {row}"
        for label, row in rows.items()
        if not _same_values(row, vectors.metrics[label])
    ]


def _per_label(metrics: Metrics) -> dict[str, dict[str, float]]:
    return {
        row.label: {"mmv": row.mmv, "map": row.map_paper, "queries": row.queries} for row in metrics.by_label
    }


def _same_values(got: dict[str, float], want: dict[str, float]) -> bool:
    return set(got) == set(want) and all(abs(got[name] - want[name]) <= CLOSE for name in want)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare every vector set of a folder and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with NAME.npz and NAME.json, one pair a set")
    folder = parser.parse_args(arguments).folder
    try:
        comparisons = []
        for path in find_sets(folder):
            comparisons.append(compare(load_set(path)))
            print(comparisons[-1].line())
            for difference in comparisons[-1].differences[:_SHOWN]:
                print(f"  differs: {difference}")
    except SishError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(any(comparison.differences for comparison in comparisons))


if __name__ == "__main__":
    sys.exit(main())
