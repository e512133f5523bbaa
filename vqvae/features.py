"""Features for the barcode: 1,024 numbers a patch, from means and deviations of feature maps.

The published SISH takes them from a second network (DenseNet121 of ImageNet, see `sish.vqvae.timm_network`).
`WhitenedFeatures` are made of statistics that do not depend on how a patch lies (`sish.vqvae.oriented` and
`sish.vqvae.texture`); `PooledFeatures` of all maps that the encoder has computed anyway, as the patch lies.

Why the latter are standardised and shuffled: the barcode keeps only whether a feature is at least its left
neighbour (MinMax barcode, Kumar et al. 2018, as SISH uses it). On raw statistics that is almost always the
same answer (one channel is simply larger than the next); on standardised ones it is a coin whose side
depends on the patch. Shuffling by a fixed seed keeps the mean and the deviation of neighbouring
channels, which move together, from standing side by side.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sish.errors import ParameterError
from sish.vqvae.random_pairs import random_pair_distances

__all__ = ["N_FEATURES", "PERCENTILES", "BitRule", "PooledFeatures", "WhitenedFeatures"]

N_FEATURES = 1024
"""Features a patch, and bits of a barcode."""

PERCENTILES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0)
"""The percentiles of the Hamming distances of random pairs of patches that are kept with the weights."""

BitRule = Literal["minmax", "sign"]
"""What makes bits of features: each against its left neighbour (``minmax``), or against 0 (``sign``)."""

_ORDER_SEED = 1024
_ROTATION_SEED = 1024
_AXES = 256
_SHARE_OF_BETWEEN = 0.03
_FLOOR = 1e-4  # of the mean variance: no axis is quieter
_TINY = 1e-6  # a channel that never fires has no spread; its feature stays 0


class _Calibrated(nn.Module):
    """What both kinds of features keep of the patches that they were measured on."""

    distances: Tensor
    """float32 (8,): Hamming distance of random pairs of patches at each of `PERCENTILES`."""
    patches: Tensor
    """int64 scalar: how many patches it was measured on; 0 = not calibrated yet."""
    binarisation: BitRule

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("distances", torch.full((len(PERCENTILES),), float("nan")))
        self.register_buffer("patches", torch.zeros((), dtype=torch.int64))

    @property
    def calibrated(self) -> bool:
        """Whether statistics and distances were measured."""
        return bool(self.patches)

    @torch.no_grad()
    def calibrate(
        self, raw: Tensor, changes: Tensor | None = None, *, pairs: int = 200_000, seed: int = 0
    ) -> None:
        """Measure everything on the raw statistics (M, S) of M training patches.

        ``changes`` (P, S) are differences between two views of a patch each; pooled features need none.
        """
        if len(raw) < 2:
            raise ParameterError(f"calibration needs at least 2 patches, got {len(raw)}; give more data")
        self._measure(raw, raw[:0] if changes is None else changes)
        features = self.normal(raw).cpu().numpy()
        found = random_pair_distances(_barcodes(features, self.binarisation), pairs, seed)
        self.distances.copy_(torch.from_numpy(np.percentile(found, PERCENTILES)))
        self.patches.fill_(len(raw))

    def normal(self, raw: Tensor) -> Tensor:
        """Features float32 (N, 1024) of raw statistics (N, S)."""
        raise NotImplementedError

    def _measure(self, raw: Tensor, changes: Tensor) -> None:
        raise NotImplementedError


class PooledFeatures(_Calibrated):
    """Mean and deviation of each channel of each map, standardised by training patches, in fixed order."""

    order: Tensor
    """int64 (1024,): which statistics are used, and where."""
    mean: Tensor
    """float32 (1024,): mean of each over the calibration patches."""
    std: Tensor
    """float32 (1024,): their standard deviation."""
    binarisation = "minmax"

    def __init__(self, channels: Sequence[int]) -> None:
        """``channels`` of each feature map; twice their sum is at least 1,024 where features are wanted."""
        super().__init__()
        statistics = 2 * sum(channels)
        generator = torch.Generator().manual_seed(_ORDER_SEED)
        order = torch.randperm(statistics, generator=generator)[:N_FEATURES]
        self.register_buffer("order", order)
        self.register_buffer("mean", torch.zeros(len(order)))
        self.register_buffer("std", torch.ones(len(order)))

    def raw(self, maps: Sequence[Tensor]) -> Tensor:
        """The statistics before standardising: maps (N, C, h, w), several, to float32 (N, 1024)."""
        pooled: list[Tensor] = []
        for feature_map in maps:
            # positions first, as channels-last maps lie in memory: 12 times faster than torch.var_mean here
            positions = feature_map.float().permute(0, 2, 3, 1).flatten(1, 2)
            mean = positions.mean(1)
            pooled += [mean, (positions - mean[:, None]).square_().mean(1).sqrt_()]
        return torch.cat(pooled, 1)[:, self.order]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Standardised features float32 (N, 1024) of maps (N, C, h, w), one for each layer."""
        return self.normal(self.raw(maps))

    def normal(self, raw: Tensor) -> Tensor:
        """Raw statistics (N, 1024), standardised."""
        return (raw - self.mean) / self.std

    def _measure(self, raw: Tensor, changes: Tensor) -> None:
        spread = raw.std(0, correction=0)
        self.mean.copy_(raw.mean(0))
        self.std.copy_(torch.where(spread > _TINY, spread, torch.ones_like(spread)))


