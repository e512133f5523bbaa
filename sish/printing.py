r"""Print text safely: a name of a file, slide or label cannot control the terminal.

A name may hold an escape sequence that changes a window's title or hides a line, a newline that forges an
error message, or a mark that reverses the reading direction. Everything that a command prints goes through
:func:`printable`, except JSON, which escapes such characters itself.

>>> print(printable("a\x1b[31m\nsish: error: forged\u202efdp"))
a\x1b[31m\nsish: error: forged\u202efdp
>>> printable("größe 5 µm")
'größe 5 µm'
"""

import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_SHOWN_AS = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: control, format (reading direction, zero width), lone surrogates, line separators."""


def printable(text: str) -> str:
    """Return text on one line, with control and format characters escaped as in Python."""
    if text.isprintable():
        return text
    return "".join(_shown(each) if unicodedata.category(each) in _UNSEEN else each for each in text)


def _shown(character: str) -> str:
    number = ord(character)
    plain = f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
    return _SHOWN_AS.get(character, plain if number < 0x10000 else f"\\U{number:08x}")


def counted(number: int, noun: str, ending: str = "s") -> str:
    """Return a number with its noun.

    Parameters
    ----------
    number : int
        How many there are.
    noun : str
        The noun for one.
    ending : str
        What the noun ends with for any number but one.

    Returns
    -------
    str
        The number and the noun.

    Examples
    --------
    >>> counted(1, "slide"), counted(0, "slide"), counted(2, "patch", "es")
    ('1 slide', '0 slides', '2 patches')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{ending}"


def figure(value: float | str) -> str:
    """Return a number as a table shows it.

    Parameters
    ----------
    value : float or str
        The number; text stays as it is.

    Returns
    -------
    str
        Three decimals, or none for a whole number.

    Examples
    --------
    >>> figure(1.0), figure(0.0), figure(2 / 3), figure(0.99996), figure(17)
    ('1', '0', '0.667', '1.000', '17')
    """
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.3f}"
    return str(value)


def aligned(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yield the lines of a table: the first column to the left, the others to the right.

    Parameters
    ----------
    rows : sequence of mapping
        Cells by column; all rows have the same columns.

    Yields
    ------
    str
        A line; the first one names the columns.

    Examples
    --------
    >>> list(aligned([{"label": "benign", "n": "3"}, {"label": "normal", "n": "12"}]))
    ['label    n', 'benign   3', 'normal  12']
    """
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for first, *others in lines:
        right = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join([f"{first:{widths[0]}}", *right]).rstrip()


def print_line(text: str) -> None:
    """Print one line on standard output."""
    sys.stdout.write(f"{printable(text)}\n")


def print_error(text: str) -> None:
    """Print one line on standard error."""
    sys.stderr.write(f"{printable(text)}\n")


def make_printable() -> None:
    """Make every character printable: one that the terminal's encoding lacks is written as an escape.

    If the process was started without standard output or error, what it prints there is discarded.
    """
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115  open to the end
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


@contextmanager
def warnings_on_one_line() -> Iterator[None]:
    """Show warnings on one line each, without the place in the code that gave them."""
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *place: f"warning: {printable(' '.join(str(message).split()))}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual
