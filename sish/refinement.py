"""Refine a search by example and by concept, as pathologists do with SMILY (Cai et al., CHI 2019).

*By example*: hits are marked as like what is wanted, or unlike, and the search is asked again
(:mod:`sish.examples`). *By concept*: a slider moves the query along a direction that two sets of examples
span. (The third way, by region, is ``region=``.) SMILY does both in a space of embeddings
(:mod:`sish.systems.smily.refinement`); here they are for sets of barcodes.

>>> import numpy as np
>>> query, positive, negative = np.uint8([[0b00000000]]), np.uint8([[0b11110000]]), np.uint8([[0b00110000]])
>>> format(moved(query, [positive], [negative], strength=0.25)[0, 0], "08b")  # where the sides differ
'11000000'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sish.annotations import Annotation
from sish.distances import distances
from sish.encode import SlideCodes, SlideEncoder
from sish.errors import ParameterError, ParameterTypeError
from sish.examples import Example, Examples
from sish.index.store import State
from sish.progress import OnProgress, silent
from sish.queries import Question, query_of_indexed
from sish.rerank import Rerank
from sish.results import Results
from sish.slides.region import Box, Region
from sish.stored_patches import unknown
from sish.vectors import as_id

Marks: TypeAlias = "str | int | tuple[str, Region | Box | Annotation] | Iterable[Any] | None"
"""A slide id, or several; instead of an id also a pair of an id and a region of that slide."""

_STEP = 2.0
"""Length of the step of a vector of length 1 at full strength; it turns about as many bits as `moved` does.
It was chosen on the odd-numbered groups of crc5."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A slide of the index, or a part of it, that a user pointed at."""

    slide_id: str
    """The slide."""
    region: Region | Box | Annotation | None = None
    """The part; None for all of it."""
    file: Path | None = None
    """Where the slide's file is now, if it was moved."""


@dataclass(frozen=True, slots=True)
class Concept:
    """Something that tissue shows or lacks, told by examples: a search may be moved toward it, or away.

    Raises
    ------
    ParameterError
        If the strength is out of range, or one side has no examples.

    Examples
    --------
    >>> Concept(positive=["a", "b"], negative=[("c", (0, 0, 900, 900))], strength=-0.5).negative
    (Mark(slide_id='c', region=(0, 0, 900, 900), file=None),)
    """

    positive: Marks
    """Examples that show it: slide ids, or pairs of an id and a region."""
    negative: Marks
    """Examples that lack it."""
    strength: float = 0.5
    """From -1 (away from it) over 0 (no change) to 1. It is the share of the bits of a barcode that take the
    value of the positive side: those in which the sides differ most. At 1 little is left of the query."""

    def __post_init__(self) -> None:
        """Check it, and turn the examples into marks."""
        strength = self.strength
        if not isinstance(strength, int | float | np.number) or not -1 <= strength <= 1:
            raise ParameterError(f"got a concept of strength {strength!r}; want a number from -1 to 1")
        for side in ("positive", "negative"):
            marks = marks_of(getattr(self, side))
            if not marks:
                raise ParameterError(f"got a concept without {side} examples; want one at least on each side")
            object.__setattr__(self, side, marks)


