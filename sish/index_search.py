"""Searching an archive: what :class:`sish.Index` does with a question."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

from sish.errors import QueryError
from sish.filters import Where, filters_of
from sish.index.params import SearchParams
from sish.index_base import asked_again
from sish.index_spatial import IndexSpatial
from sish.printing import counted, printable
from sish.progress import OnProgress, silent, summed
from sish.queries import Question
from sish.recall import noted
from sish.refinement import Concept, Marks, Refinement
from sish.results import Results
from sish.slides.region import Box, Region
from sish.vectors import as_id
from sish.view import RankingName

if TYPE_CHECKING:
    from sish.annotations import Annotation
    from sish.queries import Queryable

    Search = SearchParams | Mapping[str, Any]


_LOG = logging.getLogger(__name__)


class IndexSearch(IndexSpatial):
    """An archive that answers questions."""

    @asked_again
    def search(
        self,
        query: Queryable,
        *,
        k: int = 5,
        mpp: float | None = None,
        override_mpp: float | None = None,
        region: Region | Box | Annotation | None = None,
        ranking: RankingName = "auto",
        exclude_patient: bool = False,
        patient: str | None = None,
        where: Where | None = None,
        search: Search | None = None,
        like: Marks = None,
        unlike: Marks = None,
        concept: Concept | None = None,
        on_progress: OnProgress | None = None,
    ) -> Results:
        """Find the slides that look most like a slide, a region of one, or an image.

        Parameters
        ----------
        query : path-like, Slide, uint8 array (H, W, 3), PIL image, float array (Q, F), SpatialData or AnnData
            The slide to search for. The id of an indexed slide gives the same answer as its file, which is
            not read. A path that ends with ``.h5`` is a file of features (:meth:`add_features`). A float
            array has a vector of the index's encoder in each row: the patches of a slide, or of a part of it.
            Of a SpatialData (:meth:`add_spatialdata`), also a ``.zarr`` or ``.h5ad``, all rows of the table
            of the index's encoder are searched for. One of :attr:`slides` is a slide of the index, too, even
            where its id is also the name of a file.
        k : int
            Number of hits wanted. The answer is shorter only if fewer slides may be found. Hits that the
            ranking did not place have ``placed`` false; those beyond the threshold have ``below_threshold``.
        mpp : float, optional
            Scale of the query in um per pixel, if its file does not tell it; always needed for arrays. If the
            file has a scale of its own, the answer's note says so.
        override_mpp : float, optional
            Scale of the query in um per pixel, whatever its file tells.
        region : (x, y, width, height), Box or Annotation, optional
            The part of the query to search for, in level-0 pixels: the patches whose centres lie in it, or
            one patch centred on a smaller one. A :class:`sish.Box` may be turned. The name of an annotation
            (:func:`sish.read_annotations`) is in the answer.
        ranking : {"auto", "uncertainty", "similarity"}
            ``uncertainty`` is the published ranking, which needs labels; ``similarity`` needs none. See
            :mod:`sish.ranking`. ``auto`` is ``uncertainty`` if every slide has a label, else ``similarity``,
            and the note says why. Both rankings compute the score of a hit in the same way (:class:`Hit`), so
            it may rise down a list ranked by uncertainty.
        exclude_patient : bool
            Leave out every slide of the query's own patient.
        patient : str, optional
            The query's patient. Default: the patient of the same file in the index, else the query's id.
            Vectors have none unless it is given.
        where : mapping, optional
            Find only slides whose values meet these conditions, by column: ``label``, ``site``, ``patient``
            or another column of the labels file, as in ``{"site": ["lung", "breast"], "age": ">=50"}``. See
            :mod:`sish.filters`.
        search : SearchParams or mapping, optional
            Search parameters for this query alone, as for :meth:`open`. In an archive too small for a texture
            tree (up to 4,000 patches), the query is compared with all patches, whatever the budget.
        like : slide id, (slide_id, region) or sequence of these, optional
            Slides of the index, or regions of them, that are like what is wanted, as hits that a person
            marked. Their patches join the query, and each example weighs as much as the query. They may be
            found again, and then are near the top: patches match themselves. Whoever wants `k` new slides
            asks for as many more.
        unlike : slide id, (slide_id, region) or sequence of these, optional
            Slides or regions that are not what is wanted. A patch that is nearer to one of theirs than to
            the patch that found it is no match. Of a whole slide the patches nearest to the query's count,
            and the slide itself is not found.
        concept : Concept, optional
            Something that tissue shows or lacks, which the query is moved toward or away from. Distances are
            those of the moved query. See :mod:`sish.refinement`. Where the index keeps vectors, examples and
            concepts act on these as well, so that ranking again does not undo them. With ``keys="paper"`` a
            moved query is still looked for around its own keys.
        on_progress : callable, optional
            It is called as ``on_progress(done, total)`` with the query's patches, in the thread that called
            this: first with 0, then after each batch that was encoded. The patches of an indexed slide, or
            given as features, are done at once. Patches of marked regions are counted after those of the
            query. What it raises ends the search, and nothing reads any more.

        Returns
        -------
        Results
            The hits, best first.

        Raises
        ------
        QueryError
            If the query has no tissue, is both an id and another slide's file, or cannot be answered by this
            index; if no slide has a column of ``where``; or if vectors of an unknown patient shall leave out
            their patient.
        ParameterError
            If ``k``, the ranking or a search parameter is out of range, or ``where`` makes no sense.
        UnknownSlideError
            If an example is of a slide that is not in the index.
        EncoderMismatchError
            If the weights at hand are not the ones that the index was made with.
        SlideError
            If the query cannot be read.
        """
        refinement = Refinement.of(like, unlike, concept)
        filters_of(where)  # refused before the query is read, which may take minutes
        question = Question(
            as_id(query) if isinstance(query, Integral) else query,
            mpp=mpp,
            override_mpp=override_mpp,
            region=region,
            patient=None if patient is None else str(patient),
        )
        state = self._current()
        refinement.check(state)
        changed = self._settings_of(state).with_changes(search)
        encoder, tell = self._encoder_of(state), summed(on_progress or silent)
        asked, codes = question.encoded(state, encoder, tell)
        if exclude_patient and not asked.patient:
            raise QueryError("got exclude_patient=True with vectors of an unknown patient; give patient=")
        moved, examples = refinement.applied(codes, state, encoder, tell)
        _LOG.debug("searching generation %d with %s", state.generation, changed.of(state))
        results = self._view_of(state).search(
            asked,
            moved,
            k=k,
            ranking=ranking,
            exclude_patient=exclude_patient,
            where=where,
            search=changed.of(state),
            examples=examples,
        )
        patches = counted(asked.n_patches, "patch", "es")
        _LOG.info("query %s: %s, %s", printable(asked.slide_id), patches, counted(len(results), "hit"))
        return noted(question.noted(refinement.noted(results)), state, changed.of(state))

    def search_many(self, queries: Iterable[Queryable], **options: Any) -> Iterator[Results]:
        """Yield the answer of :meth:`search` to each of several queries, with the same options."""
        for query in queries:
            yield self.search(query, **options)
