"""Tables: answers, slides and evaluations as pandas frames, and as flat rows for CSV.

Every ``to_pandas`` of the package is made here. pandas and pyarrow come with the extra ``tables``; they are
imported when a table is made. A flat row has one cell for each value: a place ``xy`` becomes ``x`` and ``y``,
several labels one text with bars between them, and each field of metadata a column of its own name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import MissingPackageError
from sish.extras import install

if TYPE_CHECKING:
    import pandas as pd

    from sish.index.store.state import State

_PATCHES, _METADATA = "patches", "metadata"
_EXAMPLES = "examples"
_PLACE = "xy"  # the end of the name of a place, as in query_xy
_LENGTHS = ("patch_l0_px", "mpp")
_NUMBERS = ("n_patches", "width", "height", *_LENGTHS)
_TYPES = {
    **dict.fromkeys(
        ("rank", "n_matched", "hamming", "query_row", "row", "query_x", "query_y", "x", "y"), "int64"
    ),
    **dict.fromkeys(("score", "median_distance", "uncertainty", "size", *_LENGTHS), "float64"),
    **dict.fromkeys(("placed", "below_threshold"), "bool"),
}
"""Types of the columns of answers that are no text."""


def needed(package: str, extra: str = "tables") -> Any:
    """Return a package of an extra; MissingPackageError, with the way to install it, without."""
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingPackageError(f"{package} is not installed; {install(extra)}") from error


def utf8_text(cell: Any) -> Any:
    """Return a text that Arrow holds: a byte of a file's name that is no text becomes an escape."""
    if isinstance(cell, str) and not cell.isascii():
        return cell.encode(errors="backslashreplace").decode()
    return cell


def flat(row: Mapping[str, Any], taken: Collection[str] = ()) -> dict[str, Any]:
    """Return a row of plain values, as ``to_dict`` gives them, with one cell for each.

    Parameters
    ----------
    row : mapping
        Its values are texts, numbers or None; also places ``..xy``, lists of texts, boxes, and ``metadata``.
        Patches are left out: they are a table of their own.
    taken : collection of str
        Names of other columns beside these.

    Returns
    -------
    dict
        Metadata comes last. A field of it whose name is taken is called ``metadata_NAME``.

    Examples
    --------
    >>> flat({"rank": 1, "xy": [5, 6], "labels": ["a", "b"], "metadata": {"stain": "HE", "rank": "x"}})
    {'rank': 1, 'x': 5, 'y': 6, 'labels': 'a|b', 'stain': 'HE', 'metadata_rank': 'x'}
    >>> flat({"query_xy": None, "region": [0, 0, 9, 9]})
    {'query_x': None, 'query_y': None, 'region': '0 0 9 9'}
    """
    cells: dict[str, Any] = {}
    for name, value in row.items():
        if name not in (_PATCHES, _METADATA, _EXAMPLES):
            cells |= zip(_columns_of(name), _cells_of(name, value), strict=True)
    taken = {*taken, *cells}
    return cells | {_free_name(name, taken): value for name, value in row.get(_METADATA, {}).items()}


def _columns_of(name: str) -> tuple[str, ...]:
    """Return the columns of a field: two of a place."""
    if not name.endswith(_PLACE):
        return (name,)
    before = name.removesuffix(_PLACE)
    return f"{before}x", f"{before}y"


def _cells_of(name: str, value: Any) -> tuple[Any, ...]:
    if name.endswith(_PLACE):
        return (None, None) if value is None else tuple(value)
    if isinstance(value, dict):
        return (" ".join(map(str, value.values())),)
    if isinstance(value, list):
        words = all(isinstance(one, str) for one in value)
        return (("|" if words else " ").join(map(str, value)),)
    return (value,)


def _free_name(name: str, taken: Collection[str]) -> str:
    """Return the column of a field of metadata; two fields never share one."""
    return f"{_METADATA}_{name}" if name in taken or name.startswith(f"{_METADATA}_") else name


# ---- answers


def hits_frame(answer: Mapping[str, Any], columns: Sequence[str]) -> pd.DataFrame:
    """Return the hits of an answer, a row each.

    Parameters
    ----------
    answer : mapping
        The answer, as its ``to_dict`` gives it.
    columns : sequence of str
        The fields of a hit: the columns of an answer without hits.

    Returns
    -------
    DataFrame
        The fields of the hits, without their patches; metadata are columns. ``attrs`` holds the query, the
        ranking and the note.
    """
    rows = [flat(hit) for hit in answer["results"]]
    known = _plain_columns(columns)
    frame = _frame(rows, known, [name for name in dict.fromkeys(chain(*rows)) if name not in known])
    frame.attrs = {name: answer[name] for name in ("query", "ranking", "note")}
    return frame


