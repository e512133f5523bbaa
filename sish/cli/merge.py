"""``sish index merge``: one index of the shards of an archive."""

from __future__ import annotations

from dataclasses import asdict

from jsonargparse import Namespace

from sish.cli.options import Command, add_dry_run, add_json, show
from sish.parsing import ArgumentParser
from sish.printing import counted, print_error


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("index", type=str, metavar="OUT", help="the index's folder; made if it is not there")
    parser.add_argument("shards", type=str, nargs="+", metavar="SHARD", help="the folders of all shards")
    add_dry_run(parser)
    add_json(parser, "print the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def _merge(arguments: Namespace) -> int:
    from sish.shard_merge import merge, plan_merge

    if arguments.dry_run:
        report = plan_merge(arguments.index, arguments.shards)
    else:
        report = merge(arguments.index, arguments.shards, show_progress=not arguments.quiet)
    for skipped in report.failed:
        print_error(f"sish: failed in its shard: {skipped.reason}")
    slides = counted(report.merged + report.already, "slide")
    if arguments.dry_run:
        line = f"{report.merged} to merge, {report.already} already there; nothing was written"
    else:
        line = f"{report.merged} merged, {report.already} already there; {arguments.index} holds {slides}"
    show(arguments, asdict(report), [line])
    return 0


MERGE = Command(
    "make one index of all shards",
    "Make one index of the shards that index add --shard filled. Resumable.",
    _options,
    _merge,
)
"""The command ``sish index merge``."""
