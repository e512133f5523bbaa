"""Training patches from slides: squares of tissue, drawn during training.

The tissue of a slide is found once. Without a cache, every epoch draws new places. With a cache, each slide
has a fixed number of squares, a little larger than the patches. They are decoded on first use and read from
disk afterwards; only the crop and its orientation change from epoch to epoch.
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

from sish.errors import MissingMppError, ParameterError, SishError, SlideOpenError
from sish.slides.formats.levels import Pixels
from sish.slides.scale import check_given, is_unused
from sish.slides.slide import Slide, open_slide
from sish.slides.tissue import find_tissue
from sish.vqvae.images import Crop, random_below
from sish.vqvae.patch_cache import PatchCache, slots_within

_PLACES = 8192  # mask pixels kept for a slide, of perhaps millions
_MARGIN = 1.5  # side of a kept square by that of the crop that is cut from it at random


@dataclass(frozen=True)  # without slots: jsonargparse reads a default dataclass through vars()
class Cut:
    """How patches are cut, and how many are kept on disk."""

    train_px: int = 64
    """Side of the random square for training, a multiple of the network's stride."""
    valid_px: int = 96
    """Side of the centre square for validation, a multiple of the network's stride."""
    mpp: float = 1.0
    """Micrometres per pixel at which slides are read; images are taken as they are."""
    slide_mpp: float | None = None
    """Micrometres per pixel of level 0, for slides without a scale."""
    override_slide_mpp: float | None = None
    """Micrometres per pixel of level 0 of all slides, whatever their files say."""
    per_slide: int = 500
    """Patches drawn from each slide in an epoch."""
    cache_gb: float = 4.0
    """Gigabytes of patches of slides to keep on disk, at most; 0: draw new places in every epoch."""
    cache_folder: Path = Path("runs/patches")
    """Folder for these patches; patches of other slides or settings in it are deleted."""

    def __post_init__(self) -> None:
        """Refuse what cannot be cut (ParameterError)."""
        if min(self.train_px, self.valid_px, self.per_slide) < 1 or self.mpp <= 0 or self.cache_gb < 0:
            raise ParameterError(f"sizes, counts and mpp of patches must be positive, got {self}")
        check_given(self.slide_mpp, self.override_slide_mpp, "scale of slides")

    @property
    def square_px(self) -> int:
        """Side of a kept square: room for a random crop, and for the crop of validation."""
        return max(round(_MARGIN * self.train_px), self.valid_px)


@dataclass(frozen=True, slots=True)
class TissuePlaces:
    """A slide, and the places of its tissue."""

    path: Path
    """Its file."""
    slide_mpp: float
    """Micrometres per pixel of level 0."""
    l0_xy: NDArray[np.float64]
    """(N, 2), level-0 pixels, x first: top left corners of pixels of the tissue mask."""
    l0_span: float
    """Side of a pixel of the mask, in level-0 pixels."""


@lru_cache(maxsize=64)  # per process: a worker opens each slide once
def _opened(path: Path, slide_mpp: float) -> Slide:
    return open_slide(path, override_mpp=slide_mpp)


def find_places(
    paths: Sequence[Path], slide_mpp: float | None = None, override_slide_mpp: float | None = None
) -> list[TissuePlaces]:
    """Find the tissue of slides. Slides that cannot be used are skipped with a warning.

    Parameters
    ----------
    paths : sequence of Path
        The slides.
    slide_mpp : float, optional
        Micrometres per pixel of level 0, for slides without a scale.
    override_slide_mpp : float, optional
        The same for all slides, whatever their files say.

    Returns
    -------
    list of TissuePlaces
        One for each slide that opens, has a scale and has tissue.

    Raises
    ------
    SlideOpenError
        If there is none.
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
        raise SlideOpenError(f"none of the {len(paths)} slides can be used; see the warnings for each")
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
    """Squares of the tissue of slides, at random places, or at fixed places and kept on disk."""

    def __init__(self, slides: Sequence[TissuePlaces], cut: Cut) -> None:
        """Take the slides and ``cut``; processes with the same arguments share one cache."""
        self.slides = list(slides)
        self.cut = cut
        self.kept = 0
        """Squares of each slide that fit into the cache."""
        if cut.cache_gb:
            room = slots_within(int(cut.cache_gb * 1e9), cut.square_px)
            self.kept = min(cut.per_slide, room // len(self.slides))
            about = [cut.mpp, self.kept, *map(_identity, self.slides)]
            self._cache = PatchCache(cut.cache_folder, cut.square_px, about)

    def fixed(self, slide: int, number: int) -> Pixels:
        """Return square ``number`` of a slide, uint8 (square_px, square_px, 3): always the same."""
        # The first squares are kept, not the last used: an epoch asks for each once, in another order
        slot = slide * self.kept + number
        found = self._cache.get(slot) if number < self.kept else None
        if found is None:
            found = self._read(slide, number, self.cut.square_px)
            if number < self.kept:
                self._cache.put(slot, found)
        return found

    def fresh(self, slide: int, side_px: int) -> Pixels:
        """Return a square of a slide, uint8 (side, side, 3), at a new random place."""
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
    """Patches uint8 (size, size, 3) of the tissue of some slides; with ``augment`` new ones in each epoch."""

    def __init__(self, squares: SlideSquares, slides: Sequence[int], size_px: int, *, augment: bool) -> None:
        """Take ``cut.per_slide`` patches an epoch from each of ``slides``, numbers in ``squares``."""
        self.squares = squares
        self.slides = list(slides)
        self._crop = Crop(size_px, augment)

    def __len__(self) -> int:
        """Return the number of patches in an epoch."""
        return len(self.slides) * self.squares.cut.per_slide

    def __getitem__(self, number: int) -> Tensor:
        """Return a patch of slide ``number // per_slide``; without augmentation always the same."""
        which, square = divmod(number, self.squares.cut.per_slide)
        slide = self.slides[which]
        if self._crop.augment and square >= self.squares.kept:
            pixels = self.squares.fresh(slide, self._crop.size_px)
        else:
            pixels = self.squares.fixed(slide, square)
        return self._crop(pixels, self.squares.slides[slide].path)
