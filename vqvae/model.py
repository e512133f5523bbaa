"""The autoencoder: from pixels to a grid of codes and back.

It is the published one (SISH, Chen et al. 2022, Methods, "VQ-VAE"): stride-2 convolutions with kernel 4,
residual blocks, a codebook, and a decoder that mirrors the encoder. Pixels are scaled to [-1, 1]. The loss is
reconstruction MSE + codebook term + beta times commitment (van den Oord et al. 2017, equation 3).
"""

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sish.errors import ParameterError, WeightsError
from sish.vqvae.features import N_FEATURES, PooledFeatures, WhitenedFeatures
from sish.vqvae.oriented import n_oriented_statistics, oriented_statistics
from sish.vqvae.quantizer import CodebookUpdate, Quantized, VectorQuantizer
from sish.vqvae.texture import TextureNet

CONFIG_KEY = "sish_vqvae_config"
"""Key of the configuration in a checkpoint, as plain values, which load without pickle."""

_TEXTURE_OUT = 128
_MOST_LAYERS = 1_000
FeatureSource = Literal["oriented", "texture", "pooled", "densenet121"]
"""What the barcode's features are made of; see `VQVAEConfig.features`."""


@dataclass(frozen=True)  # without slots: jsonargparse reads a default dataclass through vars()
class VQVAEConfig:
    """The architecture of a network.

    The default is light: stride 8, made for patches of 256 px at 1.0 um/px.

    Examples
    --------
    >>> PRESETS["paper"].stride, PRESETS["paper"].patch_px, PRESETS["paper"].mpp
    (16, 1024, 0.5)
    """

    name: str = "default"
    """Name of the architecture; the first part of the fingerprint."""
    channels: tuple[int, ...] = (48, 96, 128)
    """Channels after each stride-2 convolution; n convolutions have a total stride of 2**n."""
    residual_blocks: int = 2
    """Residual blocks after the convolutions."""
    residual_channels: int = 64
    """Channels inside a residual block."""
    codes: int = 128
    """Entries of the codebook, at most 256 (codes are stored as bytes)."""
    code_dim: int = 64
    """Numbers in a codebook entry."""
    codebook: CodebookUpdate = "ema"
    """How codes learn: as moving averages of the vectors nearest to them (ema), or by the gradient."""
    decay: float = 0.99
    """Share of the old value in the codebook's moving averages."""
    revive_below: float = 0.05
    """A code used less than this share of the mean use is moved onto a vector of the batch; 0: never."""
    commitment_cost: float = 0.25
    """Weight of the commitment term, beta."""
    features: FeatureSource = "oriented"
    """Source of the barcode's 1,024 features: the first filters in all orientations (oriented), the texture
    network, all maps of the encoder (pooled), or DenseNet121."""
    texture_channels: tuple[int, ...] = (4, 8, 16)
    """Channels of each stage of the texture network (times eight orientations)."""
    texture_blocks: tuple[int, ...] = (0, 1, 2)
    """Residual blocks of each stage of the texture network."""
    patch_px: int = 256
    """Side of the square patch that the encoder is meant for, in pixels at `mpp`."""
    mpp: float = 1.0
    """Micrometres per pixel that the encoder is meant for."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built (ParameterError)."""
        numbers = (*self.channels, self.codes, self.code_dim, self.residual_channels, self.patch_px)
        if not self.channels or min(numbers) < 1 or self.residual_blocks < 0:
            raise ParameterError(f"channels, codes and sizes must be at least 1, got {self}")
        if self.features == "pooled" and 2 * sum(self.map_channels) < N_FEATURES:
            raise ParameterError(
                f"{2 * sum(self.map_channels)} pooled statistics are fewer than the barcode's {N_FEATURES};"
                f" give channels that sum to {N_FEATURES // 2} or more over all feature maps"
            )
        if (
            len(self.texture_channels) != len(self.texture_blocks)
            or min(self.texture_channels, default=0) < 1
        ):
            raise ParameterError(f"the texture network needs channels and blocks for each stage, got {self}")
        layers = len(self.channels) + self.residual_blocks + sum(self.texture_blocks)
        if layers > _MOST_LAYERS:
            raise ParameterError(f"{layers} layers are more than a network has; give at most {_MOST_LAYERS}")
        if not 2 <= self.codes <= 256:
            raise ParameterError(f"codes must be 2 to 256 (a code is stored in a byte), got {self.codes}")
        if not 0 <= self.decay < 1 or self.mpp <= 0 or self.commitment_cost < 0 or self.revive_below < 0:
            raise ParameterError(f"decay must be in [0, 1), mpp positive, costs not negative, got {self}")
        if self.codebook not in get_args(CodebookUpdate) or self.features not in get_args(FeatureSource):
            raise ParameterError(f"unknown codebook update or feature source, got {self}")

    @property
    def map_channels(self) -> tuple[int, ...]:
        """Channels of each feature map of the encoder, the latent grid last."""
        return (*self.channels, *[self.channels[-1]] * self.residual_blocks, self.code_dim)

    @property
    def stride(self) -> int:
        """Side, in pixels, of the square that a code stands for."""
        return 1 << len(self.channels)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        left_out = frozenset[str]() if self.features == "texture" else _TEXTURE
        return {
            name: list(it) if isinstance(it, tuple) else it
            for name, it in values.items()
            if name not in left_out
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "VQVAEConfig":
        """Return the inverse of `as_dict`; WeightsError for an unknown or missing name."""
        known = {field.name for field in fields(cls)}
        if not known - _TEXTURE <= set(values) <= known:
            odd = sorted(set(values) ^ known)
            raise WeightsError(f"the weights' configuration does not fit this release ({odd}); export again")
        plain: dict[str, Any] = {n: tuple(it) if isinstance(it, list) else it for n, it in values.items()}
        return cls(**plain)


_TEXTURE = frozenset({"texture_channels", "texture_blocks"})  # only in the dictionary of a texture network
_DEFAULT = VQVAEConfig()
PRESETS: dict[str, VQVAEConfig] = {
    "default": _DEFAULT,
    "paper": replace(
        _DEFAULT,
        name="paper",
        channels=(256, 256, 256, 256),
        residual_channels=256,
        code_dim=256,
        codebook="gradient",
        revive_below=0.0,
        features="densenet121",
        patch_px=1024,
        mpp=0.5,
    ),
}
"""`default`: light, stride 8, 256 px at 1.0 um/px. `paper`: as published, stride 16, 1024 px at 0.5 um/px."""


def to_unit(images: Tensor) -> Tensor:
    """Return pixels as the network reads them.

    Parameters
    ----------
    images : Tensor
        uint8 (N, H, W, 3).

    Returns
    -------
    Tensor
        float32 (N, 3, H, W) in [-1, 1], channels last in memory.

    Examples
    --------
    >>> to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)).flatten()
    tensor([-1.0000, -0.6000,  1.0000])
    """
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def from_unit(images: Tensor) -> Tensor:
    """Return images as pixels, rounded and clipped: the inverse of `to_unit`.

    Parameters
    ----------
    images : float (N, 3, H, W)
        Numbers in [-1, 1].

    Returns
    -------
    uint8 (N, H, W, 3)
        Pixels, RGB.

    Examples
    --------
    >>> from_unit(torch.tensor([-1.0, 0.0, 2.0]).reshape(1, 3, 1, 1)).tolist()
    [[[[0, 128, 255]]]]
    """
    return images.float().add(1.0).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)


