"""Labels files: facts on slides beside their pixels, from a table with one row for each slide.

The first line names the columns: ``path`` or ``slide_id`` (or both), and any of ``label``, ``patient``,
``site``, ``mpp`` and ``override_mpp`` (:mod:`sish.slides.scale`); every other column is kept as metadata.
Commas separate them, or semicolons or tabs where the header shows it. ::

    slide_id,label,patient,stain
    TCGA-A1-A0SB-01Z-00-DX1,breast,TCGA-A1-A0SB,H&E

An empty field is a missing value. In any column, so are the words that ``pandas.read_csv`` takes for missing
(:data:`sish.slides.tables.MISSING`: ``nan``, ``NA``, ``None``, ...), written exactly so. A diagnosis cannot
have such a name; write for example ``no finding``. `Labels.notes` says how many fields were taken as missing,
and names a column such as ``patients`` that looks like a typing error.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sish.errors import LabelsError, about_its_path
from sish.index.store import SlideRow
from sish.slides.files import absolute, slide_id_of
from sish.slides.formats.dicom import names_of_series
from sish.slides.scale import MAX_MPP, MIN_MPP
from sish.slides.tables import SHOWN, TextRow, odd_line, posix_path, read_table, short

NAMING = ("path", "slide_id")
KNOWN = (*NAMING, "label", "patient", "site", "mpp", "override_mpp")
_DOT = re.compile(r"\.")
LISTED = 5
"""Number of lines that an error lists at most."""
_ALIKE = 0.8  # of difflib: "patients" and "Labels" are taken for typing errors, "stage" and "state" are not


@dataclass(frozen=True, slots=True)
class LabelRow:
    """Contents of one line, None where a field is empty or there is no such column."""

    line: int
    """Number of the line in the file; the header is line 1."""
    path: str | None
    """The slide's file, as written in the table."""
    slide_id: str | None
    """The slide's id."""
    label: str | None
    """Its diagnosis, or the site that a search should find again."""
    patient: str | None
    """The patient; a slide without one counts as a patient of its own."""
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
        """Name that the line gives its slide."""
        return self.slide_id or self.path or ""

    def applied_to(self, row: SlideRow) -> SlideRow:
        """Return an indexed slide's row with this line's fields; an empty field keeps the old value."""
        return replace(
            row,
            label=self.label or row.label,
            patient=self.patient or row.patient,
            site=self.site or row.site,
            metadata={**row.metadata, **self.metadata},
        )


