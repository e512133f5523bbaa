"""Measure how well an index finds slides of the same label: search each with its own patient left out."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sish.answers import (
    FEWER,
    Answered,
    csv_of,
    group_rows,
    never_found,
    never_lines,
    never_majority,
    numbers_of_votes,
    query_rows,
)
from sish.confusion import confusion_png
from sish.encode import SlideCodes
from sish.errors import OutputError, ParameterError, QueryError
from sish.filters import Where, exactly
from sish.index.store import SlideRow, Snapshot
from sish.labels import LabelRow, read_labels
from sish.metrics import Metrics, retrieval_metrics
from sish.outputs import check_outside_databases, write_output
from sish.printing import aligned, figure
from sish.queries import indexed_query, stored_codes
from sish.results import Query, Results
from sish.slide_index import Index
from sish.view import RankingName, View

if TYPE_CHECKING:
    import pandas as pd

Within = Literal["site"]
"""What a query and the slides that it may find must share."""

_HITS = 5  # number of results that hit rates need
_NO_TISSUE = "no tissue"
_NOT_INDEXED = "not in the index"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The retrieval figures of an index, measured by leave-one-patient-out."""

    index: str
    """The index's folder."""
    ranking: str
    """How hits were ranked."""
    note: str
    """Why ``auto`` did not take the ranking by uncertainty; else empty."""
    within: Within | None
    """``site`` if a query could find slides of its own site only; None if all slides of other patients."""
    slides: int
    """Slides in the database."""
    answers: tuple[Answered, ...]
    """Every labelled slide once, with the labels that it found."""
    metrics: Metrics
    """Majority votes, precisions and hit rates at k over all queries; one that failed is a miss."""
    fewer: tuple[Metrics, ...]
    """The same at 1 and at 3."""
    placed: Metrics
    """The same at k, counting only slides that the ranking placed, without those that fill its list."""
    bytes_per_slide: float
    """Bytes of the index on disk for a slide of it."""
    query_ms_median: float
    """Milliseconds from the codes of a query slide to ranked slides, without reading and encoding it."""
    query_ms_p95: float
    """The same, 95th percentile."""

    def __repr__(self) -> str:
        """Return the figures that matter most, on one line."""
        return f"<{type(self).__name__}: {len(self.answers)} queries, {self.metrics.one_line()}>"

    @property
    def by_label(self) -> list[dict[str, Any]]:
        """A row for each class: see :func:`sish.answers.group_rows`."""
        return group_rows(self.answers, "label", self.metrics.k)

    @property
    def by_site(self) -> list[dict[str, Any]]:
        """A row for each site of the queries; none if no query has a site."""
        return group_rows(self.answers, "site", self.metrics.k) if any(it.site for it in self.answers) else []

    @property
    def by_query(self) -> list[dict[str, Any]]:
        """A row for each query: see :func:`sish.answers.query_rows`."""
        return query_rows(self.answers, self.metrics.k)

    @property
    def never_found(self) -> list[str]:
        """The classes of which no query has a right result among the first k."""
        return never_found(self.answers, self.metrics.k)

    @property
    def never_majority(self) -> list[str]:
        """The classes that are found, but of which no query has the right majority label."""
        return never_majority(self.answers, self.metrics.k)

    @property
    def failed(self) -> list[str]:
        """Ids of the queries that could not be searched for; they count as misses."""
        return [one.query for one in self.answers if one.failed]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with names like ``mmv5`` and ``map5``."""
        found, k = self.metrics, self.metrics.k
        fewer = {name: at.figures()[name] for at in self.fewer for name in (f"mmv{at.k}", f"macro_f1_{at.k}")}
        figures = {**fewer, **found.figures()}
        return {
            "index": self.index,
            "ranking": self.ranking,
            "note": self.note,
            "within": self.within,
            "slides": self.slides,
            "queries": found.queries,
            "failed": self.failed,
            "short": self.placed.short,
            f"mmv{k}_placed": self.placed.mmv,
            **{name: value for name, (value, _) in figures.items()},
            "bytes_per_slide": self.bytes_per_slide,
            "query_ms_median": self.query_ms_median,
            "query_ms_p95": self.query_ms_p95,
            "ci": {name: list(interval) for name, (_, interval) in figures.items()},
            "by_label": self.by_label,
            "by_site": self.by_site,
            "never_found": self.never_found,
            "never_majority": self.never_majority,
        }

    def to_pandas(self, by: Literal["query", "label", "site"] = "query") -> pd.DataFrame:
        """Return a table of the evaluation as a frame; needs the extra ``tables``.

        Parameters
        ----------
        by : {"query", "label", "site"}
            A row for each query (`by_query`), class (`by_label`) or site (`by_site`).

        Returns
        -------
        DataFrame
            The rows.

        Raises
        ------
        ParameterError
            If there is no such table.
        MissingPackageError
            If pandas is not installed.
        """
        from sish.tables import rows_frame

        if by not in ("query", "label", "site"):
            raise ParameterError(f"got by={by!r}; want 'query', 'label' or 'site'")
        return rows_frame(getattr(self, f"by_{by}"))

    def rows(self) -> Iterator[tuple[str, float | int | str]]:
        """Yield name and value of every figure, for a table."""
        yield "ranking", self.ranking + (f": {self.note}" if self.note else "")
        yield "slides that can be found", "of the query's own site" if self.within else "all"
        yield "slides", self.slides
        yield "queries that failed, counted as misses", len(self.failed)
        yield from ((f"mMV@{at.k}", at.mmv) for at in self.fewer)
        yield from ((f"macro-F1 of the majority of {at.k}", at.macro_f1) for at in self.fewer)
        yield from self.metrics.named()
        yield f"queries whose list was filled up to {self.metrics.k}", self.placed.short
        yield f"mMV@{self.metrics.k} without what filled it", self.placed.mmv
        yield "bytes a slide", round(self.bytes_per_slide)
        yield "query ms, median", self.query_ms_median
        yield "query ms, 95th percentile", self.query_ms_p95

    def lines(self) -> Iterator[str]:
        """Yield the evaluation as text: figures, tables by class and by site, and the classes never found."""
        yield from (f"{name:39} {figure(value):>14}" for name, value in self.rows())
        for title, groups in (("label", self.by_label), ("site", self.by_site)):
            if groups:
                yield ""
                yield from aligned([_shown(row, title, self.metrics.k) for row in groups])
        missed = list(never_lines(self.by_label, self.never_found, self.never_majority, self.metrics.k))
        yield from ["", *missed] if missed else []

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write the evaluation as files.

        They are ``evaluation.json`` (`to_dict`), ``figures.csv`` (`rows`), ``by_label.csv``, ``by_site.csv``
        (if there are sites), ``by_query.csv``, and ``confusion.png``: which class is taken for which.

        Parameters
        ----------
        folder : path-like
            Where; it is made, and older files of these names are replaced.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        OutputError
            If a file cannot be written.
        ParameterError
            If the folder lies inside an index.
        """
        out = Path(folder)
        check_outside_databases(out / "evaluation.json")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make {out}: {error.strerror}; give another folder", path=out
            ) from error
        figures = [{"figure": name, "value": value} for name, value in self.rows()]
        tables = {"figures": figures, "by_label": self.by_label, "by_query": self.by_query}
        for name, rows in (tables | ({"by_site": self.by_site} if self.by_site else {})).items():
            write_output(out / f"{name}.csv", csv_of(rows).encode(), replaces=(".csv",))
        whole = json.dumps(self.to_dict(), indent=2) + "\n"
        write_output(out / "evaluation.json", whole.encode(), replaces=(".json",))
        write_output(out / "confusion.png", self.confusion_png(), replaces=(".png",))
        return out

    def confusion_png(self) -> bytes:
        """Return a picture of which class the majority takes for which, as PNG."""
        rows, k = self.by_query, self.metrics.k
        votes = [row[f"mv{k}"] for row in rows]
        title = f"majority of the first {k} results, ranked by {self.ranking}"
        return confusion_png([row["label"] for row in rows], votes, title=title)


