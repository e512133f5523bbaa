"""Slides as vectors: arrays of features that another program computed, with the slide of each row.

Foundation models (UNI, Virchow, H-optimus, CONCH, ...) give a vector for each patch, and slide encoders
(TITAN, PRISM) one for each slide. :func:`slides_of` sorts the rows of such an array by slide, and reads what
is told of the slides: labels, patients and sites from mappings or pandas objects. Pandas is not imported.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from reprlib import repr as short
from statistics import mode
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import LabelsError, ParameterError, ParameterTypeError
from sish.feature_files import step_of_grid
from sish.labels import NAMING, LabelRow
from sish.slides.scale import MAX_MPP, MIN_MPP
from sish.slides.tables import MISSING

Told: TypeAlias = "Mapping[Any, Any] | Any"
"""Something told of slides: a mapping from slide ids, or a pandas Series that has them as its index."""

Scales: TypeAlias = "float | Mapping[Any, float] | Any | None"
"""Micrometres per level-0 pixel of all slides, or a mapping or Series of them."""

_TOLD = ("label", "patient", "site")
SlideIds: TypeAlias = "str | int | Iterable[str | int]"
"""The id of a slide, or several."""

_SCALES = ("override_mpp", "mpp")
_APART = (*NAMING, *_SCALES)
_NAMED = 5

MOST_L0 = 2**53
"""Level-0 pixels that a float holds exactly: no place is beyond."""


@dataclass(frozen=True, slots=True, eq=False)
class VectorSlide:
    """One slide of an array of vectors."""

    slide_id: str
    """Its id."""
    vectors: NDArray[np.float32]
    """Float32 (N, F), in the order in which they were given."""
    l0_xy: NDArray[np.int64] | None
    """Shape (N, 2): top left corners in level-0 pixels; None if the places are not known."""
    patch_l0_px: float
    """Side of a patch in level-0 pixels; 0 if the places are not known."""
    mpp: float
    """Micrometres per level-0 pixel; 0 if it is not known."""
    labels: LabelRow | None
    """What was told of it."""

    @property
    def digest(self) -> str:
        """A digest of its vectors and places: the same slide is known again by it."""
        places = np.empty(0) if self.l0_xy is None else self.l0_xy
        return hashlib.sha256(b"vectors" + self.vectors.tobytes() + places.tobytes()).hexdigest()


def as_vectors(vectors: ArrayLike, name: str = "vectors") -> NDArray[np.float32]:
    """Return vectors as float32 (N, F).

    Parameters
    ----------
    vectors : float (N, F)
        An array, or anything that numpy reads as one: a list, a torch tensor on the CPU, an h5py data set.
    name : str
        What they are called in errors.

    Returns
    -------
    float32 (N, F)
        The same numbers.

    Raises
    ------
    ParameterTypeError
        If they are no numbers.
    ParameterError
        If they have another shape, or hold NaN or infinity.
    """
    try:
        given = np.asarray(vectors)
    except (TypeError, ValueError, RuntimeError) as error:  # the last is torch's, of tensors with a gradient
        raise ParameterTypeError(f"got {name} that are no array ({error}); want float (N, F)") from error
    if given.dtype.kind not in "fiu":
        raise ParameterTypeError(f"got {name} of {given.dtype}; want float (N, F)")
    if given.ndim != 2 or not given.shape[1]:
        one = "; of one vector give vector[None]" if given.ndim == 1 else ""
        raise ParameterError(f"got {name} of shape {given.shape}; want (N, F), a row for each patch{one}")
    with np.errstate(over="ignore"):  # too large a number becomes infinite, and is refused below
        found = np.ascontiguousarray(given, np.float32)
    if not np.isfinite(found).all():
        bad = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
        raise ParameterError(f"{name} hold NaN or infinity, first in row {bad}; give finite numbers")
    return found


def slides_of(
    vectors: ArrayLike,
    slide_ids: ArrayLike,
    *,
    labels: Told = None,
    patients: Told = None,
    sites: Told = None,
    l0_xy: ArrayLike | None = None,
    mpp: Scales = None,
    patch_l0_px: float | None = None,
) -> tuple[list[VectorSlide], list[str]]:
    """Sort vectors by slide; see :meth:`sish.Index.add_vectors` for the arguments.

    Returns
    -------
    list of VectorSlide
        The slides in the order of their first rows.
    list of str
        Notes, a line each: on slides that were told of and are not there.

    Raises
    ------
    ParameterError
        If the arrays do not fit each other, or a number is impossible.
    LabelsError
        If what is told of the slides cannot be read, or names none of them.
    """
    rows = as_vectors(vectors)
    ids = _as_ids(slide_ids, len(rows))
    names, first, number = np.unique(ids, return_index=True, return_inverse=True)
    told = labels_of(labels, patients, sites)
    notes = check_told(told, names.tolist())
    scales = _scales_of(_scales_in(labels) if mpp is None else mpp, names.tolist())
    ends = np.cumsum(np.bincount(number, minlength=len(names)))
    groups = np.split(np.argsort(number, kind="stable"), ends[:-1]) if len(names) else []
    places = None if l0_xy is None else _as_places(l0_xy, len(rows))
    corners = [None if places is None else places[own] for own in groups]
    sides = [0.0] * len(groups) if places is None else _sides([places[own] for own in groups], patch_l0_px)
    slides = [
        VectorSlide(name, rows[own], xy, side, scale, told.get(name))
        for name, own, xy, side, scale in zip(names.tolist(), groups, corners, sides, scales, strict=True)
    ]
    return [slides[place] for place in np.argsort(first).tolist()], notes


def _as_ids(slide_ids: ArrayLike, rows: int) -> NDArray[np.str_]:
    """Return the id of each row as text (N,)."""
    given = np.asarray(slide_ids)
    if given.shape != (rows,):
        raise ParameterError(f"got slide_ids of shape {given.shape} for {rows} vectors; want ({rows},)")
    return np.array([as_id(name, f"row {row} has") for row, name in enumerate(given.tolist())], np.str_)


def as_id(slide_id: object, got: str = "got") -> str:
    """Return the id of a slide, a text or a whole number, as text; ParameterTypeError for anything else."""
    whole = isinstance(slide_id, Integral) and not isinstance(slide_id, bool)
    if not (isinstance(slide_id, str) or whole) or slide_id == "" or "\0" in str(slide_id):
        raise ParameterTypeError(f"{got} the slide id {short(slide_id)}; want text or a whole number")
    return str(slide_id)


def as_id_list(slide_ids: SlideIds) -> list[str]:
    """Return the ids of one slide or of several as texts, as `as_id` does."""
    if isinstance(slide_ids, Iterable) and not isinstance(slide_ids, str | bytes):
        return [as_id(one) for one in slide_ids]
    return [as_id(slide_ids)]


def _as_places(l0_xy: ArrayLike, rows: int) -> NDArray[np.int64]:
    """Return corners int64 (N, 2)."""
    given = np.asarray(l0_xy)
    if given.shape != (rows, 2) or given.dtype.kind not in "fiu":
        raise ParameterError(
            f"got l0_xy {given.dtype} {given.shape} for {rows} vectors; want int ({rows}, 2)"
        )
    if not ((given >= 0) & (given < MOST_L0)).all() or (given != np.floor(given)).any():  # NaN is neither
        raise ParameterError("l0_xy holds places that no slide has; want whole level-0 pixels of at least 0")
    return given.astype(np.int64)


def _sides(groups: Sequence[NDArray[np.int64]], given: float | None) -> list[float]:
    """Return the side of each slide's patches: as given, the step of its grid, or the commonest of others."""
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < MOST_L0:
            raise ParameterError(f"got patch_l0_px={given!r}; want the side of a patch in level-0 pixels")
        return [float(given)] * len(groups)
    steps = [step_of_grid(l0_xy) for l0_xy in groups]
    known = [step for step in steps if math.isfinite(step)]
    if not known and groups:
        raise ParameterError(
            "got l0_xy of patches that have no neighbours; give patch_l0_px, the side of a patch in level-0 "
            "pixels"
        )
    return [step if math.isfinite(step) else mode(known) for step in steps]


