"""What every index is made of: its store, its encoder, and the view of the state that is searched.

:class:`sish.Index` is made of this, of what changes an index (:mod:`sish.index_changes`), and of what makes
and searches one (:mod:`sish.slide_index`).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sish.archives import AnyStore, open_store
from sish.encode import SlideEncoder
from sish.encoders import PatchEncoder, name_of
from sish.errors import ArchiveRenewedError, EncoderMismatchError, ParameterError
from sish.header import IndexHeader
from sish.index.params import SearchParams
from sish.index.postgres.addresses import Place
from sish.index.store import SlideRow, Snapshot, State, StoreInfo
from sish.parquet import write_parquet
from sish.recalibration import told_of as told_of_calibration
from sish.recall import told_of
from sish.recipe import Recipe
from sish.results import Commit
from sish.searchers import searcher_of
from sish.stored_patches import SlidePatches, patches_of
from sish.tables import slides_frame
from sish.thresholds import Settings
from sish.vectors import SlideIds, as_id, as_id_list
from sish.view import View

if TYPE_CHECKING:
    import pandas as pd

    from sish.index.vector_coder import VectorKind

    Search = SearchParams | Mapping[str, Any]

_LOG = logging.getLogger(__name__)

_TRIES = 10
"""Reads of an archive that gets new keys again and again, before that is an error."""

_I = TypeVar("_I", bound="IndexBase")
_P = ParamSpec("_P")
_T = TypeVar("_T")


def asked_again(method: Callable[Concatenate[_I, _P], _T]) -> Callable[Concatenate[_I, _P], _T]:
    """Return a method that reads; it is called again if an archive in PostgreSQL got new keys meanwhile."""

    @wraps(method)
    def called(index: _I, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        for _ in range(_TRIES - 1):
            try:
                return method(index, *args, **kwargs)
            except ArchiveRenewedError as error:
                _LOG.info("asking again: %s", error)
        return method(index, *args, **kwargs)

    return called


class IndexBase:
    """One archive on disk: its slides, its encoder, its search parameters."""

    def __init__(
        self,
        store: AnyStore,
        *,
        weights: str | os.PathLike[str] | None = None,
        encoder: str | PatchEncoder | None = None,
        device: str = "cpu",
        workers: int | None = None,
        search: Search | None = None,
        verify: bool = False,
    ) -> None:
        """Use :meth:`create` or :meth:`open`."""
        header = IndexHeader.from_json(store.header)
        given = one_encoder(weights, encoder)
        recipe = header.recipe if given is None else replace(header.recipe, weights=name_of(given))
        self._encoder = SlideEncoder(
            recipe,
            header.fingerprint,
            encoder=given,
            calibration=header.calibration,
            rerank=header.rerank,
            device=device,
            workers=workers,
        )
        self._given = given
        self._header, self._read = header, store.state.manifest.header
        self._settings = Settings(header.search, header.measures_threshold).with_changes(search)
        self._store = store
        self._verify = verify
        self._view: tuple[State, SearchParams, View] | None = None
        self._view_lock = threading.RLock()

    def __repr__(self) -> str:
        """Return its path, number of slides and encoder."""
        return f"<Index {str(self.path)!r}: {len(self)} slides, encoder {self.fingerprint}>"

    def __len__(self) -> int:
        """Return the number of slides."""
        return self._store.current().n_slides

    def __contains__(self, slide_id: object) -> bool:
        """Return whether a slide of this id is in it."""
        return isinstance(slide_id, str) and self._store.current().has(slide_id)

    @property
    def path(self) -> Place:
        """Its folder, or its address in PostgreSQL."""
        return self._store.path

    @property
    def recipe(self) -> Recipe:
        """How slides become keys and barcodes."""
        return self._encoder.recipe

    @property
    def encoder(self) -> SlideEncoder:
        """The encoder of its slides, by the calibration that they have now."""
        return self._encoder_of(self._store.current())

    @encoder.setter
    def encoder(self, encoder: SlideEncoder) -> None:
        self._encoder = encoder

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the encoder that makes its codes, calibration included."""
        self._encoder_of(self._store.current())
        return self._header.fingerprint

    @property
    def calibration_source(self) -> str:
        """On what the encoder's features were measured, and what to do about it, in words."""
        state = self._store.current()
        return told_of_calibration(state, IndexHeader.from_json(state.header))

    @property
    def rerank(self) -> VectorKind | None:
        """How it keeps vectors beside barcodes, ``int8`` or ``float16``; None if it does not."""
        kept = self.encoder.rerank
        return None if kept is None else kept.coder.kind

    @property
    def rerank_source(self) -> str:
        """How the nearest patches are ranked, in words."""
        kept = self.encoder.rerank
        if kept is None:
            return "by barcodes alone"
        coder = kept.coder
        return f"by {coder.kind} vectors of {coder.features} numbers, {coder.row_bytes} bytes a patch"

    @property
    def params(self) -> SearchParams:
        """The search parameters. Assign SearchParams, or a mapping that changes some of them.

        The next search uses them; the index on the disk keeps its own. Anything else is a ParameterError.
        The threshold is the one that was measured on the archive (:mod:`sish.thresholds`), unless one was
        given when the index was made or opened, or is assigned here.
        """
        state = self._store.current()
        return self._settings_of(state).of(state)

    @params.setter
    def params(self, search: Search) -> None:
        self._settings = self._settings.with_changes(search)

    @property
    def threshold_source(self) -> str:
        """The threshold of a search, and where it is from, in words."""
        state = self._store.current()
        return self._settings_of(state).told(state)

    @property
    def generation(self) -> int:
        """The number of changes that were committed since the index was made, by any process."""
        return self._store.current().generation

    @property
    def slides(self) -> tuple[SlideRow, ...]:
        """Its slides in the order in which they were added; those of a damaged segment if they are known."""
        return self._store.current().slides

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each slide, in the order in which they were added; needs the extra ``tables``.

        Returns
        -------
        DataFrame
            The fields of each slide, and each field of metadata as a column (``metadata_NAME`` if the name is
            taken). A scale that is not known is NaN.
        """
        return slides_frame(self._store.current())

    @asked_again
    def patches(self, slide_id: str | int) -> SlidePatches:
        """Return what the index keeps of each patch of a slide: places, keys, barcodes and vectors.

        Parameters
        ----------
        slide_id : str or int
            The slide's id in the index.

        Returns
        -------
        SlidePatches
            Its patches, in the order in which the slide was read; ``to_pandas`` makes a frame of them.
        """
        state = self._current()
        return patches_of(state, as_id(slide_id), self._encoder_of(state).rerank)

    @asked_again
    def to_parquet(self, path: str | os.PathLike[str], *, slide_ids: SlideIds | None = None) -> int:
        """Write what :meth:`patches` returns for all slides, or some, to a file (:mod:`sish.parquet`).

        Parameters
        ----------
        path : path-like
            The file; it may replace a file that ends with ``.parquet``.
        slide_ids : str or int, or iterable of them, optional
            The slides. Default: all.

        Returns
        -------
        int
            The number of patches.
        """
        state = self._current()
        rerank = self._encoder_of(state).rerank
        wanted = None if slide_ids is None else as_id_list(slide_ids)
        return write_parquet(state, path, slide_ids=wanted, encoder=self._header.fingerprint, rerank=rerank)

    @property
    def damage(self) -> tuple[str, ...]:
        """The damaged segments that opening found, a line each; :func:`sish.verify` reads every byte."""
        return tuple(part.reason for part in self._store.current().damaged)

    def info(self) -> StoreInfo:
        """Return counts and sizes."""
        self._store.refresh()
        return self._store.info()

    @property
    def recall_source(self) -> str:
        """The share of the nearest patches that a search finds, and how it was measured, in words."""
        return told_of(self._store.current())

    def view(self) -> View:
        """Return the current state, ready to be searched; it is made again only after a change."""
        return self.state_and_view()[1]

    def state_and_view(self) -> tuple[State, View]:
        """Return the current state of the index and the view of this state, for answers that need both."""
        state = self._current()
        return state, self._view_of(state)

    @asked_again
    def snapshot(self) -> Snapshot:
        """Return all patches that are in the index now, as arrays in key order."""
        return self._current().snapshot()

    def _current(self) -> State:
        """Return the committed state for one answer, checked."""
        state = self._store.current()
        state.check(every_byte=self._verify)
        return state

    def _encoder_of(self, state: State) -> SlideEncoder:
        """Return the encoder of a state's codes: a first add or a recalibration may have changed it."""
        with self._view_lock:
            stored = state.manifest.header
            if stored != self._read:
                header, before = IndexHeader.from_json(stored), self._header
                self._settings = self._settings.following(before.search.threshold, header.search.threshold)
                if header.fingerprint != before.fingerprint:
                    self._encoder = self._encoder.recalibrated(
                        header.calibration, header.rerank, header.fingerprint
                    )
                self._header, self._read = header, stored
            return self._encoder

    def _settings_of(self, state: State) -> Settings:
        """Return the search parameters of a state."""
        self._encoder_of(state)
        return self._settings

    def _view_of(self, state: State) -> View:
        """Return the view of a state; the last one is kept."""
        with self._view_lock:
            params = self._settings_of(state).of(state)
            if self._view is None or self._view[0] is not state or self._view[1] != params:
                searcher = searcher_of(state, self.recipe.keys, params, rerank=self._header.rerank)
                commit = Commit(state.name, state.generation, self._header.fingerprint)
                self._view = state, params, View.of(searcher, commit)
            return self._view[2]


