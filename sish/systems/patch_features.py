"""Patches of an item as numbers: what most systems describe an image or slide by.

Two choices make a description. *Looks* say which patches of an item are read: tiles of its tissue at one or
several scales, all of them or a mosaic (:class:`Tiles`), or the whole picture as one patch
(:class:`WholePicture`). The encoder turns each into features; it is given by name or as an object
(:mod:`sish.encoders`). The default is ``vqvae``, whose features orientation does not change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sish.encode import PaperKeys
from sish.encoders import VQVAE, MeasuredEncoder, PatchEncoder, load, measured, name_of
from sish.errors import ParameterError, QueryError, SlideError
from sish.sampling import rows_to_measure
from sish.slides.mosaic import is_one_patch, only_patch, read_patch, select_mosaic, tile
from sish.slides.region import Region
from sish.slides.slide import Slide, open_slide
from sish.slides.tissue import TissueMask, find_tissue
from sish.systems.item import Item
from sish.systems.items import open_item

_BATCH = 16  # patches in memory at a time
_STEP_PX = 32  # sides of smaller images are multiples of it, as in sish.encode
_LARGEST_PICTURE = 4096  # pixels on a side: beyond it a picture is a slide
_UPSAMPLED = 0.75  # a scale that is finer than this share of the slide's own shows nothing new

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Some patches of an item, of one size and scale."""

    pixels: NDArray[np.uint8]
    """(N, H, W, 3)."""
    l0_xy: NDArray[np.int64]
    """(N, 2): top left corners in level-0 pixels."""
    l0_px: float
    """Side (of the longer edge) in level-0 pixels."""
    mpp: float
    """Micrometres per pixel that they were read at; 0 for whole pictures."""


class Looks(Protocol):
    """Which patches of an item are looked at."""

    def read(self, item: Item, region: Region | None = None, step_px: int = 1) -> Iterator[PatchBatch]:
        """Yield patches of an item, a few at a time, of sides that are multiples of `step_px`."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles without overlap on the tissue of a slide, at one or several scales.

    >>> Tiles(mpps=(0.25, 1.0, 4.0)).scales(0.5)     # a slide of 0.5 um/px shows nothing finer
    (1.0, 4.0)
    """

    size_px: int = 256
    """Side of a tile in pixels at its scale."""
    mpps: tuple[float, ...] = (1.0,)
    """Scales in micrometres per pixel. Those much finer than the slide's own are left out, unless all are."""
    mosaic: bool = True
    """Read only the mosaic (colour, then place: Chen et al. 2022, Methods), or all tiles."""

    def __post_init__(self) -> None:
        """Refuse sizes and scales that are none."""
        if self.size_px < 1 or not self.mpps or not all(0.05 <= mpp <= 64 for mpp in self.mpps):
            raise ParameterError(
                f"got tiles of {self.size_px} px at {self.mpps} um/px; want 0.05 to 64 um/px"
            )

    def read(self, item: Item, region: Region | None = None, step_px: int = 1) -> Iterator[PatchBatch]:
        """Yield the tiles of an item; an image no larger than a tile is one patch of its own size."""
        self._check_step(step_px)
        with open_item(item) as slide:
            tissue = find_tissue(slide)
            for mpp in self.scales(slide.mpp):
                l0_xy = self._places(slide, tissue, mpp, region)
                yield from read_squares(slide, l0_xy, self.size_px, mpp, self._small_step(step_px))

    def read_few(self, item: Item, most: int, step_px: int = 1) -> Iterator[PatchBatch]:
        """Yield at most so many tiles: of the finest scale that has no more, else some of the coarsest."""
        self._check_step(step_px)
        every = replace(self, mosaic=False)
        with open_item(item) as slide:
            tissue = find_tissue(slide)
            for mpp in sorted(self.scales(slide.mpp)):
                l0_xy = every._places(slide, tissue, mpp, None)
                if len(l0_xy) <= most:
                    break
            chosen = np.linspace(0, len(l0_xy) - 1, min(most, len(l0_xy))).round().astype(int)
            yield from read_squares(slide, l0_xy[chosen], self.size_px, mpp, self._small_step(step_px))

    def _places(
        self, slide: Slide, tissue: TissueMask, mpp: float, region: Region | None
    ) -> NDArray[np.int64]:
        """Return the top left corners of the tiles at a scale, int64 (N, 2)."""
        if region is None and is_one_patch(slide, self.size_px, mpp):
            return only_patch(slide, self.size_px, mpp).l0_xy
        patches = tile(slide, tissue, size_px=self.size_px, mpp=mpp, region=region)
        return select_mosaic(slide, patches).l0_xy if self.mosaic else patches.l0_xy

    def _small_step(self, step_px: int) -> int | None:
        """Return the step of a smaller image's sides; None for encoders that take whole patches."""
        return math.lcm(_STEP_PX, step_px) if step_px > 1 and not self.size_px % _STEP_PX else None

    def _check_step(self, step_px: int) -> None:
        if self.size_px % step_px:
            raise ParameterError(f"got tiles of {self.size_px} px; the encoder wants a multiple of {step_px}")

    def scales(self, slide_mpp: float) -> tuple[float, ...]:
        """Return the scales at which a slide is read: those that its pixels can show, or the coarsest."""
        return tuple(mpp for mpp in self.mpps if mpp >= _UPSAMPLED * slide_mpp) or (max(self.mpps),)


