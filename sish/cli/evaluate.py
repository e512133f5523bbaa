"""``sish evaluate``: measure how well an index answers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from sish.cli.options import Command, add_index, add_json, add_search, add_verify, given, open_index, show
from sish.cli.search import add_ranking
from sish.parsing import ArgumentParser


def _add_options(parser: ArgumentParser) -> None:
    add_index(parser)
    add_json(parser)
    parser.add_argument("-k", type=int, default=5, help="hits a query")
    add_ranking(parser)
    parser.add_argument(
        "--within", type=Literal["site"] | None, help="find only slides of the query's own site"
    )
    parser.add_argument(
        "--labels",
        type=str | None,
        help="labels file of all slides that should be in the index; those that are not count as misses",
    )
    parser.add_argument(
        "--out", type=str | None, help="folder to write tables (CSV, JSON) and a confusion picture (PNG) to"
    )
    add_search(parser)
    add_verify(parser)


def _run(arguments: Namespace) -> int:
    from sish.evaluation import evaluate
    from sish.outputs import check_outside_databases

    if arguments.out is not None:
        check_outside_databases(Path(arguments.out, "evaluation.json"))
    options = given(arguments, "k", "ranking", "within", "labels")
    found = evaluate(open_index(arguments), **options)
    if arguments.out is not None:
        found.write(arguments.out)
    show(arguments, found.to_dict(), found.lines())
    return 0


COMMAND = Command(
    help="measure retrieval, leaving each patient out in turn",
    description="Search every labelled slide with its own patient left out, and measure the answers.",
    add_options=_add_options,
    run=_run,
)