@dataclass(frozen=True, slots=True)
class VQVAEOutput:
    """The result of one pass through the whole autoencoder."""

    reconstruction: Tensor
    """float (N, 3, H, W), about in [-1, 1]."""
    quantized: Quantized
    """Codes and their losses."""
    mse: Tensor
    """Scalar: mean squared error of the reconstruction, on the [-1, 1] scale."""
    loss: Tensor
    """Scalar: mse + codebook loss + beta * commitment."""


class _Residual(nn.Sequential):
    """The residual block of the VQ-VAE paper: x + 1x1(relu(3x3(relu(x))))."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, inner, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the shape of ``x``."""
        branch = x
        for layer in self:
            branch = layer(branch)
        return x + branch


class _Down(nn.Module):
    """The encoder: stride-2 convolutions, residual blocks, and a 1x1 convolution to the code dimension."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        sizes = (3, *config.channels)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(sizes))
        self.blocks = nn.ModuleList(
            _Residual(sizes[-1], config.residual_channels) for _ in range(config.residual_blocks)
        )
        self.head = nn.Conv2d(sizes[-1], config.code_dim, 1)

    @property
    def first(self) -> nn.Conv2d:
        """The convolution that sees the pixels."""
        convolution = self.convolutions[0]
        assert isinstance(convolution, nn.Conv2d)  # for the type checker: a module list forgets
        return convolution

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return all feature maps, from the first convolution to the latent grid."""
        maps: list[Tensor] = []
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
            maps.append(x)
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return [*maps, self.head(F.relu(x))]