@dataclass(frozen=True, slots=True)
class WholePicture:
    """A small picture as one patch in its own pixels, its scale unknown or of no interest.

    Cut at the edges, alike on both sides, to what the encoder's stride divides.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> path = Path(tempfile.mkdtemp(), "a.png")
    >>> Image.new("RGB", (70, 50)).save(path)
    >>> next(WholePicture().read(Item("a", path), step_px=8)).pixels.shape
    (1, 48, 64, 3)
    """

    def read(self, item: Item, region: Region | None = None, step_px: int = 1) -> Iterator[PatchBatch]:
        """Yield the picture; SlideError if it is too large or too small for one patch."""
        with open_slide(item.path, override_mpp=1.0) as slide:  # its own pixels: any scale will do
            x, y, width, height = region or (0, 0, *slide.dimensions)
            size = width // step_px * step_px, height // step_px * step_px
            if min(size) < 1 or max(size) > _LARGEST_PICTURE:
                raise SlideError(
                    f"{item.path}: got {width} x {height} px for one patch; "
                    f"want {step_px} to {_LARGEST_PICTURE} px, or tiles of it"
                )
            corner = x + (width - size[0]) // 2, y + (height - size[1]) // 2
            pixels = slide.read(corner, size, slide.mpp)
        yield PatchBatch(pixels[None], np.array([corner]), float(max(size)), 0.0)


def read_squares(
    slide: Slide, l0_xy: NDArray[np.int64], size_px: int, mpp: float, small_step_px: int | None = None
) -> Iterator[PatchBatch]:
    """Yield squares of a slide at a scale, a few at a time, as `sish.slides.mosaic.read_patch` does.

    Parameters
    ----------
    slide : Slide
        An open slide.
    l0_xy : int64 (N, 2)
        Top left corners in level-0 pixels.
    size_px, mpp : int, float
        Side in pixels, and um per pixel.
    small_step_px : int, optional
        A slide smaller than a square is mirrored up to the next multiple of it. Default: to a whole square.

    Yields
    ------
    PatchBatch
        Squares; white beyond the slide.
    """
    for start in range(0, len(l0_xy), _BATCH):
        corners = l0_xy[start : start + _BATCH]
        pixels = [
            read_patch(slide, (int(x), int(y)), size_px, mpp, step_px=small_step_px) for x, y in corners
        ]
        yield PatchBatch(np.stack(pixels), corners, size_px * mpp / slide.mpp, mpp)


@dataclass(frozen=True, slots=True)
class PatchFeatures:
    """M patches of one item as numbers."""

    features: Features
    """(M, F), as the encoder gives them."""
    l0_xy: NDArray[np.int64]
    """(M, 2): top left corners in level-0 pixels."""
    l0_px: NDArray[np.float32]
    """(M,): sides in level-0 pixels."""
    mpp: NDArray[np.float32]
    """(M,): scales that they were read at, um per pixel; 0 for whole pictures."""
    keys: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(M,): the paper's keys; empty where nobody asked for them."""

    def __len__(self) -> int:
        """Patches."""
        return len(self.features)


