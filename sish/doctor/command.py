"""The command ``sish doctor``, which also runs where the packages of the other commands do not load."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from sish.doctor.children import run_checks
from sish.doctor.examination import Examination, check_names
from sish.doctor.findings import Check
from sish.doctor.private import Private
from sish.printing import make_printable, print_error, print_line

DESCRIPTION = (
    "Check this installation: versions, decoders, devices, the cache of compiled code, and a search with a "
    "known answer. Exits with 1 if something that sish needs is broken, else with 0, also if optional parts "
    "are missing."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a parser know the options."""
    parser.add_argument("--index", type=str, default=None, help="an index to check, too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--report",
        action="store_true",
        help="print Markdown for an issue, without names of users, machines and folders",
    )


def run(arguments: Any) -> int:
    """Check everything, print what is found as soon as it is known, and return the exit code."""
    names = check_names(arguments.index)
    is_listed = not (arguments.json or arguments.report)
    width = max(map(len, names))
    checks: list[Check] = []
    for check in run_checks(names, arguments.index):
        checks.append(check)
        if is_listed:
            print_line(check.line(width))
            sys.stdout.flush()
    found = Examination(tuple(checks))
    if arguments.json:
        sys.stdout.write(json.dumps(found.to_dict(), indent=2) + "\n")
    elif arguments.report:
        sys.stdout.write(found.report(Private.here(arguments.index)))
    else:
        print_line(found.summary())
    return 0 if found.is_sound else 1


def main(words: Sequence[str]) -> int:
    """Run the command without the parser of the other commands, whose packages may be broken."""
    make_printable()
    parser = argparse.ArgumentParser(prog="sish doctor", description=DESCRIPTION, allow_abbrev=False)
    add_options(parser)
    try:
        code = run(parser.parse_args(words))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print_error("sish: interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output left, as in `sish doctor | head`
        sys.stderr.close()
        return 1
    except OSError as error:
        print_error(f"sish: error: the output cannot be written: {error.strerror}")
        return 1
