"""Measure what relevance feedback gains: mark the first hits, ask again, look at slides not shown yet.

Every labelled image of a folder (`benchmarks.datasets`) asks the index of all, its own group left out. Its
first 5 (or 10) hits are marked by their true labels as like or unlike, and the same search is asked again
with the marks. Both answers leave out what was shown (residual collection). The measure is the share of the
query's label among the first five that are left. The difference is paired by query; its interval is a
bootstrap over queries within classes. Methods:

sish            `Index.search(like=, unlike=)`
like, unlike    only one kind of marks
concept         the marks as the two sides of a `sish.Concept` of strength 0.5
rocchio         barcodes as vectors of +-1, each query patch moved by Rocchio's rule to the sign of
                q + 3 mean(like) - 2 mean(unlike)

In the rows `left: groups` also the groups of the shown slides are left out. Where the images of a group are
of one stain and one label, a liked image finds its group by its stain; these rows show the gain without that.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.datasets import Dataset, load_dataset
from benchmarks.retrieval import Archive, Bench
from benchmarks.rows import write_rows
from sish.encode import SlideCodes
from sish.errors import ParameterError, SishError
from sish.examples import Examples
from sish.index.vector_coder import VectorKind
from sish.metrics import bootstrap_interval
from sish.printing import print_line
from sish.queries import query_of_indexed
from sish.recipe import Keys, Recipe
from sish.refinement import Concept, Refinement
from sish.results import Query
from sish.view import RankingName

K = 5
SHOWN = (5, 10)
QUICK = (600, 60)
"""Images and queries of a quick run."""

Left = Literal["slides", "groups"]
Refined = tuple[SlideCodes, Examples | None]


@dataclass(frozen=True, slots=True)
class Row:
    """A method in one setting."""

    dataset: str
    method: str
    ranking: str
    shown: int
    """Hits that were marked."""
    left: Left
    """What is left out of the answers: the shown slides, or their groups."""
    queries: int
    liked: float
    """Mean number of hits that were marked as like."""
    before: float
    """Share of the right label among the next five, without feedback."""
    after: float
    """The same, with feedback."""
    difference: float
    low: float
    high: float


class Session:
    """Searches of one index, with marks by true labels."""

    def __init__(self, archive: Archive, ranking: RankingName) -> None:
        """Take the index."""
        self.index, self.ranking = archive.index, ranking
        self.state, self.view = archive.index.state_and_view()
        self.slides = self.view.searcher.slides
        rows = [self.slides[number] for number in range(len(self.slides))]
        self.label = {row.slide_id: row.label for row in rows}
        self.group = {row.slide_id: row.patient for row in rows}

    def hits(
        self, query: Query, refined: Refined, k: int, left_out: Sequence[str] = (), left: Left = "slides"
    ) -> list[str]:
        """Return the ids of the first hits, without some slides (or their groups)."""
        mask = np.ones(len(self.slides), bool)
        for slide_id in left_out:
            column, value = ("slide_id", slide_id) if left == "slides" else ("patient", self.group[slide_id])
            mask &= ~self.slides.has(column, value)
        codes, examples = refined
        found = self.view.search(
            query, codes, k=k, ranking=self.ranking, exclude_patient=True, mask=mask, examples=examples
        )
        return [hit.slide_id for hit in found]

    def right(self, slide_id: str, found: Sequence[str]) -> float:
        """Return the share of the first five that have the label of a slide."""
        return sum(self.label[one] == self.label[slide_id] for one in found) / K

    def refined(
        self, codes: SlideCodes, like: list[str], unlike: list[str], concept: Concept | None = None
    ) -> Refined:
        """Return what the library asks with."""
        return Refinement.of(like, unlike, concept).applied(codes, self.state, self.index.encoder)

    def codes(self, slide_id: str) -> SlideCodes:
        """Return the stored codes of a slide."""
        row = self.state.row(slide_id)
        assert row is not None, slide_id
        return query_of_indexed(row, self.state.segments, None)[1]


def _concept(session: Session, codes: SlideCodes, like: list[str], unlike: list[str]) -> Refined:
    if not like or not unlike:
        return codes, None
    return session.refined(codes, [], [], Concept(like, unlike))


def _rocchio(session: Session, codes: SlideCodes, like: list[str], unlike: list[str]) -> Refined:
    """Move each query patch as a vector of +-1; a bit that comes to 0 stays."""
    moved = own = _signs(codes.barcodes)
    for slides, weight in ((like, 3.0), (unlike, -2.0)):
        if slides:
            patches = np.concatenate([session.codes(slide_id).barcodes for slide_id in slides])
            moved = moved + weight * _signs(patches).mean(axis=0)
    barcodes = np.packbits(np.where(moved == 0, own, moved) > 0, axis=1)
    return replace(codes, barcodes=barcodes), None


def _signs(barcodes: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.unpackbits(barcodes, axis=1).astype(np.float64) * 2 - 1


METHODS: dict[str, Callable[[Session, SlideCodes, list[str], list[str]], Refined]] = {
    "sish": lambda session, codes, like, unlike: session.refined(codes, like, unlike),
    "like": lambda session, codes, like, unlike: session.refined(codes, like, []),
    "unlike": lambda session, codes, like, unlike: session.refined(codes, [], unlike),
    "concept": _concept,
    "rocchio": _rocchio,
}


def rows_of(name: str, session: Session, asked: Sequence[tuple[Query, SlideCodes]]) -> Iterator[Row]:
    """Yield a row for each method and setting."""
    for shown in SHOWN:
        marks = [_marks(session, query, codes, shown) for query, codes in asked]
        for left in get_args(Left):
            before = _residual(session, asked, marks, left, lambda _s, codes, _l, _u: (codes, None))
            for method, refine in METHODS.items():
                after = _residual(session, asked, marks, left, refine)
                labels = [session.label[query.slide_id] or "" for query, _ in asked]
                low, high = bootstrap_interval((after - before).tolist(), labels, over_classes=False)
                yield Row(
                    dataset=name,
                    method=method,
                    ranking=session.ranking,
                    shown=shown,
                    left=left,
                    queries=len(asked),
                    liked=float(np.mean([len(like) for like, _ in marks])),
                    before=float(before.mean()),
                    after=float(after.mean()),
                    difference=float((after - before).mean()),
                    low=low,
                    high=high,
                )


def _marks(session: Session, query: Query, codes: SlideCodes, shown: int) -> tuple[list[str], list[str]]:
    """Return the first hits that have the query's label, and the others."""
    found = session.hits(query, (codes, None), shown)
    wanted = session.label[query.slide_id]
    return [it for it in found if session.label[it] == wanted], [
        it for it in found if session.label[it] != wanted
    ]


