"""Convolutions that know quarter turns and flips: the group p4m (Cohen and Welling, ICML 2016).

A slide has no up and no left, so a patch and its seven quarter turns and mirror images are the same tissue.
Here a feature map has a copy for each of these eight orientations, and one set of weights makes all eight
(Veeling et al., MICCAI 2018, did so for PatchCamelyon). Turning the input permutes the copies, so that a
mean over positions and copies does not change at all. To the processor it is an ordinary convolution
with eight times the channels, whose weights are made from few.

Channels of all maps stand orientation by orientation: (N, 8 C, H, W) holds C channels of orientation 0, then
C of orientation 1, and so on, in the order of `sish.slides.orientations`.
Everything stays exact on even sides as long as a stride of 2 comes with an even kernel.

Weights are standardised (Brock et al., ICLR 2021, "normalizer-free"): each filter has mean 0 and a learnt
norm, so that no batch statistics are needed in training, and what comes out for a patch never depends
on the others.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sish.slides.orientations import ORIENTATIONS

__all__ = ["GroupConv", "LiftingConv", "turned"]

RELU_GAIN = (2 / (1 - 1 / math.pi)) ** 0.5
"""What a ReLU takes from the spread of normal numbers, and the next filters give back."""

_LEAST_VARIANCE = 1e-4


def turned(images: Tensor, orientation: int) -> Tensor:
    """The last two axes in one of the eight orientations: mirrored or not, then turned."""
    mirrored = images.flip(-1) if orientation >= ORIENTATIONS // 2 else images
    return torch.rot90(mirrored, orientation % (ORIENTATIONS // 2), (-2, -1))


def _sources() -> Tensor:
    """Entry [a, g] is the orientation b that a turns into g; read off a square without symmetry."""
    square = torch.arange(9).reshape(3, 3)
    names = {tuple(turned(square, t).flatten().tolist()): t for t in range(ORIENTATIONS)}
    products = [
        [names[tuple(turned(turned(square, b), a).flatten().tolist())] for b in range(ORIENTATIONS)]
        for a in range(ORIENTATIONS)
    ]
    return torch.tensor([[row.index(g) for g in range(ORIENTATIONS)] for row in products])


_SOURCES = _sources()


class _OrientedConv(nn.Module):
    """What both kinds share: standardised weights, and the bank of filters that they become."""

    def __init__(self, shape: tuple[int, ...], stride: int, gain: float) -> None:
        super().__init__()
        # their scale does not matter to the filters, but to how far a step of the optimiser turns them
        self.weight = nn.Parameter(torch.randn(shape) * (2 / math.prod(shape[1:])) ** 0.5)
        self.gain = nn.Parameter(torch.full(shape[:1], gain))
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        self.stride, self.padding = stride, (shape[-1] - stride + 1) // 2
        self._bank: tuple[Tensor, Tensor] | None = None

    def train(self, mode: bool = True) -> "_OrientedConv":
        """Forget the bank: its weights may change."""
        self._bank = None
        return super().train(mode)

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve with the filters in all orientations."""
        bank, bias = self._bank or self._expanded()
        if not self.training and not torch.is_grad_enabled():
            self._bank = bank, bias  # made once, as long as the network is only used
        return functional.conv2d(maps, bank, bias, self.stride, self.padding)

    def bank(self) -> Tensor:
        """The ordinary weights, (8 D, channels, k, k)."""
        raise NotImplementedError

    def _expanded(self) -> tuple[Tensor, Tensor]:
        bank = self.bank().contiguous(memory_format=torch.channels_last)
        return bank, self.bias.repeat(ORIENTATIONS)

    def _standardised(self) -> Tensor:
        """The weights with mean 0 and norm `gain` a filter."""
        flat = self.weight.flatten(1)
        variance, mean = torch.var_mean(flat, 1, correction=0, keepdim=True)
        scale = self.gain[:, None] * torch.rsqrt(flat.shape[1] * variance + _LEAST_VARIANCE)
        return ((flat - mean) * scale).view_as(self.weight)


class LiftingConv(_OrientedConv):
    """From an image (N, C, H, W) to maps in eight orientations (N, 8 D, h, w), one filter for all eight."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int) -> None:
        """``channels`` C of the image, ``out`` D of each orientation; an even kernel for an even stride."""
        super().__init__((out, channels, kernel, kernel), stride, gain=1.0)

    def bank(self) -> Tensor:
        """The ordinary weights, (8 D, C, k, k)."""
        weight = self._standardised()
        return torch.cat([turned(weight, t) for t in range(ORIENTATIONS)])


class GroupConv(_OrientedConv):
    """From maps in eight orientations (N, 8 C, H, W) to maps in eight orientations (N, 8 D, h, w)."""

    def __init__(
        self, channels: int, out: int, kernel: int, stride: int = 1, gain: float = RELU_GAIN
    ) -> None:
        """``channels`` C and ``out`` D of each orientation; ``gain`` is that of the first step."""
        super().__init__((out, ORIENTATIONS * channels, kernel, kernel), stride, gain)

    def bank(self) -> Tensor:
        """The ordinary weights, (8 D, 8 C, k, k)."""
        weight = self._standardised().view(self.weight.shape[0], ORIENTATIONS, -1, *self.weight.shape[2:])
        banks = [turned(weight, a)[:, _SOURCES[a]] for a in range(ORIENTATIONS)]
        return torch.cat(banks).flatten(1, 2)
