"""Labels files: facts on slides beside their pixels, from a table with one row a slide.

The first line names the columns: ``path`` or ``slide_id`` (or both), and any of ``label``, ``patient``,
``site``, ``mpp`` and ``override_mpp`` (:mod:`sish.slides.scale`); every other column is kept as metadata.
Commas separate them, or semicolons or tabs where the header shows it. ::

    slide_id,label,patient,stain
    TCGA-A1-A0SB-01Z-00-DX1,breast,TCGA-A1-A0SB,H&E

An empty field says nothing, and so do the words that data frames write for a gap, in any column: those that
``pandas.read_csv`` takes for missing (`MISSING`: ``nan``, ``NA``, ``None``, ...), written exactly so.
A diagnosis of that name needs another one, such as ``no finding``. `Labels.notes` says how many there were.
"""

import csv
import io
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sish.errors import LabelsError, LabelsNotFoundError, about_its_path
from sish.index.store import SlideRow
from sish.slides.files import slide_id_of
from sish.slides.formats.dicom import names_of_series
from sish.slides.scale import MAX_MPP, MIN_MPP

__all__ = ["MISSING", "LabelRow", "Labels", "read_labels"]

NAMING = ("path", "slide_id")
KNOWN = (*NAMING, "label", "patient", "site", "mpp", "override_mpp")
DELIMITERS = (",", ";", "\t")
LISTED = 5
"""Names that an error spells out at most."""
MISSING = frozenset(
    {"#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"}
    | {"NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""Words that mean that a field is empty: those of ``pandas.read_csv``."""
MAX_BYTES = 64 << 20
"""Largest labels file that is read: a million slides."""
MAX_COLUMNS = 1000
"""Every column but the known ones is kept with each slide: a table of gene counts is no labels file."""
SHOWN = 60
"""Characters of a file that an error spells out at most."""


@dataclass(frozen=True, slots=True)
class LabelRow:
    """What one line says of its slide; None where its field is empty or there is no such column."""

    line: int
    """Number of the line in the file; the header is line 1."""
    path: str | None
    """The slide's file, as written in the table."""
    slide_id: str | None
    """The slide's id."""
    label: str | None
    """Its diagnosis or site to be found again."""
    patient: str | None
    """Whose it is; see `patient_of`."""
    site: str | None
    """Anatomic site or hospital."""
    mpp: float | None
    """Micrometres per level-0 pixel, where the slide's file does not tell."""
    metadata: Mapping[str, str]
    """The other columns' fields that are not empty."""
    override_mpp: float | None = None
    """Micrometres per level-0 pixel, whatever the slide's file tells."""

    @property
    def name(self) -> str:
        """What the line calls its slide."""
        return self.slide_id or self.path or ""

    def patient_of(self, slide_id: str) -> str:
        """Return whose the slide is: a slide without a patient is its own.

        >>> LabelRow(2, None, "a", None, None, None, None, {}).patient_of("a")
        'a'
        """
        return self.patient or slide_id

    def applied_to(self, row: SlideRow) -> SlideRow:
        """Return an indexed slide's row with this line's fields; where one is empty, it stays as it was."""
        return replace(
            row,
            label=self.label or row.label,
            patient=self.patient or row.patient,
            site=self.site or row.site,
            metadata={**row.metadata, **self.metadata},
        )


class Labels:
    """The rows of one labels file, to be found by slide."""

    __slots__ = ("_by_file_name", "_by_id", "_by_path", "_by_target", "notes", "path", "rows")

    def __init__(self, path: Path, rows: Iterable[LabelRow], notes: Iterable[str] = ()) -> None:
        """Index ``rows`` of the file at ``path``; ``notes`` are lines that its reader should see.

        Raises:
            LabelsError: two rows name the same slide.
        """
        self.path = path
        self.rows = tuple(rows)
        self.notes = tuple(notes)
        self._by_id: dict[str, LabelRow] = {}
        self._by_path: dict[str, LabelRow] = {}
        self._by_target: dict[str, LabelRow] | None = None  # links followed: made when it is first needed
        self._by_file_name: dict[str, list[LabelRow]] = {}
        for row in self.rows:
            self._enter(row)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def find(self, slide_path: str | os.PathLike[str], slide_id: str) -> LabelRow | None:
        """Return the row of a slide, None if there is none.

        A row's ``path`` comes first: the slide's own, absolute or relative to the labels file's folder; else
        the end of it (``b/c.svs`` is ``/a/b/c.svs``). A DICOM series may be named by any of its files, or by
        the folder that holds it alone. Then its ``slide_id``: the slide's, or its file name.

        Raises:
            LabelsError: several rows' paths are ends of the slide's path.
        """
        found = self._candidates(Path(slide_path), slide_id)
        if len(found) > 1:
            lines = ", ".join(str(row.line) for row in found[:LISTED])
            raise LabelsError(
                f"{self.path}: lines {lines} all fit {slide_path}: give longer paths in that file",
                path=self.path,
                slide_id=slide_id,
            )
        return found[0] if found else None

    def unmatched(self, known: Iterable[tuple[str | os.PathLike[str], str]]) -> list[str]:
        """Return the names of rows that fit none of the ``known`` slides, given as (path, slide id)."""
        matched = {row.line for path, slide_id in known for row in self._candidates(Path(path), slide_id)}
        return [row.name for row in self.rows if row.line not in matched]

    def _enter(self, row: LabelRow) -> None:
        if row.slide_id:
            self._claim(self._by_id, row.slide_id, row)
        if row.path:
            file = self.path.parent / _posix(row.path)
            self._claim(self._by_path, _absolute(file), row)
            self._by_file_name.setdefault(_posix(row.path).name, []).append(row)

    def _linked(self, slide_path: Path) -> LabelRow | None:
        """The row whose file this is by another name, through symbolic links."""
        if self._by_target is None:
            self._by_target = {}
            for row in self.rows:
                if row.path:
                    target = os.path.realpath(self.path.parent / _posix(row.path))
                    self._by_target.setdefault(target, row)
        return self._by_target.get(os.path.realpath(slide_path))

    def _claim(self, rows: dict[str, LabelRow], key: str, row: LabelRow) -> None:
        first = rows.setdefault(key, row)
        if first is not row:
            raise _odd_line(
                self.path, row.line, f"{row.name[:SHOWN]} is on line {first.line} already: keep one of them"
            )

    def _candidates(self, slide_path: Path, slide_id: str) -> list[LabelRow]:
        paths = names_of_series(slide_path)
        own = next((row for path in paths if (row := self._by_path.get(_absolute(path)))), None)
        own = own or next((row for path in paths if (row := self._linked(path))), None)
        if own:
            return [own]
        for path in paths:
            ends = [row for row in self._by_file_name.get(path.name, []) if _ends_with(path, row.path)]
            if ends:
                return ends
        for name in (slide_id, slide_path.name, slide_id_of(slide_path)):
            if name in self._by_id:
                return [self._by_id[name]]
        return []


@about_its_path
def read_labels(path: str | os.PathLike[str]) -> Labels:
    """Read a labels file.

    Raises:
        LabelsError: it cannot be read, or a line does not fit; the line is named.
    """
    file = Path(path)
    text = _read_text(file)
    if not text.strip():
        raise LabelsError(
            f"{file} is empty, wanted a header with the column path or slide_id, then one row a slide"
        )
    records = _records(file, text, _delimiter(re.split("[\r\n]", text.lstrip(), maxsplit=1)[0]))
    columns = _columns(file, *next(records))
    gaps: Counter[tuple[str, str]] = Counter()
    rows = [_row(file, line, columns, cells, gaps) for line, cells in records]
    if not rows:
        raise LabelsError(f"{file} has a header and no rows, wanted one row for each slide")
    return Labels(file, rows, _notes(file, gaps))


def _notes(file: Path, gaps: Counter[tuple[str, str]]) -> Iterator[str]:
    """One line a column in which words stood for nothing."""
    for column in dict.fromkeys(column for column, _ in gaps):
        words = {word: count for (name, word), count in gaps.items() if name == column}
        count = sum(words.values())
        rows = "1 row has" if count == 1 else f"{count} rows have"
        yield f"{file}: {rows} {column} {' or '.join(map(repr, words))}: taken as missing"


def _read_text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        kind = LabelsNotFoundError if isinstance(error, FileNotFoundError) else LabelsError
        raise kind(f"{file} cannot be read ({error.strerror}), wanted a labels file in CSV") from None
    if len(data) > MAX_BYTES:
        raise LabelsError(f"{file} is larger than {MAX_BYTES >> 20} MB, wanted a labels file, a row a slide")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_text(file, data, error.start) from None
    nul = data.find(b"\0")
    if nul >= 0:
        raise _not_text(file, data, nul)
    return text


def _not_text(file: Path, data: bytes, place: int) -> LabelsError:
    line = data.count(b"\n", 0, place) + 1
    return _odd_line(file, line, f"byte 0x{data[place]:02x} is not UTF-8 text: save the file as UTF-8 CSV")


def _odd_line(file: Path, line: int, wrong: str) -> LabelsError:
    """The error for a line that does not fit."""
    error = LabelsError(f"{file}, line {line}: {wrong}", path=file)
    error.line = line
    return error


def _short(text: str) -> str:
    """A text of the file as an error quotes it: on one line, and not all of a long one."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def _delimiter(header: str) -> str:
    """Return the first delimiter that makes the header name a slide; a comma if none does."""
    for delimiter in DELIMITERS:
        if set(NAMING) & {_column_name(cell) for cell in header.split(delimiter)}:
            return delimiter
    return DELIMITERS[0]


def _column_name(cell: str) -> str:
    """Return a header's cell as metadata names it; the columns that we know are in lower case."""
    name = cell.strip().strip('"').strip()
    return name.lower() if name.lower() in KNOWN else name


def _records(file: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record's first line number and its stripped fields; empty records are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _odd_line(file, line, f"{error}: close its quotation marks") from None
        stripped = [" ".join(cell.splitlines()).strip() for cell in cells]
        if any(stripped):
            yield line, stripped


def _columns(file: Path, line: int, header: list[str]) -> list[str]:
    columns = [_column_name(cell) for cell in header]
    if not set(NAMING) & set(columns):
        shown = ", ".join(map(_short, columns[:8]))
        raise _odd_line(
            file,
            line,
            f"columns are {shown}, wanted path or slide_id among them: "
            "name the columns in the first line, separated by commas",
        )
    if len(columns) > MAX_COLUMNS:
        raise _odd_line(
            file,
            line,
            f"{len(columns)} columns, wanted at most {MAX_COLUMNS}: "
            "keep those that are to be shown or filtered by",
        )
    twice = sorted(name for name, count in Counter(columns).items() if name and count > 1)
    if twice:
        raise _odd_line(file, line, f"the column {_short(twice[0])} is there twice: rename or delete one")
    return columns


def _row(
    file: Path, line: int, columns: list[str], cells: list[str], gaps: Counter[tuple[str, str]]
) -> LabelRow:
    """Read one record; the words in it that stand for nothing are counted in `gaps`, by column and word."""
    if len(cells) < len(columns) or any(cells[len(columns) :]):
        raise _odd_line(
            file,
            line,
            f"{len(cells)} fields, wanted {len(columns)} as in the first line: "
            "put quotation marks around a field that holds the separator",
        )
    filled = {name: cell for name, cell in zip(columns, cells, strict=False) if name and cell}
    gaps.update((name, cell) for name, cell in filled.items() if cell in MISSING)
    said = {name: cell for name, cell in filled.items() if cell not in MISSING}
    if not set(NAMING) & set(said):
        raise _odd_line(file, line, "names no slide: fill in its path or slide_id, or delete it")
    return LabelRow(
        line=line,
        path=said.get("path"),
        slide_id=said.get("slide_id"),
        label=said.get("label"),
        patient=said.get("patient"),
        site=said.get("site"),
        mpp=_mpp(file, line, said, "mpp"),
        metadata={name: cell for name, cell in said.items() if name not in KNOWN},
        override_mpp=_mpp(file, line, said, "override_mpp"),
    )


def _mpp(file: Path, line: int, said: Mapping[str, str], column: str) -> float | None:
    cell = said.get(column)
    if cell is None:
        return None
    try:
        mpp = float(cell)
    except ValueError:
        mpp = math.nan
    if not MIN_MPP <= mpp <= MAX_MPP:
        raise _odd_line(
            file,
            line,
            f"{column} is {_short(cell)}, wanted micrometres per pixel from {MIN_MPP} "
            f"to {MAX_MPP}, such as 0.25 (or an empty field)",
        )
    return mpp


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(path)  # noqa: PTH100  Path.resolve would follow links: that is _by_target's part


def _posix(path: str) -> PurePosixPath:
    r"""Return a path as the table writes it; a table from Windows has ``slides\a.svs``."""
    return PurePosixPath(path.replace("\\", "/"))


def _ends_with(slide_path: Path, path: str | None) -> bool:
    """Return whether the relative ``path`` is the end of ``slide_path``, in whole components."""
    end = _posix(path or "").parts
    return 0 < len(end) <= len(slide_path.parts) and slide_path.parts[-len(end) :] == end