@dataclass(frozen=True, slots=True)
class Refinement:
    """How a search is refined, as it was given and checked."""

    like: tuple[Mark, ...]
    unlike: tuple[Mark, ...]
    concept: Concept | None

    @classmethod
    def of(cls, like: Marks, unlike: Marks, concept: Concept | None) -> Refinement:
        """Check the arguments of a search.

        Parameters
        ----------
        like, unlike : slide id, or sequence of slide ids and (slide_id, region) pairs, optional
            The examples.
        concept : Concept, optional
            The concept; one of strength 0 is none.

        Returns
        -------
        Refinement
            What they say.

        Raises
        ------
        ParameterTypeError
            If one is of another kind.
        ParameterError
            If the same example is on both sides.
        """
        if not isinstance(concept, Concept | None):
            raise ParameterTypeError(f"got concept={concept!r:.60}; want a sish.Concept")
        marks, others = marks_of(like), marks_of(unlike)
        both = [mark for mark in marks if mark in others]
        if both:
            raise ParameterError(f"got {both[0].slide_id!r} in like and in unlike; want it in one of the two")
        return cls(marks, others, concept if concept is not None and concept.strength else None)

    def check(self, state: State) -> None:
        """Raise UnknownSlideError if an index does not hold a slide that is named."""
        concept = self.concept
        sides = () if concept is None else (concept.positive, concept.negative)
        for mark in (mark for marks in (self.like, self.unlike, *sides) for mark in marks_of(marks)):
            if not state.has(mark.slide_id):
                raise unknown(state, mark.slide_id)

    def applied(
        self, codes: SlideCodes, state: State, encoder: SlideEncoder, on_progress: OnProgress = silent
    ) -> tuple[SlideCodes, Examples | None]:
        """Read the examples.

        Parameters
        ----------
        codes : SlideCodes
            The query's codes.
        state : State
            The state of the index that is searched.
        encoder : SlideEncoder
            The encoder of the index.
        on_progress : callable, optional
            Told how many patches of marked regions are encoded.

        Returns
        -------
        SlideCodes
            The query's codes, moved along the concept.
        Examples or None
            The examples to ask with; None if there are none.

        Raises
        ------
        QueryError
            If an example has no tissue, or its file cannot be read here.
        SlideError
            If the file of a marked region cannot be read.
        """

        def read(mark: Mark) -> Example:
            return Example(mark.slide_id, _codes_of(mark, state, encoder, on_progress), mark.region is None)

        if self.concept is not None:
            sides = [
                [read(mark).codes for mark in marks_of(side)]
                for side in (self.concept.positive, self.concept.negative)
            ]
            codes = _moved_codes(codes, sides[0], sides[1], self.concept.strength, encoder.rerank)
        if not self.like and not self.unlike:
            return codes, None
        unlike = (_about(read(mark), codes, encoder.rerank) for mark in self.unlike)
        return codes, Examples(tuple(map(read, self.like)), tuple(unlike))

    def noted(self, results: Results) -> Results:
        """Return the results, with a note on what the search was refined by."""
        note = "; ".join(filter(None, (self._told, results.note)))
        return replace(results, note=note)

    @property
    def _told(self) -> str:
        """What a search was refined by, in words; empty if it was not."""
        counts = [(len(self.like), "like"), (len(self.unlike), "unlike")]
        parts = [f"{count} {side}" for count, side in counts if count]
        if self.concept is not None:
            parts.append(f"a concept of strength {self.concept.strength:g}")
        return f"refined by {', '.join(parts)}" if parts else ""


def marks_of(given: Marks) -> tuple[Mark, ...]:
    """Return examples as marks, each once.

    Parameters
    ----------
    given : slide id, pair of a slide id and a region, or iterable of these, optional
        The examples.

    Returns
    -------
    tuple of Mark
        The marks.

    Raises
    ------
    ParameterError
        If a region is no box.
    ParameterTypeError
        If an id is none.

    Examples
    --------
    >>> marks_of(["a", ("b", (0, 0, 9, 9))])
    (Mark(slide_id='a', region=None, file=None), Mark(slide_id='b', region=(0, 0, 9, 9), file=None))
    """
    if given is None:
        return ()
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes) and not _is_pair(given)
    return tuple(dict.fromkeys(map(_mark, given if several else [given])))  # type: ignore[arg-type]  # iterable


def _mark(given: Any) -> Mark:
    if isinstance(given, Mark):
        return given
    if not _is_pair(given):
        return Mark(as_id(given, "got as an example"))
    slide_id, region = given
    if not isinstance(region, Box | Annotation):
        region = tuple(region)
        Box(*region)  # refuses what is no box
    return Mark(as_id(slide_id, "got as an example"), region)


