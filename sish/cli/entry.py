"""``main`` runs the command line: it picks the command, and tells every error on one line.

Exit codes: 0 done; 1 an error, or some slides of an add failed; 2 a wrong command line; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from jsonargparse import set_parsing_settings

from sish.cli import config, database, demo, doctor, evaluate, export, heatmap, index, preview, search, serve
from sish.cli.logs import add_log, logging_to, print_and_log_error, taken_from, told
from sish.cli.options import add_commands
from sish.configuration import Value, read_settings
from sish.errors import MissingPackageError, SishError
from sish.parsing import ArgumentParser
from sish.printing import make_printable, print_error, warnings_on_one_line
from sish.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    make_printable()
    with warnings_on_one_line():
        try:
            choice, words = taken_from(words)
            found = read_settings()
            settings = {name: setting.value for name, setting in found.items()}
            with logging_to(choice.or_else(settings)), told(_name_of(words), found) as codes:
                codes.append(_guarded(words, settings))
                return codes[0]
        except SishError as error:  # about the settings, or the log itself
            print_error(f"sish: error: {error}")
            return 1


def _guarded(words: list[str], settings: Mapping[str, Value]) -> int:
    """Run a command; tell whatever goes wrong on one line."""
    try:
        code = _run(words, settings)
        sys.stdout.flush()
        return code
    except SishError as error:
        print_and_log_error(f"sish: error: {error}")
        return 1
    except KeyboardInterrupt:
        print_and_log_error("sish: interrupted; nothing that was stored is lost")
        return 130
    except BrokenPipeError:  # the reader of our output left, as in `sish index list | head`
        sys.stderr.close()
        return 1
    except OSError as error:
        print_and_log_error(f"sish: error: {error.filename or 'output'}: {error.strerror}; see to its folder")
        return 1


def _name_of(words: Sequence[str]) -> str:
    """Return the command that words begin with, such as ``sish index add``; others may hold a password."""
    first, second = [*words, "", ""][:2]
    if first == "index":
        return f"sish index {second}" if second in _OF_INDEX else "sish index"
    return f"sish {first}" if first in _COMMANDS or first in _PARSED_ELSEWHERE else "sish"


def _run(words: list[str], settings: Mapping[str, Value]) -> int:
    if words and words[0] in _PARSED_ELSEWHERE:
        return _PARSED_ELSEWHERE[words[0]][1](words)
    arguments = _parser(settings).parse_args(words)
    name = arguments.subcommand
    if name == "index":
        name, arguments = arguments.index.subcommand, arguments.index
        return _OF_INDEX[name].run(arguments[name])
    return _COMMANDS[name].run(arguments[name])


def _parser(settings: Mapping[str, Value]) -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # a field's help is its docstring
    parser = ArgumentParser(
        prog="sish", description="Find whole-slide images that look alike.", version=__version__
    )
    add_log(parser)
    commands = parser.add_subcommands(required=True)
    of_index = ArgumentParser(description="Make and keep an index of an archive.")
    commands.add_subcommand("index", of_index, help="make and keep an index of an archive")
    add_commands(
        of_index.add_subcommands(required=True), _OF_INDEX, settings
    )  # jsonargparse wants parents first
    add_commands(commands, _COMMANDS, settings)
    for name, (text, _) in _PARSED_ELSEWHERE.items():
        commands.add_subcommand(name, ArgumentParser(add_help=False), help=text)
    return parser


def _need_torch(command: str) -> None:
    """Refuse a command that trains where torch does not load (MissingPackageError)."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"{command} needs torch ({error}): "
            "pip install torch --index-url https://download.pytorch.org/whl/cpu, or a build for your GPU"
        ) from error


def _train(words: list[str]) -> int:
    _need_torch("sish train")
    from sish.vqvae.cli import main as train

    return train(words[1:], prog="sish train")


def _train_system(words: list[str]) -> int:
    _need_torch(f"sish {words[0]}")
    from sish.cli.training import main as train

    return train(words[0].removeprefix("train-"), words[1:])


def _systems(words: list[str]) -> int:
    from sish.cli.systems import main as systems

    return systems(words[1:])


def _smily(words: list[str]) -> int:
    from sish.cli.smily import main as smily

    return smily(words[1:])


_OF_INDEX = {**index.COMMANDS, **database.COMMANDS}
_COMMANDS = {
    "search": search.COMMAND,
    "evaluate": evaluate.COMMAND,
    "preview": preview.COMMAND,
    "heatmap": heatmap.COMMAND,
    "export": export.COMMAND,
    "serve": serve.COMMAND,
    "demo": demo.COMMAND,
    "config": config.COMMAND,
    "doctor": doctor.COMMAND,
}
_PARSED_ELSEWHERE: dict[str, tuple[str, Callable[[list[str]], int]]] = {
    "train": ("train an encoder (Lightning command line)", _train),
    "train-codes": ("train a generator of X-ray codes (Lightning command line)", _train_system),
    "train-masks": ("train a predictor of lesion masks (Lightning command line)", _train_system),
    "systems": ("other ways to search", _systems),
    "smily": ("search for a region in all regions", _smily),
}
"""Commands that read their own words: one line on each, and what runs all of its words."""
