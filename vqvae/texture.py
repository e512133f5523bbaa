"""The texture network: features of tissue that do not change when a patch is turned or mirrored.

It is a small residual network of p4m convolutions (see `sish.vqvae.p4m`), trained without labels by contrast
(`sish.vqvae.contrast`). Its features are statistics, over positions and orientations, of the maps of early
layers (stain, edges) and late layers (nuclei, their arrangement).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from sish.slides.orientations import ORIENTATIONS
from sish.vqvae.features import by_position
from sish.vqvae.p4m import RELU_GAIN, GroupConv, LiftingConv

_BRANCH_GAIN = 0.5  # of a residual branch before training: sums then grow little with depth
_TINY = 1e-6


class _Block(nn.Module):
    """A residual block: x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = GroupConv(channels, channels, 3)
        self.second = GroupConv(channels, channels, 3, gain=_BRANCH_GAIN)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape."""
        inner = functional.relu_(self.first(functional.relu(maps)))
        out: Tensor = maps + self.second(inner)
        return out


class TextureNet(nn.Module):
    """Stages of p4m maps, each at half the scale of the one before, and a last layer of wide maps.

    Stage i has maps at 1 / 2**(i + 1) of the image's scale. All maps have eight orientations of each channel.

    Examples
    --------
    >>> network = TextureNet((4, 8, 16), (0, 1, 2), 128)
    >>> [tuple(maps.shape) for maps in network.maps(torch.zeros(2, 3, 48, 48))]
    [(2, 32, 24, 24), (2, 64, 12, 12), (2, 128, 6, 6), (2, 1024, 6, 6)]
    """

    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...], out: int) -> None:
        """Make random weights: stages of ``channels`` and residual ``blocks``, and ``out`` last channels."""
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
        """The sides of images must be multiples of it."""
        return 1 << len(self.stages)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the maps (N, 8 C, h, w) of each stage and the last, of images (N, 3, H, W) in [-1, 1]."""
        found: list[Tensor] = []
        x = images
        for stage in self.stages:
            x = functional.relu(stage(x))
            found.append(x)
        return [*found, functional.relu(self.last(x))]

    def forward(self, images: Tensor) -> Tensor:
        """Return the means of the last maps, float32 (N, out), on which contrast is learnt."""
        return _oriented(self.maps(images)[-1]).mean(1).mean(1)

    def statistics(self, images: Tensor) -> Tensor:
        """Return statistics float32 (N, `n_statistics`) that turning or mirroring images does not change."""
        return torch.cat([_statistics(it) for it in self.maps(images)], 1)


def _statistics(maps: Tensor) -> Tensor:
    """Return mean, deviation, and deviation of the mean orientation, (N, 3 C), of maps (N, 8 C, h, w)."""
    # the two deviations differ where structures have a direction
    oriented = _oriented(maps)
    mean = oriented.mean(1).mean(1)
    deviation = (oriented - mean[:, None, None]).square_().mean(1).mean(1)
    undirected = (oriented.mean(2) - mean[:, None]).square_().mean(1)
    return torch.cat([mean, deviation.add_(_TINY).sqrt_(), undirected.add_(_TINY).sqrt_()], 1)


def _oriented(maps: Tensor) -> Tensor:
    """Return maps (N, 8 C, h, w) as float32 (N, h w, 8, C)."""
    positions = by_position(maps)
    return positions.reshape(*positions.shape[:2], ORIENTATIONS, -1)
