"""The index of an archive: add slides, search for similar ones.

>>> import sish, tempfile
>>> from sish.demo.synthetic import write_slides
>>> folder = tempfile.mkdtemp()
>>> labels = write_slides(f"{folder}/slides", n_slides=2)
>>> index = sish.Index.create(f"{folder}/archive.sish")
>>> index.add(f"{folder}/slides", labels=labels, show_progress=False).summary()
'2 added'
>>> [hit.rank for hit in index.search(index.slides[0].path, k=2)]
[1, 2]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from sish.archives import create_store, open_store
from sish.encode import SlideEncoder
from sish.encoders import TISSUE, PatchEncoder
from sish.errors import IndexExistsError, IndexNotFoundError, ParameterError
from sish.feature_ingest import measured_files
from sish.index.params import SearchParams
from sish.index.postgres.addresses import Address
from sish.index_base import check_alike, check_keeps, header_of, one_encoder
from sish.index_insight import IndexInsight
from sish.recipe import Recipe
from sish.rerank import kind_of
from sish.sampling import measured_encoder
from sish.thresholds import Settings
from sish.vector_ingest import check_mosaic, measured_rows, recipe_of
from sish.vectors import Scales, Told, slides_of

if TYPE_CHECKING:
    from sish.index.vector_coder import VectorKind
    from sish.rerank import RerankName

    Search = SearchParams | Mapping[str, Any]


class Index(IndexInsight):
    """An archive of slides that can be searched; a folder on disk.

    Make one with :meth:`create`, or open one with :meth:`open`. Many processes may search while one adds.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     index = Index.create(f"{folder}/archive.sish")
    ...     len(index), index.recipe.patch_px, Index.open(index.path).params.budget
    (0, 256, 4000)
    """

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | Address,
        *,
        recipe: Recipe | None = None,
        encoder: str | PatchEncoder | None = None,
        search: Search | None = None,
        measure: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
        mpp: float | None = None,
        override_mpp: float | None = None,
        like: str | os.PathLike[str] | Address | Index | None = None,
        rerank: VectorKind | None = None,
        device: str = "cpu",
        workers: int | None = None,
    ) -> Index:
        """Make an empty index.

        Parameters
        ----------
        path : path-like
            Folder to make; it may exist if it is empty.
        recipe : Recipe, optional
            How slides become keys and barcodes. Default: encoder ``tissue``, patches of 256 px at 1.0 um/px.
        encoder : str or PatchEncoder, optional
            The encoder, by name or as an object (:class:`sish.encoders.PatchEncoder`), in place of the
            recipe's weights. Where the recipe has the default patch size or scale, the encoder's own is used.
            Give an object to :meth:`open` again.
        search : SearchParams or mapping, optional
            Budget and threshold of the search; a mapping changes some of the defaults. Default: 4,000 patches
            a query patch (with ``keys="paper"`` the paper's 15,000 keys, the query's own first), and the
            threshold that is measured on the archive once it has 200 patches (:mod:`sish.thresholds`). Until
            then, and with ``keys="paper"``, it is the encoder's own.
        measure : path-like or iterable of path-like, optional
            Slides, or folders of slides, that the encoder's features are measured on (:mod:`sish.sampling`).
            Default: the first :meth:`add` measures its own slides. Encoders whose bits do not depend on the
            archive are not measured.
        mpp : float, optional
            Scale in um per pixel of the measured slides whose files do not tell it.
        override_mpp : float, optional
            Scale in um per pixel of all measured slides, whatever their files tell.
        like : path-like or Index, optional
            An index whose recipe, calibration and search parameters the new one has, so that both make the
            same barcodes: for shards of one archive. An encoder that was given as an object is given again.
        rerank : {"int8", "float16"}, optional
            Keep the patches' features too, a byte or two a number, and rank the nearest patches again by the
            angle between them (:mod:`sish.rerank`). Default: keep barcodes alone, 128 bytes a patch.
        device : str
            Where the encoder runs, as torch names it.
        workers : int, optional
            Threads that read a slide, and that run the encoder ``tissue``; torch has its own number. Codes do
            not depend on it. Default: one for each core that the process may use, at most 8.

        Returns
        -------
        Index
            The index, without slides.

        Raises
        ------
        StoreError
            If there is something at ``path`` already, or it cannot be written.
        ParameterError
            If both a recipe's weights and an encoder are given, the object is no encoder, or `like` is given
            beside a recipe or slides to measure, or is an index that needs a calibration and has none; or if
            the encoder's features have no angles to rank by.
        """
        if like is not None:
            if recipe is not None or measure is not None or rerank is not None:
                raise ParameterError(
                    "got like= beside recipe=, measure= or rerank=; an index like another has its own"
                )
            return cls._like(path, like, encoder=encoder, search=search, device=device, workers=workers)
        coder = SlideEncoder(recipe, encoder=encoder, device=device, workers=workers)
        if coder.lacks_encoder:
            raise ParameterError(f"got weights={coder.recipe.weights!r} without the object; give encoder=")
        coder = coder.keeping_vectors(rerank)
        if measure is not None and coder.needs_calibration:
            coder = measured_encoder(coder, measure, mpp=mpp, override_mpp=override_mpp)
        with create_store(path, header_of(coder, search)) as store:
            return cls(store, encoder=encoder, device=device, workers=workers)

    @classmethod
    def _like(
        cls,
        path: str | os.PathLike[str] | Address,
        like: str | os.PathLike[str] | Address | Index,
        *,
        encoder: str | PatchEncoder | None,
        search: Search | None,
        device: str,
        workers: int | None,
    ) -> Index:
        """Make an empty index with the recipe, the calibration and the search parameters of another."""
        if isinstance(like, Index) and encoder is None:
            other = like
        else:
            place = like.path if isinstance(like, Index) else like
            other = cls.open(place, encoder=encoder, device=device, workers=workers)
        if encoder is not None:
            other.encoder.load()  # refused if it is not that of the index
        if other.encoder.needs_calibration:
            raise ParameterError(
                f"{other.path} was not measured, so there is no calibration to share: add slides to it "
                "first, or measure those that it holds (sish index recalibrate)"
            )
        settings = Settings(other._header.search, other._header.measures_threshold).with_changes(search)
        header = replace(other._header, search=settings.params, measures_threshold=settings.measures)
        with create_store(path, header.to_json()) as store:
            return cls(store, encoder=other._given, device=device, workers=workers)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | Address,
        *,
        weights: str | os.PathLike[str] | None = None,
        encoder: str | PatchEncoder | None = None,
        device: str = "cpu",
        workers: int | None = None,
        search: Search | None = None,
        verify: bool = False,
    ) -> Index:
        """Open an index to search it or to add to it.

        Parameters
        ----------
        path : path-like
            The index's folder.
        weights : path-like, optional
            The file of the weights that made the index, if it was moved.
        encoder : str or PatchEncoder, optional
            The encoder that made the index, if it was given as an object. Without it, a search by the id of
            an indexed slide works, and a search by pixels is refused.
        device : str
            Where the encoder runs, as torch names it.
        workers : int, optional
            As of :meth:`create`.
        search : SearchParams or mapping, optional
            Parameters for all searches of this object. ``{"budget": 1000}`` changes one, SearchParams sets
            all. The index on the disk keeps its own.
        verify : bool
            Compare all patches with their checksums before the first search; this reads the whole index. An
            index of up to 64 MB, about 400,000 patches, is always compared.

        Returns
        -------
        Index
            The index.

        Raises
        ------
        StoreError
            If there is no index, or its manifest is damaged. If something else is damaged, the index opens.
            Then a search raises IndexCorruptError, and :attr:`slides`, :meth:`info` and :meth:`repair` work.
        ParameterError
            If there is no such search parameter, or its value is out of range.
        """
        return cls(
            open_store(path),
            weights=weights,
            encoder=encoder,
            device=device,
            workers=workers,
            search=search,
            verify=verify,
        )

    @classmethod
    def open_or_create(
        cls,
        path: str | os.PathLike[str] | Address,
        *,
        weights: str | os.PathLike[str] | None = None,
        encoder: str | PatchEncoder | None = None,
        measure: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
        mpp: float | None = None,
        override_mpp: float | None = None,
        like: str | os.PathLike[str] | Index | None = None,
        rerank: VectorKind | None = None,
        device: str = "cpu",
        workers: int | None = None,
    ) -> Index:
        """Open the index (:meth:`open`), or make one with its encoder's own recipe (:meth:`create`)."""
        given = one_encoder(weights, encoder)
        index = open_or_make(
            lambda: cls.open(path, encoder=given, device=device, workers=workers),
            lambda: cls.create(
                path,
                encoder=TISSUE if given is None and like is None else given,
                like=like,
                measure=measure,
                mpp=mpp,
                override_mpp=override_mpp,
                rerank=rerank,
                device=device,
                workers=workers,
            ),
        )
        check_keeps(index, rerank)
        check_alike(index, like)
        return index

    @classmethod
    def create_for_features(
        cls,
        path: str | os.PathLike[str] | Address,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        feature_encoder: str | None = None,
        mpp: float | None = None,
        override_mpp: float | None = None,
        rerank: RerankName = "auto",
        search: Search | None = None,
    ) -> Index:
        """Make an empty index for features that TRIDENT or CLAM computed: :mod:`sish.feature_files`.

        Parameters
        ----------
        path : path-like
            Folder to make; it may exist if it is empty.
        files : path-like or iterable of path-like
            Feature files, or folders of them, that will be added: up to 32 are measured (encoder, length and
            patch size of most of them; mean and spread of their features).
        feature_encoder : str, optional
            Name of the network that made them, where files and folders do not tell.
        mpp : float, optional
            Micrometres per level-0 pixel of slides whose files do not tell it.
        override_mpp : float, optional
            Micrometres per level-0 pixel of all slides, whatever their files tell.
        rerank : {"auto", "int8", "float16"} or None
            As of :meth:`create`; ``auto`` is ``float16`` where each slide has one vector, else None.
        search : SearchParams or mapping, optional
            As of :meth:`create`.

        Returns
        -------
        Index
            The index, without slides.

        Raises
        ------
        SlideError
            If no file can be read.
        EncoderMismatchError
            If two kinds of files are equally common. Otherwise the commonest kind makes the index.
        StoreError
            If there is something at ``path`` already, or it cannot be written.
        """
        given = [files] if isinstance(files, str | os.PathLike) else list(files)
        recipe, features, is_slide_level = measured_files(
            given, feature_encoder=feature_encoder, mpp=mpp, override_mpp=override_mpp
        )
        coder = SlideEncoder(recipe).keeping_vectors(kind_of(rerank, is_slide_level)).measured_on(features)
        with create_store(path, header_of(coder, search)) as store:
            return cls(store)

    @classmethod
    def from_vectors(
        cls,
        path: str | os.PathLike[str] | Address,
        vectors: ArrayLike,
        slide_ids: ArrayLike,
        *,
        labels: Told = None,
        patients: Told = None,
        sites: Told = None,
        l0_xy: ArrayLike | None = None,
        mpp: Scales = None,
        patch_l0_px: float | None = None,
        feature_encoder: str = "vectors",
        mosaic: bool = False,
        rerank: RerankName = "auto",
        search: Search | None = None,
        show_progress: bool = True,
    ) -> Index:
        """Make an index of slides whose features are at hand as an array (UNI, Virchow, TITAN, ...).

        The features are measured on up to 4,096 of the vectors (:mod:`sish.calibration`). More slides come
        with :meth:`add_vectors`.

        Parameters
        ----------
        path : path-like
            Folder to make; it may exist if it is empty.
        vectors : float (N, F)
            A vector for each patch, or one for each slide, in any order.
        slide_ids : str or int (N,)
            The slide of each vector.
        labels, patients, sites, l0_xy, mpp, patch_l0_px, mosaic, show_progress
            As of :meth:`add_vectors`.
        feature_encoder : str
            Name of the network that made them. Vectors of another length, and files of features of another
            network, are refused later.
        rerank : {"auto", "int8", "float16"} or None
            As of :meth:`create`; ``auto`` is ``float16`` where each slide has one vector, else None.
        search : SearchParams or mapping, optional
            As of :meth:`create`.

        Returns
        -------
        Index
            The index, with the slides.

        Raises
        ------
        ParameterError
            If the arrays do not fit each other, hold NaN or infinity, or are too few to be measured.
        LabelsError
            If what is told of the slides cannot be read, or names none of them.
        StoreError
            If there is something at ``path`` already, or it cannot be written.

        Examples
        --------
        >>> import numpy as np, tempfile
        >>> vectors = np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index = Index.from_vectors(f"{folder}/a.sish", vectors, np.repeat(["a", "b", "c"], 20))
        ...     [hit.slide_id for hit in index.search(vectors[20:40], k=1)]
        ['b']
        """
        slides, notes = slides_of(
            vectors,
            slide_ids,
            labels=labels,
            patients=patients,
            sites=sites,
            l0_xy=l0_xy,
            mpp=mpp,
            patch_l0_px=patch_l0_px,
        )
        if sum(len(slide.vectors) for slide in slides) < 2:
            raise ParameterError("got fewer than two vectors, whose features cannot be measured; give more")
        check_mosaic(slides, mosaic=mosaic)
        coder = SlideEncoder(recipe_of(feature_encoder, slides[0].vectors.shape[1]))
        kind = kind_of(rerank, all(len(slide.vectors) == 1 for slide in slides))
        coder = coder.keeping_vectors(kind).measured_on(measured_rows(slides))
        with create_store(path, header_of(coder, search)) as store:
            index = cls(store)
        index._add_slides(slides, notes, mosaic=mosaic, show_progress=show_progress)
        return index


def open_or_make(open_index: Callable[[], Index], make: Callable[[], Index]) -> Index:
    """Return the index that is there, else a new one; if two processes make one at once, one opens it."""
    try:
        return open_index()
    except IndexNotFoundError:
        try:
            return make()
        except IndexExistsError:
            return open_index()