def one_encoder(
    weights: str | os.PathLike[str] | None, encoder: str | PatchEncoder | None
) -> str | PatchEncoder | None:
    """Return the encoder that was given either way; ParameterError for both."""
    if weights is not None and encoder is not None:
        raise ParameterError(f"got weights={str(weights)!r} and encoder=; give one of the two")
    return encoder if weights is None else str(weights)


def header_of(encoder: SlideEncoder, search: Search | None) -> dict[str, Any]:
    """Return the header of a new index: its search parameters suit its encoder, unless others are given."""
    params = SearchParams(threshold=encoder.hamming_threshold, visit_query_key=True)
    settings = Settings(params, measures=encoder.recipe.keys == "texture").with_changes(search)
    return IndexHeader(
        encoder.recipe,
        encoder.fingerprint,
        settings.params,
        encoder.calibration,
        settings.measures,
        encoder.rerank,
    ).to_json()


def check_keeps(index: IndexBase, rerank: VectorKind | None) -> None:
    """Refuse an index (ParameterError) that was made to keep vectors in another way than is asked for."""
    if rerank not in (None, index.rerank):
        raise ParameterError(
            f"got rerank={rerank!r} for {index.path}, which was made with rerank={index.rerank!r}: make "
            "another index"
        )


def check_alike(index: IndexBase, like: str | os.PathLike[str] | IndexBase | None) -> None:
    """Refuse an index (EncoderMismatchError) whose codes cannot be compared with those of another."""
    if like is None:
        return
    other = like if isinstance(like, IndexBase) else IndexBase(open_store(like))
    if index.fingerprint != other.fingerprint:
        raise EncoderMismatchError(
            f"{index.path} was made with encoder {index.fingerprint}, and {other.path}, which it should be "
            f"like, with {other.fingerprint}: give another folder"
        )