class _Up(nn.Sequential):
    """The decoder: the encoder's mirror image."""

    def __init__(self, config: VQVAEConfig) -> None:
        wide = config.channels[-1]
        layers: list[nn.Module] = [nn.Conv2d(config.code_dim, wide, 3, padding=1)]
        layers += [_Residual(wide, config.residual_channels) for _ in range(config.residual_blocks)]
        for a, b in zip(config.channels[::-1], (*config.channels[-2::-1], 3), strict=True):
            layers += [nn.ReLU(), nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)]
        super().__init__(*layers)


class Texture(nn.Module):
    """The texture network, and the features that are made of its maps."""

    def __init__(self, config: VQVAEConfig) -> None:
        """Make random weights, not calibrated."""
        super().__init__()
        self.net = TextureNet(config.texture_channels, config.texture_blocks, _TEXTURE_OUT)
        self.features = WhitenedFeatures(self.net.n_statistics)


class VQVAE(nn.Module):
    """Encoder, codebook, decoder, and the layer that makes the barcode's features.

    Examples
    --------
    >>> model = VQVAE().eval()
    >>> out = model(torch.zeros(1, 3, 64, 64))
    >>> out.reconstruction.shape, out.quantized.codes.shape
    (torch.Size([1, 3, 64, 64]), torch.Size([1, 8, 8]))
    """

    texture: Texture
    """Only if `VQVAEConfig.features` is ``texture``."""
    oriented: WhitenedFeatures
    """Only if `VQVAEConfig.features` is ``oriented``."""

    def __init__(self, config: VQVAEConfig = _DEFAULT) -> None:
        """Make random weights; `sish.vqvae.pretrained` loads trained ones."""
        super().__init__()
        self.config = config
        self.encoder = _Down(config)
        self.quantizer = VectorQuantizer(
            config.codes,
            config.code_dim,
            update=config.codebook,
            decay=config.decay,
            revive_below=config.revive_below,
        )
        self.decoder = _Up(config)
        self.pooled = PooledFeatures(config.map_channels)
        if config.features == "texture":
            self.texture = Texture(config)
        elif config.features == "oriented":
            self.oriented = WhitenedFeatures(n_oriented_statistics(config.channels[0]))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it

    def autoencoder(self) -> dict[str, Tensor]:
        """Return the state of encoder, codebook, decoder and pooled features."""
        parts = ("encoder.", "quantizer.", "decoder.", "pooled.")
        return {name: it for name, it in self.state_dict().items() if name.startswith(parts)}

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps of images float (N, 3, H, W) in [-1, 1], the latent (N, D, h, w) last."""
        self._check_sides(images)
        out: list[Tensor] = self.encoder(images)
        return out

    def _check_sides(self, images: Tensor) -> None:
        height, width = images.shape[-2:]
        stride = self.config.stride
        if height % stride or width % stride or not height or not width:
            raise ParameterError(
                f"an image of {width} x {height} px does not divide into codes of {stride} px;"
                f" crop it to a multiple of {stride}"
            )

    @property
    def head(self) -> PooledFeatures | WhitenedFeatures:
        """The layer that makes features of raw statistics."""
        if self.config.features == "oriented":
            return self.oriented
        return self.texture.features if self.config.features == "texture" else self.pooled

    def raw_features(self, images: Tensor) -> Tensor:
        """Return the raw statistics (N, S), for `head`, of images float (N, 3, H, W) in [-1, 1]."""
        if self.config.features == "oriented":
            self._check_sides(images)
            return oriented_statistics(self.encoder.first, images)
        if self.config.features == "texture":
            return self.texture.net.statistics(images)
        return self.pooled.raw(self.maps(images))

    def features(self, images: Tensor) -> Tensor:
        """Return features float32 (N, 1024) of images float (N, 3, H, W) in [-1, 1]."""
        return self.head.normal(self.raw_features(images))

    def forward(self, images: Tensor) -> VQVAEOutput:
        """Encode, quantise and reconstruct images.

        Parameters
        ----------
        images : Tensor
            float (N, 3, H, W) in [-1, 1], H and W multiples of the stride.

        Returns
        -------
        VQVAEOutput
            With the default network, images (16, 3, 64, 64) have latents (16, 64, 8, 8), codes (16, 8, 8) and
            reconstructions (16, 3, 64, 64).
        """
        quantized: Quantized = self.quantizer(self.maps(images)[-1])
        reconstruction: Tensor = self.decoder(quantized.vectors)
        mse = F.mse_loss(reconstruction.float(), images)
        loss = mse + quantized.codebook_loss + self.config.commitment_cost * quantized.commitment
        return VQVAEOutput(reconstruction, quantized, mse, loss)