def _scales_of(mpp: Scales, slide_ids: Sequence[str]) -> list[float]:
    """Return the scale of each slide, 0 where it is not known."""
    if mpp is None or not (isinstance(mpp, Mapping) or (hasattr(mpp, "items") and hasattr(mpp, "index"))):
        return [_mpp_of(mpp, name) for name in slide_ids]
    told = {str(name): scale for name, scale in mpp.items()}
    if told and not told.keys() & set(slide_ids):
        raise ParameterError(
            f"mpp names {next(iter(told))!r}, and none of the slides, such as {min(slide_ids, default='')}: "
            "give a number, or a mapping from slide ids"
        )
    return [_mpp_of(told.get(name), name) for name in slide_ids]


def _scales_in(labels: Told) -> dict[str, float]:
    """Return the scales in the columns of a DataFrame that have the names of those of a labels file."""
    facts: dict[str, dict[str, str]] = {}
    if hasattr(labels, "columns"):
        _read_frame(labels, facts, _SCALES)
    try:
        return {name: float(next(iter(said.values()))) for name, said in facts.items()}
    except ValueError as error:
        raise LabelsError(
            f"labels have a scale that is no number ({error}); want um per level-0 pixel"
        ) from None


def _mpp_of(mpp: Any, slide_id: str) -> float:
    """Return the scale of a slide, 0 for None."""
    if mpp is None:
        return 0.0
    if isinstance(mpp, bool) or not isinstance(mpp, int | float | np.number) or not MIN_MPP <= mpp <= MAX_MPP:
        raise ParameterError(
            f"got mpp={short(mpp)} of slide {slide_id!r}; want um per level-0 pixel, {MIN_MPP} to {MAX_MPP}"
        )
    return float(mpp)


