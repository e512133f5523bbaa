"""``sish index push`` and ``sish index pull``: an archive into PostgreSQL, and back."""

from __future__ import annotations

from dataclasses import asdict

from jsonargparse import Namespace

from sish.cli.options import Command, add_index, add_json, open_index, show
from sish.parsing import ArgumentParser
from sish.printing import counted, print_line

ADDRESS = "postgresql://USER@HOST:PORT/DATABASE?archive=NAME"


def _push_options(parser: ArgumentParser) -> None:
    parser.add_argument("to", type=str, help=f"the archive, made if it is not there: {ADDRESS}")
    add_index(parser)
    parser.add_argument(
        "--replace", action="store_true", help="replace slides that are there with other codes"
    )
    parser.add_argument(
        "--partitions",
        type=int | None,
        help="partitions of a new archive, by ranges of keys (default: one on each server)",
    )
    parser.add_argument(
        "--servers",
        type=str,
        nargs="+",
        default=[],
        metavar="NAME",
        help="foreign servers (postgres_fdw) that hold partitions of a new archive, in turn with its own",
    )
    parser.add_argument(
        "--readers", type=str, nargs="+", default=[], metavar="ROLE", help="roles that may read the archive"
    )
    add_json(parser, "print the report as JSON")


def _push(arguments: Namespace) -> int:
    from sish.slide_index import Index

    report = open_index(arguments).push(
        arguments.to,
        replace=arguments.replace,
        partitions=arguments.partitions,
        servers=arguments.servers,
        readers=arguments.readers,
    )
    index = Index.open(arguments.to)
    show(
        arguments, asdict(report), [f"{report.summary()}; {index.path} holds {counted(len(index), 'slide')}"]
    )
    return 0


def _pull_options(parser: ArgumentParser) -> None:
    parser.add_argument("origin", type=str, metavar="from", help=f"the archive: {ADDRESS}")
    add_index(parser, "the folder to make, or one of an earlier pull, which is brought up to date")


def _pull(arguments: Namespace) -> int:
    from sish.slide_index import Index

    index = Index.open(arguments.origin)
    index.pull(arguments.index)
    print_line(f"pulled {counted(len(index), 'slide')} of {index.path} into {arguments.index}")
    return 0


COMMANDS = {
    "push": Command(
        "add its slides to an archive in PostgreSQL",
        "Add the slides of an index to an archive in PostgreSQL, all of them or none.",
        _push_options,
        _push,
    ),
    "pull": Command(
        "copy an archive in PostgreSQL into a folder",
        "Copy an archive in PostgreSQL into a folder, or bring an earlier copy up to date.",
        _pull_options,
        _pull,
    ),
}
"""The commands of ``sish index`` that are about PostgreSQL, by name."""
