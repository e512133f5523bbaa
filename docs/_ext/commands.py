"""The reference of the command line, written by its own parsers."""

import argparse
import contextlib
import re
from collections.abc import Iterator
from unittest import mock

from sish.cli import main

_BESIDE = {"train": ("contrast", "export"), "train-codes": ("export",), "train-masks": ("export",)}
"""Commands below others that have a parser of their own."""

_CODE = re.compile(r"(?::\w+:)?(`+)~?(.+?)\1")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>$|~])")


def parser_of(words: list[str]) -> argparse.ArgumentParser:
    """Return the parser of a command, such as ``["index", "add"]``: the one that would print its help."""
    asked: list[argparse.ArgumentParser] = []

    def caught(parser: argparse.ArgumentParser, *_given: object) -> None:
        asked.append(parser)

    printing = mock.patch.object(argparse.ArgumentParser, "print_help", caught)
    settings = mock.patch("sish.cli.entry.read_settings", return_value={})  # not those of this machine
    with printing, settings, contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return asked[0]


def commands_below(words: list[str]) -> Iterator[tuple[list[str], argparse.ArgumentParser]]:
    """Yield a command and all that are below it, each with its parser."""
    parser = parser_of(words)
    yield words, parser
    names = [name for action in _branches(parser) for name in action.choices]
    for name in [*names, *_BESIDE.get(" ".join(words), ())]:
        yield from commands_below([*words, name])


def text(*words: str) -> str:
    """Return Markdown on a command and all below it; without a command, on `sish` itself."""
    told = commands_below(list(words)) if words else [([], parser_of([]))]
    shown: dict[str, str] = {}
    return "\n".join(line for below, parser in told for line in _told(below, parser, shown))


def _branches(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    return (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def _told(words: list[str], parser: argparse.ArgumentParser, shown: dict[str, str]) -> Iterator[str]:
    """Yield the lines on one command; `shown` has the lists of options that the page holds already."""
    name = " ".join(["sish", *words])
    yield f"## `{name}`\n\n{_plain(parser.description)}\n"
    for action in _branches(parser):
        told = {it.dest: it.help for it in action._choices_actions}
        yield "| command | |\n|---|---|"
        yield from (
            f"| {_linked(f'{name} {it}') if words else f'`{name} {it}`'} | {_plain(told.get(it))} |"
            for it in action.choices
        )
        yield ""
    for group in parser._action_groups:
        listed = "\n".join(_listed(parser, group))
        if not listed:
            continue
        if group.title not in ("positional arguments", "options"):
            yield f"**{_plain(group.title)}**\n"
        if listed in shown:
            yield f"The same as those of {_linked(shown[listed])}.\n"
        else:
            shown[listed] = name
            yield listed


def _listed(parser: argparse.ArgumentParser, group: argparse._ArgumentGroup) -> Iterator[str]:
    """Yield a definition for each option of a group."""
    form = parser._get_formatter()
    for action in group._group_actions:
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        if any(name == "--help" or name.endswith(".help") for name in action.option_strings):
            continue
        names = argparse.HelpFormatter._format_action_invocation(form, action).replace("`", "'")
        told = form._expand_help(action) if action.help else ""
        yield f"`{names}`\n: {_plain(told) or 'see above'}\n"


def _plain(text: str | None) -> str:
    """Return a text of a parser as Markdown on one line; its roles and quoted names become code."""
    pieces = _CODE.split(" ".join((text or "").split()))
    plain = [_SPECIAL.sub(r"\\\1", piece) for piece in pieces[::3]]
    code = [f"`{piece}`" for piece in pieces[2::3]] + [""]
    return "".join(f"{before}{name}" for before, name in zip(plain, code, strict=True))


def _linked(name: str) -> str:
    """Return a link to a command of the same page."""
    return f"[`{name}`](#{name.replace(' ', '-')})"
