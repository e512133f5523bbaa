"""A parser of command lines whose errors are one line and name the nearest option, command or value."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import jsonargparse

from sish.nearest import nearest_to
from sish.printing import printable

_CLASS = re.compile(r"<class\s+'(?:[\w.]*\.)?(\w+)'>")
_ROLE = re.compile(r"(?::\w+:)?(`+)~?([^`]+)\1")
_LITERAL = re.compile(r"typing\.Literal\[(.*?)\]")
_CHOICE = re.compile(r"invalid choice: '(.*?)' \(choose from (.*)\)$", re.DOTALL)
_VALUE = re.compile(r"Expected an? typing\.Literal\[(.*?)\]\. Got value: (.*)$", re.DOTALL)
_NUMBER = re.compile(
    r'Parser key "(.*?)": (?:Expected an? (int|float)\b|.* Subtypes: \[(int|float), NoneType\])'
    ".* value: (.*)$"
)
_NUMBERS = {"int": "a whole number", "float": "a number"}
_REQUIRED = "the following arguments are required: "
_UNKNOWN = "unrecognized arguments: "


class _HelpFormatter(jsonargparse.DefaultHelpFormatter):
    """Writes help; a default that a setting gave is not shown, as it may hold a password."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = super()._get_help_string(action)
        is_set = getattr(action, "is_set", False)
        return text.replace("%(default)s", "set, sish config shows it") if is_set else text


class ArgumentParser(jsonargparse.ArgumentParser):
    """jsonargparse's parser, with help and errors for people who do not read Python.

    Parameters
    ----------
    *given, **options
        As of jsonargparse. Only whole names of options are accepted by default, so that a typing error is not
        taken for a short form.
    settings : mapping of str to object
        Values, by names such as ``index``, that the options of these names have where the command line does
        not give them.
    """

    def __init__(self, *given: Any, settings: Mapping[str, Any] | None = None, **options: Any) -> None:
        """See the class."""
        self._settings = settings or {}
        super().__init__(*given, **{"allow_abbrev": False, "formatter_class": _HelpFormatter, **options})

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an argument; an option that has a setting has it as its default."""
        settings = getattr(
            self, "_settings", {}
        )  # jsonargparse makes groups with this method, which have none
        option = str(names[-1])
        is_set = option.startswith("-") and option.lstrip("-") in settings
        if is_set:
            options |= {"default": settings[option.lstrip("-")], "required": False}
        action: argparse.Action = super().add_argument(*names, **options)
        action.is_set = is_set  # type: ignore[attr-defined]
        return action

    def format_help(self, *given: Any) -> str:
        """Return the help, with types by their names and without the markup of docstrings."""
        return _ROLE.sub(r"\2", _CLASS.sub(r"\1", super().format_help(*given)))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print on one line what was wrong and which name is nearest, and exit with 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        near = _nearest(message, parser)
        super().error(printable(_plain(message, parser) + near), ex)


def _plain(message: str, parser: argparse.ArgumentParser) -> str:
    """Return a message of argparse or jsonargparse in plain words, on one line."""
    text = _LITERAL.sub(r"one of \1", _CLASS.sub(r"\1", " ".join(message.split())))
    if number := _NUMBER.match(text):
        return f"got {_as_typed(number[1], parser)} {number[4]}; want {_NUMBERS[number[2] or number[3]]}"
    if not text.startswith(_REQUIRED):
        return text
    names = text.removeprefix(_REQUIRED).split(", ")
    return _REQUIRED + ", ".join(_as_typed(name, parser) for name in names)


def _as_typed(name: str, parser: argparse.ArgumentParser) -> str:
    """Return an argument's name as it is typed: ``--index`` for ``search.index``."""
    command, _, rest = name.partition(".")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and command in action.choices:
            return _as_typed(rest, action.choices[command])
        if action.dest == name:
            return next(iter(action.option_strings), name)
    return f"--{name}"


def _nearest(message: str, parser: argparse.ArgumentParser) -> str:
    if message.startswith(_UNKNOWN):
        word = message.removeprefix(_UNKNOWN).split()[0].partition("=")[0]
        return nearest_to(word, parser._option_string_actions) if word.startswith("-") else ""
    if choice := _CHOICE.search(message):
        return nearest_to(choice[1], re.findall(r"'(.*?)'", choice[2]))
    if value := _VALUE.search(message):
        return nearest_to(value[2].strip(), re.findall(r"'(.*?)'", value[1]))
    return ""
