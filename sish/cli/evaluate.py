"""``sish evaluate``: measure how well an index answers."""

from __future__ import annotations

from jsonargparse import Namespace

from sish.cli.options import Command, add_index, add_json, add_search, add_verify, open_index, show
from sish.cli.search import add_ranking
from sish.parsing import ArgumentParser
from sish.printing import figure


def _add_options(parser: ArgumentParser) -> None:
    add_index(parser)
    add_json(parser)
    parser.add_argument("-k", type=int, default=5, help="hits a query")
    add_ranking(parser)
    add_search(parser)
    add_verify(parser)


def _run(arguments: Namespace) -> int:
    from sish.evaluation import evaluate

    found = evaluate(open_index(arguments), k=arguments.k, ranking=arguments.ranking)
    show(arguments, found.to_dict(), (f"{name:36} {figure(value):>14}" for name, value in found.rows()))
    return 0


COMMAND = Command(
    help="measure retrieval, leaving each patient out in turn",
    description="Search every labelled slide with its own patient left out, and measure the answers.",
    add_options=_add_options,
    run=_run,
)