def _is_pair(given: Any) -> bool:
    """Return whether something is a slide id with a region; two ids are no pair."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        return False
    region = given[1]
    return isinstance(region, Box | Annotation) or (
        isinstance(region, Sequence) and not isinstance(region, str) and len(region) == 4
    )


def _codes_of(mark: Mark, state: State, encoder: SlideEncoder, on_progress: OnProgress) -> SlideCodes:
    """Return the codes of a mark: those that are stored, or of a region those of its file's pixels."""
    row = state.row(mark.slide_id)
    if row is None:
        raise unknown(state, mark.slide_id)
    if mark.region is None:
        return query_of_indexed(row, state.segments, None)[1]
    here = row if mark.file is None else replace(row, path=str(mark.file))
    return Question(here, region=mark.region).encoded(state, encoder, on_progress)[1]


def _about(example: Example, codes: SlideCodes, rerank: Rerank | None) -> Example:
    """Return an unliked slide with those of its patches that are nearest to the query's patches."""
    # A slide is unlike for what made it a hit; the rest of it, fat and stroma, may well be in slides that are
    # wanted. A part of a slide was chosen by the user, and counts as a whole.
    if not example.is_whole:
        return example
    own = example.codes
    rows = np.unique(distances(codes, own, rerank).argmin(axis=1))
    vectors = None if own.vectors is None else own.vectors[rows]
    return Example(example.slide_id, SlideCodes(own.keys[rows], own.barcodes[rows], None, vectors), True)


def _moved_codes(
    codes: SlideCodes,
    positive: Sequence[SlideCodes],
    negative: Sequence[SlideCodes],
    strength: float,
    rerank: Rerank | None,
) -> SlideCodes:
    """Return a query moved along a concept: its barcodes, and its vectors where the index keeps them."""
    sides = [[it.barcodes for it in side] for side in (positive, negative)]
    barcodes = moved(codes.barcodes, sides[0], sides[1], strength)
    vectors = codes.vectors
    stored = [[it.vectors for it in side if it.vectors is not None] for side in (positive, negative)]
    if rerank is not None and vectors is not None and all(stored):
        means = [np.mean([rerank.decode(it).mean(axis=0) for it in side], axis=0) for side in stored]
        step = _STEP * strength * _unit(means[0] - means[1])
        vectors = rerank.encode(_unit(_unit(rerank.decode(vectors)) + step).astype(np.float32))
    return SlideCodes(codes.keys, barcodes, codes.l0_xy, vectors)


def moved(
    barcodes: NDArray[np.uint8],
    positive: Sequence[NDArray[np.uint8]],
    negative: Sequence[NDArray[np.uint8]],
    strength: float,
) -> NDArray[np.uint8]:
    """Move barcodes along a concept.

    The share of ones at each bit is taken on both sides, the mean over the examples. Of all bits, those in
    which the shares differ most take the value of the side that has more ones, or fewer: as many as
    `strength` says. Bits in which the sides do not differ stay.

    Parameters
    ----------
    barcodes : uint8 (Q, B)
        The query's barcodes.
    positive, negative : sequence of uint8 (M, B)
        Barcodes of each example.
    strength : float
        Share of the bits, in [-1, 1]; below 0 they take the value of the negative side.

    Returns
    -------
    uint8 (Q, B)
        The moved barcodes.
    """
    apart = _shares(positive) - _shares(negative)
    most = np.argsort(-np.abs(apart), kind="stable")[: round(abs(strength) * len(apart))]
    most = most[apart[most] != 0]
    bits = np.unpackbits(barcodes, axis=1)
    bits[:, most] = (apart[most] > 0) == (strength > 0)
    return np.packbits(bits, axis=1)


def _shares(examples: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Return the share of ones at each bit, the mean over examples, (8 B,)."""
    return np.asarray(np.mean([np.unpackbits(it, axis=1).mean(axis=0) for it in examples], axis=0))


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return vectors of length 1; one of length 0 stays."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length == 0, 1, length))
