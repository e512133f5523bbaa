"""Slides of SpatialData and AnnData, as LazySlide and other programs write them (extra ``spatial``).

A SpatialData object holds one slide, as a zarr folder on disk. LazySlide keeps its tiles in
``wsi.shapes["tiles"]`` and the features of an encoder in ``wsi.tables["uni_tiles"]``: an AnnData whose rows
name their tiles by two columns of ``obs`` (``uns["spatialdata_attrs"]``). ``attrs`` holds the slide's scale
(``slide_properties``) and that of the tiles (``tile_spec``). Places are the shapes' own coordinates, which
are level-0 pixels there.

A plain AnnData may hold one slide or several. Its places are ``obsm["spatial"]``: corners if ``uns`` has a
``tile_spec``, as LazySlide writes them, else centres, as scanpy and squidpy have them. Neither library is
imported before an object of it is read.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.errors import (
    FeatureMismatchError,
    ParameterError,
    SlideOpenError,
    TableChoiceError,
    errors_about,
)
from sish.feature_files import step_of_grid
from sish.labels import LabelRow
from sish.slides.scale import MAX_MPP, MIN_MPP
from sish.spatial_objects import Spatial, described, is_table, open_spatial, path_of
from sish.vectors import VectorSlide, as_vectors

_LINKS = "spatialdata_attrs"  # in the uns of a table: how its rows name their shapes
_TILE_SPEC, _PROPERTIES = "tile_spec", "slide_properties"  # of LazySlide, in attrs or uns


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTable:
    """The N rows of one table of features."""

    encoder: str
    """Name of the network that made them; empty if nothing tells it."""
    vectors: NDArray[np.float32]
    """Float32 (N, F)."""
    l0_xy: NDArray[np.int64] | None
    """Shape (N, 2): top left corners in level-0 pixels; None if the places are not known."""
    patch_l0_px: NDArray[np.float64]
    """Shape (N,): side of each patch in level-0 pixels; 0 if the places are not known."""
    mpp: NDArray[np.float64]
    """Shape (N,): micrometres per level-0 pixel; 0 if it is not told."""
    obs: Any
    """The DataFrame of its rows."""


@dataclass(frozen=True, slots=True)
class SpatialReader:
    """Reads the features of slides; the fields are arguments of :meth:`sish.Index.add_spatialdata`."""

    table: str | None = None
    """Name of the table."""
    features: str | None = None
    """Name of a layer, or of an array of obsm, that holds the features; None for X."""
    slide_column: str | None = None
    """Column of obs that names the slide of each row."""
    mpp: float | None = None
    """Micrometres per level-0 pixel, where the object does not tell it."""
    patch_l0_px: float | None = None
    """Side of a patch in level-0 pixels, where there are no shapes."""
    made_by: str = ""
    """Name of the network, whatever the table's name; empty if that tells it."""
    encoder: str = ""
    """Name of the index's encoder; empty if it has none, or any will do."""
    width: int = 0
    """Length of the index's vectors; 0 if any will do."""

    def read(self, given: Spatial) -> FeatureTable:
        """Read the table of features of an object or a path.

        Parameters
        ----------
        given : SpatialData, AnnData or path-like
            What holds it.

        Returns
        -------
        FeatureTable
            Its rows.

        Raises
        ------
        TableChoiceError
            If there is no such table, or several would do.
        FeatureMismatchError
            If its features are of another encoder, or longer or shorter, than the index's.
        SlideError
            If it cannot be read.
        MissingPackageError
            If spatialdata or anndata is not installed.
        """
        with errors_about(path_of(given)):
            place, opened = described(given), open_spatial(given)
            if is_table(opened):
                found = self._of_table(opened, place)
            else:
                found = self._of_spatialdata(opened, place)
            found = replace(found, encoder=self.made_by or found.encoder)
            self._check(found, place)
            return found

    def slides(self, given: Spatial, slide_id: str | None, told: Mapping[str, LabelRow]) -> list[VectorSlide]:
        """Return the slides of an object: one, or those that `slide_column` names.

        Parameters
        ----------
        given : SpatialData, AnnData or path-like
            The object.
        slide_id : str or None
            Its slide id, unless a column names the slides.
        told : mapping
            Labels by slide id.

        Returns
        -------
        list of VectorSlide
            The slides, in the order of their first rows.

        Raises
        ------
        SlideError
            As of :meth:`read`.
        """
        found = self.read(given)
        if self.slide_column is None:
            ids = np.full(len(found.vectors), slide_id or "", object)
            names = [slide_id or ""]
        else:
            ids = _column(found.obs, self.slide_column, described(given))
            names = list(dict.fromkeys(ids.tolist()))
        rows = [np.flatnonzero(ids == name) for name in names]
        return [
            VectorSlide(
                slide_id=name,
                vectors=found.vectors[own],
                l0_xy=None if found.l0_xy is None else found.l0_xy[own],
                patch_l0_px=_middle(found.patch_l0_px[own]),
                mpp=_middle(found.mpp[own]) or self.mpp or 0.0,
                labels=told.get(name),
            )
            for name, own in zip(names, rows, strict=True)
        ]

    def is_slide_level(self, table: FeatureTable) -> bool:
        """Return whether a table has one row a slide."""
        slides = [0] if self.slide_column is None else set(_column(table.obs, self.slide_column, "the table"))
        return len(table.vectors) == len(slides)

    def _of_spatialdata(self, sdata: Any, place: str) -> FeatureTable:
        """Read the table of a SpatialData, and the shapes that its rows name."""
        name = self._choose(sdata, place)
        table = sdata.tables[name]
        vectors, links = self._features_of(table, place), table.uns.get(_LINKS)
        regions = [] if links is None else _regions_of(links, sdata)
        if not regions or links is None:
            l0_xy, side = self._spots_of(table, place)
            return _of_one_slide(vectors, l0_xy, side, 0.0, table.obs)
        l0_xy, sides = _linked(table.obs, links, {one: sdata.shapes[one] for one in regions}, place)
        told, specs = sdata.attrs.get(_PROPERTIES), sdata.attrs.get(_TILE_SPEC, {})
        mpp = {one: _mpp_of(told, specs.get(one)) for one in regions}
        region = table.obs[links["region_key"]].tolist()
        return FeatureTable(
            encoder=_encoder_of(name, regions),
            vectors=vectors,
            l0_xy=l0_xy,
            patch_l0_px=sides,
            mpp=np.array([mpp[one] for one in region], np.float64),
            obs=table.obs,
        )

    def _of_table(self, table: Any, place: str) -> FeatureTable:
        """Read an AnnData that stands alone."""
        if self.table is not None:
            raise TableChoiceError(
                f"{place}: got table={self.table!r} for an AnnData, which is one; leave it out"
            )
        mpp = _mpp_of(table.uns.get(_PROPERTIES), table.uns.get(_TILE_SPEC))
        l0_xy, side = self._spots_of(table, place)
        return _of_one_slide(self._features_of(table, place), l0_xy, side, mpp, table.obs)

    def _choose(self, sdata: Any, place: str) -> str:
        """Return the name of the table of features."""
        tables: Mapping[str, Any] = sdata.tables
        if self.table is not None:
            names = [name for name in (self.table, *_tables_of(self.table, sdata)) if name in tables]
            if not names:
                raise TableChoiceError(f"{place}: has no table {self.table!r}, only {_listed(tables)}")
            return names[0]
        fitting = [name for name in tables if self._may_hold(tables[name], sdata)]
        own = [name for name in fitting if name in _tables_of(self.encoder, sdata)] if self.encoder else []
        if len(own) == 1:
            return own[0]
        if len(fitting) != 1:
            found = f"several tables of features, {', '.join(fitting)}" if fitting else "no table of features"
            raise TableChoiceError(
                f"{place}: has {found}, of the tables {_listed(tables)}; name one with table="
            )
        return fitting[0]

    def _may_hold(self, table: Any, sdata: Any) -> bool:
        """Return whether a table may be the one: numbers of the right length, of shapes that are there."""
        links = table.uns.get(_LINKS)
        if "sish" in table.uns or links is None or not _regions_of(links, sdata):
            return False
        found = _held(table, self.features)
        return found is not None and found.shape[1] > 0 and self.width in (0, found.shape[1])

    def _features_of(self, table: Any, place: str) -> NDArray[np.float32]:
        """Return the features of a table."""
        found = _held(table, self.features)
        if found is None or len(found.shape) != 2:
            there = [name for name in (*table.layers, *table.obsm) if name]
            raise TableChoiceError(
                f"{place}: its table has no {'X' if self.features is None else self.features!r}; name one of "
                f"its layers or arrays of obsm with features=: {', '.join(map(str, there)) or 'it has none'}"
            )
        if hasattr(found, "to_memory"):  # sparse, and on disk
            found = found.to_memory()
        try:
            return as_vectors(found.toarray() if hasattr(found, "toarray") else np.asarray(found), "features")
        except ParameterError as error:
            raise SlideOpenError(f"{place}: {error}") from error

    def _spots_of(self, table: Any, place: str) -> tuple[NDArray[np.int64] | None, float]:
        """Return corners and side of the places of obsm["spatial"]; None and 0 without them."""
        if "spatial" not in table.obsm:
            return None, 0.0
        given = np.asarray(table.obsm["spatial"])
        if given.ndim != 2 or given.shape[1] != 2 or not np.isfinite(given).all():
            raise SlideOpenError(f'{place}: got obsm["spatial"] {given.shape}; want finite numbers (N, 2)')
        points, spec = np.rint(given).astype(np.int64), table.uns.get(_TILE_SPEC, {})
        if "width" in spec:
            return _on_slide(points, place), float(int(spec["width"] * spec.get("base_downsample", 1.0)))
        side = self.patch_l0_px or step_of_grid(points)
        if not np.isfinite(side):
            raise SlideOpenError(
                f'{place}: nothing tells the size of its patches, whose centres are obsm["spatial"]; give '
                "patch_l0_px, their side in level-0 pixels"
            )
        return np.maximum(0, np.rint(given - side / 2)).astype(np.int64), float(side)

    def _check(self, found: FeatureTable, place: str) -> None:
        """Refuse features of another kind than the index has."""
        width = found.vectors.shape[1]
        if self.width not in (0, width) or (self.encoder and found.encoder not in ("", self.encoder)):
            raise FeatureMismatchError(
                f"{place} has features of {found.encoder or 'unknown'}/{width}, and the index is of "
                f"{self.encoder or 'unknown'}/{self.width}: keep one index for each encoder"
            )


