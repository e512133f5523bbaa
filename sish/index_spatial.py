"""Slides of SpatialData and AnnData in an index: what LazySlide computed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any, Self

from sish.archives import create_store
from sish.encode import SlideEncoder
from sish.errors import ParameterError, SlideError
from sish.index.params import SearchParams
from sish.index_base import header_of
from sish.index_changes import IndexChanges
from sish.ingest import OnError
from sish.rerank import kind_of
from sish.results import AddReport
from sish.slides.scale import check_given
from sish.spatial import SpatialReader
from sish.spatial_ingest import measured_objects, names_in, raise_if_all, spatial_slides
from sish.spatial_objects import Spatial, as_list, ids_of
from sish.vector_ingest import UNNAMED, add_vector_slides, recipe_of
from sish.vectors import MOST_L0, Told, check_told, labels_of

if TYPE_CHECKING:
    from sish.rerank import RerankName

    Search = SearchParams | Mapping[str, Any]


class IndexSpatial(IndexChanges):
    """An archive that takes slides as LazySlide, scanpy and other programs of scverse keep them."""

    def add_spatialdata(
        self,
        objects: Spatial | Iterable[Spatial],
        *,
        table: str | None = None,
        features: str | None = None,
        slide_ids: str | Sequence[str] | None = None,
        slide_column: str | None = None,
        labels: Told = None,
        patients: Told = None,
        sites: Told = None,
        mpp: float | None = None,
        patch_l0_px: float | None = None,
        feature_encoder: str | None = None,
        mosaic: bool = False,
        replace: bool = False,
        on_error: OnError = "skip",
        show_progress: bool = True,
    ) -> AddReport:
        """Add slides whose features are in SpatialData or AnnData; needs the extra ``spatial``.

        LazySlide writes such files: :mod:`sish.spatial`. Objects are read one at a time.

        Parameters
        ----------
        objects : SpatialData, WSIData, AnnData, path-like, or an iterable of them
            What holds the features. A path is that of a SpatialData (a zarr folder) or of an AnnData (a zarr
            folder or an ``.h5ad`` file).
        table : str, optional
            The table of features, such as ``uni_tiles`` or, for short, ``uni``. Default: the only one that
            has shapes and is as long as the vectors of the index; of several, the one of its encoder.
        features : str, optional
            A layer of the table, or an array of ``obsm``, that holds the features. Default: ``X``, which may
            be sparse.
        slide_ids : str or sequence of str, optional
            The slide id of each object. Default: the name of its file without the ending.
        slide_column : str, optional
            Column of ``obs`` that names the slide of each row, where an object holds several slides.
        labels, patients, sites, mosaic, replace, on_error, show_progress
            As of :meth:`add_vectors`.
        mpp : float, optional
            Micrometres per level-0 pixel of slides whose objects do not tell it.
        patch_l0_px : float, optional
            Side of a patch in level-0 pixels around the places of ``obsm["spatial"]``. Default: the step of
            their grid. Shapes have their own size.
        feature_encoder : str, optional
            Name of the network that made the features. Default: that in the table's name, as LazySlide gives
            it (``uni`` of ``uni_tiles``). Features of another network than the index's are refused.

        Returns
        -------
        AddReport
            What was done with each slide. An object that cannot be used is reported as failed.

        Raises
        ------
        TableChoiceError
            If no object has the wanted table, or it must be named: the error lists the tables that there are.
        EncoderMismatchError
            If the features of all objects are of another encoder or length than the index's.
        ParameterError
            If an object in memory has no slide id, two have the same, or an argument is out of range.
        LabelsError
            If what is told of the slides cannot be read, or names none of them.
        StoreError
            As of :meth:`add`.
        MissingPackageError
            If spatialdata or anndata is not installed.
        """
        given = as_list(objects)
        reader = _reader(table, features, slide_column, mpp, patch_l0_px, feature_encoder)
        ids, told = ids_of(given, slide_ids, slide_column), labels_of(labels, patients, sites)
        notes = check_told(told, [name for name in ids if name is not None]) if slide_column is None else []
        errors: list[SlideError] = []
        with self._store.writer() as store:
            encoder = self._encoder_of(store.state)
            name, width = names_in(encoder)
            reader = changed(reader, encoder=name, width=width)
            slides = spatial_slides(given, ids, reader, told, mosaic=mosaic, errors=errors)
            report = add_vector_slides(
                store,
                encoder,
                slides,
                n_slides=len(given),
                mosaic=mosaic,
                replace=replace,
                on_error=on_error,
                show_progress=show_progress,
            )
        raise_if_all(report, errors)
        report.notes += notes
        return report

    @classmethod
    def from_spatialdata(
        cls,
        path: str | os.PathLike[str],
        objects: Spatial | Iterable[Spatial],
        *,
        table: str | None = None,
        features: str | None = None,
        slide_ids: str | Sequence[str] | None = None,
        slide_column: str | None = None,
        labels: Told = None,
        patients: Told = None,
        sites: Told = None,
        mpp: float | None = None,
        patch_l0_px: float | None = None,
        feature_encoder: str | None = None,
        mosaic: bool = False,
        on_error: OnError = "raise",
        rerank: RerankName = "auto",
        search: Search | None = None,
        show_progress: bool = True,
    ) -> Self:
        """Make an index of slides whose features are in SpatialData or AnnData; needs the extra ``spatial``.

        The features are measured on up to 32 of the objects (:mod:`sish.calibration`). More slides come with
        :meth:`add_spatialdata`.

        Parameters
        ----------
        path : path-like
            Folder to make; it may exist if it is empty.
        objects, table, features, slide_ids, slide_column, labels, patients, sites, mpp, patch_l0_px, mosaic
            As of :meth:`add_spatialdata`.
        feature_encoder : str, optional
            As of :meth:`add_spatialdata`; it becomes that of the index.
        on_error : {"raise", "skip"}
            Stop with the error of an object that cannot be used, or leave it out. :meth:`add_spatialdata`
            goes on where this stopped, and reports what it leaves out.
        show_progress : bool
            As of :meth:`add_spatialdata`.
        rerank : {"auto", "int8", "float16"} or None
            As of :meth:`from_vectors`.
        search : SearchParams or mapping, optional
            As of :meth:`create`.

        Returns
        -------
        Index
            The index, with the slides. :meth:`add_spatialdata` gives a report of further ones.

        Raises
        ------
        SlideError
            If an object cannot be used (TableChoiceError if its table must be named).
        ParameterError
            As of :meth:`add_spatialdata`, or if there are too few rows to be measured.
        LabelsError
            If what is told of the slides cannot be read, or names none of them.
        StoreError
            If there is something at ``path`` already, or it cannot be written.
        MissingPackageError
            If spatialdata or anndata is not installed.
        """
        given = as_list(objects)
        ids = ids_of(given, slide_ids, slide_column)
        if slide_column is None:
            check_told(labels_of(labels, patients, sites), [name for name in ids if name is not None])
        reader = _reader(table, features, slide_column, mpp, patch_l0_px, feature_encoder)
        name, sample, is_slide_level = measured_objects(given, reader)
        coder = SlideEncoder(recipe_of(name or UNNAMED, sample.shape[1]))
        coder = coder.keeping_vectors(kind_of(rerank, is_slide_level)).measured_on(sample)
        with create_store(path, header_of(coder, search)) as store:
            index = cls(store)
        index.add_spatialdata(
            given,
            table=table,
            features=features,
            slide_ids=slide_ids,
            slide_column=slide_column,
            labels=labels,
            patients=patients,
            sites=sites,
            mpp=mpp,
            patch_l0_px=patch_l0_px,
            feature_encoder=feature_encoder,
            mosaic=mosaic,
            on_error=on_error,
            show_progress=show_progress,
        )
        return index


def _reader(
    table: str | None,
    features: str | None,
    slide_column: str | None,
    mpp: float | None,
    patch_l0_px: float | None,
    feature_encoder: str | None,
) -> SpatialReader:
    """Return how tables are read; ParameterError for a length that no slide has."""
    check_given(mpp, None)
    if patch_l0_px is not None and not (isinstance(patch_l0_px, int | float) and 0 < patch_l0_px < MOST_L0):
        raise ParameterError(f"got patch_l0_px={patch_l0_px!r}; want the side of a patch in level-0 pixels")
    return SpatialReader(table, features, slide_column, mpp, patch_l0_px, feature_encoder or "")
