"""Measure an encoder's features on some slides of an archive, before the archive is indexed.

Slides are taken in the order of a hash of their files' names. A folder that was moved, or files in another
order, then give the same sample. The sample ends with 2,000 patches. A slide gives at most 50 of them, evenly
from its mosaic, and in a call of many slides fewer, but at least 10. So 200 whole slides are measured, or up
to 2,000 small images. No slide alone decides.

What was seen is kept until the slides are added, so no mosaic is chosen and no patch is encoded twice.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sish.encode import Seen, SlideEncoder
from sish.errors import ParameterError, SlideError
from sish.printing import counted, printable
from sish.progress import progress
from sish.slides.files import find_slides
from sish.slides.formats.levels import Pixels
from sish.slides.mosaic import Mosaic, read_patch
from sish.slides.reader_threads import SLIDE_TIMEOUT_S, TimeLimit, each_ahead, end_soon, start
from sish.slides.scale import check_given
from sish.slides.slide import Slide, open_slide

_LOG = logging.getLogger(__name__)

PATCHES = 2000
"""Number of patches with which a sample ends."""

MOST, LEAST = 50, 10
"""Largest number of patches of a slide, in a call of few slides and of many."""

_MOST_AHEAD = 4  # slides whose patches wait to be encoded: 10 MB of pixels each

_Item = TypeVar("_Item")

Openers = Mapping[Path, Callable[[], Slide]]
"""How the slide of each file is opened."""


@dataclass(frozen=True, slots=True)
class SampledSlide:
    """A slide of a sample."""

    mosaic: Mosaic
    """The patches that stand for it."""
    seen: Seen
    """Those of them that were measured."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Slides that were measured, in the order of the draw; those without tissue among them."""

    slides: dict[Path, SampledSlide] = field(default_factory=dict)
    """The slides by their files."""
    failed: dict[Path, SlideError] = field(default_factory=dict)
    """Why slides were passed over, by their files."""

    @property
    def features(self) -> NDArray[np.float32]:
        """The features of all measured patches, float32 (M, F)."""
        found = [slide.seen.features for slide in self.slides.values() if len(slide.mosaic)]
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    @property
    def with_tissue(self) -> int:
        """How many slides have measured patches."""
        return sum(len(slide.mosaic) > 0 for slide in self.slides.values())


def draw(paths: Iterable[Path]) -> list[Path]:
    """Return paths in the order of a hash of the file's name; equal names are in order of the whole path."""
    return sorted(paths, key=lambda path: (_hash_of(path.name), os.fsencode(path)))


def _hash_of(name: str) -> bytes:
    return hashlib.blake2b(os.fsencode(name), digest_size=8).digest()


def take_sample(
    encoder: SlideEncoder,
    openers: Openers,
    *,
    slide_timeout: float = SLIDE_TIMEOUT_S,
    show_progress: bool = False,
) -> Sample:
    """Measure slides in the order of the draw, until there are 2,000 patches.

    Slides that cannot be read are passed over.

    Parameters
    ----------
    encoder : SlideEncoder
        The encoder.
    openers : mapping of Path to callable
        How each slide is opened.
    slide_timeout : float
        Seconds that a slide may take before it is passed over; 0 for no limit.
    show_progress : bool
        Show progress in patches; it may end before all are counted.

    Returns
    -------
    Sample
        The slides and their features.
    """
    reader = _Reader(encoder, openers, _most_of_each(len(openers)))
    limits = {path: TimeLimit(slide_timeout, str(path)) for path in draw(openers)}
    reading = each_ahead(limits, reader.read, min(encoder.workers, _MOST_AHEAD), reader.abandon)
    sample, patches = Sample(), 0
    steps = progress("measuring", min(PATCHES, reader.most * len(limits)), show=show_progress)
    with closing(reading), steps as bar:
        for path, future in reading:
            try:
                with limits[path]:
                    mosaic, rows, pixels = limits[path].result(future)
                keys, features = encoder.keys_and_features(pixels)
            except SlideError as error:
                _LOG.warning("not measured: %s", printable(str(error)))
                sample.failed[path] = error
                reader.abandon(path)
                continue
            sample.slides[path] = SampledSlide(mosaic, Seen(rows, keys, features))
            for _ in rows[: PATCHES - patches]:
                bar.step(path.name)
            patches += len(rows)
            if patches >= PATCHES:
                break
    slides = counted(len(sample.slides), "slide")
    _LOG.info("measured the encoder on %s of %s", counted(patches, "patch", "es"), slides)
    return sample


