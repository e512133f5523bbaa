"""The frozen encoder: patches in, codes and barcode features out."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sish.errors import ParameterError
from sish.vqvae.features import N_FEATURES, BitRule, WhitenedFeatures
from sish.vqvae.model import VQVAE, VQVAEConfig, from_unit, to_unit

__all__ = ["Encoded", "Encoder", "FeatureNetwork", "HammingScale"]


class FeatureNetwork(Protocol):
    """A second network that makes the barcode's features (the paper's is DenseNet121)."""

    def __call__(self, images: Tensor) -> Tensor:
        """Images uint8 (N, H, W, 3) to float32 (N, 1024)."""
        ...


@dataclass(frozen=True, slots=True)
class HammingScale:
    """What a Hamming distance between two barcodes means for these weights."""

    threshold: int
    """Distance (of 1,024 bits) up to which two patches count as similar."""
    percentiles: tuple[tuple[float, float], ...]
    """(percentile, distance) pairs, between random pairs of different training patches; may be empty."""
    obtained: str
    """How the threshold was obtained."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the encoder makes of N patches."""

    codes: NDArray[np.uint8]
    """uint8 (N, h, w): the grid of codes, h = H / stride."""
    features: NDArray[np.float32]
    """float32 (N, 1024): the barcode's features."""


class Encoder:
    """A trained network that no longer changes. Made by `sish.vqvae.pretrained.load_encoder`.

    Patches go through one at a time, so what comes out for a patch does not depend on its company: codes
    are the same bit by bit. On one core a batch would save little, and memory stays that of one patch.
    """

    def __init__(
        self, model: VQVAE, fingerprint: str, hamming: HammingScale, network: FeatureNetwork | None = None
    ) -> None:
        """Freeze ``model``; ``network`` makes the features where the model's own are not wanted."""
        self._model = model.eval().requires_grad_(False)
        self._network = network
        self.fingerprint = fingerprint
        self.hamming = hamming

    @property
    def config(self) -> VQVAEConfig:
        """What the network is."""
        return self._model.config

    @property
    def patch_px(self) -> int:
        """Side of the patch that it is meant for, in pixels."""
        return self.config.patch_px

    @property
    def mpp(self) -> float:
        """Micrometres per pixel that it is meant for."""
        return self.config.mpp

    @property
    def stride(self) -> int:
        """Pixels a code stands for, on a side."""
        return self.config.stride

    @property
    def hamming_threshold(self) -> int:
        """Distance of barcodes (of 1,024 bits) up to which two patches count as similar."""
        return self.hamming.threshold

    @property
    def binarisation(self) -> BitRule:
        """What makes bits of the features: each against its left neighbour (``minmax``) or 0 (``sign``)."""
        return "minmax" if self._network is not None else self._model.head.binarisation

    @property
    def n_features(self) -> int:
        """Numbers that a patch's features are."""
        return N_FEATURES

    @property
    def licence(self) -> str:
        """Of the weights, in short; those of sish are Apache-2.0, and your own are yours."""
        return "Apache-2.0 if shipped, else your own"

    @property
    def orientation_invariant(self) -> bool:
        """Whether a patch has the same features, but for rounding, however it is turned or mirrored."""
        return self._network is None and isinstance(self._model.head, WhitenedFeatures)

    @property
    def codebook(self) -> NDArray[np.float32]:
        """float32 (K, D), a copy."""
        return self._model.quantizer.codebook.detach().cpu().numpy().copy()

    @torch.inference_mode()
    def encode(self, images: NDArray[np.uint8]) -> Encoded:
        """Codes and features of patches, uint8 (N, H, W, 3) with H and W multiples of the stride.

        256 x 256 px give 32 x 32 codes with the default weights. Another shape or dtype is a ParameterError.
        """
        _check_images(images, self.stride)
        grid = (len(images), images.shape[1] // self.stride, images.shape[2] // self.stride)
        codes = np.empty(grid, np.uint8)
        features = np.empty((len(images), N_FEATURES), np.float32)
        for number, image in enumerate(images):
            pixels = self._pixels(image)
            unit = to_unit(pixels)
            maps = self._model.maps(unit)
            latent = maps[-1][0].permute(1, 2, 0)
            nearest = self._model.quantizer.nearest(latent.reshape(-1, latent.shape[-1]))
            codes[number] = nearest.reshape(grid[1:]).byte().cpu().numpy()
            features[number] = self._features(pixels, unit, maps)[0].cpu().numpy()
        return Encoded(codes, features)

    @torch.inference_mode()
    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The features of `encode` alone, float32 (N, 1024): all that an index of texture keys needs."""
        _check_images(images, self.stride)
        found = np.empty((len(images), N_FEATURES), np.float32)
        pooled = self._network is None and self._model.config.features == "pooled"
        for number, image in enumerate(images):
            pixels = self._pixels(image)
            unit = to_unit(pixels)
            maps = self._model.maps(unit) if pooled else []  # another network reads the pixels themselves
            found[number] = self._features(pixels, unit, maps)[0].cpu().numpy()
        return found

    def _features(self, pixels: Tensor, unit: Tensor, maps: list[Tensor]) -> Tensor:
        """Features (1, 1024) of one patch, from whichever network makes them."""
        if self._network is not None:
            return self._network(pixels)
        if self._model.config.features == "pooled":
            return self._model.head.normal(self._model.pooled.raw(maps))  # from maps that are there anyway
        return self._model.features(unit)

    @torch.inference_mode()
    def maps(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Feature maps of patches uint8 (N, H, W, 3), from the first layer to the latent grid.

        One float32 (N, C, h, w) a layer. The shapes allowed are those of `encode`.
        """
        _check_images(images, self.stride)
        rows = [self._model.maps(to_unit(self._pixels(image))) for image in images]
        return [torch.cat(layer).float().cpu().numpy() for layer in zip(*rows, strict=True)]

    @torch.inference_mode()
    def reconstruct(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the decoder makes of the patches' codes: uint8 (N, H, W, 3), as given."""
        _check_images(images, self.stride)
        out = np.empty_like(images)
        for number, image in enumerate(images):
            reconstruction = self._model(to_unit(self._pixels(image))).reconstruction
            out[number] = from_unit(reconstruction)[0].cpu().numpy()
        return out

    def _pixels(self, image: NDArray[np.uint8]) -> Tensor:
        """One image as a batch of one, where the network is. Copied: torch dislikes read-only arrays."""
        return torch.from_numpy(np.array(image)[None]).to(self._model.quantizer.codebook.device)


def _check_images(images: NDArray[np.uint8], stride: int) -> None:
    if not isinstance(images, np.ndarray):
        raise ParameterError(f"wanted patches as a uint8 array (N, H, W, 3), got {type(images).__name__}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        got = f"{images.dtype} {images.shape}"
        raise ParameterError(f"wanted patches as uint8 (N, H, W, 3), got {got}")
    height, width = images.shape[1:3]
    if not height or not width or height % stride or width % stride:
        raise ParameterError(
            f"patches of {width} x {height} px do not divide into codes of {stride} px;"
            f" give a size that is a multiple of {stride}"
        )