class Labels:
    """The rows of one labels file, to be found by slide.

    Parameters
    ----------
    path : Path
        The file.
    rows : iterable of LabelRow
        Its rows.
    notes : iterable of str
        Lines that its reader should see.

    Raises
    ------
    LabelsError
        If two rows name the same slide.
    """

    __slots__ = ("_by_file_name", "_by_id", "_by_path", "_by_target", "notes", "path", "rows")

    def __init__(self, path: Path, rows: Iterable[LabelRow], notes: Iterable[str] = ()) -> None:
        """Enter the rows by path and id."""
        self.path = path
        self.rows = tuple(rows)
        self.notes = tuple(notes)
        self._by_id: dict[str, LabelRow] = {}
        self._by_path: dict[Path, LabelRow] = {}
        self._by_target: dict[str, LabelRow] | None = None  # links followed; made at first use
        self._by_file_name: dict[str, list[LabelRow]] = {}
        for row in self.rows:
            self._enter(row)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def find(self, slide_path: str | os.PathLike[str], slide_id: str) -> LabelRow | None:
        """Return the row of a slide.

        Rows are tried in this order. First, a row with the slide's path, absolute or relative to the folder
        of the labels file. Second, a row whose path is the end of it (``b/c.svs`` fits ``/a/b/c.svs``).
        Third, a row whose ``slide_id`` is the slide's id or its file name. The path of a DICOM series may be
        any of its files, or its folder if that holds nothing else.

        Parameters
        ----------
        slide_path : path-like
            The slide's file.
        slide_id : str
            Its id.

        Returns
        -------
        LabelRow or None
            None if there is no such row.

        Raises
        ------
        LabelsError
            If several rows' paths are ends of the slide's path.
        """
        found = self._candidates(slide_path, slide_id)
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
        matched = {row.line for path, slide_id in known for row in self._candidates(path, slide_id)}
        return [row.name for row in self.rows if row.line not in matched]

    def _enter(self, row: LabelRow) -> None:
        """Enter a row by its path and id."""
        if row.slide_id:
            self._claim(self._by_id, row.slide_id, row)
        if row.path:
            file = self.path.parent / posix_path(row.path)
            self._claim(self._by_path, absolute(file), row)
            self._by_file_name.setdefault(posix_path(row.path).name, []).append(row)

    def _linked(self, slide_path: Path) -> LabelRow | None:
        """Return the row whose file this is by another name, through symbolic links."""
        if self._by_target is None:
            self._by_target = {}
            for row in self.rows:
                if row.path:
                    target = os.path.realpath(self.path.parent / posix_path(row.path))
                    self._by_target.setdefault(target, row)
        return self._by_target.get(os.path.realpath(slide_path)) if self._by_target else None

    def _claim(self, rows: dict[Any, LabelRow], key: str | Path, row: LabelRow) -> None:
        """Enter a row under a key; LabelsError if another row has it."""
        first = rows.setdefault(key, row)
        if first is not row:
            raise odd_line(
                self.path, row.line, f"{row.name[:SHOWN]} is on line {first.line} already: keep one of them"
            )

    def _may_fit(self, path: str, slide_id: str) -> bool:
        """Return False for a slide that no row fits, as its strings alone tell; most are such."""
        name = os.path.basename(path)  # noqa: PTH119  Path takes ten times as long, for each slide of an index
        ids = {slide_id, name, *(name[: match.start()] for match in _DOT.finditer(name))}
        return bool(self._by_path) or name.lower().endswith(".dcm") or not self._by_id.keys().isdisjoint(ids)

    def _candidates(self, path: str | os.PathLike[str], slide_id: str) -> list[LabelRow]:
        """Return the rows that fit a slide: one, none, or several whose paths are ends of its path."""
        if not self._may_fit(os.fspath(path), slide_id):
            return []
        slide_path = Path(path)
        paths = names_of_series(slide_path)
        own = next((row for path in paths if (row := self._by_path.get(absolute(path)))), None)
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

    Parameters
    ----------
    path : path-like
        A table; the docstring of this module describes it.

    Returns
    -------
    Labels
        Its rows.

    Raises
    ------
    LabelsNotFoundError
        If there is no such file.
    LabelsError
        If it cannot be read, or a line does not fit.
    """
    file = Path(path)
    table = read_table(file, NAMING, KNOWN)
    if not table.rows:
        raise LabelsError(f"{file} has a header and no rows, wanted one row for each slide")
    rows = [_row(file, row) for row in table.rows]
    return Labels(file, rows, (*table.notes, *_mistyped(file, table.rows)))


def _mistyped(file: Path, rows: Iterable[TextRow]) -> Iterator[str]:
    """Yield a note for each column whose name is nearly a known one that the table lacks."""
    columns = dict.fromkeys(name for row in rows for name in row.said)
    lacking = [name for name in KNOWN if name not in columns]
    for column in columns:
        near = get_close_matches(column[:SHOWN].lower(), lacking, n=1, cutoff=_ALIKE)
        if column not in KNOWN and near:
            yield (
                f"{file}: the column {short(column)} is kept as metadata alone; "
                f"if it is the {near[0]}, name it {near[0]!r}"
            )


def _row(file: Path, row: TextRow) -> LabelRow:
    """Return the checked fields of a row of the table."""
    line, said = row.line, row.said
    if not set(NAMING) & set(said):
        raise odd_line(file, line, "names no slide: fill in its path or slide_id, or delete it")
    return LabelRow(
        line=line,
        path=said.get("path"),
        slide_id=said.get("slide_id"),
        label=said.get("label"),
        patient=said.get("patient"),
        site=said.get("site"),
        mpp=_mpp(file, row, "mpp"),
        metadata={name: cell for name, cell in said.items() if name not in KNOWN},
        override_mpp=_mpp(file, row, "override_mpp"),
    )


def _mpp(file: Path, row: TextRow, column: str) -> float | None:
    """Return the micrometres per pixel of a row; None if the field is empty."""
    cell = row.said.get(column)
    if cell is None:
        return None
    try:
        mpp = float(cell)
    except ValueError:
        mpp = math.nan
    if not MIN_MPP <= mpp <= MAX_MPP:
        wrong = (
            f"{column} is {short(cell)}, wanted micrometres per pixel from {MIN_MPP} "
            f"to {MAX_MPP}, such as 0.25 (or an empty field)"
        )
        raise odd_line(file, row.line, wrong)
    return mpp


def _ends_with(slide_path: Path, path: str | None) -> bool:
    """Return whether the relative ``path`` is the end of ``slide_path``, in whole components."""
    end = posix_path(path or "").parts
    return 0 < len(end) <= len(slide_path.parts) and slide_path.parts[-len(end) :] == end
