"""Answers as AnnData: the matched patches of one slide, for `wsi.tables` and for scanpy (extra ``spatial``).

The rows are patches of one slide, the query or a hit, and the columns are the slides that they were matched
with. A value is the Hamming distance in bits of the nearest matched pair, NaN where there is none. The tiles
of a SpatialData make a row for each tile, with the keys of LazySlide, which then draws any column over its
tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.spatial import corners_of, instances_of
from sish.tables import hits_frame, needed, utf8_text

Place = list[int] | None
Answer = Mapping[str, Any]
"""The answer of an index, as its ``to_dict`` gives it."""

REGION_KEY, INSTANCE_KEY = "library_id", "tile_id"
"""The columns of ``obs`` that name the shapes and the tile of a row: those of LazySlide."""
_TEXTS = ("matched_slide", "matched_label")
_NUMBERS = ("rank", "hamming", "matched_row", "matched_x", "matched_y")


@dataclass(frozen=True, slots=True)
class _Match:
    """A pair, seen from the slide that the table is of."""

    row: int
    xy: Place
    hamming: int
    other_row: int
    other_xy: Place
    column: int
    rank: int
    slide_id: str
    label: str | None

    @property
    def cells(self) -> dict[str, Any]:
        """The cells of its row in ``obs``."""
        x, y = (np.nan, np.nan) if self.other_xy is None else self.other_xy
        numbers = (self.rank, self.hamming, self.other_row, x, y)
        texts = (utf8_text(self.slide_id), utf8_text(self.label))
        return dict(zip(_TEXTS + _NUMBERS, texts + numbers, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows of a table, and the row of each match."""

    obs: Any
    l0_xy: NDArray[np.int64] | None
    side: float
    at: Sequence[int]


def answer_table(
    answer: Answer,
    hit_fields: Sequence[str],
    slide_id: str | None = None,
    *,
    sdata: Any = None,
    shapes: str = "tiles",
) -> Any:
    """Return the matched patches of a slide; see :meth:`sish.Results.to_anndata`.

    Parameters
    ----------
    answer : mapping
        The answer of an index, as its ``to_dict`` gives it.
    hit_fields : sequence of str
        The fields of a hit.
    slide_id : str, optional
        A hit; the query without it.
    sdata : SpatialData, optional
        The slide's object, whose tiles become the rows.
    shapes : str
        The name of its tiles.

    Returns
    -------
    AnnData
        The table.

    Raises
    ------
    ParameterError
        If there is no such hit, or the tiles are not those of the slide.
    MissingPackageError
        If anndata or, for `sdata`, spatialdata is not installed.
    """
    anndata, pandas = needed("anndata", "spatial"), needed("pandas", "spatial")
    matches = list(_of_query(answer) if slide_id is None else _of_hit(answer, slide_id))
    if sdata is None:
        rows = _matched_rows(matches, _side(answer, slide_id), pandas)
    else:
        n_patches = answer["query"]["n_patches"] if slide_id is None else None
        rows = _rows_of_tiles(matches, sdata, shapes, n_patches, pandas)
    var = _hits(answer, hit_fields, pandas) if slide_id is None else _query(answer, pandas)
    distances = _fill(rows, len(var), matches, pandas)
    table = anndata.AnnData(distances, obs=rows.obs, var=var, uns={"sish": _told(answer, slide_id)})
    if rows.l0_xy is not None:
        table.obsm["spatial"] = rows.l0_xy + rows.side / 2
    if sdata is None:
        return table
    models = needed("spatialdata.models", "spatial")
    return models.TableModel.parse(table, region=shapes, region_key=REGION_KEY, instance_key=INSTANCE_KEY)


def _matched_rows(matches: Sequence[_Match], side: float, pandas: Any) -> _Rows:
    """Return a row for each matched patch."""
    places = {one.row: one.xy for one in matches}
    numbers = sorted(places)
    known = not any(xy is None for xy in places.values())
    return _Rows(
        obs=pandas.DataFrame({"row": np.array(numbers, np.int64)}, index=[str(row) for row in numbers]),
        l0_xy=np.array([places[row] for row in numbers], np.int64).reshape(-1, 2) if known else None,
        side=side,
        at=[numbers.index(one.row) for one in matches],
    )