class WhitenedFeatures(_Calibrated):
    """Statistics of maps, whitened, as directions in 1,024 dimensions.

    A direction in which two views of one patch differ (stain, sharpness, a little elsewhere) says little of
    the tissue, however much it varies between patches. Standardised statistics are therefore whitened
    by the covariance of such differences plus 3 % of the covariance between patches (within-class covariance
    normalisation, Hatch and others, Interspeech 2006, the class being a patch), and the 256
    axes that then vary most are kept. The result has length 1 and is turned at random into 1,024
    dimensions, which keeps all angles, so that the signs of its numbers are a barcode whose Hamming
    distance grows with the angle (Charikar, STOC 2002).
    """

    mean: Tensor
    """float32 (S,): mean of each statistic over the calibration patches."""
    projection: Tensor
    """float32 (S, 1024): standardising, whitening and the random turn in one matrix."""
    binarisation = "sign"

    def __init__(self, statistics: int) -> None:
        """So many statistics, S."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(statistics))
        self.register_buffer("projection", torch.zeros(statistics, N_FEATURES))

    def normal(self, raw: Tensor) -> Tensor:
        """Raw statistics (N, S) to features float32 (N, 1024) of length 1."""
        features: Tensor = (raw - self.mean) @ self.projection
        return nn.functional.normalize(features, dim=1)

    def _measure(self, raw: Tensor, changes: Tensor) -> None:
        spread = raw.std(0, correction=0).double()
        scale = torch.where(spread > _TINY, 1 / spread, torch.zeros_like(spread))
        between = _covariance((raw - raw.mean(0)).double() * scale)
        within = _covariance(changes.double() * scale) / 2  # a difference has the spread of two views
        axes = _telling_axes(between, within)
        generator = torch.Generator().manual_seed(_ROTATION_SEED)
        random = torch.randn((N_FEATURES, axes.shape[1]), generator=generator, dtype=torch.float64)
        turn = torch.linalg.qr(random)[0].T.to(raw.device)
        self.mean.copy_(raw.mean(0))
        self.projection.copy_((scale[:, None] * axes) @ turn)


def _covariance(rows: Tensor) -> Tensor:
    return rows.T @ rows / max(1, len(rows))


def _telling_axes(between: Tensor, within: Tensor) -> Tensor:
    """Axes (S, up to 256) that whiten ``within`` and a share of ``between``, those that tell most first."""
    noise = within + _SHARE_OF_BETWEEN * between
    floor = _FLOOR * noise.trace() / len(noise)
    noise = noise + torch.diag(floor.expand(len(noise)))
    variance, axes = torch.linalg.eigh(noise)
    white = axes * variance.rsqrt()
    kept: Tensor = torch.linalg.eigh(white.T @ between @ white)[1].flip(1)[:, :_AXES]
    telling: Tensor = white @ kept
    return telling


def _barcodes(features: NDArray[np.float32], rule: BitRule) -> NDArray[np.uint8]:
    """Return barcodes uint8 (N, 128) as `sish.index.barcode` makes them, which this package never imports."""
    bits = features >= 0
    if rule == "minmax":
        bits[:, 0], bits[:, 1:] = False, features[:, 1:] >= features[:, :-1]
    return np.packbits(bits, axis=1)
