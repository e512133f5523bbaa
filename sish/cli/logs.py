"""Where a command writes its log: ``-v`` to standard error, ``--log-file`` to a file.

The library logs to the loggers below ``sish``, which are named after its modules. A log tells what happens
while it happens. The report of a command, and its notes and errors, are printed whether there is a log or
not; the log file gets the errors and warnings too, so that it is complete by itself.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from sish.configuration import Setting
from sish.errors import OutputError, ParameterError
from sish.outputs import check_output
from sish.parsing import ArgumentParser
from sish.printing import print_error, printable
from sish.version import __version__

_LOG = logging.getLogger(__name__)
_SISH = logging.getLogger("sish")

_OTHERS = ("tifffile", "pytorch_lightning", "lightning.pytorch", "lightning_fabric", "uvicorn")
"""Loggers of other packages whose warnings are of use beside ours; the log file gets them too."""

_ENDINGS = (".log", ".txt")
"""Endings of the files that a log may be appended to."""

_VERBOSE = re.compile("-v+")

_PRINTED = {"printed": True}
"""Marks a record whose text was printed on standard error too."""


@dataclass(frozen=True, slots=True)
class LogChoice:
    """What a command line says about the log."""

    verbosity: int = 0
    """0: nothing on standard error; 1: what happens; 2: also details."""
    file: str | None = None
    """The file to append to."""

    def or_else(self, settings: Mapping[str, Any]) -> LogChoice:
        """Return the choice; the settings ``verbose`` and ``log-file`` hold where the line says nothing."""
        return LogChoice(self.verbosity or settings.get("verbose", 0), self.file or settings.get("log-file"))


def add_log(parser: ArgumentParser) -> None:
    """Let the help of a parser name the options that :func:`taken_from` takes from the words."""
    group = parser.add_argument_group("log")
    group.add_argument(
        "-v", "--verbose", action="store_true", help="log what happens on standard error; -vv: details too"
    )
    group.add_argument("--log-file", type=str | None, metavar="FILE.log", help="append the log to this file")


def taken_from(words: Sequence[str]) -> tuple[LogChoice, list[str]]:
    """Return what the words of a command say about the log, and the other words.

    The options may stand before the command's name or after it, also of commands that read their own words.

    Parameters
    ----------
    words : sequence of str
        The words; those after ``--`` are never options.

    Returns
    -------
    choice : LogChoice
        What they say.
    rest : list of str
        The other words, in order.

    Raises
    ------
    ParameterError
        If ``--log-file`` has no file.

    Examples
    --------
    >>> taken_from(["-v", "search", "a.svs", "--log-file", "a.log", "-k", "3"])
    (LogChoice(verbosity=1, file='a.log'), ['search', 'a.svs', '-k', '3'])
    """
    verbosity, file, rest = 0, None, list[str]()
    left = iter(words)
    for word in left:
        if word == "--":
            rest += [word, *left]
        elif word == "--verbose" or _VERBOSE.fullmatch(word):
            verbosity += 1 if word == "--verbose" else len(word) - 1
        elif word == "--log-file" or word.startswith("--log-file="):
            file = word.partition("=")[2] if "=" in word else next(left, "")
            if not file or (file.startswith("-") and "=" not in word):
                raise ParameterError("got --log-file without a file; want its path, such as add.log")
        else:
            rest.append(word)
    return LogChoice(verbosity, file), rest


@contextmanager
def logging_to(choice: LogChoice) -> Iterator[None]:
    """Write the log where it is wanted while the context is open.

    Parameters
    ----------
    choice : LogChoice
        Where.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ParameterError
        If the file is no log, or lies inside an index.
    """
    with ExitStack() as stack:
        handlers = list[logging.Handler]()
        if choice.verbosity:
            handlers.append(_Shown(logging.INFO if choice.verbosity == 1 else logging.DEBUG))
        if choice.file is not None:
            file = _LogFile(stack.enter_context(_opened(choice.file)), choice.file)
            handlers.append(file)
            stack.enter_context(_warnings_logged())
        for logger in map(logging.getLogger, ("sish", *_OTHERS)):
            for handler in handlers:
                logger.addHandler(handler)
                stack.callback(logger.removeHandler, handler)
        if handlers:
            stack.callback(_SISH.setLevel, _SISH.level)
            _SISH.setLevel(min(handler.level for handler in handlers))
        yield


@contextmanager
def told(name: str, settings: Mapping[str, Setting]) -> Iterator[list[int]]:
    """Log that a command begins and how it ends; whoever runs it puts its exit code into the list."""
    start, codes = time.perf_counter(), list[int]()
    _LOG.info("%s begins, process %d, version %s", name, os.getpid(), __version__)
    for setting, found in settings.items():
        _LOG.debug("the setting %s is from %s", setting, found.source)  # its value may hold a password
    try:
        yield codes
    except SystemExit as stop:  # a wrong command line
        codes.append(stop.code if isinstance(stop.code, int) else 1)
        raise
    except BaseException:
        _LOG.exception("%s ended by an error that is a fault of sish", name)
        raise
    finally:
        code = codes[0] if codes else 1
        _LOG.info("%s ends with exit code %d after %.1f s", name, code, time.perf_counter() - start)


def print_and_log_error(text: str) -> None:
    """Print an error on standard error, and let the log file have it."""
    print_error(text)
    _LOG.error("%s", printable(text), extra=_PRINTED)


@contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    """Open a log to append to it, once it is sure that it is no other file."""
    path = Path(name)
    try:
        check_output(path, replaces=_ENDINGS)
        if not path.exists() and path.suffix.lower() not in _ENDINGS:  # the next command would refuse it
            raise ParameterError(f"got the log {name}; want a file that ends with {' or '.join(_ENDINGS)}")
        file = path.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(
            f"cannot write the log {name}: {error.strerror}; give another --log-file", path=path
        ) from error
    try:
        yield file
    finally:
        with suppress(OSError):  # the handler told what could not be written
            file.close()


@contextmanager
def _warnings_logged() -> Iterator[None]:
    """Let the log file have Python's warnings too."""
    usual = warnings.showwarning

    def show(message: Warning | str, *place: object) -> None:
        usual(message, *place)  # type: ignore[arg-type]
        _LOG.warning("%s", printable(str(message)), extra=_PRINTED)

    warnings.showwarning = show  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning = usual


class _Format(logging.Formatter):
    """Formats records so that a name of a file can neither forge a line nor control the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record, its text on one line."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        """Return a traceback, each of its lines indented: no text in it can pass for a record."""
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join(f"    {printable(line)}" for line in lines)


class _Shown(logging.Handler):
    """Writes records on standard error, above a progress bar if there is one."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.setFormatter(_Format("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless its text was printed."""
        if not getattr(record, "printed", False):
            try:
                sys.stderr.write(f"{self.format(record)}\n")  # which rich replaces while it shows a bar
            except (OSError, ValueError):  # nobody reads it, or its disk is full: the command goes on
                self.setLevel(logging.CRITICAL + 1)


class _LogFile(logging.StreamHandler[TextIO]):
    """Appends records to a file, each at once, so that a killed command has logged what it did."""

    def __init__(self, stream: TextIO, path: str) -> None:
        super().__init__(stream)
        self._path = path
        self.setLevel(logging.DEBUG)
        self.setFormatter(_Format("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S%z"))

    def handleError(self, record: logging.LogRecord) -> None:
        """Say once that the log cannot be written, and let the command go on without it."""
        self.setLevel(logging.CRITICAL + 1)
        reason = sys.exc_info()[1]
        print_error(f"sish: note: the log {self._path} ends here, the command goes on: {reason}")