def _rows_of_tiles(
    matches: Sequence[_Match], sdata: Any, shapes: str, n_patches: int | None, pandas: Any
) -> _Rows:
    """Return a row for each tile."""
    if shapes not in sdata.shapes:
        raise ParameterError(f"got shapes={shapes!r}; want one of {', '.join(sdata.shapes) or 'none'}")
    frame = sdata.shapes[shapes]
    l0_xy, side = corners_of(frame)
    ids = instances_of(frame, INSTANCE_KEY)
    obs = pandas.DataFrame({INSTANCE_KEY: ids}, index=[str(one) for one in ids])
    obs[REGION_KEY] = pandas.Categorical([shapes] * len(obs))
    return _Rows(obs, l0_xy, side, _tiles_of(matches, l0_xy, n_patches))


def _of_query(answer: Answer) -> Iterator[_Match]:
    """Yield the pairs of an answer, seen from the query."""
    for column, hit in enumerate(answer["results"]):
        found = (column, hit["rank"], hit["slide_id"], hit["label"])
        for it in hit["patches"]:
            yield _Match(it["query_row"], it["query_xy"], it["hamming"], it["row"], it["xy"], *found)


def _of_hit(answer: Answer, slide_id: str) -> Iterator[_Match]:
    """Yield the pairs of a hit, seen from it."""
    hit = next((one for one in answer["results"] if one["slide_id"] == slide_id), None)
    if hit is None:
        there = ", ".join(one["slide_id"] for one in answer["results"]) or "none"
        raise ParameterError(f"got slide_id={slide_id!r}, which is no hit; want one of {there}")
    found = (0, hit["rank"], answer["query"]["slide_id"], None)
    for it in hit["patches"]:
        yield _Match(it["row"], it["xy"], it["hamming"], it["query_row"], it["query_xy"], *found)


def _side(answer: Answer, slide_id: str | None) -> float:
    """Return the side of the slide's patches in level-0 pixels, 0 if it is not known."""
    slides = [answer["query"]] if slide_id is None else answer["results"]
    own = next(one for one in slides if slide_id in (None, one["slide_id"]))
    return own["patch_l0_px"] or 0.0


def _tiles_of(matches: Sequence[_Match], l0_xy: NDArray[np.int64], query_patches: int | None) -> list[int]:
    """Return the number of the tile of each match: the tile at its place."""
    number = {tuple(xy): place for place, xy in enumerate(l0_xy.tolist())}
    if query_patches == len(l0_xy) and all(one.xy is None for one in matches):
        return [one.row for one in matches]  # vectors in the order of the tiles
    found = [-1 if one.xy is None else number.get(tuple(one.xy), -1) for one in matches]
    if -1 in found:
        raise ParameterError(
            f"{found.count(-1)} of {len(found)} matched patches are none of the {len(l0_xy)} tiles; give the "
            "object of this slide, and the tiles whose features were searched for or indexed"
        )
    return found


def _query(answer: Answer, pandas: Any) -> Any:
    """Return ``var`` of the table of a hit: the query."""
    return pandas.DataFrame(index=[utf8_text(answer["query"]["slide_id"])])


def _hits(answer: Answer, hit_fields: Sequence[str], pandas: Any) -> Any:
    """Return ``var`` of the table of the query: the hits."""
    frame = hits_frame(answer, hit_fields).set_index("slide_id")
    frame.index.name, frame.attrs = None, {}
    for name in frame.select_dtypes(exclude=["number", "bool"]):
        frame[name] = pandas.Categorical(frame[name])
    return frame


def _fill(rows: _Rows, n_columns: int, matches: Sequence[_Match], pandas: Any) -> NDArray[np.float32]:
    """Return the distances, and give ``obs`` the nearest match of each row."""
    obs = rows.obs
    distances = np.full((len(obs), n_columns), np.nan, np.float32)
    cells: list[dict[str, Any]] = [{} for _ in range(len(obs))]
    pairs = sorted(zip(matches, rows.at, strict=True), key=lambda pair: (-pair[0].hamming, -pair[0].rank))
    for match, row in pairs:  # the nearest comes last, and stays
        distances[row, match.column] = match.hamming
        cells[row] = match.cells
    obs["n_hits"] = (~np.isnan(distances)).sum(axis=1)
    for name in _TEXTS:
        obs[name] = pandas.Categorical([one.get(name) for one in cells])
    for name in _NUMBERS:
        obs[name] = np.array([one.get(name, np.nan) for one in cells], np.float64)
    return distances


def _told(answer: Answer, slide_id: str | None) -> dict[str, Any]:
    """Return the query, the ranking and the note as plain values that AnnData can write: no None."""
    query = {name: value for name, value in answer["query"].items() if value is not None}
    if "region" in query:
        query["region"] = np.array(query["region"])
    told = {"query": query, "ranking": answer["ranking"], "note": answer["note"]}
    return told if slide_id is None else told | {"slide_id": slide_id}
