"""The frozen encoder: patches go in, codes and the barcode's features come out."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sish.errors import ParameterError, ParameterTypeError
from sish.vqvae.features import N_FEATURES, BitRule, WhitenedFeatures
from sish.vqvae.model import VQVAE, VQVAEConfig, from_unit, to_unit


class FeatureNetwork(Protocol):
    """A second network that makes the barcode's features (the paper's is DenseNet121)."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return features float32 (N, 1024) of images uint8 (N, H, W, 3)."""


@dataclass(frozen=True, slots=True)
class HammingScale:
    """The Hamming distances between barcodes of these weights."""

    threshold: int
    """Distance (of 1,024 bits) up to which two patches count as similar."""
    percentiles: tuple[tuple[float, float], ...]
    """(percentile, distance) pairs of random pairs of different training patches; may be empty."""
    obtained: str
    """How the threshold was obtained."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Codes and features of N patches."""

    codes: NDArray[np.uint8]
    """uint8 (N, h, w): the grid of codes, h = H / stride and w = W / stride."""
    features: NDArray[np.float32]
    """float32 (N, 1024): the barcode's features."""


class Encoder:
    """A trained network that no longer changes. `load_encoder` makes one.

    The network encodes one patch at a time. So the codes and features of a patch never depend, in any bit, on
    the other patches. On one core a batch would save little, and memory stays that of one patch.

    Examples
    --------
    >>> from sish.vqvae import load_encoder
    >>> encoder = load_encoder()
    >>> encoder.patch_px, encoder.mpp
    (256, 1.0)
    >>> encoded = encoder.encode(np.zeros((2, 256, 256, 3), np.uint8))
    >>> encoded.codes.shape, encoded.features.shape
    ((2, 32, 32), (2, 1024))
    """

    def __init__(
        self, model: VQVAE, fingerprint: str, hamming: HammingScale, network: FeatureNetwork | None = None
    ) -> None:
        """Freeze a network.

        Parameters
        ----------
        model : VQVAE
            The network.
        fingerprint : str
            Name of its weights.
        hamming : HammingScale
            The distances between its barcodes.
        network : FeatureNetwork, optional
            Makes the features, in place of those of ``model``.
        """
        self._model = model.eval().requires_grad_(False)
        self._network = network
        self.fingerprint = fingerprint
        self.hamming = hamming

    @property
    def config(self) -> VQVAEConfig:
        """The network's configuration."""
        return self._model.config

    @property
    def patch_px(self) -> int:
        """Side, in pixels at `mpp`, of the patches that it is meant for."""
        return self.config.patch_px

    @property
    def mpp(self) -> float:
        """Micrometres per pixel that it is meant for."""
        return self.config.mpp

    @property
    def stride(self) -> int:
        """Side, in pixels, of the square that a code stands for."""
        return self.config.stride

    @property
    def hamming_threshold(self) -> int:
        """Distance of barcodes (of 1,024 bits) up to which two patches count as similar."""
        return self.hamming.threshold

    @property
    def binarisation(self) -> BitRule:
        """How features become bits: each against its left neighbour (``minmax``) or against 0 (``sign``)."""
        return "minmax" if self._network is not None else self._model.head.binarisation

    @property
    def n_features(self) -> int:
        """Length of a patch's features."""
        return N_FEATURES

    @property
    def parts(self) -> tuple[()]:
        """None: its features are one part."""
        return ()

    @property
    def statistics(self) -> None:
        """None: its features need not be measured on an archive."""

    @property
    def licence(self) -> str:
        """Licence of the weights, in short: the shipped ones are Apache-2.0."""
        return "Apache-2.0 if shipped, else your own"

    @property
    def orientation_invariant(self) -> bool:
        """Whether turning or mirroring a patch leaves its features the same, up to rounding."""
        return self._network is None and isinstance(self._model.head, WhitenedFeatures)

    @property
    def codebook(self) -> NDArray[np.float32]:
        """float32 (K, D): a copy of the codebook."""
        return self._model.quantizer.codebook.detach().cpu().numpy().copy()

    @torch.inference_mode()
    def encode(self, images: NDArray[np.uint8]) -> Encoded:
        """Return codes and features of patches.

        Parameters
        ----------
        images : NDArray[np.uint8]
            Shape (N, H, W, 3), H and W multiples of the stride.

        Returns
        -------
        Encoded
            With the default weights, of stride 8, patches (16, 256, 256, 3) have codes (16, 32, 32) and
            features (16, 1024).

        Raises
        ------
        ParameterError
            If the patches have another shape or dtype.
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
        """Return only the features of `encode`, float32 (N, 1024): indexes with texture keys need no more."""
        _check_images(images, self.stride)
        found = np.empty((len(images), N_FEATURES), np.float32)
        pooled = self._network is None and self._model.config.features == "pooled"
        for number, image in enumerate(images):
            pixels = self._pixels(image)
            unit = to_unit(pixels)
            maps = self._model.maps(unit) if pooled else []  # DenseNet121 reads pixels, not maps
            found[number] = self._features(pixels, unit, maps)[0].cpu().numpy()
        return found

    def _features(self, pixels: Tensor, unit: Tensor, maps: list[Tensor]) -> Tensor:
        """Return features (1, 1024) of one patch, from the network that makes them."""
        if self._network is not None:
            return self._network(pixels)
        if self._model.config.features == "pooled":
            return self._model.head.normal(self._model.pooled.raw(maps))  # `maps` are there already
        return self._model.features(unit)

    @torch.inference_mode()
    def maps(self, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return the feature maps of patches, from the first layer to the latent grid.

        Parameters
        ----------
        images : NDArray[np.uint8]
            Shape (N, H, W, 3), as for `encode`.

        Returns
        -------
        list of NDArray[np.float32]
            One (N, C, h, w) for each layer: with the default weights (1, 256, 256, 3) gives (1, 48, 128, 128)
            first and (1, 64, 32, 32) last.
        """
        _check_images(images, self.stride)
        rows = [self._model.maps(to_unit(self._pixels(image))) for image in images]
        return [torch.cat(layer).float().cpu().numpy() for layer in zip(*rows, strict=True)]

    @torch.inference_mode()
    def reconstruct(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the patches as the decoder draws them from their codes, uint8 (N, H, W, 3)."""
        _check_images(images, self.stride)
        out = np.empty_like(images)
        for number, image in enumerate(images):
            reconstruction = self._model(to_unit(self._pixels(image))).reconstruction
            out[number] = from_unit(reconstruction)[0].cpu().numpy()
        return out

    def _pixels(self, image: NDArray[np.uint8]) -> Tensor:
        """Return a copy of one image as a batch on the network's device; torch warns of read-only arrays."""
        return torch.from_numpy(np.array(image)[None]).to(self._model.quantizer.codebook.device)


def _check_images(images: NDArray[np.uint8], stride: int) -> None:
    if not isinstance(images, np.ndarray):
        raise ParameterTypeError(f"wanted patches as a uint8 array (N, H, W, 3), got {type(images).__name__}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        got = f"{images.dtype} {images.shape}"
        raise ParameterError(f"wanted patches as uint8 (N, H, W, 3), got {got}")
    height, width = images.shape[1:3]
    if not height or not width or height % stride or width % stride:
        raise ParameterError(
            f"patches of {width} x {height} px do not divide into codes of {stride} px;"
            f" give a size that is a multiple of {stride}"
        )
