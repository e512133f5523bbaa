"""Statistics of what the autoencoder's first filters answer, which do not depend on how a patch lies.

Each filter is turned and mirrored into all eight orientations (see `sish.vqvae.p4m`). Of its eight answers
at a position the mean, the greatest and the least are kept, each through the ReLU: turning the patch moves
them about and changes nothing else. They tell how dark or coloured a place is, and whether it has a
direction. Patches are first cropped, on both sides alike, to multiples of 8 px.

This is done at three scales of the patch, each half of the one before. Of every map there are the mean, the
deviation, and the deviation of its averages over squares, which tells how coarse a texture is. What else was
tried is in the model card; the autoencoder's second map, in all orientations, made retrieval no better.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from sish.errors import ParameterError
from sish.slides.orientations import ORIENTATIONS
from sish.vqvae.p4m import turned

__all__ = ["n_oriented_statistics", "oriented_statistics"]

_ANSWERS = (2, 3, 3)
"""How many of the mean, the greatest and the least answer are kept of each scale: at the first one the least
would take a sixth of all the time, and makes retrieval better by 0.006 at most (see the model card)."""
_STATISTICS = 3
_SQUARE = 4
"""Positions on a side of a square: 8 px at the first scale, 32 px at the last."""
_TINY = 1e-6  # below this a variance is rounding

_LEAST_SIDE = 1 << len(_ANSWERS)
"""Least side of a patch in px: two at the last scale. Sides are cropped to multiples of it."""


def n_oriented_statistics(filters: int) -> int:
    """How many statistics `oriented_statistics` gives for so many ``filters``."""
    return sum(_ANSWERS) * _STATISTICS * filters


@torch.no_grad()
def oriented_statistics(convolution: nn.Conv2d, images: Tensor) -> Tensor:
    """Statistics float32 (N, `n_oriented_statistics`) of images (N, 3, H, W) in [-1, 1], without gradients.

    ``convolution`` is the encoder's first. A side below 8 px is a ParameterError. Patches go through one at a
    time: what the filters answer takes nine times the memory of the first map.
    """
    if min(images.shape[-2:]) < _LEAST_SIDE:
        height, width = images.shape[-2:]
        raise ParameterError(
            f"got a patch of {width} x {height} px; its sides must be {_LEAST_SIDE} px or more"
        )
    bank, bias = _bank(convolution)

    def answers(image: Tensor) -> Tensor:
        return functional.conv2d(image, bank, bias, convolution.stride, convolution.padding)

    rows = torch.empty((len(images), n_oriented_statistics(len(convolution.weight))), device=images.device)
    for row, image in zip(rows, _cropped(images), strict=True):
        row.copy_(torch.cat([_statistics(it) for it in _maps(image[None], answers)], 1)[0])
    return rows


def _maps(image: Tensor, answers: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """The maps (1, C, h, w) that are kept of one image (1, 3, H, W), scale by scale."""
    for scale, kept in enumerate(_ANSWERS):
        if scale:
            image = functional.avg_pool2d(image, 2)
        yield from _of_orientations(answers(image), kept)


def _cropped(images: Tensor) -> Tensor:
    """The middle of images (N, 3, H, W), of sides that halve at every scale."""
    height, width = (side // _LEAST_SIDE * _LEAST_SIDE for side in images.shape[-2:])
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]


def _bank(convolution: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Filters (9 C, 3, k, k) and biases (9 C,): all in each orientation, and the mean of the eight.

    The mean's answer is the mean of the answers, and costs less as a filter of its own.
    """
    filters = torch.stack([turned(convolution.weight, t) for t in range(ORIENTATIONS)])
    bank = torch.cat([filters.flatten(0, 1), filters.mean(0)])
    bias = convolution.bias if convolution.bias is not None else bank.new_zeros(len(convolution.weight))
    return bank.contiguous(memory_format=torch.channels_last), bias.repeat(ORIENTATIONS + 1)


def _of_orientations(answers: Tensor, kept: int) -> list[Tensor]:
    """Of answers (N, 9 C, h, w): the mean, greatest and least over orientations, the first ``kept`` of them.

    Each (N, C, h, w), through the ReLU.
    """
    positions = answers.permute(0, 2, 3, 1)  # as they lie in memory
    by_place = positions.reshape(*positions.shape[:3], ORIENTATIONS + 1, -1)
    each, mean = by_place[..., :ORIENTATIONS, :], by_place[..., ORIENTATIONS, :]
    chosen = [_halved(each, choose) for choose in (torch.maximum, torch.minimum)[: kept - 1]]
    return [functional.relu(it).permute(0, 3, 1, 2) for it in (mean, *chosen)]


def _halved(each: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The chosen one of answers (N, h, w, 8, C), (N, h, w, C): half against half is faster than amax."""
    while each.shape[-2] > 1:
        half = each.shape[-2] // 2
        each = choose(each[..., :half, :], each[..., half:, :])
    return each[..., 0, :]


def _statistics(maps: Tensor) -> Tensor:
    """Of maps (N, C, h, w): mean, deviation, and deviation of the averages over squares, (N, 3 C).

    The maps are squared where they lie: new memory for them would cost more than the squaring.
    """
    height, width = maps.shape[-2:]
    # squares overlap by a position where the sides do not divide, so that none is cut on one side only
    squares = functional.adaptive_avg_pool2d(maps, (-(-height // _SQUARE), -(-width // _SQUARE)))
    mean = _mean(maps)
    variances = [_mean(it.square_()) - mean.square() for it in (maps, squares)]
    return torch.cat([mean, *[it.clamp_min_(0).add_(_TINY).sqrt_() for it in variances]], 1)


def _mean(maps: Tensor) -> Tensor:
    """Of maps (N, C, h, w) over positions, float32 (N, C)."""
    return maps.float().permute(0, 2, 3, 1).flatten(1, 2).mean(1)  # as they lie in memory: sums are faster
