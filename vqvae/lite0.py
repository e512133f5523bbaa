"""EfficientNet-lite0, a small network of photographs, as a source of statistics of a patch.

The network is Google's (Apache-2.0; after Tan and Le, ICML 2019), trained on ImageNet. Its last convolution
and its classifier are left out, and batch normalisation is part of the convolutions. ReLU6 and padding are
those of the original: TensorFlow's ``SAME``, which pads an even side below and to the right.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from sish.vqvae.stages import FIRST_KEPT, STAGES, Stage

_STEM = 32
_TINY = 1e-6  # keeps the root of a variance of 0 positive


class _Convolution(nn.Conv2d):
    """A convolution that pads even sides as TensorFlow does: with stride 2, a pixel more below and right.

    With stride 2 its filters have a first row and column of zeros, so that the usual padding does the same.
    """

    def __init__(self, inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inner, outer, kernel + stride - 1, stride, kernel // 2, groups=groups)


class _Block(nn.Module):
    """An inverted residual block: expand, filter each channel, project."""

    def __init__(self, inner: int, stage: Stage, stride: int) -> None:
        super().__init__()
        wide = inner * stage.expansion
        self.expand = _Convolution(inner, wide, 1) if stage.expansion > 1 else nn.Identity()
        self.depthwise = _Convolution(wide, wide, stage.kernel, stride, groups=wide)
        self.project = _Convolution(wide, stage.channels, 1)
        self._expands = stage.expansion > 1
        self._adds = stride == 1 and inner == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of ``stage.channels``."""
        wide = functional.relu6(self.expand(x)) if self._expands else x
        out: Tensor = self.project(functional.relu6(self.depthwise(wide)))
        return out + x if self._adds else out


class Lite0(nn.Module):
    """The network up to its last stage.

    Examples
    --------
    >>> network = Lite0()
    >>> network(torch.zeros(2, 64, 96, 3)).shape
    torch.Size([2, 1536])
    """

    def __init__(self) -> None:
        """Make random weights."""
        super().__init__()
        self.stem = _Convolution(3, _STEM, 3, 2)
        inner, stages = _STEM, []
        for stage in STAGES:
            strides = [stage.stride] + [1] * (stage.blocks - 1)
            inputs = [inner] + [stage.channels] * (stage.blocks - 1)
            stages.append(nn.Sequential(*[_Block(a, stage, s) for a, s in zip(inputs, strides, strict=True)]))
            inner = stage.channels
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean and the deviation of each channel of the outputs of stages 2 to 7.

        Parameters
        ----------
        images : Tensor
            float (N, H, W, 3), grey levels 0 to 255, H and W multiples of 32.

        Returns
        -------
        Tensor
            float32 (N, 1536): the stages one after another, of each the means and then the deviations.
        """
        x = (images.permute(0, 3, 1, 2) - 127) / 128
        x = functional.relu6(self.stem(x))
        kept: list[Tensor] = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number >= FIRST_KEPT:
                kept += _mean_and_deviation(x)
        return torch.cat(kept, 1)


def _mean_and_deviation(maps: Tensor) -> list[Tensor]:
    mean = maps.mean((2, 3))
    variance = (maps - mean[:, :, None, None]).square().mean((2, 3))
    return [mean, (variance + _TINY).sqrt()]


def from_published(state: Mapping[str, Tensor]) -> Lite0:
    """Return the network with published weights, in the names of ``efficientnet_lite_pytorch``.

    Parameters
    ----------
    state : mapping of str to Tensor
        The published weights.

    Returns
    -------
    Lite0
        The network, with batch normalisation folded into its convolutions.
    """
    network = Lite0().eval()
    _fold(network.stem, state, "_conv_stem", "_bn0")
    blocks = [module for module in network.modules() if isinstance(module, _Block)]
    for number, block in enumerate(blocks):
        at = f"_blocks.{number}."
        if isinstance(block.expand, nn.Conv2d):
            _fold(block.expand, state, f"{at}_expand_conv", f"{at}_bn0")
        _fold(block.depthwise, state, f"{at}_depthwise_conv", f"{at}_bn1")
        _fold(block.project, state, f"{at}_project_conv", f"{at}_bn2")
    return network


_EPSILON = 1e-3  # of the published batch normalisation


@torch.no_grad()
def _fold(layer: nn.Conv2d, state: Mapping[str, Tensor], convolution: str, norm: str) -> None:
    """Set a convolution to a published one with its batch normalisation."""
    weight, gamma, beta, mean, variance = (
        state[name].double()
        for name in (
            f"{convolution}.weight",
            *[f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")],
        )
    )
    scale = gamma / (variance + _EPSILON).sqrt()
    zeros = layer.stride[0] - 1
    layer.weight.copy_(functional.pad(weight * scale[:, None, None, None], (zeros, 0, zeros, 0)))
    assert layer.bias is not None
    layer.bias.copy_(beta - mean * scale)
