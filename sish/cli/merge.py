"""``sish index merge``: one index of the shards of an archive."""

from __future__ import annotations

from dataclasses import asdict

from jsonargparse import Namespace

from sish.cli.options import Command, add_json, show
from sish.parsing import ArgumentParser
from sish.printing import counted, print_error


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("index", type=str, metavar="OUT", help="the index's folder; made if it is not there")
    parser.add_argument("shards", type=str, nargs="+", metavar="SHARD", help="the folders of all shards")
    add_json(parser, "print the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _merge(arguments: Namespace) -> int:
    from sish.shard_merge import merge

    report = merge(arguments.index, arguments.shards, show_progress=not arguments.quiet)
    for skipped in report.failed:
        print_error(f"sish: failed in its shard: {skipped.reason}")
    slides = counted(report.merged + report.already, "slide")
    done = f"{report.merged} merged, {report.already} already there"
    show(arguments, asdict(report), [f"{done}; {arguments.index} holds {slides}"])
    return 0


MERGE = Command(
    "make one index of all shards",
    "Make one index of the shards that index add --shard filled. Resumable.",
    _options,
    _merge,
)
"""The command ``sish index merge``."""
