"""Squares of tissue, drawn from slides while training goes on.

Where tissue is, is looked up once a slide. Without a cache every epoch draws places anew; with one, each
slide has a fixed number of squares, a little larger than what training sees: they are decoded on first use
and read back from disk afterwards, and only crop, flip and turn change from epoch to epoch.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from sish.errors import MissingMppError, ParameterError, SishError
from sish.slides.pyramid import Pixels
from sish.slides.scale import check_given, is_unused
from sish.slides.slide import Slide, open_slide
from sish.slides.tissue import find_tissue
from sish.vqvae.images import Crop, random_below
from sish.vqvae.patch_cache import PatchCache, slots_within

__all__ = ["Cut", "SlidePatches", "SlideSquares", "TissuePlaces", "find_places"]

_PLACES = 8192  # mask pixels kept of a slide: its whole mask may have millions
_MARGIN = 1.5  # a kept square is so much wider than the crop that is cut from it at random


@dataclass(frozen=True)  # without slots: jsonargparse reads a default dataclass through vars()
class Cut:
    """How patches are cut, and which are kept."""

    train_px: int = 64
    """Side of the random square that training sees, a multiple of the network's stride."""
    valid_px: int = 96
    """Side of the centre square that validation sees, a multiple of the network's stride."""
    mpp: float = 1.0
    """Micrometres per pixel at which slides are read (images are taken as they are)."""
    slide_mpp: float | None = None
    """Micrometres per pixel of level 0, for slides that do not tell."""
    override_slide_mpp: float | None = None
    """Micrometres per pixel of level 0 of all slides, whatever they tell."""
    per_slide: int = 500
    """Patches drawn from each slide in an epoch."""
    cache_gb: float = 4.0
    """Keep patches of slides on disk, up to so many gigabytes; 0: draw new places in every epoch."""
    cache_folder: Path = Path("runs/patches")
    """Where they are kept; patches of other slides or settings there are deleted."""

    def __post_init__(self) -> None:
        """Refuse what cannot be cut (ParameterError)."""
        if min(self.train_px, self.valid_px, self.per_slide) < 1 or self.mpp <= 0 or self.cache_gb < 0:
            raise ParameterError(f"sizes, counts and mpp of patches must be positive, got {self}")
        check_given(self.slide_mpp, self.override_slide_mpp, "scale of slides")

    @property
    def square_px(self) -> int:
        """Side of a kept square: room for a random crop, and for what validation sees."""
        return max(round(_MARGIN * self.train_px), self.valid_px)


@dataclass(frozen=True, slots=True)
class TissuePlaces:
    """A slide, and where on it tissue is."""

    path: Path
    """Its file."""
    slide_mpp: float
    """Micrometres per pixel of level 0."""
    l0_xy: NDArray[np.float64]
    """(N, 2), level-0 pixels: top left corners of pixels of the tissue mask."""
    l0_span: float
    """Level-0 pixels that each of these spans."""


@lru_cache(maxsize=64)  # per process: a worker opens each slide once
def _opened(path: Path, slide_mpp: float) -> Slide:
    return open_slide(path, override_mpp=slide_mpp)


def find_places(
    paths: Sequence[Path], slide_mpp: float | None = None, override_slide_mpp: float | None = None
) -> list[TissuePlaces]:
    """Tissue of the slides that open, have a scale (or are given one) and hold any; a warning for others.

    ``slide_mpp`` is the scale of slides that do not tell theirs, ``override_slide_mpp`` of all. A
    ParameterError if there are none.
    """
    usable = []
    for path in paths:
        try:
            usable.append(_places_of(path, slide_mpp, override_slide_mpp))
        except MissingMppError as error:
            warnings.warn(f"{path} is skipped: {error} (here: --data.cut.slide_mpp)", stacklevel=2)
        except SishError as error:
            warnings.warn(f"{path} is skipped: {str(error).removeprefix(f'{path}: ')}", stacklevel=2)
    own = sum(is_unused(slide_mpp, places.slide_mpp) for places in usable)
    if own and override_slide_mpp is None:
        warnings.warn(
            f"slide_mpp was not used for {own} of the slides, which tell their own scale; "
            "override_slide_mpp replaces it",
            stacklevel=2,
        )
    if not usable:
        raise ParameterError(f"none of the {len(paths)} slides can be used; see the warnings for each")
    return usable


