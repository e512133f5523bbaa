"""Features for the barcode: 1,024 numbers a patch, from maps that the encoder has computed anyway.

The published SISH takes them from a second network (DenseNet121 of ImageNet, see `sish.vqvae.densenet`).
Ours are the mean and the standard deviation of each channel of each feature map, so they do not change
with the order of positions, and flips and rotations of a patch change them little.

Why they are standardised and shuffled: the barcode keeps only whether a feature is at least its left
neighbour (MinMax barcode, Kumar et al. 2018, as SISH uses it). On raw statistics that is almost always the
same answer (one channel is simply larger than the next); on standardised ones it is a coin whose side
depends on the patch. Shuffling by a fixed seed keeps the mean and the deviation of neighbouring
channels, which move together, from standing side by side.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sish.errors import ParameterError

__all__ = ["FEATURES", "PERCENTILES", "PooledFeatures", "minmax_distances"]

FEATURES = 1024
"""Features a patch, and bits of a barcode."""

PERCENTILES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0)
"""The percentiles of the Hamming distances of random pairs of patches that are kept with the weights."""

_ORDER_SEED = 1024
_TINY = 1e-6  # a channel that never fires has no spread; its feature stays 0


class PooledFeatures(nn.Module):
    """Mean and deviation of each channel of each map, standardised by training patches, in fixed order."""

    order: Tensor
    """int64 (1024,): which statistics are used, and where."""
    mean: Tensor
    """float32 (1024,): mean of each over the calibration patches."""
    std: Tensor
    """float32 (1024,): their standard deviation."""
    distances: Tensor
    """float32 (8,): Hamming distance of random pairs of patches at each of `PERCENTILES`."""
    patches: Tensor
    """int64 scalar: how many patches the three before were measured on; 0 = not calibrated yet."""

    def __init__(self, channels: Sequence[int]) -> None:
        """``channels`` of each feature map; twice their sum is at least 1,024 where features are wanted."""
        super().__init__()
        statistics = 2 * sum(channels)
        generator = torch.Generator().manual_seed(_ORDER_SEED)
        order = torch.randperm(statistics, generator=generator)[:FEATURES]
        self.register_buffer("order", order)
        self.register_buffer("mean", torch.zeros(len(order)))
        self.register_buffer("std", torch.ones(len(order)))
        self.register_buffer("distances", torch.full((len(PERCENTILES),), float("nan")))
        self.register_buffer("patches", torch.zeros((), dtype=torch.int64))

    @property
    def calibrated(self) -> bool:
        """Whether `mean`, `std` and `distances` were measured."""
        return bool(self.patches)

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
        return (self.raw(maps) - self.mean) / self.std

    @torch.no_grad()
    def calibrate(self, raw: Tensor, *, pairs: int = 200_000, seed: int = 0) -> None:
        """Measure `mean`, `std` and `distances` on the raw statistics (M, 1024) of M training patches."""
        if len(raw) < 2:
            raise ParameterError(f"calibration needs at least 2 patches, got {len(raw)}; give more data")
        spread = raw.std(0, correction=0)
        self.mean.copy_(raw.mean(0))
        self.std.copy_(torch.where(spread > _TINY, spread, torch.ones_like(spread)))
        features = ((raw - self.mean) / self.std).cpu().numpy()
        found = np.percentile(minmax_distances(features, pairs, seed), PERCENTILES)
        self.distances.copy_(torch.from_numpy(found))
        self.patches.fill_(len(raw))


def minmax_distances(features: NDArray[np.float32], pairs: int, seed: int) -> NDArray[np.int64]:
    """Hamming distances int64 (pairs,) of the MinMax barcodes of random pairs of different rows.

    Bit i is 1 where feature i >= feature i-1, bit 0 is 0: the rule of `sish.index.barcode`, said again in
    one line because the encoder's package and the index's never import each other.
    """
    bits = np.packbits(features[:, 1:] >= features[:, :-1], axis=1)
    generator = np.random.default_rng(seed)
    left = generator.integers(len(bits), size=pairs)
    right = (left + generator.integers(1, len(bits), size=pairs)) % len(bits)
    out = np.empty(pairs, np.int64)
    for start in range(0, pairs, 10_000):
        part = slice(start, start + 10_000)
        out[part] = np.bitwise_count(bits[left[part]] ^ bits[right[part]]).sum(1)
    return out
