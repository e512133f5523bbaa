"""Features that TRIDENT or CLAM computed: one HDF5 file for each slide, no pixels (extra ``[interop]``).

Both write the datasets ``features`` (N, F) and ``coords`` (N, 2), top left corners in level-0 pixels.
TRIDENT tells beside them the sides of a patch (attributes ``patch_size`` and ``patch_size_level0`` of
``coords``), the slide's magnification (``level0_magnification``) and, in newer releases, the encoder
(``encoder`` of ``features``); its folders are named ``features_ENCODER``. CLAM writes none of these. The side
of a patch is then the commonest step between neighbours of a grid (each piece of tissue has its own grid).
The slide's scale and the encoder must be given. A file that cannot be used raises a SlideError.

Files of slide encoders (TITAN, PRISM, means) have ``features`` (F,), one vector for the whole slide, in
folders named ``slide_features_ENCODER``; (0,) stands for a slide without tissue. Such a slide has one patch,
whose place and scale are not known.

A slide has thousands of patches at 0.5 um/px. A mosaic of them is indexed, as for pixels. A first k-means
groups the patches by features, in place of colours. A second one, over places, keeps 5 % of each cluster. A
cluster of fewer than 20 patches is kept whole.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.encoders import FEATURES
from sish.errors import FeatureMismatchError, SlideNotFoundError, SlideOpenError, about_its_path
from sish.hdf5 import line_of, number_of, read_datasets, text_of
from sish.index.projection import project
from sish.recipe import MAX_PATCH_MPP, MIN_PATCH_MPP, Recipe
from sish.slides.clusters import assign, kmeans
from sish.slides.folders import files_below
from sish.slides.mosaic import representatives
from sish.slides.scale import find_scale
from sish.slides.tables import is_list, listed_files

SUFFIXES = frozenset({".h5", ".hdf5"})
"""Endings of feature files, in lower case."""

_FOLDERS = ("slide_features_", "features_")  # of TRIDENT, before the encoder's name
_DEFAULT_PX = 256  # of a patch, if the file does not tell
_CLUSTER_DIMENSIONS = 64  # of a random rotation: enough for nine clusters, and bounded for any F
_ATTRIBUTES = ("encoder", "patch_size", "patch_size_level0", "level0_magnification")
_MAX_L0 = 10_000_000  # pixels: the largest slides have 500,000 a side
_SIDE_TOLERANCE = 0.05  # patches of one index differ no more than this in size


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """The contents of one file."""

    path: Path
    """The file."""
    features: NDArray[np.float32]
    """Float32 (N, F)."""
    l0_xy: NDArray[np.int64] | None
    """Shape (N, 2): top left corners, level-0 pixels; None for a vector of a whole slide."""
    encoder: str
    """Name of the network that made the features."""
    patch_px: int
    """Side of a patch in pixels as the network saw it; 256 if the file does not tell."""
    l0_size: float
    """Side of a patch in level-0 pixels; 0 for a vector of a whole slide."""
    mpp: float
    """Micrometres per level-0 pixel; 0 for a vector of a whole slide."""
    mpp_source: str
    """Its source: ``override``, ``objective-power`` or ``given``; empty for a vector of a whole slide."""

    @property
    def name(self) -> str:
        """Name of the features as a recipe has it: the encoder's name and their length."""
        return f"{self.encoder}/{self.features.shape[1]}"

    @property
    def side_um(self) -> float:
        """Side of a patch in micrometres."""
        return self.l0_size * self.mpp

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height of level 0 that its patches cover, from the origin; (1, 1) without patches."""
        if self.l0_xy is None or not len(self.l0_xy):
            return 1, 1
        right, bottom = np.ceil(self.l0_xy.max(axis=0) + self.l0_size).astype(int)
        return max(1, int(right)), max(1, int(bottom))

    def thinned(self, most: int) -> FeatureFile:
        """Return the file with at most `most` of its patches, evenly spread."""
        rows = np.linspace(0, len(self.features) - 1, min(most, len(self.features))).astype(np.intp)
        l0_xy = None if self.l0_xy is None else self.l0_xy[rows]
        return replace(self, features=self.features[rows], l0_xy=l0_xy)

    def recipe(self) -> Recipe:
        """Return the recipe of an index of such features."""
        if self.l0_xy is None:
            return Recipe(weights=f"{FEATURES}{self.name}", mpp=0.0)
        return Recipe(
            weights=f"{FEATURES}{self.name}", patch_px=self.patch_px, mpp=self.side_um / self.patch_px
        )


def is_feature_file(path: object) -> bool:
    """Return whether a path ends as feature files do."""
    return isinstance(path, str | os.PathLike) and Path(path).suffix.lower() in SUFFIXES


@about_its_path
def find_feature_files(
    folder: str | os.PathLike[str], on_error: Callable[[SlideOpenError], None] | None = None
) -> list[Path]:
    """Find all feature files under a folder.

    Hidden files are skipped, and TRIDENT's ``*_patches.h5``, which hold coordinates only. Links are followed.

    Parameters
    ----------
    folder : path-like
        A folder, a file, or a table (``.csv``) that lists files in its column ``path``.
    on_error : callable, optional
        Called with the error of each folder that cannot be read (:func:`sish.slides.folders.files_below`).

    Returns
    -------
    list of Path
        The files, sorted; for a file the file itself; for a table the files that it lists.

    Raises
    ------
    SlideNotFoundError
        If nothing is at this path.
    SlideOpenError
        If the folder has no such file.
    LabelsError
        If a table cannot be read, or a row has no path.
    """
    place = Path(folder)
    if not os.path.isdir(place):  # noqa: PTH112  Path.is_dir raises for a name too long, and where it may not look
        if not os.path.isfile(place):  # noqa: PTH113  as Path.is_dir
            raise SlideNotFoundError(
                f"{place}: there is no such file or folder; want features of TRIDENT or CLAM"
            )
        return listed_files(place) if is_list(place) else [place]
    found = [path for path in files_below(place, SUFFIXES, on_error) if not path.stem.endswith("_patches")]
    if not found:
        raise SlideOpenError(f"{place}: got a folder without feature files (.h5); want at least one")
    return found


@about_its_path
def read_features(
    path: str | os.PathLike[str],
    *,
    encoder: str | None = None,
    mpp: float | None = None,
    override_mpp: float | None = None,
) -> FeatureFile:
    """Read one file of features.

    Parameters
    ----------
    path : path-like
        A ``.h5`` of TRIDENT or CLAM.
    encoder : str, optional
        Name of the network, where the file and its folder do not tell.
    mpp : float, optional
        Micrometres per level-0 pixel, where the file does not tell.
    override_mpp : float, optional
        Micrometres per level-0 pixel, whatever the file tells.

    Returns
    -------
    FeatureFile
        Its contents, checked.

    Raises
    ------
    SlideOpenError
        If it is no file of features, its numbers are impossible, or nothing tells the encoder.
    MissingPackageError
        If h5py is not installed.
    MissingMppError
        If neither the file nor the caller gives a plausible scale of the slide.
    ParameterError
        If the scale that is given is out of range.
    """
    place = Path(path)
    features, l0_xy, told = _read_checked(place)
    found = text_of(told, "encoder", place) or _encoder_of_folder(place) or encoder
    if not found:
        raise SlideOpenError(
            f"{place}: nothing tells what made its features; give feature_encoder= or --feature-encoder"
        )
    if l0_xy is None:
        return FeatureFile(place, features, None, found, _DEFAULT_PX, 0.0, 0.0, "")
    power = line_of(told, "level0_magnification")
    known = {} if power is None else {"openslide.objective-power": power}
    scale = find_scale(known, str(place), mpp=mpp, override_mpp=override_mpp)
    l0_size = number_of(told, "patch_size_level0", place) or step_of_grid(l0_xy)
    if not math.isfinite(l0_size):
        raise SlideOpenError(f"{place}: nothing tells the size of its patches; want two or more side by side")
    patch_px = max(64, int(number_of(told, "patch_size", place) or _DEFAULT_PX))
    if not MIN_PATCH_MPP <= l0_size * scale.mpp / patch_px <= MAX_PATCH_MPP:
        raise SlideOpenError(
            f"{place}: its patches of {patch_px:g} px span {l0_size * scale.mpp:g} um; "
            f"want {MIN_PATCH_MPP:g} to {MAX_PATCH_MPP:g} um per pixel"
        )
    return FeatureFile(
        path=place,
        features=features,
        l0_xy=l0_xy,
        encoder=found,
        patch_px=patch_px,
        l0_size=l0_size,
        mpp=scale.mpp,
        mpp_source=scale.source,
    )


def _read_checked(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64] | None, dict[str, object]]:
    """Return features (N, F), corners (N, 2), and the attributes of both; of a whole slide no corners."""
    found = read_datasets(path, ("features",), _ATTRIBUTES, optional=("coords",))
    stored = found["features"].rows
    if stored.ndim == 1:
        features = _finite(stored[None] if len(stored) else stored.reshape(0, 0), path)
        return features, None, dict(found["features"].told)
    corners = found["coords"].rows if "coords" in found else None
    if corners is None or corners.shape != (len(stored), 2) or not stored.shape[1]:
        places = "none" if corners is None else corners.shape
        raise SlideOpenError(
            f"{path}: got features {stored.shape}, coords {places}; want (N, F) and (N, 2), or features (F,)"
        )
    features = _finite(stored, path)
    if not ((corners >= 0) & (corners <= _MAX_L0)).all():  # NaN is neither
        raise SlideOpenError(
            f"{path}: its coords hold NaN, or places outside of any slide; want 0 to {_MAX_L0}"
        )
    return features, corners.astype(np.int64), {**found["coords"].told, **found["features"].told}


def _finite(stored: NDArray[Any], path: Path) -> NDArray[np.float32]:
    """Return numbers as float32; SlideOpenError if one is NaN or infinite."""
    with np.errstate(over="ignore"):  # too large a number becomes infinite, and is refused below
        features = stored.astype(np.float32, copy=False)
    if not np.isfinite(features).all():
        raise SlideOpenError(f"{path}: its features hold NaN or infinity; compute them again")
    return features


def _encoder_of_folder(path: Path) -> str:
    """Return the encoder that the file's folder is named after; empty if it is not."""
    folder = path.parent.name
    return next((folder.removeprefix(it) for it in _FOLDERS if folder.startswith(it)), "")


