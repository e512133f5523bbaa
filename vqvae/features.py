"""Features for the barcode: 1,024 numbers for each patch, from means and deviations of feature maps.

The published SISH takes them from a second network (DenseNet121 of ImageNet, see `sish.vqvae.timm_network`).
`WhitenedFeatures` are made of statistics that do not change when a patch is turned or mirrored
(`sish.vqvae.oriented` and `sish.vqvae.texture`). `PooledFeatures` are made of all maps that the encoder
computes for the codes; they depend on the patch's orientation.

Pooled features are standardised and shuffled, because the barcode keeps only whether a feature is at least
its left neighbour (MinMax barcode, Kumar et al. 2018, as SISH uses it). Raw statistics almost always give
the same answer, as one channel is simply larger than the next. Standardised statistics give an answer that
depends on the patch. The mean and the deviation of a channel, and those of neighbouring channels, move
together; shuffling by a fixed seed puts them apart.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sish.errors import ParameterError
from sish.vqvae.random_pairs import random_pair_distances

N_FEATURES = 1024
"""Features of a patch, and bits of a barcode."""

PERCENTILES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0)
"""Percentiles, of the Hamming distances of random pairs of patches, that are kept with the weights."""

BitRule = Literal["minmax", "sign"]
"""How features become bits: each against its left neighbour (``minmax``), or against 0 (``sign``)."""

_ORDER_SEED = 1024
_ROTATION_SEED = 1024
_AXES = 256
_SHARE_OF_BETWEEN = 0.03
_FLOOR = 1e-4  # added to each variance, as a share of the mean variance
_TINY = 1e-6  # a smaller deviation is rounding: that channel never fires, and its feature stays 0


def by_position(maps: Tensor) -> Tensor:
    """Return maps (N, C, h, w) as float32 (N, h w, C), the order in memory, in which sums are fastest."""
    return maps.permute(0, 2, 3, 1).float().flatten(1, 2)


class _Calibrated(nn.Module):
    """What both kinds of features share: the distances measured on training patches."""

    distances: Tensor
    """float32 (8,): `PERCENTILES` of the Hamming distances of random pairs of patches."""
    patches: Tensor
    """int64 scalar: number of patches measured; 0: not calibrated yet."""
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
        """Measure the statistics and the distances of random pairs on training patches.

        Parameters
        ----------
        raw : Tensor
            Raw statistics, float (M, S), of M training patches.
        changes : Tensor, optional
            Differences between the statistics of two views of a patch, float (P, S). Pooled features need
            none.
        pairs : int
            Random pairs of patches to compare.
        seed : int
            Seed of the pairs.

        Raises
        ------
        ParameterError
            If there are fewer than 2 patches.
        """
        if len(raw) < 2:
            raise ParameterError(f"calibration needs at least 2 patches, got {len(raw)}; give more data")
        self._measure(raw, raw[:0] if changes is None else changes)
        features = self.normal(raw).cpu().numpy()
        found = random_pair_distances(_barcodes(features, self.binarisation), pairs, seed)
        self.distances.copy_(torch.from_numpy(np.percentile(found, PERCENTILES)))
        self.patches.fill_(len(raw))

    def normal(self, raw: Tensor) -> Tensor:
        """Return features float32 (N, 1024) of raw statistics (N, S)."""
        raise NotImplementedError

    def _measure(self, raw: Tensor, changes: Tensor) -> None:
        raise NotImplementedError


class PooledFeatures(_Calibrated):
    """Mean and deviation of each channel of each map, standardised on training patches, in a fixed order.

    Examples
    --------
    >>> features = PooledFeatures((256, 256))
    >>> features([torch.zeros(2, 256, 16, 16), torch.zeros(2, 256, 8, 8)]).shape
    torch.Size([2, 1024])
    """

    order: Tensor
    """int64 (1024,): the statistic that becomes each feature."""
    mean: Tensor
    """float32 (1024,): mean of each feature's statistic over the calibration patches."""
    std: Tensor
    """float32 (1024,): its standard deviation."""
    binarisation = "minmax"

    def __init__(self, channels: Sequence[int]) -> None:
        """Take the ``channels`` of each feature map; to make features, they must sum to 512 or more."""
        super().__init__()
        statistics = 2 * sum(channels)
        generator = torch.Generator().manual_seed(_ORDER_SEED)
        order = torch.randperm(statistics, generator=generator)[:N_FEATURES]
        self.register_buffer("order", order)
        self.register_buffer("mean", torch.zeros(len(order)))
        self.register_buffer("std", torch.ones(len(order)))

    def raw(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the statistics before standardising, float32 (N, 1024), of maps (N, C, h, w)."""
        pooled: list[Tensor] = []
        for feature_map in maps:
            positions = by_position(feature_map)
            mean = positions.mean(1)
            pooled += [mean, (positions - mean[:, None]).square_().mean(1).sqrt_()]
        return torch.cat(pooled, 1)[:, self.order]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return standardised features float32 (N, 1024) of maps (N, C, h, w), one for each layer."""
        return self.normal(self.raw(maps))

    def normal(self, raw: Tensor) -> Tensor:
        """Return raw statistics (N, 1024) standardised."""
        return (raw - self.mean) / self.std

    def _measure(self, raw: Tensor, changes: Tensor) -> None:
        spread = raw.std(0, correction=0)
        self.mean.copy_(raw.mean(0))
        self.std.copy_(torch.where(spread > _TINY, spread, torch.ones_like(spread)))


class WhitenedFeatures(_Calibrated):
    """Statistics of maps, whitened, as directions in 1,024 dimensions.

    Two views of one patch differ in stain, sharpness and place. A direction in which they differ tells little
    about the tissue, however much it varies between patches. So standardised statistics are whitened by the
    covariance of such differences plus 3 % of the covariance between patches (within-class covariance
    normalisation, Hatch and others, Interspeech 2006; the class is a patch). The 256 axes that then vary
    most are kept, and the result is scaled to length 1.

    A random rotation into 1,024 dimensions keeps all angles. The signs of its numbers are a barcode, whose
    Hamming distance grows with the angle (Charikar, STOC 2002).
    """

    mean: Tensor
    """float32 (S,): mean of each statistic over the calibration patches."""
    projection: Tensor
    """float32 (S, 1024): standardising, whitening and the random rotation in one matrix."""
    binarisation = "sign"

    def __init__(self, statistics: int) -> None:
        """Take the number of statistics, S."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(statistics))
        self.register_buffer("projection", torch.zeros(statistics, N_FEATURES))

    def normal(self, raw: Tensor) -> Tensor:
        """Return features float32 (N, 1024) of length 1 of raw statistics (N, S)."""
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
    """Return axes (S, up to 256) that whiten ``within`` and a share of ``between``, most telling first."""
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
