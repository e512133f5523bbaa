"""Convolutions that know quarter turns and mirrorings: the group p4m (Cohen and Welling, ICML 2016).

A slide has no up and no left: a patch in any of its eight orientations is the same tissue. Here a feature map
has a copy for each orientation, and one set of weights makes all eight (as Veeling et al., MICCAI 2018, for
PatchCamelyon). Turning the input permutes the copies, so a mean over positions and copies does not change.
The computation is an ordinary convolution with eight times the channels, whose filters are made from few
weights.

Maps hold one orientation after another: (N, 8 C, H, W) has C channels of orientation 0, then C of
orientation 1, and so on, in the order of `sish.slides.orientations`. Turning is exact on even sides, if a
stride of 2 has an even kernel.

Weights are standardised (Brock et al., ICLR 2021, "normalizer-free"): each filter has mean 0 and a learnt
norm. So training needs no batch statistics, and the result for a patch never depends on other patches.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sish.slides.orientations import ORIENTATIONS

RELU_GAIN = (2 / (1 - 1 / math.pi)) ** 0.5
"""Factor by which a ReLU shrinks the deviation of normal numbers; the next filters make up for it."""

_LEAST_VARIANCE = 1e-4


def turned(images: Tensor, orientation: int) -> Tensor:
    """Return maps (..., H, W) in one of the eight orientations of `sish.slides.orientations`."""
    mirrored = images.flip(-1) if orientation >= ORIENTATIONS // 2 else images
    return torch.rot90(mirrored, orientation % (ORIENTATIONS // 2), (-2, -1))


def _sources() -> Tensor:
    """Return int64 (8, 8): entry [a, g] is the orientation b that a turns into g."""
    square = torch.arange(9).reshape(3, 3)  # without symmetry: its eight orientations differ
    names = {tuple(turned(square, t).flatten().tolist()): t for t in range(ORIENTATIONS)}
    products = [
        [names[tuple(turned(turned(square, b), a).flatten().tolist())] for b in range(ORIENTATIONS)]
        for a in range(ORIENTATIONS)
    ]
    return torch.tensor([[row.index(g) for g in range(ORIENTATIONS)] for row in products])


_SOURCES = _sources()


class _OrientedConv(nn.Module):
    """The common part of both layers: standardised weights, and the bank of filters made of them."""

    def __init__(self, shape: tuple[int, ...], stride: int, gain: float) -> None:
        super().__init__()
        # the filters do not depend on the weights' scale, but the effect of an optimiser's step does
        self.weight = nn.Parameter(torch.randn(shape) * (2 / math.prod(shape[1:])) ** 0.5)
        self.gain = nn.Parameter(torch.full(shape[:1], gain))
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        self.stride, self.padding = stride, (shape[-1] - stride + 1) // 2
        self._bank: tuple[Tensor, Tensor] | None = None

    def train(self, mode: bool = True) -> "_OrientedConv":
        """Forget the bank, as weights may change, and return the layer."""
        self._bank = None
        return super().train(mode)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, 8 D, h, w): ``maps`` convolved with the filters in all orientations."""
        bank, bias = self._bank or self._expanded()
        if not self.training and not torch.is_grad_enabled():
            self._bank = bank, bias  # made once while weights do not change
        return functional.conv2d(maps, bank, bias, self.stride, self.padding)

    def bank(self) -> Tensor:
        """Return the filters of an ordinary convolution, (8 D, channels, k, k)."""
        raise NotImplementedError

    def _expanded(self) -> tuple[Tensor, Tensor]:
        bank = self.bank().contiguous(memory_format=torch.channels_last)
        return bank, self.bias.repeat(ORIENTATIONS)

    def _standardised(self) -> Tensor:
        """Return the weights with mean 0 and norm `gain` for each filter."""
        flat = self.weight.flatten(1)
        variance, mean = torch.var_mean(flat, 1, correction=0, keepdim=True)
        scale = self.gain[:, None] * torch.rsqrt(flat.shape[1] * variance + _LEAST_VARIANCE)
        return ((flat - mean) * scale).view_as(self.weight)


class LiftingConv(_OrientedConv):
    """A convolution from an image (N, C, H, W) to maps in eight orientations (N, 8 D, h, w).

    Examples
    --------
    >>> layer = LiftingConv(3, 4, kernel=6, stride=2)
    >>> maps = layer(torch.zeros(1, 3, 48, 48))
    >>> maps.shape, layer.weight.shape
    (torch.Size([1, 32, 24, 24]), torch.Size([4, 3, 6, 6]))
    """

    def __init__(self, channels: int, out: int, kernel: int, stride: int) -> None:
        """Make random weights.

        Parameters
        ----------
        channels : int
            Channels C of the image.
        out : int
            Channels D of each orientation.
        kernel, stride : int
            Side of the filters and step between positions; an even stride needs an even kernel.
        """
        super().__init__((out, channels, kernel, kernel), stride, gain=1.0)

    def bank(self) -> Tensor:
        """Return the filters of an ordinary convolution, (8 D, C, k, k)."""
        weight = self._standardised()
        return torch.cat([turned(weight, t) for t in range(ORIENTATIONS)])


class GroupConv(_OrientedConv):
    """A convolution from maps in eight orientations (N, 8 C, H, W) to others (N, 8 D, h, w).

    Examples
    --------
    >>> GroupConv(4, 8, kernel=4, stride=2)(torch.zeros(1, 32, 24, 24)).shape
    torch.Size([1, 64, 12, 12])
    """

    def __init__(
        self, channels: int, out: int, kernel: int, stride: int = 1, gain: float = RELU_GAIN
    ) -> None:
        """Make random weights.

        Parameters
        ----------
        channels, out : int
            Channels C and D of each orientation.
        kernel, stride : int
            Side of the filters and step between positions; an even stride needs an even kernel.
        gain : float
            Norm of each filter before training.
        """
        super().__init__((out, ORIENTATIONS * channels, kernel, kernel), stride, gain)

    def bank(self) -> Tensor:
        """Return the filters of an ordinary convolution, (8 D, 8 C, k, k)."""
        weight = self._standardised().view(self.weight.shape[0], ORIENTATIONS, -1, *self.weight.shape[2:])
        banks = [turned(weight, a)[:, _SOURCES[a]] for a in range(ORIENTATIONS)]
        return torch.cat(banks).flatten(1, 2)