def step_of_grid(l0_xy: NDArray[np.int64]) -> float:
    """Return the commonest step between neighbours in a row or a column, NaN without any.

    That is the side of a patch where a grid has no overlap. The grids of two pieces of tissue need not be in
    line, so the smallest step between any two patches tells nothing.

    Parameters
    ----------
    l0_xy : int64 (N, 2)
        Corners of the patches.

    Returns
    -------
    float
        The smallest of several that are equally common.

    Examples
    --------
    >>> step_of_grid(np.array([[0, 0], [256, 0], [512, 0], [549, 900], [805, 900], [549, 1156]]))
    256.0
    """
    steps = np.concatenate([_steps_in_rows(l0_xy), _steps_in_rows(l0_xy[:, ::-1])])
    sizes, counts = np.unique(steps[steps > 0], return_counts=True)
    return float(sizes[counts.argmax()]) if len(sizes) else math.nan


def _steps_in_rows(xy: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the differences in x of neighbours that have one y."""
    steps = np.diff(xy[np.lexsort((xy[:, 0], xy[:, 1]))], axis=0)
    found: NDArray[np.int64] = steps[steps[:, 1] == 0, 0]
    return found


def choose(features: NDArray[np.float32], l0_xy: NDArray[np.int64], recipe: Recipe) -> NDArray[np.intp]:
    """Return the numbers of the patches that stand for a slide, ascending, chosen by features and places.

    Parameters
    ----------
    features : float32 (N, F)
        The patches of the slide.
    l0_xy : int64 (N, 2)
        Their places.
    recipe : Recipe
        It tells the number of clusters, the share of each that is kept, and the seed.

    Returns
    -------
    int (M,)
        Rows of `features`.
    """
    if not len(features):
        return np.zeros(0, np.intp)
    points = project(features, centre=features.mean(axis=0))[:, :_CLUSTER_DIMENSIONS]
    cluster = assign(points, kmeans(points, recipe.n_clusters, recipe.seed))
    return representatives(l0_xy, cluster, recipe.fraction, recipe.seed)


def check_fits(file: FeatureFile, recipe: Recipe) -> None:
    """Refuse features of another encoder, length or patch size than an index has (FeatureMismatchError)."""
    if file.l0_xy is None and not len(file.features):  # a slide without tissue has no length
        return
    if recipe.weights != f"{FEATURES}{file.name}":
        raise FeatureMismatchError(
            f"{file.path} holds features of {file.name}, and the index is of {recipe.weights}: "
            "keep one index for each encoder"
        )
    if not recipe.mpp:  # vectors of patches whose size nobody told, or of whole slides
        return
    if file.l0_xy is None:
        raise FeatureMismatchError(
            f"{file.path} holds a vector of a whole slide, and the index is of patches: keep one index for "
            "each"
        )
    side = recipe.patch_px * recipe.mpp
    if abs(file.side_um - side) > _SIDE_TOLERANCE * side:
        raise FeatureMismatchError(
            f"{file.path} has patches of {file.side_um:.0f} um, and the index of {side:.0f} um: "
            "keep one index for each patch size"
        )


def fits(file: FeatureFile, recipe: Recipe) -> bool:
    """Return whether an index of this recipe holds such features."""
    try:
        check_fits(file, recipe)
    except FeatureMismatchError:
        return False
    return True