def measured_encoder(
    encoder: SlideEncoder,
    slides: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    mpp: float | None = None,
    override_mpp: float | None = None,
) -> SlideEncoder:
    """Return an encoder, measured on slides.

    Parameters
    ----------
    encoder : SlideEncoder
        The encoder.
    slides : path-like or iterable of path-like
        Files, or folders that are searched for slides.
    mpp, override_mpp : float, optional
        As of :meth:`sish.Index.add`.

    Returns
    -------
    SlideEncoder
        The same encoder with its calibration.

    Raises
    ------
    ParameterError
        If fewer than two patches are found.
    """
    check_given(mpp, override_mpp)
    given = [slides] if isinstance(slides, str | os.PathLike) else list(slides)
    openers: dict[Path, Callable[[], Slide]] = {}
    for place in given:
        with suppress(SlideError):
            for path in find_slides(place, on_error=lambda _error: None):
                openers[path] = partial(open_slide, path, mpp=mpp, override_mpp=override_mpp)
    features = take_sample(encoder, openers).features
    if len(features) < 2:
        raise ParameterError(
            f"got {len(features)} patches of {len(openers)} slides to measure features on; "
            "give slides with tissue"
        )
    return encoder.measured_on(features)


def evenly(items: list[_Item], most: int) -> list[_Item]:
    """Return at most so many of the items, evenly spread over them.

    Parameters
    ----------
    items : list
        The items.
    most : int
        How many to return at most.

    Returns
    -------
    list
        Some of them, in order.

    Examples
    --------
    >>> evenly(list("abcdefg"), 3)
    ['a', 'c', 'e']
    """
    count = min(len(items), most)
    return [items[number * len(items) // count] for number in range(count)]


def rows_to_measure(patches: Mapping[Path, int]) -> dict[Path, list[int]]:
    """Return which patches of each slide are measured, given how many each has, in the order of the draw."""
    most = _most_of_each(len(patches))
    rows: dict[Path, list[int]] = {}
    for path in draw(patches):
        if sum(map(len, rows.values())) >= PATCHES:
            break
        rows[path] = evenly(list(range(patches[path])), most)
    return rows


def _most_of_each(slides: int) -> int:
    """Return how many patches of a slide are measured at most, beside so many slides."""
    return min(MOST, max(LEAST, PATCHES // max(1, slides)))


@dataclass(slots=True)
class _Reader:
    """Reads some patches of slides, each in a thread."""

    encoder: SlideEncoder
    openers: Openers
    most: int
    """Patches of a slide."""
    open: dict[Path, Slide] = field(default_factory=dict)

    def read(self, path: Path) -> tuple[Mosaic, NDArray[np.int64], Pixels]:
        """Return the mosaic of a slide, which of its patches are measured, and their pixels."""
        slide = self.openers[path]()
        self.open[path] = slide
        try:
            mosaic = self.encoder.prepare(slide).mosaic
            rows = np.array(evenly(list(range(len(mosaic))), self.most), np.int64)
            return mosaic, rows, self._pixels(slide, mosaic.l0_xy[rows].tolist())
        finally:
            self.open.pop(path, None)
            end_soon(slide.close)

    def _pixels(self, slide: Slide, corners: list[tuple[int, int]]) -> Pixels:
        px, mpp, step_px = self.encoder.recipe.patch_px, self.encoder.recipe.mpp, self.encoder.step_px
        pixels = [read_patch(slide, (x, y), px, mpp, step_px=step_px) for x, y in corners]
        return np.stack(pixels) if pixels else np.empty((0, px, px, 3), np.uint8)

    def abandon(self, path: Path) -> None:
        """Close a slide that is still being read, so that its next read fails."""
        slide = self.open.pop(path, None)
        if slide is not None:
            start(slide.close)
