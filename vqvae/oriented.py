"""Statistics of the autoencoder's first two maps that do not depend on how a patch lies.

The convolutions see the patch in all eight orientations (see `sish.vqvae.p4m`), and moments are taken over
positions and orientations together: any function that is averaged over a group is unchanged by it. So
positions may be left out freely, which makes eight looks cost about as much as two of the whole encoder:
the second map is computed at every second position in both directions only.

Of each channel there are the mean, the deviation, and the deviations of the map averaged over squares of two
sizes: they tell how coarse a texture is. Later maps, other scales and correlations made retrieval no better,
or only among patches that look alike in stain (see the model card).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sish.vqvae.p4m import ORIENTATIONS, turned

__all__ = ["n_oriented_statistics", "oriented_statistics"]

_SQUARES = ((4, 2), (2, 2))
"""Of each map used: over squares of how many positions it is averaged, and that again."""
_TINY = 1e-6


def n_oriented_statistics(channels: Sequence[int]) -> int:
    """How many statistics `oriented_statistics` gives, by the ``channels`` after each convolution."""
    return sum((2 + len(sides)) * width for width, sides in zip(channels, _SQUARES, strict=False))


def oriented_statistics(convolutions: Sequence[nn.Conv2d], images: Tensor) -> Tensor:
    """Means and deviations, float32 (N, `n_oriented_statistics`), of images (N, 3, H, W) in [-1, 1].

    ``convolutions`` are the encoder's, of stride 2, each followed by a ReLU; the first two are used.
    """
    images = images.contiguous()  # channel by channel: such images turn faster
    looks = [_moments(convolutions[: len(_SQUARES)], turned(images, t)) for t in range(ORIENTATIONS)]
    return torch.cat([_statistics(torch.stack(it).mean(0)) for it in zip(*looks, strict=True)], 1)


def _statistics(moments: Tensor) -> Tensor:
    """Of moments (N, 1 + D, C), the mean and D mean squares: the mean and D deviations, (N, (1 + D) C)."""
    mean, squares = moments[:, :1], moments[:, 1:]
    deviations = (squares - mean.square()).clamp_min_(0).add_(_TINY).sqrt_()
    return torch.cat([mean, deviations], 1).flatten(1)


def _moments(convolutions: Sequence[nn.Conv2d], images: Tensor) -> list[Tensor]:
    """Of each map of one orientation: float32 (N, 1 + D, C), its mean and its mean squares."""
    maps = [functional.relu_(convolutions[0](images))]
    for it in convolutions[1:]:
        sparse = functional.conv2d(maps[-1], it.weight, it.bias, 2 * it.stride[0], it.padding)
        maps.append(functional.relu_(sparse))
    return [_means(it, sides) for it, sides in zip(maps, _SQUARES, strict=False)]


def _means(maps: Tensor, sides: Sequence[int]) -> Tensor:
    """Means of maps (N, C, h, w), of their squares, and of the squares of averages: (N, 2 + sides, C).

    The maps are squared where they lie: new memory for them would cost more than the squaring.
    """
    levels = [maps]
    for side in sides:  # the last squares of small maps are cut
        levels.append(functional.avg_pool2d(levels[-1], side, ceil_mode=True))
    return torch.stack([_mean(maps), *[_mean(it.square_()) for it in levels]], 1)


def _mean(maps: Tensor) -> Tensor:
    """Of maps (N, C, h, w) over positions, float32 (N, C)."""
    return maps.float().permute(0, 2, 3, 1).flatten(1, 2).mean(1)  # as they lie in memory: sums are faster
