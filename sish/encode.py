"""Codes from slides: a slide becomes a mosaic, its patches become keys and barcodes.

One :class:`Recipe` says everything that this takes (weights, patch size, scale, mosaic). An index stores the
recipe it was made with, so that a query is read the same way; its fingerprint refuses any other.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sish.errors import EncoderMismatchError, IndexFormatError, ParameterError
from sish.index.barcode import minmax_barcodes
from sish.index.keys import Pooling, order_codebook, paper_keys
from sish.index.search import SearchParams
from sish.mosaic import Mosaic, Region, select_mosaic, tile
from sish.slide import Slide
from sish.tissue import TissueMask, find_tissue

if TYPE_CHECKING:
    from sish.vqvae.encoder import Encoder

__all__ = ["IndexHeader", "Keys", "PreparedSlide", "Recipe", "SlideCodes", "SlideEncoder"]

_READ_BATCH = 16
"""Patches read, and held in memory, at a time: 50 MB of the paper's 1,024 px patches, twice."""


Keys = Literal["texture", "paper"]
"""What orders the patches of an index: see :class:`Recipe`."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a slide becomes keys and barcodes.

    The defaults are ours; :meth:`paper` gives the published setting (Chen et al. 2022, Methods).
    """

    weights: str = "shipped"
    """Path of the VQ-VAE's weights (``.safetensors`` or ``.ckpt``), or ``shipped``."""
    densenet_weights: str = ""
    """File of DenseNet121 weights, for a VQ-VAE whose barcodes come from it; empty: from the model hub."""
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

    @classmethod
    def paper(cls, weights: str, densenet_weights: str = "") -> Recipe:
        """The published setting: 1,024 px patches at 0.5 um/px; ``weights`` of the architecture ``paper``."""
        return cls(weights=weights, densenet_weights=densenet_weights, keys="paper", patch_px=1024, mpp=0.5)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Recipe:
        """The recipe that an index holds.

        Raises
        ------
        IndexFormatError
            If it has fields that this release does not know, or lacks some.
        """
        names = {field.name for field in fields(cls)}
        found = _known_fields(stored, "recipe", names - {"keys"}, names)
        return cls(**{"keys": "paper", **found})  # there was no other when indexes did not tell

    def check(self) -> Recipe:
        """Return itself when every value is of its type and in its range, else raise ParameterError."""
        for field in fields(self):
            value, wanted = getattr(self, field.name), type(field.default)
            fits = isinstance(value, int | float) if wanted is float else isinstance(value, wanted)
            if not fits or isinstance(value, bool):
                raise ParameterError(f"got {field.name}={value!r}; want a value of type {wanted.__name__}")
        if self.patch_px < 64 or self.patch_px % 64:
            raise ParameterError(
                f"got patch_px={self.patch_px}; want a multiple of 64 (three poolings of a stride-8 grid)"
            )
        if not 0.05 <= self.mpp <= 16:
            raise ParameterError(f"got a patch mpp of {self.mpp}; want 0.05 to 16 um per pixel")
        if self.n_clusters < 1 or not 0 < self.fraction <= 1:
            raise ParameterError(
                f"got n_clusters={self.n_clusters}, fraction={self.fraction}; "
                "want at least 1 cluster and a share in (0, 1]"
            )
        if self.keys not in get_args(Keys):
            raise ParameterError(f"got keys={self.keys!r}; want 'texture' or 'paper'")
        if self.pooling not in ("integer", "exact"):
            raise ParameterError(f"got pooling={self.pooling!r}; want 'integer' or 'exact'")
        if self.seed < 0:
            raise ParameterError(f"got seed={self.seed}; want an integer of at least 0")
        return self

    def resolved(self) -> Recipe:
        """Itself with absolute paths, which mean the same wherever the index is opened from."""
        weights, densenet = (
            path if path in ("shipped", "") else os.path.abspath(path)  # noqa: PTH100  resolve() follows links
            for path in (self.weights, self.densenet_weights)
        )
        return replace(self, weights=weights, densenet_weights=densenet)


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """What an index holds beside its slides."""

    recipe: Recipe
    """How slides become its keys and barcodes."""
    fingerprint: str
    """The encoder that it was made with."""
    search: SearchParams
    """How it is searched."""

    def to_json(self) -> dict[str, Any]:
        """Itself as the store keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> IndexHeader:
        """The header that an index holds; search parameters that it lacks take their defaults.

        Raises
        ------
        IndexFormatError
            If something is missing, or there is what this release does not know.
        """
        names = {field.name for field in fields(cls)}
        header = _known_fields(stored, "header", names, names)
        search = _known_fields(
            header["search"], "search", needed=set(), known={field.name for field in fields(SearchParams)}
        )
        return cls(Recipe.from_json(header["recipe"]), str(header["fingerprint"]), SearchParams(**search))


def _known_fields(stored: object, what: str, needed: set[str], known: set[str]) -> dict[str, Any]:
    """A part of an index's header, if it has the fields that it needs and no unknown ones."""
    if not isinstance(stored, Mapping):
        raise IndexFormatError(
            f"the index's {what} is {stored!r}, wanted a JSON object: index the slides again"
        )
    odd = (needed - set(stored)) | (set(stored) - known)
    if odd:
        raise IndexFormatError(
            f"the index's {what} differs in its fields ({', '.join(sorted(odd))}): "
            "open it with the release that made it"
        )
    return dict(stored)


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
    """

    def __init__(self, recipe: Recipe, expected_fingerprint: str | None = None) -> None:
        """Check the recipe; see the class for the arguments."""
        self.recipe = recipe.check().resolved()
        self._expected = expected_fingerprint

    @cached_property
    def _model(self) -> Encoder:
        from sish.vqvae.pretrained import load_encoder

        weights = None if self.recipe.weights == "shipped" else Path(self.recipe.weights)
        model = load_encoder(weights, features=self.recipe.densenet_weights or None)
        if self._expected not in (None, self._fingerprint_of(model)):
            raise EncoderMismatchError(
                f"the index was made with encoder {self._expected}, and {self.recipe.weights} weights give "
                f"{self._fingerprint_of(model)}: give the weights it was made with (weights=, --weights)"
            )
        return model

    def _fingerprint_of(self, model: Encoder) -> str:
        """Weights and everything else that keys and barcodes depend on."""
        settings = asdict(self.recipe)
        for name in (
            "weights",
            "densenet_weights",
        ):  # these are paths; what they hold is in the model's own fingerprint
            del settings[name]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return f"{model.fingerprint}+{digest[:6]}"

    @property
    def fingerprint(self) -> str:
        """Name of the weights, patch size, scale and key scheme: codes of two fingerprints never meet."""
        return self._fingerprint_of(self._model)

    def load(self) -> None:
        """Load the weights now, so that slides are opened only once the encoder is known to be the right one.

        Raises
        ------
        EncoderMismatchError
            If their fingerprint is not the expected one.
        WeightsError
            If they cannot be used.
        """
        _ = self._model

    @property
    def hamming_threshold(self) -> int:
        """Largest Hamming distance at which two patches count as similar, measured for these features."""
        return self._model.hamming_threshold

    @cached_property
    def _code_order(self) -> NDArray[np.int64]:
        return order_codebook(self._model.codebook)

    def prepare(self, slide: Slide, region: Region | None = None) -> PreparedSlide:
        """Find the tissue of a slide (or of a region of it) and choose its mosaic."""
        recipe = self.recipe
        tissue = find_tissue(slide)
        patches = tile(slide, tissue, size_px=recipe.patch_px, mpp=recipe.mpp, region=region)
        mosaic = select_mosaic(
            slide, patches, n_clusters=recipe.n_clusters, fraction=recipe.fraction, seed=recipe.seed
        )
        return PreparedSlide(slide, tissue, mosaic)

    def encode(self, prepared: PreparedSlide) -> SlideCodes:
        """Read the mosaic's patches and turn them into keys and barcodes."""
        recipe, l0_xy = self.recipe, prepared.mosaic.l0_xy
        with closing(self._read(prepared)) as reading:  # whatever happens, nothing reads when this returns
            batches = [self.encode_patches(pixels) for pixels in reading]
        if not batches:  # no tissue: no rows, of the right widths
            batches = [self.encode_patches(np.empty((0, recipe.patch_px, recipe.patch_px, 3), np.uint8))]
        keys, barcodes = (np.concatenate(columns) for columns in zip(*batches, strict=True))
        return SlideCodes(keys, barcodes, l0_xy)

    def encode_patches(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Keys int64 (N, 1) and barcodes uint8 (N, bytes) of patches uint8 (N, patch_px, patch_px, 3)."""
        encoded = self._model.encode(pixels)
        keys = paper_keys(encoded.codes, self._code_order, self.recipe.pooling)
        return keys[:, None], minmax_barcodes(encoded.features)

    def _read(self, prepared: PreparedSlide) -> Generator[NDArray[np.uint8]]:
        """Batches of the mosaic's pixels; the next is read while the last is encoded."""
        recipe, slide, l0_xy = self.recipe, prepared.slide, prepared.mosaic.l0_xy

        def read(start: int) -> NDArray[np.uint8]:
            corners = l0_xy[start : start + _READ_BATCH]
            return np.stack([slide.read((int(x), int(y)), recipe.patch_px, recipe.mpp) for x, y in corners])

        with ThreadPoolExecutor(1) as reader:
            waiting = deque[Future[NDArray[np.uint8]]]()
            for start in range(0, len(l0_xy), _READ_BATCH):
                waiting.append(reader.submit(read, start))
                if len(waiting) == 2:
                    yield waiting.popleft().result()
            for last in waiting:
                yield last.result()
