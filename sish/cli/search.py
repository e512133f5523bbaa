"""``sish search``: find slides that look like a slide, a region or an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from sish.cli.options import (
    Command,
    add_device,
    add_index,
    add_json,
    add_scale,
    add_search,
    add_verify,
    given,
    open_index,
    show,
)
from sish.errors import QueryError, SlideError
from sish.filters import where_of
from sish.parsing import ArgumentParser
from sish.printing import counted, print_error
from sish.results import SCORE, Results

if TYPE_CHECKING:
    from sish.slide_index import Index

_ROW = "{:>3}  {:32}  {:20}  {:>5}  {:>9}  {:>10}"


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("queries", type=str, nargs="+", help="slides or images to search for")
    add_index(parser)
    parser.add_argument("-k", type=int, default=5, help="hits wanted")
    add_scale(parser, "the query")
    parser.add_argument(
        "--region", type=int, nargs=4, metavar=("X", "Y", "W", "H"), help="part of it, level-0 pixels"
    )
    add_ranking(parser)
    parser.add_argument("--exclude-patient", action="store_true", help="leave out the query's own patient")
    parser.add_argument(
        "--patient", type=str | None, help="the query's patient, if the index does not know it"
    )
    parser.add_argument(
        "--where", type=str, action="append", default=[], metavar="COLUMN=VALUE",
        help="only slides with this value; also 'COLUMN>=50' (or <=, >, <), COLUMN=50..70 and "
        "'COLUMN!=VALUE', and COLUMN==VALUE for a value that begins with such a sign; of several for one "
        "column, any is enough",
    )  # fmt: skip
    parser.add_argument("--weights", type=str | None, help="where the encoder's weights are now")
    add_search(parser)
    add_verify(parser)
    add_device(parser)
    add_json(parser, "print JSON; a list of objects for several queries")
    parser.add_argument("--report", type=str | None, help="write a self-contained HTML page")


def add_ranking(parser: ArgumentParser) -> None:
    """Let a parser know ``--ranking``."""
    parser.add_argument(
        "--ranking", choices=["auto", "uncertainty", "similarity"], default="auto", help="how to rank"
    )


def _run(arguments: Namespace) -> int:
    from sish.report import check_report, write_report

    queries, report = arguments.queries, arguments.report
    if arguments.region and len(queries) > 1:
        raise QueryError(f"got --region with {len(queries)} queries; give one query")
    index = open_index(arguments)
    if report is not None:
        check_report(report, queries, index)
    answers = _answers(arguments, index)
    if report is not None and answers:  # a page of nothing replaces no earlier one
        write_report(answers, report, index=index)
    plain = [answer.to_dict() for answer in answers]
    show(arguments, plain[0] if len(queries) == 1 else plain, _as_lines(answers))
    return 0 if len(answers) == len(queries) else 1


def _answers(arguments: Namespace, index: Index) -> list[Results]:
    """Search for each query; of several, one that cannot be read is told and left out."""
    options: dict[str, Any] = {
        **given(arguments, "k", "mpp", "override_mpp", "ranking", "exclude_patient", "patient"),
        "region": tuple(arguments.region) if arguments.region else None,
        "where": where_of(arguments.where),
    }
    answers = []
    for query in arguments.queries:
        try:
            answers.append(index.search(query, **options))
        except SlideError as error:
            if len(arguments.queries) == 1:
                raise
            print_error(f"sish: skipped: {error}")
    return answers


def _as_lines(answers: Sequence[Results]) -> Iterator[str]:
    """Yield a table for each answer, then once for all what the columns mean."""
    for number, answer in enumerate(answers):
        yield from [""] * bool(number)
        yield from _table(answer)
    if not any(map(len, answers)):
        return
    yield ""
    yield SCORE
    yield "matched, median: patches of the query with a match in the slide, and their median distance"
    if any(answer.ranking == "uncertainty" for answer in answers):
        yield "ranked by uncertainty: matches of one label come first; scores may rise further down"


def _table(results: Results) -> Iterator[str]:
    query = results.query
    yield f"{query.slide_id}: {counted(query.n_patches, 'patch', 'es')}, {results.headline}"
    if len(results):
        yield _ROW.format("", "slide", "label", "score", "matched", "median")
    for hit in results:
        flag = "" if hit.placed else "  by similarity, to fill the list"
        flag = "  beyond the threshold: nearest, not similar" if hit.below_threshold else flag
        matched, median = f"{hit.n_matched}/{query.n_patches}", f"{hit.median_distance:g} bits"
        row = _ROW.format(hit.rank, hit.slide_id, hit.label or "-", f"{hit.score:.3f}", matched, median)
        yield row + flag


COMMAND = Command(
    help="find slides that look like a slide, a region or an image",
    description="Find slides that look like a slide, a region of one, or an image.",
    add_options=_add_options,
    run=_run,
)
