"""``sish demo``: the whole library on slides that it generates."""

from __future__ import annotations

from jsonargparse import Namespace

from sish.cli.options import Command
from sish.parsing import ArgumentParser


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=str, nargs="?", default="demo", help="where to put it all")
    parser.add_argument("--slides", type=int, default=36, help="how many slides to generate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the slides")


def _run(arguments: Namespace) -> int:
    from sish.demo.run import run_demo

    run_demo(arguments.folder, n_slides=arguments.slides, seed=arguments.seed)
    return 0


COMMAND = Command(
    help="generate slides, index, search, evaluate, report",
    description="Generate slides, index them, search, evaluate, and write a report to look at.",
    add_options=_add_options,
    run=_run,
)
