"""Codes from slides: a slide becomes a mosaic, its patches become keys and barcodes.

One :class:`Recipe` has all settings (weights, patch size, scale, mosaic). An index stores its recipe, so that
a query is read in the same way. An encoder with another fingerprint is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sish.barcoder import Barcoder
from sish.calibration import Calibration
from sish.encoders import OBJECT, Encoding, MeasuredEncoder, PatchEncoder, load, measured
from sish.errors import EncoderMismatchError, ParameterError
from sish.index.keys import Pooling, order_codebook, paper_keys
from sish.printing import printable
from sish.progress import OnProgress, silent
from sish.recipe import Recipe
from sish.rerank import Rerank
from sish.slides.mosaic import Mosaic, Patches, is_one_patch, only_patch, select_mosaic, tile
from sish.slides.reader_threads import TimeLimit
from sish.slides.reading import checked_workers, read_patches
from sish.slides.region import Box, Region
from sish.slides.slide import Slide
from sish.slides.tissue import TissueMask, all_tissue, find_tissue

if TYPE_CHECKING:
    from sish.index.vector_coder import VectorKind

_LOG = logging.getLogger(__name__)

_STEP_PX = 32
_KEY_BLOCK = 8  # codes that the paper's key pools, on a side


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
    """The codes that an index holds of a slide of M patches."""

    keys: NDArray[np.int64]
    """Shape (M, 1): one column a tree."""
    barcodes: NDArray[np.uint8]
    """Shape (M, bytes): packed bits, most significant first."""
    l0_xy: NDArray[np.int64] | None
    """Shape (M, 2): top left corner of each patch, level-0 pixels; None if the places are not known."""
    vectors: NDArray[np.uint8] | None = None
    """Shape (M, V): bytes of each patch's vector, where the index keeps them (:mod:`sish.rerank`)."""

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.barcodes)


@dataclass(frozen=True, slots=True)
class Seen:
    """What an encoder saw in some patches of a slide, before it becomes barcodes."""

    rows: NDArray[np.int64]
    """Which patches of the mosaic they are, (R,)."""
    keys: NDArray[np.int64]
    """Their keys, (R, 1)."""
    features: NDArray[np.float32]
    """Their features, (R, F)."""


