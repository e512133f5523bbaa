"""Codes from slides: a slide becomes a mosaic, its patches become keys and barcodes.

One :class:`Recipe` says everything that this takes (weights, patch size, scale, mosaic). An index stores the
recipe it was made with, so that a query is read the same way; its fingerprint refuses any other.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sish.calibration import Calibration
from sish.encoders import FEATURES, TIMM, PatchEncoder, load
from sish.errors import EncoderMismatchError, IndexFormatError, ParameterError
from sish.index.barcode import barcodes_of
from sish.index.keys import Pooling, order_codebook, paper_keys
from sish.index.manifest import short
from sish.index.search import SearchParams
from sish.mosaic import Mosaic, Region, is_one_patch, only_patch, select_mosaic, tile
from sish.nearest import nearest_to
from sish.reader_threads import TimeLimit
from sish.reading import default_workers, read_patches
from sish.slide import Slide
from sish.tissue import MIN_SPECK_UM2, TissueMask, all_tissue, find_tissue

__all__ = [
    "MAX_PATCH_MPP",
    "MIN_PATCH_MPP",
    "IndexHeader",
    "Keys",
    "PreparedSlide",
    "Recipe",
    "SlideCodes",
    "SlideEncoder",
    "whole_blocks",
]

MIN_PATCH_MPP, MAX_PATCH_MPP = 0.05, 16.0
"""Range of the scale at which patches are read."""

_STEP_PX = 32
_MOST_SPECK_UM2 = 1e9
_KEY_BLOCK = 8  # codes that the paper's key pools, on a side

_TASTE = ("min_speck_um2", "leave_out_ink")
"""Fields that are stored and hashed only where they differ from their defaults: older indexes lack them."""

_RENAMED = {"densenet_weights": "network_weights"}


Keys = Literal["texture", "paper"]
"""What orders the patches of an index: see :class:`Recipe`."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a slide becomes keys and barcodes.

    The defaults are ours; :meth:`paper` gives the published setting (Chen et al. 2022, Methods).
    """

    weights: str = "shipped"
    """Encoder: ``shipped``, a path of weights, ``timm:NAME`` or ``features:NAME`` (:mod:`sish.encoders`)."""
    network_weights: str = ""
    """File of a timm network's weights (of DenseNet121 beside a VQ-VAE, too); empty: from the model hub."""
    patch_px: int = 256
    """Edge of a patch in pixels at ``mpp``."""
    mpp: float = 1.0
    """Scale at which patches are read, um per pixel."""
    keys: Keys = "texture"
    """What orders patches: ``texture``, paths in a tree learnt from the archive's barcodes, or ``paper``."""
    pooling: Pooling = "integer"
    """Reading of the paper's key: ``integer`` as its authors compute it, ``exact`` as it is written."""
    n_clusters: int = 9
    """Colour clusters of the mosaic's first stage."""
    fraction: float = 0.05
    """Share of a colour cluster's tiles that the second stage keeps."""
    seed: int = 0
    """Seed of both k-means."""
    min_speck_um2: float = MIN_SPECK_UM2
    """Smaller pieces of tissue are left out as dirt, down to 5,000 where no larger ones are."""
    leave_out_ink: bool = True
    """Whether marks of pens are left out."""

    @classmethod
    def paper(cls, weights: str, network_weights: str = "") -> Recipe:
        """The published setting: 1,024 px patches at 0.5 um/px; ``weights`` of the architecture ``paper``."""
        return cls(weights=weights, network_weights=network_weights, keys="paper", patch_px=1024, mpp=0.5)

    @classmethod
    def of(cls, weights: str) -> Recipe:
        """The setting that an encoder is meant for: a known network of timm has its own patches and scale."""
        from sish.vqvae.known_networks import KNOWN

        known = KNOWN.get(weights.removeprefix(TIMM).lower()) if weights.startswith(TIMM) else None
        return (
            cls(weights=weights) if known is None else cls(weights=weights, patch_px=known.px, mpp=known.mpp)
        )

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Recipe:
        """The recipe that an index holds.

        Raises
        ------
        IndexFormatError
            If it has fields that this release does not know, or lacks some.
        """
        names = {field.name for field in fields(cls)}
        if isinstance(stored, Mapping) and "densenet_weights" in stored:  # its name while there was no other
            stored = {_RENAMED.get(name, name): value for name, value in stored.items()}
        found = _known_fields(stored, "recipe", names - {"keys", *_TASTE}, names)
        return cls(**{"keys": "paper", **found})  # indexes older than this field always used the paper's

    def check(self) -> Recipe:
        """Return itself when every value is of its type and in its range, else raise ParameterError."""
        for field in fields(self):
            value, wanted = getattr(self, field.name), type(field.default)
            fits = isinstance(value, int | float) if wanted is float else isinstance(value, wanted)
            if not fits or (isinstance(value, bool) and wanted is not bool):
                raise ParameterError(f"got {field.name}={value!r}; want a value of type {wanted.__name__}")
        if self.patch_px < 64 or (self.patch_px % 64 and not self.weights.startswith((TIMM, FEATURES))):
            raise ParameterError(
                f"got patch_px={self.patch_px}; want a multiple of 64 (three poolings of a stride-8 grid)"
            )
        if not MIN_PATCH_MPP <= self.mpp <= MAX_PATCH_MPP:
            raise ParameterError(
                f"got a patch mpp of {self.mpp}; want {MIN_PATCH_MPP:g} to {MAX_PATCH_MPP:g} um per pixel"
            )
        if self.n_clusters < 1 or not 0 < self.fraction <= 1:
            raise ParameterError(
                f"got n_clusters={self.n_clusters}, fraction={self.fraction}; "
                "want at least 1 cluster and a share in (0, 1]"
            )
        if self.keys not in get_args(Keys):
            near = nearest_to(self.keys, get_args(Keys))
            raise ParameterError(f"got keys={self.keys!r}{near}; want 'texture' or 'paper'")
        if self.pooling not in ("integer", "exact"):
            near = nearest_to(self.pooling, ("integer", "exact"))
            raise ParameterError(f"got pooling={self.pooling!r}{near}; want 'integer' or 'exact'")
        if not 0 <= self.min_speck_um2 <= _MOST_SPECK_UM2:
            raise ParameterError(
                f"got min_speck_um2={self.min_speck_um2}; want square micrometres, 0 to {_MOST_SPECK_UM2:.0f}"
            )
        if self.seed < 0:
            raise ParameterError(f"got seed={self.seed}; want an integer of at least 0")
        return self

    def resolved(self) -> Recipe:
        """Itself with absolute paths, which mean the same wherever the index is opened; floats are floats."""
        weights, network = (
            name if name in ("shipped", "") or name.startswith((TIMM, FEATURES)) else absolute(name)
            for name in (self.weights, self.network_weights)
        )
        mpp, fraction, speck = float(self.mpp), float(self.fraction), float(self.min_speck_um2)
        return replace(  # 1 is 1.0, in the fingerprint too
            self, weights=weights, network_weights=network, mpp=mpp, fraction=fraction, min_speck_um2=speck
        )

    def to_json(self) -> dict[str, Any]:
        """Return its fields as an index stores them; newer fields at their defaults are left out."""
        plain = Recipe()
        stored = asdict(self)
        for name in _TASTE:
            if stored[name] == getattr(plain, name):
                del stored[name]
        return stored


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """What an index holds beside its slides."""

    recipe: Recipe
    """How slides become its keys and barcodes."""
    fingerprint: str
    """The encoder that it was made with."""
    search: SearchParams
    """How it is searched."""
    calibration: Calibration | None = None
    """What was measured on its first patches, where a foreign encoder's features need it."""

    def to_json(self) -> dict[str, Any]:
        """Itself as the store keeps it; without a calibration as releases before there was one."""
        plain = {
            "recipe": self.recipe.to_json(),
            "fingerprint": self.fingerprint,
            "search": asdict(self.search),
        }
        return plain if self.calibration is None else plain | {"calibration": self.calibration.to_json()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> IndexHeader:
        """The header that an index holds; search parameters that it lacks take their defaults.

        Raises
        ------
        IndexFormatError
            If something is missing, of another type, or not known to this release.
        """
        names = {field.name for field in fields(cls)}
        header = _known_fields(stored, "header", names - {"calibration"}, names)
        search = _known_fields(
            header["search"], "search", needed=set(), known={field.name for field in fields(SearchParams)}
        )
        measured = header.get("calibration")
        if not isinstance(header["fingerprint"], str):
            raise _odd_header(f"its fingerprint is {short(header['fingerprint'])}, wanted text")
        try:
            recipe, params = Recipe.from_json(header["recipe"]).check(), SearchParams(**search)
        except ParameterError as error:
            raise _odd_header(str(error)) from error
        calibration = None if measured is None else Calibration.from_json(measured)
        return cls(recipe, header["fingerprint"], params, calibration)


def absolute(path: str) -> str:
    """The path from the root; a symbolic link keeps its own name."""
    return os.path.abspath(path)  # noqa: PTH100  resolve() follows links


def _known_fields(stored: object, what: str, needed: set[str], known: set[str]) -> dict[str, Any]:
    """A part of an index's header, if it has the fields that it needs and no unknown ones."""
    if not isinstance(stored, Mapping):
        raise _odd_header(f"its {what} is {short(stored)}, wanted a JSON object")
    odd = sorted((needed - set(stored)) | (set(stored) - known))
    if odd:
        more = f" and {len(odd) - 4} more" if len(odd) > 4 else ""
        raise _odd_header(f"its {what} differs in its fields ({', '.join(map(short, odd[:4]))}{more})")
    return dict(stored)


def _odd_header(wrong: str) -> IndexFormatError:
    return IndexFormatError(f"the index has a header of another release: {wrong}: open it with that release")


@dataclass(frozen=True, slots=True)
class PreparedSlide:
    """A slide whose mosaic is chosen and whose patches are not read yet."""

    slide: Slide
    """The open slide."""
    tissue: TissueMask
    """Its tissue at low power."""
    mosaic: Mosaic
    """The patches that stand for it; none where there is no tissue."""


@dataclass(frozen=True, slots=True)
class SlideCodes:
    """What an index holds of a slide of M patches."""

    keys: NDArray[np.int64]
    """Shape (M, 1): one column a tree."""
    barcodes: NDArray[np.uint8]
    """Shape (M, bytes): packed bits, most significant first."""
    l0_xy: NDArray[np.int64]
    """Shape (M, 2): top left corner of each patch, level-0 pixels."""

    def __len__(self) -> int:
        """Patches."""
        return len(self.l0_xy)


class SlideEncoder:
    """Turns slides into codes by a :class:`Recipe`.

    Weights are loaded, and torch imported, when the first patch is encoded or the fingerprint is asked for.

    Parameters
    ----------
    recipe : Recipe
        What to do.
    expected_fingerprint : str, optional
        Refuse to work if the weights give another one.
    calibration : Calibration, optional
        What was measured for a foreign encoder's features (:meth:`measured_on`).
    device : str
        Where the encoder runs, as torch names it.
    workers : int, optional
        Threads that read. Default: one a core, at most 8. Codes do not depend on it.
    """

    def __init__(
        self,
        recipe: Recipe,
        expected_fingerprint: str | None = None,
        *,
        calibration: Calibration | None = None,
        device: str = "cpu",
        workers: int | None = None,
    ) -> None:
        """Check the recipe; see the class for the arguments."""
        self.recipe = recipe.check().resolved()
        self.calibration = calibration
        self.device = device
        self.workers = default_workers() if workers is None else workers
        self._expected = expected_fingerprint

    @cached_property
    def _model(self) -> PatchEncoder:
        recipe = self.recipe
        model = load(recipe.weights, network_weights=recipe.network_weights, device=self.device)
        if self._expected not in (None, self._fingerprint_of(model)):
            raise EncoderMismatchError(
                f"the index was made with encoder {self._expected}, and {recipe.weights} weights give "
                f"{self._fingerprint_of(model)}: give the weights it was made with (weights=, --weights)"
            )
        return model

    def _fingerprint_of(self, model: PatchEncoder) -> str:
        """Weights and everything else that keys and barcodes depend on."""
        settings = self.recipe.to_json()
        # These are paths; the model's own fingerprint tells which weights they hold.
        del settings["weights"], settings["network_weights"]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        measured = "" if self.calibration is None else f"+{self.calibration.fingerprint}"
        return f"{model.fingerprint}+{digest[:6]}{measured}"

    @property
    def fingerprint(self) -> str:
        """Name of the weights, patch size, scale and key scheme: codes of two fingerprints never meet."""
        return self._fingerprint_of(self._model)

    @property
    def licence(self) -> str:
        """Licence of the encoder's weights, in short."""
        return self._model.licence

    def load(self) -> None:
        """Load the weights now, so that slides are opened only once the encoder is known to be the right one.

        Raises
        ------
        EncoderMismatchError
            If their fingerprint is not the expected one.
        WeightsError
            If they cannot be used.
        ParameterError
            If the recipe wants keys that the encoder cannot give.
        """
        _ = self._model
        if self.recipe.keys == "paper":
            _ = self._code_order

    @property
    def needs_calibration(self) -> bool:
        """Whether its features make better barcodes once patches of the archive were looked at."""
        return self.calibration is None and self._model.binarisation == "projection"

    def measured_on(self, features: NDArray[np.float32]) -> SlideEncoder:
        """The same with the calibration that features (M, F) of patches give."""
        return self._with(Calibration.learn(features))

    def _with(self, calibration: Calibration) -> SlideEncoder:
        other = SlideEncoder(
            self.recipe, self._expected, calibration=calibration, device=self.device, workers=self.workers
        )
        other.__dict__["_model"] = self._model  # loaded once
        return other

    @property
    def hamming_threshold(self) -> int:
        """Largest Hamming distance at which two patches count as similar, measured for these features."""
        return self._model.hamming_threshold if self.calibration is None else self.calibration.threshold

    @cached_property
    def _code_order(self) -> NDArray[np.int64]:
        codebook = self._model.codebook
        if codebook is None:
            raise ParameterError(
                f"got keys='paper' with {self.recipe.weights}, which has no codebook to order: "
                "want keys='texture', or the weights of a VQ-VAE"
            )
        return order_codebook(codebook)

    @cached_property
    def step_px(self) -> int:
        """What the sides of a patch of a smaller image are multiples of: see :func:`sish.mosaic.read_patch`.

        The networks of :mod:`sish.vqvae` take any multiple of 32 px, others whole patches.
        """
        return _STEP_PX if self._model.codebook is not None else self.recipe.patch_px

    def prepare(self, slide: Slide, region: Region | None = None) -> PreparedSlide:
        """Find the tissue of a slide (or of a region of it) and choose its mosaic."""
        recipe = self.recipe
        if region is None and is_one_patch(slide, recipe.patch_px, recipe.mpp):
            mosaic = only_patch(slide, recipe.patch_px, recipe.mpp)
            return PreparedSlide(slide, all_tissue(slide), mosaic)
        tissue = find_tissue(slide, min_speck_um2=recipe.min_speck_um2, leave_out_ink=recipe.leave_out_ink)
        patches = tile(slide, tissue, size_px=recipe.patch_px, mpp=recipe.mpp, region=region)
        mosaic = select_mosaic(
            slide, patches, n_clusters=recipe.n_clusters, fraction=recipe.fraction, seed=recipe.seed
        )
        return PreparedSlide(slide, tissue, mosaic)

    def encode(self, prepared: PreparedSlide, limit: TimeLimit | None = None) -> SlideCodes:
        """Read the mosaic's patches and turn them into keys and barcodes; SlideReadError beyond the limit."""
        recipe, l0_xy = self.recipe, prepared.mosaic.l0_xy
        reading = read_patches(
            prepared.slide,
            l0_xy,
            recipe.patch_px,
            recipe.mpp,
            workers=self.workers,
            step_px=self.step_px,
            limit=limit,
        )
        with closing(reading):  # whatever happens, nothing reads when this returns
            batches = [self.encode_patches(pixels) for pixels in reading]
        if not batches:  # no tissue: no rows, of the right widths
            batches = [self.encode_patches(np.empty((0, recipe.patch_px, recipe.patch_px, 3), np.uint8))]
        keys, barcodes = (np.concatenate(columns) for columns in zip(*batches, strict=True))
        return SlideCodes(keys, barcodes, l0_xy)

    def encode_patches(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Keys int64 (N, 1) and barcodes uint8 (N, bytes) of patches uint8 (N, patch_px, patch_px, 3)."""
        if self.recipe.keys == "texture":  # the archive's tree gives the keys
            barcodes = self.barcodes(self.features(pixels))
            return np.zeros((len(barcodes), 1), np.int64), barcodes
        encoded = self._model.encode(pixels)
        barcodes = self.barcodes(encoded.features)
        order, codes = self._code_order, whole_blocks(np.asarray(encoded.codes))
        return paper_keys(codes, order, self.recipe.pooling)[:, None], barcodes

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What barcodes are made of, float32 (N, F), of patches uint8 (N, patch_px, patch_px, 3)."""
        return self._model.features(pixels)

    def barcodes(self, features: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Barcodes uint8 (N, bytes) of features float32 (N, F)."""
        centre = None if self.calibration is None else self.calibration.centre
        return barcodes_of(features, self._model.binarisation, centre=centre)


def whole_blocks(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grids of codes (N, h, w), mirrored up to whole blocks of the paper's key: those of smaller images."""
    lacking = [-side % _KEY_BLOCK for side in codes.shape[1:]]
    return (
        np.pad(codes, ((0, 0), (0, lacking[0]), (0, lacking[1])), mode="symmetric") if any(lacking) else codes
    )