def pairs_frame(answer: Mapping[str, Any], columns: Sequence[str]) -> pd.DataFrame:
    """Return the matched patches of all hits of an answer, a row each pair.

    Parameters
    ----------
    answer : mapping
        The answer of an index, as its ``to_dict`` gives it.
    columns : sequence of str
        The fields of a pair.

    Returns
    -------
    DataFrame
        ``rank``, ``slide_id`` and ``path`` of the hit, and the fields of its pairs; ``size``, the side of the
        hit's patches in level-0 pixels, comes last.
    """
    rows = [
        {"rank": hit["rank"], "slide_id": hit["slide_id"], "path": hit["path"]}
        | flat(pair)
        | {"size": hit["patch_l0_px"]}
        for hit in answer["results"]
        for pair in hit[_PATCHES]
    ]
    return _frame(rows, ["rank", "slide_id", "path", *chain(*map(_columns_of, columns)), "size"])


def table_of(
    answers: Sequence[Mapping[str, Any]], hit_fields: Sequence[str]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the hits of several answers as flat rows, the fields of the query first.

    Parameters
    ----------
    answers : sequence of mapping
        Answers, as ``to_dict`` gives them.
    hit_fields : sequence of str
        The fields of a hit.

    Returns
    -------
    columns : list of str
        ``query_slide_id`` and the other fields of the query, ``ranking``, and the fields of a hit, metadata
        last.
    rows : list of dict
        A row for each hit. A column is missing where a hit lacks this field of metadata.
    """
    rows, columns = [], list[str]()
    for answer in answers:
        query = {f"query_{name}": value for name, value in flat(answer["query"]).items()}
        own = query | {"ranking": answer["ranking"]}
        columns += [*own, *_plain_columns(hit_fields)]
        rows += [own | flat(hit, own) for hit in answer["results"]]
    return list(dict.fromkeys(chain(columns, *rows))), rows


def _plain_columns(hit_fields: Iterable[str]) -> list[str]:
    return [*chain(*(_columns_of(name) for name in hit_fields if name not in (_PATCHES, _METADATA)))]


def rows_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return plain rows of the same columns as a frame."""
    return _frame(rows, list(rows[0]) if rows else [])


def _frame(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], metadata: Sequence[str] = ()
) -> pd.DataFrame:
    """Return rows as a frame; a column of numbers is one even if it holds nothing."""
    names = [*columns, *metadata]
    cells = [[utf8_text(row.get(name)) for name in names] for row in rows]
    frame = needed("pandas").DataFrame(cells, columns=names)
    empty = (name for name in columns if name in _TYPES and frame[name].dtype == object)
    return frame.astype({name: "float64" if rows else _TYPES[name] for name in empty})


# ---- slides


def slides_frame(state: State) -> pd.DataFrame:
    """Return the slides of an index, a row each, in the order in which they were added.

    Parameters
    ----------
    state : State
        One state of the index; slides of a damaged segment are there if they are known.

    Returns
    -------
    DataFrame
        The fields of :class:`SlideRow`, and each field of metadata. A scale or size that is not known is NaN.
    """
    from sish.index.store.segment import DamagedSegment  # the store needs a POSIX system
    from sish.index.store.slide_list import SlideList
    from sish.index.store.slide_row import SlideRow
    from sish.index.store.slide_table import SlideTable

    tables = [
        SlideTable.of(part.slides) if isinstance(part, DamagedSegment) else part.patches.slides
        for part in state.parts
    ]
    live = [
        np.ones(len(part.slides), bool) if isinstance(part, DamagedSegment) else ~part.removed_mask
        for part in state.parts
    ]
    slides, kept = SlideList(tuple(tables)), np.flatnonzero(np.concatenate([np.zeros(0, bool), *live]))
    columns: dict[str, NDArray[Any]] = {}
    for it in fields(SlideRow):
        if it.name in _NUMBERS:
            columns[it.name] = _known(it.name, slides.numbers(it.name)[kept])
        elif it.name != _METADATA:
            columns[it.name] = _texts(slides.values(it.name), kept)
    names = sorted(slides.metadata_names())
    columns |= {_free_name(name, columns): _texts(slides.metadata_values(name), kept) for name in names}
    return needed("pandas").DataFrame(columns)


def _known(name: str, numbers: NDArray[Any]) -> NDArray[Any]:
    """Return a column of numbers; a length of 0 stands for one that is not known, and becomes NaN."""
    return np.where(numbers > 0, numbers, np.nan) if name in _LENGTHS else numbers


def _texts(column: tuple[NDArray[np.int64], list[str]], kept: NDArray[np.intp]) -> NDArray[Any]:
    """Return a column of texts, None where there is none."""
    number, values = column
    return np.array([*map(utf8_text, values), None], object)[number[kept]]
