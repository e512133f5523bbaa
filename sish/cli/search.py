"""``sish search``: find slides that look like a slide, a region or an image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from sish.annotations import Annotation, read_annotations
from sish.cli.hits_csv import PRINTED, add_csv, check_csv, write_csv
from sish.cli.options import (
    Command,
    add_device,
    add_failures,
    add_index,
    add_json,
    add_origin,
    add_scale,
    add_search,
    add_verify,
    check_failures_option,
    given,
    open_index,
    show,
    write_failures_option,
)
from sish.errors import QueryError, SlideError
from sish.failures import Failure
from sish.filters import where_of
from sish.parsing import ArgumentParser
from sish.printing import counted, print_error
from sish.results import SCORE, Results
from sish.slides.files import slide_id_of

if TYPE_CHECKING:
    from sish.slide_index import Index
    from sish.slides.region import Region

_ROW = "{:>3}  {:32}  {:20}  {:>5}  {:>9}  {:>10}"


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("queries", type=str, nargs="+", help="slides or images to search for")
    add_index(parser)
    parser.add_argument("-k", type=int, default=5, help="hits wanted")
    add_scale(parser, "the query")
    parser.add_argument(
        "--region", type=int, nargs=4, metavar=("X", "Y", "W", "H"), help="part of it, level-0 pixels"
    )
    parser.add_argument(
        "--region-geojson", type=str | None, metavar="FILE",
        help="annotations drawn on it in QuPath: search for the box around each",
    )  # fmt: skip
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
    parser.add_argument(
        "--like", type=str, nargs="+", metavar="ID",
        help="slides of the index that are like what is wanted: refine the search by them",
    )  # fmt: skip
    parser.add_argument(
        "--unlike",
        type=str,
        nargs="+",
        metavar="ID",
        help="slides of the index that are not: they are left out",
    )
    parser.add_argument("--weights", type=str | None, help="where the encoder's weights are now")
    add_search(parser)
    add_verify(parser)
    add_device(parser)
    add_json(parser, "print JSON; a list of objects for several queries")
    add_csv(parser)
    add_failures(parser)
    parser.add_argument("--report", type=str | None, help="write a self-contained HTML page")
    parser.add_argument(
        "--geojson",
        type=str | None,
        metavar="FOLDER",
        help="write the matched patches for QuPath, a file a slide",
    )
    add_origin(parser)


def add_ranking(parser: ArgumentParser) -> None:
    """Let a parser know ``--ranking``."""
    parser.add_argument(
        "--ranking", choices=["auto", "uncertainty", "similarity"], default="auto", help="how to rank"
    )


def _run(arguments: Namespace) -> int:
    from sish.qupath import check_folder
    from sish.report import check_report, write_report

    queries, report = arguments.queries, arguments.report
    _check_regions(arguments)
    index = open_index(arguments)
    if report is not None:
        check_report(report, queries, index)
    if arguments.csv is not None:
        check_csv(arguments, chain(queries, (row.path for row in index.slides)))
    if arguments.geojson is not None:
        check_folder(arguments.geojson)
    check_failures_option(arguments, queries)
    asked = _asked(arguments, index)
    answers, failed = _answers(arguments, index, asked)
    write_failures_option(arguments, failed.values())
    if report is not None and answers:  # a page of nothing replaces no earlier one
        write_report(answers, report, index=index)
    is_shown = _show_in_qupath(arguments, index, answers)
    plain = [answer.to_dict() for answer in answers]
    is_one = len(queries) == 1 and arguments.region_geojson is None
    if arguments.csv is not None and answers:
        write_csv(arguments.csv, plain, Results.HIT_FIELDS)
    if arguments.csv != PRINTED:
        show(arguments, plain[0] if is_one else plain, _as_lines(answers))
    return 0 if is_shown and len(answers) == len(asked) else 1


def _check_regions(arguments: Namespace) -> None:
    """Refuse several queries with one region, a region that is given twice, and output beside its input."""
    given = [name for name in ("region", "region_geojson") if arguments[name] is not None]
    option = "--" + given[0].replace("_", "-") if given else ""
    if given and len(arguments.queries) > 1:
        raise QueryError(f"got {option} with {len(arguments.queries)} queries; give one query")
    if len(given) > 1:
        raise QueryError("got --region and --region-geojson; give one of the two")
    drawn, folder = arguments.region_geojson, arguments.geojson
    if drawn and folder and os.path.realpath(folder) == os.path.dirname(os.path.realpath(drawn)):  # noqa: PTH120
        raise QueryError(f"{drawn} lies in the folder of --geojson; give another folder to write to")


def _asked(arguments: Namespace, index: Index) -> list[tuple[str, Region | Annotation | None]]:
    """Return what is searched for: each query with its region, or a query with each annotation."""
    queries = arguments.queries
    if arguments.region_geojson is None:
        region = tuple(arguments.region) if arguments.region else None
        return [(query, region) for query in queries]
    (query,) = queries
    rows = () if os.path.lexists(query) else index.slides
    slide = next((row.path for row in rows if row.slide_id == query), query)
    drawn = read_annotations(arguments.region_geojson, slide, origin=arguments.origin)
    return [(query, annotation) for annotation in drawn]


def _answers(
    arguments: Namespace, index: Index, asked: Sequence[tuple[str, Region | Annotation | None]]
) -> tuple[list[Results], dict[str, Failure]]:
    """Search for each query; of several, one that cannot be read is told, left out and returned as failed."""
    options: dict[str, Any] = {
        **given(
            arguments, "k", "mpp", "override_mpp", "ranking", "exclude_patient", "patient", "like", "unlike"
        ),
        "where": where_of(arguments.where),
    }
    answers, failed = list[Results](), dict[str, Failure]()
    for query, region in asked:
        try:
            answers.append(index.search(query, region=region, **options))
        except SlideError as error:
            failed[query] = slide_id_of(query), query, str(error)
            if len(asked) == 1:
                write_failures_option(arguments, failed.values())
                raise
            print_error(f"sish: skipped: {error}")
        except QueryError as error:
            if len(asked) == 1 or not isinstance(region, Annotation):
                raise
            print_error(f"sish: skipped: {region.name}: {error}")
    return answers, failed


def _show_in_qupath(arguments: Namespace, index: Index, answers: Sequence[Results]) -> bool:
    """Write the answers for QuPath, if a folder was given; return whether no slide was left out."""
    from sish.qupath import write_geojson

    if arguments.geojson is None or not answers:
        return True
    left_out = write_geojson(answers, arguments.geojson, index=index, origin=arguments.origin).left_out
    for slide in left_out:
        print_error(f"sish: left out of {arguments.geojson}: {slide.reason}")
    return not left_out


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
    of = query.slide_id if query.region_name is None else f"{query.slide_id}, {query.region_name}"
    yield f"{of}: {counted(query.n_patches, 'patch', 'es')}, {results.headline}"
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
