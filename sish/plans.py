"""What an add would do, told without doing it (:meth:`sish.Index.plan_add`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from sish.failures import write_failures
from sish.results import Skipped, failures_of


@dataclass(frozen=True, slots=True)
class PlannedSlide:
    """A slide that would be encoded."""

    slide_id: str
    """The id that it would have."""
    path: str
    """Its file."""
    mpp: float | None
    """The scale that it would have, micrometres per level-0 pixel; None if it is not known."""


@dataclass(frozen=True, slots=True)
class AddPlan:
    """The report of an add that was planned: every slide that was asked for is in one of the lists.

    Each file was opened. Tissue was not looked for and pixels were not read, so an add may find slides
    without tissue, and slides with damaged pixels, among those that are new here.
    """

    new: tuple[PlannedSlide, ...]
    """Slides that would be new in the index."""
    again: tuple[PlannedSlide, ...]
    """Slides whose codes would be made again."""
    already: tuple[str, ...]
    """Ids of slides that are in the index, and would stay as they are."""
    failed: tuple[Skipped, ...]
    """Slides that would be refused, and rows of the labels file without a slide."""
    notes: tuple[str, ...] = ()
    """Notes on the labels file, a line each."""

    def lines(self) -> Iterator[str]:
        """Yield a line for each slide, and one on all."""
        for verb, slides in (("add", self.new), ("encode again", self.again)):
            for slide in slides:
                scale = "" if slide.mpp is None else f", {slide.mpp:g} um/px"
                yield f"would {verb}: {slide.slide_id}: {slide.path}{scale}"
        for slide_id in self.already:
            yield f"already there: {slide_id}"
        yield self.summary()

    def summary(self) -> str:
        """Return one line, such as ``12 to add, 3 already there, 1 would fail; nothing was written``."""
        counts = {
            "to add": len(self.new),
            "to encode again": len(self.again),
            "already there": len(self.already),
            "would fail": len(self.failed),
        }
        told = ", ".join(f"{n} {what}" for what, n in counts.items() if n or what == "to add")
        return f"{told}; nothing was written"

    def write_failures(self, path: str | os.PathLike[str]) -> int:
        """Write the slides that would be refused, as :meth:`sish.AddReport.write_failures` does.

        Parameters
        ----------
        path : path-like
            The file; it may replace a ``.csv``.

        Returns
        -------
        int
            The number of slides.
        """
        return write_failures(path, failures_of(self.failed))
