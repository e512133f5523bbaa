"""Draw a few patches of an archive, to measure their features before the archive is indexed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sish.encode import SlideEncoder
from sish.errors import ParameterError, SlideError
from sish.slides.files import find_slides
from sish.slides.formats.levels import Pixels
from sish.slides.reader_threads import SLIDE_TIMEOUT_S, TimeLimit, start
from sish.slides.scale import check_given
from sish.slides.slide import open_slide

SLIDES = 32
"""Largest number of slides in a sample."""

PATCHES = 16
"""Largest number of patches of each of them."""

_Item = TypeVar("_Item")


def sample_features(
    encoder: SlideEncoder,
    slides: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    mpp: float | None = None,
    override_mpp: float | None = None,
) -> NDArray[np.float32]:
    """Return the features of some patches of an archive: of 32 slides at most, 16 patches each.

    Slides are taken evenly from the list and patches evenly from each mosaic: the same slides give the same
    patches. Slides that cannot be read are skipped; `Index.add` reports them.

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
    float32 (M, F)
        The features.

    Raises
    ------
    ParameterError
        If fewer than two patches are left.
    """
    check_given(mpp, override_mpp)
    given = [slides] if isinstance(slides, str | os.PathLike) else list(slides)
    paths: list[Path] = []
    for place in given:
        with suppress(SlideError):
            paths += find_slides(place, on_error=lambda _error: None)
    features = [_features_of(encoder, path, mpp, override_mpp) for path in evenly(paths, SLIDES)]
    found = np.concatenate([part for part in features if part is not None] or [np.empty((0, 0), np.float32)])
    if len(found) < 2:
        raise ParameterError(
            f"got {len(found)} patches of {len(paths)} slides to measure features on; give slides with tissue"
        )
    return found


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


def _features_of(
    encoder: SlideEncoder, path: Path, mpp: float | None, override_mpp: float | None
) -> NDArray[np.float32] | None:
    with suppress(SlideError):
        reading = start(_pixels_of, encoder, path, mpp, override_mpp)
        pixels = TimeLimit(SLIDE_TIMEOUT_S, str(path)).result(reading)
        return encoder.features(np.stack(pixels)) if pixels else None
    return None


def _pixels_of(
    encoder: SlideEncoder, path: Path, mpp: float | None, override_mpp: float | None
) -> list[Pixels]:
    recipe = encoder.recipe
    with open_slide(path, mpp=mpp, override_mpp=override_mpp) as slide:
        corners = evenly(encoder.prepare(slide).mosaic.l0_xy.tolist(), PATCHES)
        return [slide.read((x, y), recipe.patch_px, recipe.mpp) for x, y in corners]