class SlideEncoder:
    """Turns slides into codes by a :class:`Recipe`.

    Weights are loaded when the first patch is encoded or the fingerprint is asked for.

    Parameters
    ----------
    recipe : Recipe, optional
        How slides become codes. Default: the encoder's own recipe.
    expected_fingerprint : str, optional
        The fingerprint that the weights must have.
    encoder : str or PatchEncoder, optional
        The encoder by name or as an object, in place of the recipe's weights (:mod:`sish.encoders`).
    calibration : Calibration, optional
        What was measured of the encoder's features on the archive (:meth:`measured_on`).
    rerank : Rerank, optional
        How vectors are kept beside barcodes (:mod:`sish.rerank`). Default: none are kept.
    device : str
        Where the encoder runs, as torch names it.
    workers : int, optional
        Number of threads that read pixels, and of those that run the encoder ``tissue``. Codes do not depend
        on it. Default: one for each core, at most 8; ``OMP_NUM_THREADS`` of the encoder, if that is set.
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        expected_fingerprint: str | None = None,
        *,
        encoder: str | PatchEncoder | None = None,
        calibration: Calibration | None = None,
        rerank: Rerank | None = None,
        device: str = "cpu",
        workers: int | None = None,
    ) -> None:
        """Check the recipe; see the class for the arguments."""
        recipe = recipe or Recipe()
        self.recipe = (recipe if encoder is None else recipe.suited(encoder)).check().resolved()
        self._given = None if isinstance(encoder, str) else encoder
        self.calibration = calibration
        self.rerank = rerank
        self.device = device
        self.workers, self._threads = checked_workers(workers), workers
        self._expected = expected_fingerprint

    @cached_property
    def model(self) -> MeasuredEncoder:
        """The encoder of patches, loaded at first use; EncoderMismatchError if it is not the expected one."""
        recipe = self.recipe
        if self._given is None:
            model = load(
                recipe.weights,
                network_weights=recipe.network_weights,
                device=self.device,
                threads=self._threads,
            )
        else:
            model = measured(self._given)
        _LOG.info("loaded encoder %s on %s", recipe.weights, self.device)
        if self._expected not in (None, self._fingerprint_of(model)):
            raise EncoderMismatchError(
                f"the index was made with encoder {self._expected}, and {recipe.weights} weights give "
                f"{self._fingerprint_of(model)}: give that one (weights=, encoder=, --weights)"
            )
        return model

    def _fingerprint_of(self, model: MeasuredEncoder) -> str:
        """Return a name of the weights and of all settings that keys and barcodes depend on."""
        settings = self.recipe.to_json()
        # These are paths; the model's own fingerprint tells which weights they hold.
        del settings["weights"], settings["network_weights"]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        centre = "" if self.calibration is None else f"+{self.calibration.fingerprint}"
        return f"{model.fingerprint}+{digest[:6]}{centre}"

    @property
    def fingerprint(self) -> str:
        """Name of weights, patch size, scale and key scheme; codes of two fingerprints are never compared."""
        return self._fingerprint_of(self.model)

    @property
    def licence(self) -> str:
        """Licence of the encoder's weights, in short."""
        return self.model.licence

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
        _ = self.model
        if self.recipe.keys == "paper":
            _ = self._paper_keys

    @property
    def needs_calibration(self) -> bool:
        """Whether its features make better barcodes after a calibration on the archive."""
        return self.calibration is None and self.model.binarisation == "projection"

    def keeping_vectors(self, kind: VectorKind | None) -> SlideEncoder:
        """Return the same encoder, with vectors beside its barcodes; ParameterError if it has no angles."""
        if kind is None:
            return self
        if self.model.binarisation != "projection" or self.recipe.keys == "paper":
            raise ParameterError(
                f"got rerank={kind!r} with encoder {self.recipe.weights} and {self.recipe.keys} keys, whose "
                "barcodes are not of angles between features; want texture keys, and another encoder"
            )
        other = copy(self)
        other.rerank = Rerank.of(kind, self.model.n_features)
        return other

    def measured_on(self, features: NDArray[np.float32]) -> SlideEncoder:
        """Return the same encoder with the calibration that features (M, F) of patches give."""
        learnt = Calibration.learn(features, self.model.parts, self.model.statistics)
        other = self.recalibrated(learnt, self.rerank, None)
        if self.rerank is not None:
            other.rerank = self.rerank.measured_on(other._barcoder.calibrated(features))
        return other

    def recalibrated(
        self, calibration: Calibration | None, rerank: Rerank | None, expected: str | None
    ) -> SlideEncoder:
        """Return the same encoder with other measurements, and the fingerprint that it must have then."""
        other = copy(self)  # with the model that is loaded
        other.calibration, other.rerank, other._expected = calibration, rerank, expected
        if expected is not None and "model" in vars(self) and other.fingerprint != expected:
            del vars(other)["model"]  # so that loading it refuses it
        return other

    @property
    def _barcoder(self) -> Barcoder:
        return Barcoder.of(self.model, self.calibration)

    @property
    def hamming_threshold(self) -> int:
        """Largest Hamming distance at which two patches count as similar, measured for these features."""
        return self._barcoder.threshold

    @cached_property
    def _paper_keys(self) -> PaperKeys:
        return PaperKeys.of(self.model, self.recipe.pooling)

    @cached_property
    def step_px(self) -> int:
        """The sides of a small image's patch are multiples of it: :func:`sish.slides.mosaic.read_patch`.

        The networks of :mod:`sish.vqvae` take any multiple of 32 px, others whole patches.
        """
        return _STEP_PX if self.model.codebook is not None else self.recipe.patch_px

    def prepare(self, slide: Slide, region: Region | Box | None = None) -> PreparedSlide:
        """Find the tissue of a slide (or of a region of it) and choose its mosaic."""
        recipe = self.recipe
        if region is None and is_one_patch(slide, recipe.patch_px, recipe.mpp):
            mosaic = only_patch(slide, recipe.patch_px, recipe.mpp)
            return PreparedSlide(slide, all_tissue(slide), mosaic)
        tissue, patches = self._tiled(slide, region)
        mosaic = select_mosaic(
            slide, patches, n_clusters=recipe.n_clusters, fraction=recipe.fraction, seed=recipe.seed
        )
        _LOG.debug(
            "%s: %d tiles of tissue, %d of them in the mosaic",
            printable(slide.name),
            len(patches),
            len(mosaic),
        )
        return PreparedSlide(slide, tissue, mosaic)

    def tiles(self, slide: Slide) -> Mosaic | Patches:
        """Return all tiles of a slide's tissue; its mosaic is chosen from them."""
        recipe = self.recipe
        if is_one_patch(slide, recipe.patch_px, recipe.mpp):
            return only_patch(slide, recipe.patch_px, recipe.mpp)
        return self._tiled(slide, None)[1]

    def _tiled(self, slide: Slide, region: Region | Box | None) -> tuple[TissueMask, Patches]:
        """Return the tissue of a slide and the tiles on it."""
        recipe = self.recipe
        tissue = find_tissue(slide, min_speck_um2=recipe.min_speck_um2, leave_out_ink=recipe.leave_out_ink)
        return tissue, tile(slide, tissue, size_px=recipe.patch_px, mpp=recipe.mpp, region=region)

    def encode(
        self,
        prepared: PreparedSlide,
        limit: TimeLimit | None = None,
        on_progress: OnProgress = silent,
    ) -> SlideCodes:
        """Read the mosaic's patches and turn them into keys and barcodes; SlideReadError past the limit."""
        return self.encode_at(prepared.slide, prepared.mosaic.l0_xy, limit, on_progress)

    def encode_rest(
        self, slide: Slide, mosaic: Mosaic, seen: Seen, limit: TimeLimit | None = None
    ) -> SlideCodes:
        """Encode a slide of which some patches were seen already: only the others are read."""
        rest = np.setdiff1d(np.arange(len(mosaic)), seen.rows)
        codes = self.encode_at(slide, mosaic.l0_xy[rest], limit)
        known = self.codes(seen.keys, seen.features, None)
        order = np.argsort(np.concatenate([rest, seen.rows]))
        return SlideCodes(
            np.concatenate([codes.keys, known.keys])[order],
            np.concatenate([codes.barcodes, known.barcodes])[order],
            mosaic.l0_xy,
            None
            if codes.vectors is None or known.vectors is None
            else np.concatenate([codes.vectors, known.vectors])[order],
        )

    def encode_at(
        self,
        slide: Slide,
        l0_xy: NDArray[np.int64],
        limit: TimeLimit | None = None,
        on_progress: OnProgress = silent,
    ) -> SlideCodes:
        """Encode the patches at some places of a slide, int64 (N, 2) in level-0 pixels."""
        on_progress(0, len(l0_xy))
        recipe = self.recipe
        reading = read_patches(
            slide,
            l0_xy,
            recipe.patch_px,
            recipe.mpp,
            workers=self.workers,
            step_px=self.step_px,
            limit=limit,
        )
        with closing(reading):  # whatever happens, nothing reads when this returns
            batches, done = [], 0
            for pixels in reading:
                batches.append(self.encode_patches(pixels))
                done += len(pixels)
                on_progress(done, len(l0_xy))
        if not batches:  # no tissue: no rows, of the right widths
            batches = [self.encode_patches(np.empty((0, recipe.patch_px, recipe.patch_px, 3), np.uint8))]
        vectors = [batch.vectors for batch in batches if batch.vectors is not None]
        return SlideCodes(
            np.concatenate([batch.keys for batch in batches]),
            np.concatenate([batch.barcodes for batch in batches]),
            l0_xy,
            np.concatenate(vectors) if vectors else None,
        )

    def encode_patches(self, pixels: NDArray[np.uint8]) -> SlideCodes:
        """Return the codes of patches uint8 (N, H, W, 3), without their places."""
        return self.codes(*self.keys_and_features(pixels), None)

    def codes(
        self,
        keys: NDArray[np.int64] | None,
        features: NDArray[np.float32],
        l0_xy: NDArray[np.int64] | None,
    ) -> SlideCodes:
        """Return the codes of patches: their barcodes, and their vectors where the index keeps them.

        Parameters
        ----------
        keys : int64 (N, 1) or None
            Their keys; None where the archive's tree gives them.
        features : float32 (N, F)
            Their features.
        l0_xy : int64 (N, 2) or None
            Their places, where they are known.

        Returns
        -------
        SlideCodes
            The codes.
        """
        own = np.zeros((len(features), 1), np.int64) if keys is None else keys
        kept = self.rerank
        vectors = None if kept is None else kept.encode(self._barcoder.calibrated(features))
        return SlideCodes(own, self.barcodes(features), l0_xy, vectors)

    def keys_and_features(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return keys int64 (N, 1) and features float32 (N, F) of patches uint8 (N, H, W, 3)."""
        if self.recipe.keys == "texture":  # the archive's tree gives the keys
            return np.zeros((len(pixels), 1), np.int64), self.features(pixels)
        encoded = self.model.encode(pixels)
        return self._paper_keys(encoded)[:, None], encoded.features

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features float32 (N, F) of patches uint8 (N, patch_px, patch_px, 3)."""
        return self.model.features(pixels)

    def barcodes(self, features: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return barcodes uint8 (N, bytes) of features float32 (N, F)."""
        return self._barcoder.barcodes(features)

    @property
    def lacks_encoder(self) -> bool:
        """Whether a program gave the encoder when the index was made, and has not given it now."""
        return self._given is None and self.recipe.weights.startswith(OBJECT)


@dataclass(frozen=True, slots=True)
class PaperKeys:
    """The paper's keys of the codes of an encoder with a codebook."""

    order: NDArray[np.int64]
    """Place of each code in the ordered codebook, (K,)."""
    pooling: Pooling = "integer"
    """The reading of the key: see :class:`sish.recipe.Recipe`."""

    @classmethod
    def of(cls, encoder: MeasuredEncoder, pooling: Pooling = "integer") -> PaperKeys:
        """Order an encoder's codebook; ParameterError if it has none."""
        if encoder.codebook is None:
            raise ParameterError(
                f"got keys='paper' with encoder {encoder.fingerprint}, which has no codebook to order: "
                "want keys='texture', or the weights of a VQ-VAE"
            )
        return cls(order_codebook(encoder.codebook), pooling)

    def __call__(self, encoded: Encoding) -> NDArray[np.int64]:
        """Return the keys int64 (N,) of the grids of codes of N patches."""
        return paper_keys(whole_blocks(np.asarray(encoded.codes)), self.order, self.pooling)


def whole_blocks(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return grids of codes (N, h, w), extended by mirroring to whole blocks of the paper's key."""
    lacking = [-side % _KEY_BLOCK for side in codes.shape[1:]]
    return (
        np.pad(codes, ((0, 0), (0, lacking[0]), (0, lacking[1])), mode="symmetric") if any(lacking) else codes
    )