def labels_of(labels: Told, patients: Told, sites: Told) -> dict[str, LabelRow]:
    """Return what is told of slides, by slide id.

    Parameters
    ----------
    labels, patients, sites : mapping, Series or DataFrame, optional
        As of :meth:`sish.Index.add_vectors`.

    Returns
    -------
    dict of str to LabelRow
        The labels of each slide that is named.

    Raises
    ------
    LabelsError
        If a frame has a slide twice.
    ParameterTypeError
        If one is neither a mapping nor of pandas.
    """
    facts: dict[str, dict[str, str]] = {}
    if hasattr(labels, "columns"):
        _read_frame(labels, facts, [name for name in map(str, labels.columns) if name not in _APART])
        labels = None
    for column, given in zip(_TOLD, (labels, patients, sites), strict=True):
        for name, value in _items(given, column):
            facts.setdefault(name, {})[column] = value
    return {name: _label_row(name, said) for name, said in facts.items()}


def check_told(told: Collection[str], names: Collection[str]) -> list[str]:
    """Return a note on slides that were told of and are not among `names`; LabelsError if none of them is."""
    unknown = sorted(set(told) - set(names))
    if not unknown:
        return []
    named = f"{', '.join(unknown[:_NAMED])}{', ...' if len(unknown) > _NAMED else ''}"
    if len(unknown) == len(told):
        raise LabelsError(
            f"labels name {named}, and none of the slides, such as {min(names, default='')}: give a mapping "
            "from slide ids, or a Series or DataFrame with them as its index"
        )
    return [f"labels name {len(unknown)} slides without vectors: {named}"]


def _label_row(slide_id: str, said: Mapping[str, str]) -> LabelRow:
    """Return what is told of a slide as a row of a labels file."""
    return LabelRow(
        line=0,
        path=None,
        slide_id=slide_id,
        label=said.get("label"),
        patient=said.get("patient"),
        site=said.get("site"),
        mpp=None,
        metadata={name: value for name, value in said.items() if name not in _TOLD},
    )


def _items(given: Told, what: str) -> list[tuple[str, str]]:
    """Return slide ids and values of a mapping or a Series; missing values are left out."""
    if given is None:
        return []
    if not isinstance(given, Mapping) and not (hasattr(given, "items") and hasattr(given, "index")):
        raise ParameterTypeError(
            f"got {what}s as {type(given).__name__}; want a mapping from slide ids, or a pandas Series that "
            "has them as its index; of values by row make one: dict(zip(slide_ids, values))"
        )
    if hasattr(given, "columns"):
        raise ParameterTypeError(
            f"got {what}s as DataFrame; want a mapping from slide ids, or one column that has them as its "
            f"index: frame.set_index('slide_id')[{what!r}]"
        )
    items = [(str(name), value) for name, value in given.items()]
    _check_once([name for name, _ in items], f"{what}s")
    return [(name, text) for name, value in items if (text := _text(value, name, what)) is not None]


def _read_frame(frame: Any, facts: dict[str, dict[str, str]], wanted: Collection[str]) -> None:
    """Enter some columns of a DataFrame, whose slide ids are its column ``slide_id``, else its index."""
    if not hasattr(frame, "index"):
        raise ParameterTypeError(f"got labels as {type(frame).__name__}; want a DataFrame of pandas")
    columns = [str(column) for column in frame.columns]
    twice = _repeated(columns)
    if twice is not None:
        raise LabelsError(f"labels have the column {twice!r} more than once: keep one of them")
    ids = [str(name) for name in (frame["slide_id"] if "slide_id" in columns else frame.index)]
    _check_once(ids, "labels")
    for place, column in enumerate(columns):
        if column not in wanted:
            continue
        for name, value in zip(ids, frame.iloc[:, place], strict=True):
            if (text := _text(value, name, column)) is not None:
                facts.setdefault(name, {})[column] = text


def _repeated(names: Iterable[str]) -> str | None:
    """Return a name that occurs more than once, None if there is none."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _check_once(ids: Iterable[str], what: str) -> None:
    """Refuse (LabelsError) slides that are named twice."""
    if (twice := _repeated(ids)) is not None:
        raise LabelsError(f"{what} have slide {twice!r} more than once: keep one row for each slide")


def _text(value: Any, slide_id: str, what: str) -> str | None:
    """Return a value as text, None if it is missing as pandas has it; LabelsError if it is several values."""
    if isinstance(value, bytes) or (hasattr(value, "__len__") and not isinstance(value, str)):
        raise LabelsError(
            f"slide {slide_id!r} has {type(value).__name__} as its {what}; want a text or a number for each "
            "slide"
        )
    if value is None or type(value).__name__ == "NAType" or value != value:
        return None
    whole = isinstance(value, float | np.floating) and value.is_integer()  # pandas, in a column with gaps
    text = str(int(value) if whole else value)
    return None if text in MISSING or not text else text