class PatchDescriber:
    """Describes items by the features of their patches.

    Parameters
    ----------
    looks : Looks, optional
        Which patches are read. Default: a mosaic of tiles of the encoder's own size and scale.
    encoder : str or PatchEncoder, optional
        The encoder, by name or as an object. Default: ``vqvae``, loaded at first use.
    keys : bool
        Make the paper's keys too, for which the encoder must have a codebook: that may take as long again as
        the features.

    Raises
    ------
    ParameterError
        If the encoder is none.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> path = Path(tempfile.mkdtemp(), "a.png")
    >>> Image.new("RGB", (128, 96), "purple").save(path)
    >>> found = PatchDescriber().describe(Item("a", path, mpp=1.0))
    >>> found.features.shape, found.l0_xy.tolist()
    ((1, 1024), [[0, 0]])
    """

    def __init__(
        self, looks: Looks | None = None, encoder: str | PatchEncoder | None = None, *, keys: bool = False
    ) -> None:
        """See the class."""
        self.keys = keys
        self._looks, self._given = looks, VQVAE if encoder is None else encoder
        name_of(self._given)  # an object that is no encoder is refused before a slide is read

    @cached_property
    def encoder(self) -> MeasuredEncoder:
        """The encoder of patches."""
        return load(self._given) if isinstance(self._given, str) else measured(self._given)

    @cached_property
    def looks(self) -> Looks:
        """The choice of patches."""
        return self._looks or Tiles(self.encoder.patch_px, (self.encoder.mpp,))

    @cached_property
    def _paper_keys(self) -> PaperKeys:
        return PaperKeys.of(self.encoder)

    @property
    def step_px(self) -> int:
        """Sides of a patch are multiples of it."""
        return self.encoder.stride

    def describe(self, item: Item, region: Region | None = None) -> PatchFeatures:
        """Return the features of an item's patches.

        Parameters
        ----------
        item : Item
            A slide or image.
        region : tuple of int, optional
            The part to describe: x, y, width, height in level-0 pixels.

        Returns
        -------
        PatchFeatures
            Its patches.

        Raises
        ------
        QueryError
            If there are none, as on a slide without tissue.
        """
        parts = [self._encoded(look) for look in self.looks.read(item, region, self.step_px)]
        if not parts:
            raise QueryError(f"{item.path}: got no tissue in it; want some to describe")
        return _joined(parts)

    def features(self, pixels: NDArray[np.uint8]) -> Features:
        """Return features float32 (N, F) of patches uint8 (N, H, W, 3)."""
        return self.encoder.features(pixels)

    def _encoded(self, look: PatchBatch) -> PatchFeatures:
        count, keys = len(look.pixels), np.zeros(0, np.int64)
        if self.keys:
            encoded = self.encoder.encode(look.pixels)
            features, keys = encoded.features, self._paper_keys(encoded)
        else:
            features = self.features(look.pixels)
        return PatchFeatures(
            features,
            look.l0_xy,
            np.full(count, look.l0_px, np.float32),
            np.full(count, look.mpp, np.float32),
            keys,
        )


def describer_for(
    describer: PatchDescriber | None,
    encoder: str | PatchEncoder | None,
    looks: Looks | None = None,
    *,
    keys: bool = False,
) -> PatchDescriber:
    """Return the describer that was given, or one of an encoder; ParameterError for both."""
    if describer is None:
        return PatchDescriber(looks, encoder, keys=keys)
    if encoder is not None:
        raise ParameterError("got encoder= and describer=; give the encoder to the describer")
    return describer


def _joined(parts: Sequence[PatchFeatures]) -> PatchFeatures:
    """Return the patches of all parts, in order."""
    features = np.concatenate([part.features for part in parts])
    l0_xy, keys = (np.concatenate([getattr(part, name) for part in parts]) for name in ("l0_xy", "keys"))
    l0_px, mpp = (np.concatenate([getattr(part, name) for part in parts]) for name in ("l0_px", "mpp"))
    return PatchFeatures(features, l0_xy, l0_px, mpp, keys)


def unit(features: NDArray[Any]) -> Features:
    """Return rows (N, F) divided by their length; a row of zeros stays.

    Parameters
    ----------
    features : float (N, F)
        Rows.

    Returns
    -------
    float32 (N, F)
        Rows of length 1 or 0.

    Examples
    --------
    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6..., 0.8...], [0.0, 0.0]]
    """
    rows = np.asarray(features, np.float32)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


def sample_of(items: Sequence[Item], descriptions: Sequence[PatchFeatures]) -> Features:
    """Return features (M, F) of the patches of a database that the first add of an index would measure."""
    found = {item.path: it.features for item, it in zip(items, descriptions, strict=True)}
    rows = rows_to_measure({path: len(features) for path, features in found.items()})
    return np.concatenate([found[path][numbers] for path, numbers in rows.items()])