def _places_of(path: Path, slide_mpp: float | None, override_slide_mpp: float | None) -> TissuePlaces:
    with open_slide(path, mpp=slide_mpp, override_mpp=override_slide_mpp) as slide:
        tissue = find_tissue(slide)
    cells = np.argwhere(tissue.mask)
    if not len(cells):
        raise ParameterError("no tissue was found")
    if len(cells) > _PLACES:
        cells = cells[np.random.default_rng(0).choice(len(cells), _PLACES, replace=False)]
    l0_xy = np.asarray(tissue.l0_xy) + cells[:, ::-1] * tissue.l0_per_px
    return TissuePlaces(path, slide.mpp, l0_xy, tissue.l0_per_px)


class SlideSquares:
    """Squares of the tissue of slides: any number at random places, and fixed ones that may be kept."""

    def __init__(self, slides: Sequence[TissuePlaces], cut: Cut) -> None:
        """Squares as ``cut`` says; its cache is shared with other processes that were given the same."""
        self.slides = list(slides)
        self.cut = cut
        self.kept = 0
        """Squares of each slide that the cache has room for."""
        if cut.cache_gb:
            room = slots_within(int(cut.cache_gb * 1e9), cut.square_px)
            self.kept = min(cut.per_slide, room // len(self.slides))
            about = [cut.mpp, self.kept, *map(_identity, self.slides)]
            self._cache = PatchCache(cut.cache_folder, cut.square_px, about)

    def fixed(self, slide: int, number: int) -> Pixels:
        """Square ``number`` of a slide, uint8 (square_px, square_px, 3): the same each time."""
        # A fixed part is kept, not what was used last: an epoch asks for everything once, in another order
        slot = slide * self.kept + number
        found = self._cache.get(slot) if number < self.kept else None
        if found is None:
            found = self._read(slide, number, self.cut.square_px)
            if number < self.kept:
                self._cache.put(slot, found)
        return found

    def fresh(self, slide: int, side_px: int) -> Pixels:
        """A square of a slide at a place drawn now, uint8 (side, side, 3)."""
        return self._read(slide, random_below(2**31), side_px)

    def _read(self, number: int, seed: int, side_px: int) -> Pixels:
        places = self.slides[number]
        slide = _opened(places.path, places.slide_mpp)
        generator = np.random.default_rng(seed)
        corner = places.l0_xy[generator.integers(len(places.l0_xy))]
        center = corner + generator.random(2) * places.l0_span
        x, y = np.round(center - side_px * self.cut.mpp / slide.mpp / 2).astype(int).tolist()
        return slide.read((x, y), side_px, self.cut.mpp)


def _identity(places: TissuePlaces) -> list[str | float | None]:
    facts = places.path.stat()
    return [str(places.path.resolve()), facts.st_size, facts.st_mtime_ns, places.slide_mpp]


class SlidePatches(Dataset[Tensor]):
    """Patches uint8 (size, size, 3) from the tissue of some slides, others in each epoch if ``augment``."""

    def __init__(self, squares: SlideSquares, slides: Sequence[int], size_px: int, *, augment: bool) -> None:
        """``cut.per_slide`` patches an epoch from each of ``slides``, numbers into those of ``squares``."""
        self.squares = squares
        self.slides = list(slides)
        self._crop = Crop(size_px, augment)

    def __len__(self) -> int:
        """Patches in an epoch."""
        return len(self.slides) * self.squares.cut.per_slide

    def __getitem__(self, number: int) -> Tensor:
        """A patch of slide ``number // per_slide``; without augmentation the place depends on number only."""
        which, square = divmod(number, self.squares.cut.per_slide)
        slide = self.slides[which]
        if self._crop.augment and square >= self.squares.kept:
            pixels = self.squares.fresh(slide, self._crop.size_px)
        else:
            pixels = self.squares.fixed(slide, square)
        return self._crop(pixels, self.squares.slides[slide].path)
