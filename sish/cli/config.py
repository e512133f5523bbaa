"""``sish config``: the settings that hold for all commands, and where they are from."""

from __future__ import annotations

import os

from jsonargparse import Namespace

from sish.cli.options import Command, add_json, show
from sish.configuration import FILE_VARIABLE, KINDS, configuration_file, read_settings, variable_of
from sish.index.postgres.addresses import place_of
from sish.nearest import nearest
from sish.parsing import ArgumentParser
from sish.printing import aligned, print_error


def _add_options(parser: ArgumentParser) -> None:
    add_json(parser)


def _run(arguments: Namespace) -> int:
    settings, file = read_settings(), configuration_file()
    rows = []
    for name in KINDS:
        found = settings.get(name)
        value = None if found is None else found.value
        if name == "index" and isinstance(value, str):
            value = str(place_of(value))  # without a password
        source = None if found is None else found.source
        rows.append({"setting": name, "value": value, "source": source, "variable": variable_of(name)})
    for variable in sorted(name for name in os.environ if name.startswith("SISH_")):
        asked = variable.removeprefix("SISH_").replace("_", "-").lower()
        if variable != FILE_VARIABLE and asked not in KINDS and (near := nearest(asked, KINDS)):
            print_error(f"sish: note: {variable} is no setting; nearest: {variable_of(near[0])}")
    state = "" if file.exists() else " (there is none)"
    shown = [{name: "-" if cell is None else str(cell) for name, cell in row.items()} for row in rows]
    show(
        arguments,
        {"file": str(file), "settings": rows},
        [f"file: {file}{state}; {FILE_VARIABLE} names another", "", *aligned(shown)],
    )
    return 0


COMMAND = Command(
    help="settings that hold for all commands, and where they are from",
    description="Show the settings of the configuration file and of environment variables, which hold where "
    "the command line says nothing else.",
    add_options=_add_options,
    run=_run,
)