def _of_one_slide(
    vectors: NDArray[np.float32], l0_xy: NDArray[np.int64] | None, side: float, mpp: float, obs: Any
) -> FeatureTable:
    """Return rows that have one size and scale, of a network that is not told."""
    return FeatureTable("", vectors, l0_xy, np.full(len(vectors), side), np.full(len(vectors), mpp), obs)


def _middle(numbers: NDArray[np.float64]) -> float:
    """Return the median, 0 of none."""
    return float(np.median(numbers)) if len(numbers) else 0.0


def _regions_of(links: Mapping[str, Any], sdata: Any) -> list[str]:
    """Return the shapes that a table's rows name, as far as they are there."""
    region = links.get("region")
    return [one for one in ([region] if isinstance(region, str) else region or []) if one in sdata.shapes]


def _tables_of(encoder: str, sdata: Any) -> list[str]:
    """Return the names that LazySlide gives to tables of an encoder."""
    return [f"{encoder}_{shapes}" for shapes in sdata.shapes]


def _encoder_of(table: str, regions: Sequence[str]) -> str:
    """Return the network's name in that of LazySlide's table: model_tiles."""
    return next((table.removesuffix(f"_{one}") for one in regions if table.endswith(f"_{one}")), "")


def _held(table: Any, features: str | None) -> Any:
    """Return the features of a table: X, a layer or an array of obsm; None without."""
    if features is None:
        return table.X
    return next((held[features] for held in (table.layers, table.obsm) if features in held), None)


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names)) or "none"


