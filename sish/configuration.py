r"""What a user has set for all commands: environment variables, and a configuration file.

=================  ======================  =============================================================
in the file        in the environment      meaning
=================  ======================  =============================================================
``index``          ``SISH_INDEX``          ``--index``: the index's folder, or its address in PostgreSQL
``device``         ``SISH_DEVICE``         ``--device``: where the encoder runs
``workers``        ``SISH_WORKERS``        ``--workers``: threads that read slides and run the encoder
``k``              ``SISH_K``              ``-k``: hits wanted
``slide-timeout``  ``SISH_SLIDE_TIMEOUT``  ``--slide-timeout``: seconds that a slide may take
``log-file``       ``SISH_LOG_FILE``       ``--log-file``: the log is appended to it
``verbose``        ``SISH_VERBOSE``        1 is ``-v``, 2 is ``-vv``
=================  ======================  =============================================================

An option on the command line comes first, then the environment, then the file. The file is the one that
``SISH_CONFIG`` names, else ``sish/config.toml`` in the user's configuration folder (``$XDG_CONFIG_HOME``,
else ``~/.config``). No file of the current folder is read: a folder that came from somebody else cannot
choose the index that is written to, nor a file to append to. A value is a text or a number; none is run as
code. In the file, a path may begin with ``~``, and is relative to the folder of the file.

The library itself reads no settings. A program that wants them asks for them:

>>> import tempfile
>>> file = Path(tempfile.mkdtemp(), "config.toml")
>>> _ = file.write_text('device = "cuda"\nworkers = 4')
>>> found = read_settings({"SISH_CONFIG": str(file), "SISH_WORKERS": "2"})
>>> {name: setting.value for name, setting in found.items()}
{'device': 'cuda', 'workers': 2}
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sish.errors import ParameterError
from sish.index.postgres.addresses import is_address
from sish.nearest import nearest_to

Value = str | int | float
"""A value of a setting."""

FILE_VARIABLE = "SISH_CONFIG"
"""The environment variable that names the configuration file."""

_LARGEST_FILE = 1 << 20  # bytes; a file of settings has some hundred


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that has a value."""

    value: Value
    """The value."""
    source: str
    """Where it is from: an environment variable, or a file."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a setting may be."""

    wanted: str
    """Its values, in words."""
    accepts: Callable[[object], bool]
    """Whether a value is one of them."""
    parse: Callable[[str], Value] = str
    """Makes a value of a text; ValueError if it is none."""
    is_path: bool = False
    """Whether it names a file or folder."""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _at_least(least: int) -> Callable[[object], bool]:
    return lambda value: _is_whole(value) and value >= least  # type: ignore[operator]


def _is_seconds(value: object) -> bool:
    return (_is_whole(value) or isinstance(value, float)) and 0 <= value < math.inf  # type: ignore[operator]


KINDS: Mapping[str, _Kind] = {
    "index": _Kind("a folder, or an address in PostgreSQL", _is_text, is_path=True),
    "device": _Kind("a device as torch names it, such as cpu or cuda", _is_text),
    "workers": _Kind("a whole number, 1 or more", _at_least(1), int),
    "k": _Kind("a whole number, 1 or more", _at_least(1), int),
    "slide-timeout": _Kind("seconds, or 0 for no limit", _is_seconds, float),
    "log-file": _Kind("a file", _is_text, is_path=True),
    "verbose": _Kind("0, 1 or 2", lambda value: _is_whole(value) and value in (0, 1, 2), int),
}
"""The settings, by their names in the file."""


def variable_of(name: str) -> str:
    """Return the environment variable of a setting.

    Parameters
    ----------
    name : str
        Its name in the file.

    Returns
    -------
    str
        The variable.

    Examples
    --------
    >>> variable_of("log-file")
    'SISH_LOG_FILE'
    """
    return f"SISH_{name.replace('-', '_').upper()}"


def configuration_file(environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of the configuration file; there need not be one.

    Parameters
    ----------
    environ : mapping, optional
        Environment variables. Default: those of this process.

    Returns
    -------
    Path
        The file that ``SISH_CONFIG`` names, else the user's own; for a user without a home, an empty one.
    """
    environ = os.environ if environ is None else environ
    if named := environ.get(FILE_VARIABLE):
        return Path(named)
    for base in (environ.get("XDG_CONFIG_HOME", ""), os.path.expanduser("~/.config")):  # noqa: PTH111
        if os.path.isabs(base):  # noqa: PTH117
            return Path(base, "sish", "config.toml")
    return Path(os.devnull)


def read_settings(environ: Mapping[str, str] | None = None) -> dict[str, Setting]:
    """Return the settings that have a value, by their names in the file.

    Parameters
    ----------
    environ : mapping, optional
        Environment variables. Default: those of this process.

    Returns
    -------
    dict of str to Setting
        The values and where they are from. A variable that is empty is not set.

    Raises
    ------
    ParameterError
        If a value or the file is not valid, the file names an unknown setting, or ``SISH_CONFIG`` names a
        file that cannot be read.
    """
    environ = os.environ if environ is None else environ
    found = _from_file(configuration_file(environ), is_named=bool(environ.get(FILE_VARIABLE)))
    for name in KINDS:
        if text := environ.get(variable_of(name)):
            found[name] = Setting(_parsed(name, text), variable_of(name))
    return {name: found[name] for name in KINDS if name in found}


def _parsed(name: str, text: str) -> Value:
    """Return the value of an environment variable, else raise ParameterError."""
    try:
        value = KINDS[name].parse(text)
    except ValueError:
        value = ""
    if not KINDS[name].accepts(value):
        raise ParameterError(f"got {variable_of(name)}={text!r}; want {KINDS[name].wanted}")
    return value


def _from_file(path: Path, *, is_named: bool) -> dict[str, Setting]:
    """Return the settings of a file; of one that nobody named it may be missing."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError as error:
        if not is_named:
            return {}
        raise _unreadable(path, "there is no such file") from error
    except OSError as error:
        raise _unreadable(path, error.strerror or type(error).__name__) from error
    if len(data) > _LARGEST_FILE:
        raise _unreadable(path, "it is larger than 1 MiB")
    try:
        table = tomllib.loads(data.decode("utf-8-sig"))  # some editors write a byte order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParameterError(
            f"{path}: got no valid TOML ({error}); want lines such as workers = 4"
        ) from error
    return {name: Setting(_checked(name, value, path), str(path)) for name, value in table.items()}


def _unreadable(path: Path, reason: str) -> ParameterError:
    return ParameterError(
        f"cannot read the configuration file {path}: {reason}; mend it, or give another in {FILE_VARIABLE}"
    )


def _checked(name: str, value: object, path: Path) -> Value:
    """Return the value of a setting in a file, else raise ParameterError."""
    kind = KINDS.get(name)
    if kind is None:
        raise ParameterError(
            f"{path}: got the setting {name!r}; want one of {', '.join(KINDS)}{nearest_to(name, KINDS)}"
        )
    if not kind.accepts(value):
        raise ParameterError(f"{path}: got {name} = {value!r}; want {kind.wanted}")
    assert isinstance(value, Value)
    if kind.is_path and isinstance(value, str) and not is_address(value):
        return str(path.absolute().parent / os.path.expanduser(value))  # noqa: PTH111
    return value