def evaluate(
    index: Index,
    *,
    k: int = 5,
    ranking: RankingName = "auto",
    within: Within | None = None,
    labels: str | os.PathLike[str] | None = None,
) -> Evaluation:
    """Search every labelled slide of an index with its own patient left out, and measure the answers.

    A labelled slide without tissue cannot be searched for and counts as a miss. So does every labelled slide
    of `labels` that is not in the index.

    Parameters
    ----------
    index : Index
        An index with labels.
    k : int
        Number of hits of each query that are measured.
    ranking : {"auto", "uncertainty", "similarity"}
        As in :meth:`sish.Index.search`.
    within : {"site"}, optional
        Let a query find slides of its own site only, as the paper does for subtypes.
    labels : path-like, optional
        The labels file of all slides that should be in the index, to count those that could not be added.

    Returns
    -------
    Evaluation
        The figures.

    Raises
    ------
    QueryError
        If fewer than two patients have labelled slides, or a query has no site to search within.
    ParameterError
        If `k` is below 1, or `within` is unknown.
    LabelsError
        If the labels file cannot be used.

    Examples
    --------
    >>> import sish
    >>> found = sish.evaluate(sish.Index.open("archive.sish"))                 # doctest: +SKIP
    >>> [(row["label"], row["queries"], row["mv5"]) for row in found.by_label]  # doctest: +SKIP
    [('benign', 25, 0.6), ('invasive', 25, 0.84)]
    """
    state, view = index.state_and_view()
    snapshot = state.snapshot()
    slides = snapshot.slides
    lost = [] if labels is None else _not_indexed(labels, slides)
    labelled = [slide for slide in slides if slide.label is not None and slide.n_patches]
    if len({slide.patient for slide in labelled}) < 2:
        raise QueryError(
            f"{index.path}: evaluation needs labelled slides of at least two patients: "
            "give labels with sish index add --labels or sish index label"
        )
    if k < 1:
        raise ParameterError(f"got k={k}; want at least 1")
    _check_within(index, within, labelled)
    name, note = view.choose_ranking(ranking)
    findable = _Findable.of(labelled, within)
    times, found, placed = _searched(snapshot, view, max(k, _HITS), ranking, within)
    missed = [slide for slide in slides if slide.label is not None and not slide.n_patches]
    answers = (
        *(findable.answered(row, found[row.slide_id]) for row in labelled),
        *(findable.answered(row, (), failed=_NO_TISSUE) for row in missed),
        *(findable.lost(row) for row in lost),
    )
    pairs, relevant = [one.answer for one in answers], [one.relevant for one in answers]
    only_placed = [(one.label, placed.get(one.query, ())) for one in answers]
    median, p95 = np.percentile(times, [50, 95])
    return Evaluation(
        index=str(index.path),
        ranking=name,
        note=note,
        within=within,
        slides=len(slides),
        answers=answers,
        metrics=retrieval_metrics(pairs, k, relevant=relevant),
        fewer=tuple(retrieval_metrics(pairs, at, relevant=relevant) for at in FEWER if at < k),
        placed=retrieval_metrics(only_placed, k, relevant=relevant),
        bytes_per_slide=index.info().bytes / len(slides),
        query_ms_median=float(median),
        query_ms_p95=float(p95),
    )