def _column(obs: Any, name: str, place: str) -> NDArray[Any]:
    """Return a column of obs as texts (N,)."""
    if name not in obs.columns:
        raise TableChoiceError(f"{place}: has no column {name!r} of obs, only {_listed(obs.columns)}")
    if obs[name].isna().any():
        raise SlideOpenError(
            f"{place}: its column {name!r} names no slide in some rows; fill them, or leave them out"
        )
    return np.array([str(one) for one in obs[name]], object)


def _mpp_of(properties: Mapping[str, Any] | None, spec: Mapping[str, Any] | None) -> float:
    """Return the scale of level 0 that LazySlide tells, 0 without a plausible one."""
    found = (properties or {}).get("mpp")
    if found is None and spec and spec.get("mpp"):
        found = spec["mpp"] / spec.get("base_downsample", 1.0)
    return float(found) if found is not None and MIN_MPP <= found <= MAX_MPP else 0.0


def _linked(
    obs: Any, links: Mapping[str, Any], shapes: Mapping[str, Any], place: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the corners (N, 2), and the sides (N,), of the shapes that the rows of a table name."""
    l0_xy, sides = np.full((len(obs), 2), -1, np.int64), np.zeros(len(obs))
    region, wanted = obs[links["region_key"]].astype(str).to_numpy(), obs[links["instance_key"]].tolist()
    for name, frame in shapes.items():
        corners, side = corners_of(frame)
        number = {one: row for row, one in enumerate(instances_of(frame, links["instance_key"]))}
        rows = np.array([row for row in np.flatnonzero(region == name) if wanted[row] in number], np.int64)
        l0_xy[rows] = corners[[number[wanted[row]] for row in rows]]
        sides[rows] = side
    missing = int((l0_xy < 0).any(axis=1).sum())
    if missing:
        raise SlideOpenError(
            f"{place}: {missing} rows of its table have no shape on the slide in {_listed(shapes)}; compute "
            "the features of its tiles again"
        )
    return l0_xy, sides


def instances_of(frame: Any, instance_key: str) -> list[Hashable]:
    """Return what the rows of a table call each shape: a column of that name, else the index."""
    return list(frame[instance_key] if instance_key in frame.columns else frame.index)


def corners_of(frame: Any) -> tuple[NDArray[np.int64], float]:
    """Return top left corners int64 (N, 2) of shapes, and their side: the larger of median width, height."""
    bounds = np.asarray(frame.bounds, np.float64).reshape(-1, 4)
    corners, sides = bounds[:, :2], bounds[:, 2:] - bounds[:, :2]
    if "radius" in frame.columns:  # a circle is its centre, and this column; it may reach over the edge
        radius = np.asarray(frame["radius"], np.float64)[:, None]
        corners, sides = np.maximum(0, corners - radius), np.hstack([radius, radius]) * 2
    side = float(np.median(sides, axis=0).max()) if len(sides) else 1.0
    return np.rint(corners).astype(np.int64), side


def _on_slide(l0_xy: NDArray[np.int64], place: str) -> NDArray[np.int64]:
    """Return corners; SlideOpenError for places left of or above the slide."""
    if (l0_xy < 0).any():
        raise SlideOpenError(f'{place}: got places below 0 in obsm["spatial"]; want level-0 pixels')
    return l0_xy
