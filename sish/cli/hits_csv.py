"""``--csv`` of a search: its hits as a table, written to a file or printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jsonargparse import Namespace

from sish.answers import csv_of
from sish.errors import QueryError
from sish.outputs import check_output, write_output
from sish.parsing import ArgumentParser
from sish.printing import print_error, print_line
from sish.tables import table_of

PRINTED = "-"
"""The name that stands for standard output."""

_ENDINGS = (".csv",)


def add_csv(parser: ArgumentParser) -> None:
    """Let a parser know ``--csv``."""
    parser.add_argument(
        "--csv",
        type=str | None,
        metavar="FILE",
        help="write a table, a row for each hit, the query's columns first; - prints it. A text that a "
        "spreadsheet would run as a formula gets an apostrophe before it",
    )


def check_csv(arguments: Namespace, inputs: Iterable[str]) -> None:
    """Refuse a table that cannot be written, before anything is searched.

    Parameters
    ----------
    arguments : Namespace
        The options of the command.
    inputs : iterable of str
        Files that must not be replaced.

    Raises
    ------
    QueryError
        If the table and JSON would both be printed.
    ParameterError
        If the file would replace an input, or a file of another kind.
    """
    if arguments.csv == PRINTED and arguments.json:
        raise QueryError("got --json and --csv -, which both print the answer; give --csv a file")
    if arguments.csv != PRINTED:
        check_output(arguments.csv, inputs=inputs, replaces=_ENDINGS)


def write_csv(path: str, answers: Sequence[Mapping[str, Any]], hit_fields: Sequence[str]) -> None:
    """Write the hits of answers as CSV, or print them, with the notes on standard error.

    Parameters
    ----------
    path : str
        The file, or `PRINTED`.
    answers : sequence of mapping
        Answers, as ``to_dict`` gives them.
    hit_fields : sequence of str
        The fields of a hit.
    """
    columns, rows = table_of(answers, hit_fields)
    text = csv_of(rows, columns)
    if path != PRINTED:
        write_output(path, text.encode(errors="backslashreplace"), replaces=_ENDINGS)
        return
    for line in text.split("\r\n")[:-1]:
        print_line(line)
    for answer in answers:
        if answer["note"]:
            print_error(f"sish: {answer['query']['slide_id']}: {answer['note']}")
