"""The texture network: what tells tissues apart, the same for a patch however it lies.

A small residual network of p4m convolutions (see `sish.vqvae.p4m`), trained without labels by contrast
(`sish.vqvae.contrast`). What is kept of its maps are statistics over positions and orientations, of
early layers (stain, edges) and late ones (nuclei, arrangement).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from sish.slides.orientations import ORIENTATIONS
from sish.vqvae.p4m import RELU_GAIN, GroupConv, LiftingConv

__all__ = ["TextureNet"]

_BRANCH_GAIN = 0.5  # of a residual branch at first: the depth then matters little to the sum
_TINY = 1e-6


class _Block(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = GroupConv(channels, channels, 3)
        self.second = GroupConv(channels, channels, 3, gain=_BRANCH_GAIN)

    def forward(self, maps: Tensor) -> Tensor:
        """Same shape out as in."""
        inner = functional.relu_(self.first(functional.relu(maps)))
        out: Tensor = maps + self.second(inner)
        return out


class TextureNet(nn.Module):
    """Stages of p4m maps, each at half the scale of the one before, and wide maps at the last.

    ``channels`` C and ``blocks`` of each stage, ``out`` channels of the last maps; times eight for the
    orientations. Stage i sees the image at 1 / 2**(i + 1).
    """

    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...], out: int) -> None:
        """Random weights."""
        super().__init__()
        self.out = out
        self.n_statistics = 3 * (sum(channels) + out)
        heads: list[nn.Module] = [LiftingConv(3, channels[0], 6, stride=2)]
        heads += [GroupConv(a, b, 4, stride=2) for a, b in pairwise(channels)]
        self.stages = nn.ModuleList(
            nn.Sequential(head, *[_Block(width) for _ in range(count)])
            for head, width, count in zip(heads, channels, blocks, strict=True)
        )
        self.last = GroupConv(channels[-1], out, 1, gain=RELU_GAIN)

    @property
    def stride(self) -> int:
        """Sides of images are multiples of it."""
        return 1 << len(self.stages)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Maps (N, 8 C, h, w) of each stage and the last ones, of images (N, 3, H, W) in [-1, 1]."""
        found: list[Tensor] = []
        x = images
        for stage in self.stages:
            x = functional.relu(stage(x))
            found.append(x)
        return [*found, functional.relu(self.last(x))]

    def forward(self, images: Tensor) -> Tensor:
        """What contrast is learnt on: the means of the last maps, float32 (N, out)."""
        return _oriented(self.maps(images)[-1]).mean(1).mean(1)

    def statistics(self, images: Tensor) -> Tensor:
        """Statistics float32 (N, `n_statistics`) that turns and flips do not change."""
        return torch.cat([_statistics(it) for it in self.maps(images)], 1)


def _statistics(maps: Tensor) -> Tensor:
    """Of maps (N, 8 C, h, w): mean, deviation, and the deviation of the orientations' mean, (N, 3 C).

    The two deviations differ where structures have a direction.
    """
    oriented = _oriented(maps)
    mean = oriented.mean(1).mean(1)
    deviation = (oriented - mean[:, None, None]).square_().mean(1).mean(1)
    undirected = (oriented.mean(2) - mean[:, None]).square_().mean(1)
    return torch.cat([mean, deviation.add_(_TINY).sqrt_(), undirected.add_(_TINY).sqrt_()], 1)


def _oriented(maps: Tensor) -> Tensor:
    """Maps (N, 8 C, h, w) as float32 (N, h w, 8, C).

    Positions first, as channels-last maps lie in memory: sums over them are then many times faster.
    """
    return (
        maps.permute(0, 2, 3, 1).float().reshape(len(maps), -1, ORIENTATIONS, maps.shape[1] // ORIENTATIONS)
    )
