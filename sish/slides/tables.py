"""Tables in text files, read by one function for all that takes a labels file.

The first line names the columns. Commas separate them, or semicolons or tabs where the header shows it. A
byte order mark is left out, and columns that are known may be written in capitals (``Path``).
An empty field says nothing, and so do the words that data frames write for a gap (`MISSING`), written exactly
so. A file that is no such table, as text of another encoding, is refused with its line.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sish.errors import LabelsError, LabelsNotFoundError, about_its_path

DELIMITERS = (",", ";", "\t")
MISSING = frozenset(
    {"#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"}
    | {"NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""Words that mean that a field is empty: those of ``pandas.read_csv``."""
MAX_BYTES = 64 << 20
"""Largest file that is read: a million rows."""
MAX_COLUMNS = 1000
"""All columns are kept with each row: a table of gene counts is no labels file."""
SHOWN = 60
"""Characters of a file that an error quotes at most."""


@dataclass(frozen=True, slots=True)
class TextRow:
    """One row of a table."""

    line: int
    """Number of its first line in the file; the header is line 1."""
    said: Mapping[str, str]
    """Its fields by column, without those that say nothing."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """The contents of one file."""

    rows: tuple[TextRow, ...]
    """All rows, in order."""
    notes: tuple[str, ...]
    """For each column with words of `MISSING`, a line that says which and how many."""


@about_its_path
def read_table(path: Path, naming: tuple[str, ...], known: Collection[str] = ()) -> TextTable:
    """Read a table in time and memory proportional to the file.

    Parameters
    ----------
    path : Path
        A file of UTF-8 text.
    naming : tuple of str
        Columns, in lower case, of which it must have one.
    known : collection of str
        More columns whose names may be written in capitals.

    Returns
    -------
    TextTable
        Its rows; there may be none.

    Raises
    ------
    LabelsNotFoundError
        If there is no such file.
    LabelsError
        If it cannot be read, is empty, or a line does not fit.
    """
    text = _read_text(path)
    if not text.strip():
        column = " or ".join(naming)
        raise LabelsError(f"{path} is empty, wanted a header with the column {column}, then one row a slide")
    lower = {*naming, *known}
    header = re.split("[\r\n]", text.lstrip(), maxsplit=1)[0]
    records = _records(path, text, _delimiter(header, naming, lower))
    line, cells = next(records)
    columns = [_column_name(cell, lower) for cell in cells]
    _check_columns(path, line, columns, naming)
    filled = [TextRow(line, _filled(path, line, columns, cells)) for line, cells in records]
    rows = [
        TextRow(row.line, {name: cell for name, cell in row.said.items() if cell not in MISSING})
        for row in filled
    ]
    return TextTable(tuple(rows), tuple(_notes(path, filled)))


def is_list(path: Path) -> bool:
    """Return whether a path names a table of files (`listed_files`), by its ending."""
    return path.suffix.lower() == ".csv"


def listed_files(path: Path) -> list[Path]:
    """Return the files that a table lists in its column ``path``.

    Parameters
    ----------
    path : Path
        The table; any other columns are left alone.

    Returns
    -------
    list of Path
        The files, in order, whether they are there or not. Those that are not absolute are relative to the
        folder of the table.

    Raises
    ------
    LabelsError
        If it cannot be read, or a row has no path.
    """  # noqa: DOC501  odd_line() makes that error
    rows = read_table(path, ("path",)).rows
    bare = next((row for row in rows if "path" not in row.said), None)
    if bare is not None:
        raise odd_line(path, bare.line, "has no path: fill it in, or delete the line")
    return [path.parent / row.said["path"] for row in rows]


def posix_path(cell: str) -> PurePosixPath:
    r"""Return the path that a cell names; a table from Windows has ``slides\a.svs``.

    Parameters
    ----------
    cell : str
        A field of a table.

    Returns
    -------
    PurePosixPath
        The path with forward slashes.

    Examples
    --------
    >>> str(posix_path("slides\\a.svs"))
    'slides/a.svs'
    """
    return PurePosixPath(cell.replace("\\", "/"))


def odd_line(path: Path, line: int, wrong: str) -> LabelsError:
    """Return the error for a line that does not fit."""
    error = LabelsError(f"{path}, line {line}: {wrong}", path=path)
    error.line = line
    return error


def short(text: str) -> str:
    """Return a text of a file as an error quotes it: on one line, and not all of a long one."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def _read_text(path: Path) -> str:
    """Return the file's text, without a byte order mark."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        kind = LabelsNotFoundError if isinstance(error, FileNotFoundError) else LabelsError
        raise kind(f"{path} cannot be read ({error.strerror}), wanted a labels file in CSV") from None
    if len(data) > MAX_BYTES:
        size = f"{MAX_BYTES >> 20} MB"
        raise LabelsError(f"{path} is larger than {size}, wanted a labels file, a row a slide")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_text(path, data, error.start) from None
    nul = data.find(b"\0")
    if nul >= 0:
        raise _not_text(path, data, nul)
    return text


def _not_text(path: Path, data: bytes, place: int) -> LabelsError:
    """Return the error for a byte that is not text."""
    line = data.count(b"\n", 0, place) + 1
    return odd_line(path, line, f"byte 0x{data[place]:02x} is not UTF-8 text: save the file as UTF-8 CSV")


def _delimiter(header: str, naming: tuple[str, ...], lower: Collection[str]) -> str:
    """Return the first delimiter by which the header has one of the naming columns; a comma if none does."""
    for delimiter in DELIMITERS:
        if set(naming) & {_column_name(cell, lower) for cell in header.split(delimiter)}:
            return delimiter
    return DELIMITERS[0]


def _column_name(cell: str, lower: Collection[str]) -> str:
    """Return the column that a cell of the header names, in lower case where it is known."""
    name = cell.strip().strip('"').strip()
    return name.lower() if name.lower() in lower else name


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record's first line number and its stripped fields, without empty records."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise odd_line(path, line, f"{error}: close its quotation marks") from None
        stripped = [" ".join(cell.splitlines()).strip() for cell in cells]
        if any(stripped):
            yield line, stripped


def _check_columns(path: Path, line: int, columns: list[str], naming: tuple[str, ...]) -> None:
    """Refuse a header without a naming column, with too many columns, or with one twice (LabelsError)."""
    if not set(naming) & set(columns):
        shown = ", ".join(map(short, columns[:8]))
        wrong = (
            f"columns are {shown}, wanted {' or '.join(naming)} among them: "
            "name the columns in the first line, separated by commas"
        )
        raise odd_line(path, line, wrong)
    if len(columns) > MAX_COLUMNS:
        wanted = f"wanted at most {MAX_COLUMNS}: keep those that are to be shown or filtered by"
        raise odd_line(path, line, f"{len(columns)} columns, {wanted}")
    twice = sorted(name for name, count in Counter(columns).items() if name and count > 1)
    if twice:
        raise odd_line(path, line, f"the column {short(twice[0])} is there twice: rename or delete one")


def _filled(path: Path, line: int, columns: list[str], cells: list[str]) -> dict[str, str]:
    """Return a record's fields that are not empty, by column; LabelsError for another number of fields."""
    if len(cells) < len(columns) or any(cells[len(columns) :]):
        wrong = (
            f"{len(cells)} fields, wanted {len(columns)} as in the first line: "
            "put quotation marks around a field that holds the separator"
        )
        raise odd_line(path, line, wrong)
    return {name: cell for name, cell in zip(columns, cells, strict=False) if name and cell}


def _notes(path: Path, filled: list[TextRow]) -> Iterator[str]:
    """Yield one line for each column in which words stand for nothing."""
    gaps = Counter(field for row in filled for field in row.said.items() if field[1] in MISSING)
    for column in dict.fromkeys(column for column, _ in gaps):
        words = {word: count for (name, word), count in gaps.items() if name == column}
        count = sum(words.values())
        rows = "1 row has" if count == 1 else f"{count} rows have"
        yield f"{path}: {rows} {column} {' or '.join(map(repr, words))}: taken as missing"
