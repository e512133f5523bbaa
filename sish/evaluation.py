"""Measure how well an index finds slides of the same label: search each with its own patient left out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sish.encode import SlideCodes
from sish.errors import ParameterError, QueryError
from sish.index.store import Snapshot
from sish.metrics import Answer, Metrics, retrieval_metrics
from sish.queries import indexed_query, stored_codes
from sish.results import Query
from sish.slide_index import Index
from sish.view import RankingName

_FEWER = (1, 3)  # majority votes of this many results are reported too
_HITS = 5  # number of results that hit rates need


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The retrieval figures of an index, measured by leave-one-patient-out."""

    index: str
    """The index's folder."""
    ranking: str
    """How hits were ranked."""
    note: str
    """Why ``auto`` did not take the ranking by uncertainty; else empty."""
    slides: int
    """Slides in the database."""
    metrics: Metrics
    """Majority votes, precisions and hit rates at k. Every labelled slide with tissue is a query once."""
    fewer: tuple[Metrics, ...]
    """The same at 1 and at 3."""
    placed: Metrics
    """The same at k, counting only slides that the ranking placed, without those that fill its list."""
    query_ms_median: float
    """Milliseconds from the codes of a query slide to ranked slides, without reading and encoding it."""
    query_ms_p95: float
    """The same, 95th percentile."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with names like ``mmv5`` and ``map5``."""
        found, k = self.metrics, self.metrics.k
        majorities = {f"mmv{at.k}": at.figures()[f"mmv{at.k}"] for at in self.fewer}
        figures = {**majorities, **found.figures()}
        return {
            "index": self.index,
            "ranking": self.ranking,
            "note": self.note,
            "slides": self.slides,
            "queries": found.queries,
            "short": self.placed.short,
            f"mmv{k}_placed": self.placed.mmv,
            **{name: value for name, (value, _) in figures.items()},
            "query_ms_median": self.query_ms_median,
            "query_ms_p95": self.query_ms_p95,
            "ci": {name: list(interval) for name, (_, interval) in figures.items()},
            "by_label": [asdict(label) for label in found.by_label],
        }

    def rows(self) -> Iterator[tuple[str, float | int | str]]:
        """Yield name and value of every figure, for a table."""
        yield "ranking", self.ranking + (f": {self.note}" if self.note else "")
        yield "slides", self.slides
        yield from ((f"mMV@{at.k}", at.mmv) for at in self.fewer)
        yield from self.metrics.named()
        yield f"queries whose list was filled up to {self.metrics.k}", self.placed.short
        yield f"mMV@{self.metrics.k} without what filled it", self.placed.mmv
        yield "query ms, median", self.query_ms_median
        yield "query ms, 95th percentile", self.query_ms_p95


def evaluate(index: Index, *, k: int = 5, ranking: RankingName = "auto") -> Evaluation:
    """Search every labelled slide of an index with its own patient left out, and measure the answers.

    Parameters
    ----------
    index : Index
        An index with labels.
    k : int
        Number of hits of each query that are measured.
    ranking : {"auto", "uncertainty", "similarity"}
        As in :meth:`sish.Index.search`.

    Returns
    -------
    Evaluation
        The figures.

    Raises
    ------
    QueryError
        If fewer than two patients have labelled slides.
    ParameterError
        If `k` is below 1.
    """
    state, view = index.state_and_view()
    snapshot = state.snapshot()
    slides = snapshot.slides
    labelled = [slide for slide in slides if slide.label is not None and slide.n_patches]
    if len({slide.patient for slide in labelled}) < 2:
        raise QueryError(
            f"{index.path}: evaluation needs labelled slides of at least two patients: "
            "give labels with sish index add --labels or sish index label"
        )
    if k < 1:
        raise ParameterError(f"got k={k}; want at least 1")
    name, note = view.choose_ranking(ranking)
    answers: list[Answer] = []
    placed: list[Answer] = []
    times: list[float] = []
    for query, label, codes in _queries(snapshot):
        start = time.perf_counter()
        results = view.search(query, codes, k=max(k, _HITS), ranking=ranking, exclude_patient=True)
        times.append(1000 * (time.perf_counter() - start))
        answers.append((label, [hit.label or "" for hit in results]))
        placed.append((label, [hit.label or "" for hit in results if hit.placed and not hit.below_threshold]))
    same_label = Counter(slide.label for slide in labelled)
    own = Counter((slide.label, slide.patient) for slide in labelled)
    relevant = [same_label[slide.label] - own[slide.label, slide.patient] for slide in labelled]
    median, p95 = np.percentile(times, [50, 95])
    return Evaluation(
        index=str(index.path),
        ranking=name,
        note=note,
        slides=len(slides),
        metrics=retrieval_metrics(answers, k, relevant=relevant),
        fewer=tuple(retrieval_metrics(answers, at, relevant=relevant) for at in _FEWER if at < k),
        placed=retrieval_metrics(placed, k, relevant=relevant),
        query_ms_median=float(median),
        query_ms_p95=float(p95),
    )


def _queries(snapshot: Snapshot) -> Iterator[tuple[Query, str, SlideCodes]]:
    """Yield each labelled slide as a query, with its label and stored codes."""
    rows = enumerate(snapshot.slides)
    numbers = [number for number, row in rows if row.label is not None and row.n_patches]
    for number, codes in zip(numbers, stored_codes(snapshot, numbers), strict=True):
        row = snapshot.slides[number]
        yield indexed_query(row, codes), row.label or "", codes