def _residual(
    session: Session,
    asked: Sequence[tuple[Query, SlideCodes]],
    marks: Sequence[tuple[list[str], list[str]]],
    left: Left,
    refine: Callable[[Session, SlideCodes, list[str], list[str]], Refined],
) -> NDArray[np.float64]:
    """Return the share of right labels among the next five of each query, (Q,)."""
    shares = []
    for (query, codes), (like, unlike) in zip(asked, marks, strict=True):
        found = session.hits(query, refine(session, codes, like, unlike), K, [*like, *unlike], left)
        shares.append(session.right(query.slide_id, found))
    return np.array(shares)


def measure(dataset: Dataset, recipe: Recipe, mpp: float | None, rerank: VectorKind | None) -> list[Row]:
    """Index a data set and return all rows."""
    if dataset.multi_label or not dataset.leave_one_out:
        raise ParameterError(f"{dataset.name}: want images of one label each, all queries among all others")
    with tempfile.TemporaryDirectory(prefix="sish-refinement-") as folder:
        bench = Bench(dataset, ("sish",), recipe, mpp, Path(folder), rerank)
        archive = bench.archive(recipe.keys)
        asked = [(_query(item.item_id, item.group, archive), archive.queries[item.item_id])
                 for item in dataset.queries if item.item_id in archive.queries]  # fmt: skip
        rankings: tuple[RankingName, ...] = ("similarity", "uncertainty")
        sessions = [Session(archive, ranking) for ranking in rankings[: 1 if archive.single_patches else 2]]
        return [row for session in sessions for row in rows_of(dataset.name, session, asked)]


def _query(item_id: str, group: str | None, archive: Archive) -> Query:
    return Query(item_id, None, group or item_id, None, None, len(archive.queries[item_id]), None)


def of_groups(dataset: Dataset, parity: str) -> Dataset:
    """Return the images of the groups whose number, the end of their name, is odd or even."""

    def is_wanted(group: str | None) -> bool:
        number = re.search(r"(\d+)$", group or "")
        if number is None:
            raise ParameterError(
                f"{dataset.name}: got a group {group!r} without a number; leave out --groups"
            )
        return int(number[1]) % 2 == (parity == "odd")

    items = tuple(item for item in dataset.items if is_wanted(item.group))
    return replace(dataset, name=f"{dataset.name} {parity}", queries=items, database=items)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table."""
    names = (
        f"{'data':12} {'ranking':12} {'shown':>5} {'left':7} {'method':8}",
        "before",
        "after",
        "difference",
    )
    yield "{} {:>7} {:>7} {:>11}  95 %".format(*names)
    for it in rows:
        yield (
            f"{it.dataset:12.12} {it.ranking:12} {it.shown:5} {it.left:7} {it.method:8} {it.before:7.4f} "
            f"{it.after:7.4f} {it.difference:+11.4f}  [{it.low:+.4f}, {it.high:+.4f}]"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.refinement", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("dataset", type=Path, help="folder with a labels.csv")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument(
        "--quick", action="store_true", help="at most {} images and {} queries".format(*QUICK)
    )
    parser.add_argument("--mpp", type=float, help="um per pixel of images that do not tell theirs")
    parser.add_argument(
        "--groups", choices=["odd", "even"], help="only groups whose names end with such a number"
    )
    parser.add_argument("--keys", choices=get_args(Keys), default="texture", help="the kind of keys")
    parser.add_argument("--rerank", choices=["int8", "float16"], help="let the index keep features")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        dataset = load_dataset(given.dataset, mpp=given.mpp)
        dataset = of_groups(dataset, given.groups) if given.groups else dataset
        dataset = dataset.sample(QUICK[0], queries=QUICK[1]) if given.quick else dataset
        rows = measure(dataset, replace(Recipe(), keys=given.keys), given.mpp, given.rerank)
        if given.json:
            write_rows(given.json, [asdict(row) for row in rows])
    except SishError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in table(rows):
        print_line(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
