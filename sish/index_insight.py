"""Answers looked into: what :class:`sish.Index` tells beside the list of hits."""

from __future__ import annotations

import os
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING

from sish.encode import SlideCodes
from sish.errors import EncoderMismatchError, QueryError
from sish.explanation import Explanation, explain
from sish.heatmap import Heatmap
from sish.index.store import SlideRow, State
from sish.index_base import asked_again
from sish.index_search import IndexSearch
from sish.progress import OnProgress, silent
from sish.queries import Question, query_of_indexed
from sish.results import Asked, Commit, Results
from sish.slide_map import SlideMap, layout
from sish.slides.region import Box, Region
from sish.stored_patches import unknown
from sish.tile_codes import TileCodes
from sish.vectors import as_id

if TYPE_CHECKING:
    from sish.annotations import Annotation
    from sish.queries import Queryable


class IndexInsight(IndexSearch):
    """An archive that lets its answers be looked into."""

    @asked_again
    def heatmap(
        self,
        slide_id: str | int,
        query: Queryable | Results,
        *,
        region: Region | Box | Annotation | None = None,
        mpp: float | None = None,
        tiles: TileCodes | None = None,
        on_progress: OnProgress | None = None,
    ) -> Heatmap:
        """Compare every tissue tile of an indexed slide with a query.

        Parameters
        ----------
        slide_id : str or int
            The slide's id in the index. Its file is read again. Of a slide that was given as vectors, or as a
            file of features, the patches that the index keeps are compared.
        query : Results or anything that :meth:`search` takes
            What the tiles are compared with. The query of an answer of this index is not encoded again; the
            examples of a refined search are no part of it, but a concept has moved it.
        region : (x, y, width, height), Box or Annotation, optional
            The part of the query, as of :meth:`search`.
        mpp : float, optional
            Scale of the query in um per pixel, if its file does not tell it.
        tiles : TileCodes, optional
            The slide's tiles, where :meth:`encode_tiles` gave them before.
        on_progress : callable, optional
            It is called as ``on_progress(done, total)`` with the tiles that are encoded, as of
            :meth:`search`. What it raises ends the work.

        Returns
        -------
        Heatmap
            The distance of each tile to the nearest patch of the query.

        Raises
        ------
        UnknownSlideError
            If there is no such slide.
        SlideError
            If its file is gone, cannot be read, or is another file now; or if the query cannot be read.
        QueryError
            If the slide was given as vectors without places; if the query has no tissue or does not fit this
            index; or if an answer is given with a region or of another index.
        EncoderMismatchError
            If the weights at hand, the tiles or the answer are of another encoder than the index.

        Examples
        --------
        >>> import tempfile
        >>> from sish.slide_index import Index
        >>> from sish.demo.synthetic import write_slides
        >>> folder = tempfile.mkdtemp()
        >>> labels = write_slides(f"{folder}/slides", n_slides=2)
        >>> index = Index.open_or_create(f"{folder}/a.sish")
        >>> slides = index.add(f"{folder}/slides", labels=labels, show_progress=False).added
        >>> heat = index.heatmap(slides[0], slides[0])
        >>> int(heat.hamming.min()), len(heat) >= len(index.patches(slides[0]))
        (0, True)
        """
        state = self._current()
        own = tiles or self._tiles_of(state, as_id(slide_id), on_progress or silent)
        self._check_tiles(own, state, as_id(slide_id))
        codes, threshold = self._codes_of(query, region, mpp, state)
        return Heatmap.of(own, codes, threshold=threshold, rerank=self._encoder_of(state).rerank)

    @asked_again
    def explain(self, results: Results, slide_id: str | int) -> Explanation:
        """Tell why a slide is where it is in an answer of this index, or why it is not in it.

        Parameters
        ----------
        results : Results
            An answer of :meth:`search`. The same search is made again in the state of the index that is
            current; nothing is encoded.
        slide_id : str or int
            The slide's id in the index; it may be a hit or not.

        Returns
        -------
        Explanation
            For each patch of the query its nearest match in the slide and its share of the score; a
            histogram of distances; what placed the slide; and all that in words.

        Raises
        ------
        UnknownSlideError
            If there is no such slide, or none any more.
        QueryError
            If the answer is not of this index.
        EncoderMismatchError
            If the index was recalibrated since.

        Examples
        --------
        >>> import numpy as np, tempfile
        >>> from sish.slide_index import Index
        >>> vectors = np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32)
        >>> ids = np.repeat(["a", "b", "c"], 20)
        >>> index = Index.from_vectors(f"{tempfile.mkdtemp()}/a.sish", vectors, ids, show_progress=False)
        >>> why = index.explain(index.search("b", k=1), "b")
        >>> why.rank, why.score, why.words[0][:37]
        (1, 1.0, '20 of 20 patches of the query have a ')
        """
        state, view = self.state_and_view()
        asked, name = self._asked(results, state), as_id(slide_id)
        row = _row_of(state, name)
        codes = query_of_indexed(row, state.segments, None)[1] if row.n_patches else None
        return explain(
            results,
            asked,
            name,
            codes,
            view,
            rerank=self._encoder_of(state).rerank,
            is_changed=asked.commit != view.commit,
        )

    @asked_again
    def encode_tiles(
        self,
        slide_id: str | int,
        *,
        path: str | os.PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> TileCodes:
        """Read and encode every tissue tile of an indexed slide, for several heatmaps of it.

        Parameters
        ----------
        slide_id : str or int
            The slide's id in the index.
        path : path-like, optional
            Where its file is now, if it was moved.
        on_progress : callable, optional
            As of :meth:`heatmap`.

        Returns
        -------
        TileCodes
            Its tiles. They fit as long as its file and the encoder of the index are the same.
        """
        return self._tiles_of(self._current(), as_id(slide_id), on_progress or silent, path)

    @asked_again
    def slide_map(self) -> SlideMap:
        """Return a place in two dimensions for each slide, so that slides that look alike lie together.

        Returns
        -------
        SlideMap
            The places of all slides that have patches (:mod:`sish.slide_map`).
        """
        return layout(self._current())

    def _tiles_of(
        self,
        state: State,
        slide_id: str,
        on_progress: OnProgress,
        path: str | os.PathLike[str] | None = None,
    ) -> TileCodes:
        row = _row_of(state, slide_id)
        _, stored = query_of_indexed(row, state.segments, None)
        if path is not None:
            row = replace(row, path=os.fspath(path))
        encoder = self._encoder_of(state)
        return TileCodes.of_slide(row, stored, encoder, self._commit(state), on_progress)

    def _check_tiles(self, tiles: TileCodes, state: State, slide_id: str) -> None:
        """Refuse tiles of another slide or encoder."""
        row = _row_of(state, slide_id)
        if (tiles.row.slide_id, tiles.row.file_digest) != (slide_id, row.file_digest):
            raise QueryError(f"got tiles of {tiles.row.slide_id!r} that are not those of {slide_id!r} now")
        self._check_encoder(tiles.encoder, "tiles", state)

    def _codes_of(
        self,
        query: Queryable | Results,
        region: Region | Box | Annotation | None,
        mpp: float | None,
        state: State,
    ) -> tuple[SlideCodes, int]:
        """Return the codes of a query, and the threshold in bits."""
        if isinstance(query, Results):
            if region is not None or mpp is not None:
                raise QueryError("got region= or mpp= with an answer, whose query has both; give it alone")
            asked = self._asked(query, state)
            return asked.codes, asked.params.threshold
        question = Question(as_id(query) if isinstance(query, Integral) else query, mpp=mpp, region=region)
        codes = question.encoded(state, self._encoder_of(state))[1]
        return codes, self._settings_of(state).of(state).threshold

    def _asked(self, results: Results, state: State) -> Asked:
        """Return how this index was searched for an answer; QueryError if it was not this one."""
        asked = results.asked
        if asked is None or asked.commit is None or asked.commit.archive != state.name:
            raise QueryError(f"got an answer that is not of {state.name}; want one of its search")
        self._check_encoder(asked.commit.encoder, "an answer", state)
        return asked

    def _check_encoder(self, fingerprint: str, what: str, state: State) -> None:
        now = self._commit(state).encoder
        if fingerprint != now:
            raise EncoderMismatchError(f"got {what} of encoder {fingerprint}, and the index has {now} now")

    def _commit(self, state: State) -> Commit:
        self._encoder_of(state)
        return Commit(state.name, state.generation, self._header.fingerprint)


def _row_of(state: State, slide_id: str) -> SlideRow:
    """Return the row of a slide; UnknownSlideError if there is none."""
    row = state.row(slide_id)
    if row is None:
        raise unknown(state, slide_id)
    return row