def _searched(
    snapshot: Snapshot, view: View, k: int, ranking: RankingName, within: Within | None
) -> tuple[list[float], dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Return the milliseconds of each query, and by id the labels of its hits and of those placed."""
    site = {row.slide_id: row.site or "" for row in snapshot.slides} if within else {}
    times: list[float] = []
    found: dict[str, tuple[str, ...]] = {}
    placed: dict[str, tuple[str, ...]] = {}
    for query, _, codes in _queries(snapshot):
        where: Where | None = {within: exactly(site[query.slide_id])} if within else None
        start = time.perf_counter()
        results = view.search(query, codes, k=k, ranking=ranking, exclude_patient=True, where=where)
        times.append(1000 * (time.perf_counter() - start))
        found[query.slide_id] = tuple(hit.label or "" for hit in results)
        placed[query.slide_id] = _placed_labels(results)
    return times, found, placed


def _shown(row: Mapping[str, Any], title: str, k: int) -> dict[str, str]:
    """Return the columns of a class or site that are printed; the files have all."""
    columns = {
        title: row[title] or f"(no {title})",
        "queries": row["queries"],
        "failed": row["failed"],
        "findable": row["findable"],
        **{f"MV@{at}": row[f"mv{at}"] for at in numbers_of_votes(k)},
        "from": row[f"mv{k}_low"],
        "to": row[f"mv{k}_high"],
        "hit@5": row["hit5"],
        f"mAP@{k}": row[f"map{k}"],
        f"F1@{k}": row[f"f1_{k}"],
    }
    return {name: figure(value) for name, value in columns.items()}


def _placed_labels(results: Results) -> tuple[str, ...]:
    return tuple(hit.label or "" for hit in results if hit.placed and not hit.below_threshold)


@dataclass(frozen=True, slots=True)
class _Findable:
    """How many slides of a label a query can find: those of other patients, or of its own site's."""

    within: Within | None
    same: Counter[tuple[str | None, str | None]]
    own: Counter[tuple[str | None, str | None, str | None]]

    @classmethod
    def of(cls, labelled: Iterable[SlideRow], within: Within | None) -> _Findable:
        keys = [(row.label, row.site if within else None, row.patient) for row in labelled]
        return cls(within, Counter((label, site) for label, site, _ in keys), Counter(keys))

    def answered(self, row: SlideRow, found: tuple[str, ...], failed: str = "") -> Answered:
        """Return the answer of a slide of the index."""
        return self._answered(row.slide_id, row.label, row.site, row.patient, found, failed)

    def lost(self, row: LabelRow) -> Answered:
        """Return the answer of a slide that is only in the labels file."""
        return self._answered(row.name, row.label, row.site, row.patient or row.name, (), _NOT_INDEXED)

    def _answered(
        self,
        query: str,
        label: str | None,
        site: str | None,
        patient: str | None,
        found: tuple[str, ...],
        failed: str,
    ) -> Answered:
        place = site if self.within else None
        relevant = self.same[label, place] - self.own[label, place, patient]
        return Answered(query, label or "", found, relevant, site=site or "", failed=failed)


def _not_indexed(labels: str | os.PathLike[str], slides: Iterable[SlideRow]) -> list[LabelRow]:
    """Return the rows of a labels file with a label and without a slide in the index."""
    table = read_labels(labels)
    unmatched = set(table.unmatched((row.path, row.slide_id) for row in slides))
    return [row for row in table.rows if row.label and row.name in unmatched]


def _check_within(index: Index, within: str | None, labelled: list[SlideRow]) -> None:
    """Refuse an evaluation within sites if some query has none."""
    if within is None:
        return
    if within != "site":
        raise ParameterError(f"got within={within!r}; want 'site', or None to search among all slides")
    bare = [row.slide_id for row in labelled if not row.site]
    if bare:
        some = ", ".join(bare[:3]) + (", ..." if len(bare) > 3 else "")
        raise QueryError(
            f"{index.path}: {len(bare)} of {len(labelled)} labelled slides have no site ({some}): give them "
            "one with sish index label, in a column site of the labels file, or evaluate without within"
        )


def _queries(snapshot: Snapshot) -> Iterator[tuple[Query, str, SlideCodes]]:
    """Yield each labelled slide as a query, with its label and stored codes."""
    rows = enumerate(snapshot.slides)
    numbers = [number for number, row in rows if row.label is not None and row.n_patches]
    for number, codes in zip(numbers, stored_codes(snapshot, numbers), strict=True):
        row = snapshot.slides[number]
        yield indexed_query(row, codes), row.label or "", codes
