"""Statistics of the autoencoder's first filters that do not change when a patch is turned or mirrored.

Each filter is turned and mirrored into all eight orientations (see `sish.slides.orientations`), and so gives
eight responses at each position. Their mean, maximum and minimum are kept, each through the ReLU. Turning the
patch moves these numbers to other positions, and does not change them. They tell how dark or coloured a
position is, and whether it has a direction. Patches are first cropped, equally on both sides, to multiples of
8 px.

The filters see the patch at three scales, each half of the one before. Three statistics of each map are kept:
the mean, the deviation, and the deviation of its averages over squares, which tells how coarse a texture is.
The model card tells what else was tried. The autoencoder's second map, in all orientations, did not improve
retrieval.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from sish.errors import ParameterError
from sish.slides.orientations import ORIENTATIONS
from sish.vqvae.features import by_position
from sish.vqvae.p4m import turned

KEPT = (2, 3, 3)
"""How many of mean, maximum and minimum are kept at each scale. The minimum of the first scale would take a
sixth of the time, and improves retrieval by 0.006 at most (see the model card)."""
_STATISTICS = 3
SQUARE = 4
"""Positions on a side of a square; they span 8 px at the first scale and 32 px at the last."""
TINY = 1e-6  # keeps the root of a variance of 0 positive

_LEAST_SIDE = 1 << len(KEPT)
"""Least side of a patch in px, that is two at the last scale. Sides are cropped to multiples of it."""


def n_oriented_statistics(filters: int) -> int:
    """Return how many statistics `oriented_statistics` gives for a number of ``filters``."""
    return sum(KEPT) * _STATISTICS * filters


@torch.no_grad()
def oriented_statistics(convolution: nn.Conv2d, images: Tensor) -> Tensor:
    """Return the statistics of images, without gradients.

    Images are processed one at a time, as the responses take nine times the memory of the first map.

    Parameters
    ----------
    convolution : nn.Conv2d
        The encoder's first convolution, of C filters.
    images : Tensor
        float (N, 3, H, W) in [-1, 1].

    Returns
    -------
    Tensor
        float32 (N, 24 C): with the default network's 48 filters, (16, 3, 256, 256) gives (16, 1152).

    Raises
    ------
    ParameterError
        If a side is below 8 px.
    """
    if min(images.shape[-2:]) < _LEAST_SIDE:
        height, width = images.shape[-2:]
        raise ParameterError(
            f"got a patch of {width} x {height} px; its sides must be {_LEAST_SIDE} px or more"
        )
    bank, bias = bank_of(convolution)

    def responses(image: Tensor) -> Tensor:
        return functional.conv2d(image, bank, bias, convolution.stride, convolution.padding)

    rows = torch.empty((len(images), n_oriented_statistics(len(convolution.weight))), device=images.device)
    for row, image in zip(rows, _cropped(images), strict=True):
        row.copy_(torch.cat([_statistics(it) for it in _maps(image[None], responses)], 1)[0])
    return rows


def _maps(image: Tensor, responses: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Yield the maps (1, C, h, w) that are kept of an image (1, 3, H, W), scale by scale."""
    for scale, kept in enumerate(KEPT):
        if scale:
            image = functional.avg_pool2d(image, 2)
        yield from _over_orientations(responses(image), kept)


def _cropped(images: Tensor) -> Tensor:
    """Return the middle of images (N, 3, H, W), with sides that can be halved at each scale."""
    height, width = (side // _LEAST_SIDE * _LEAST_SIDE for side in images.shape[-2:])
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]


def bank_of(convolution: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Return filters (9 C, 3, k, k) and biases (9 C,): in each orientation, then the mean of the eight."""
    # the mean filter's response is the mean response: a convolution is faster than a mean of maps
    filters = torch.stack([turned(convolution.weight, t) for t in range(ORIENTATIONS)])
    bank = torch.cat([filters.flatten(0, 1), filters.mean(0)])
    bias = convolution.bias if convolution.bias is not None else bank.new_zeros(len(convolution.weight))
    return bank.contiguous(memory_format=torch.channels_last), bias.repeat(ORIENTATIONS + 1)


def _over_orientations(responses: Tensor, kept: int) -> list[Tensor]:
    """Return the first ``kept`` of mean, maximum and minimum (N, C, h, w) of responses (N, 9 C, h, w)."""
    positions = responses.permute(0, 2, 3, 1)  # as they lie in memory
    by_place = positions.reshape(*positions.shape[:3], ORIENTATIONS + 1, -1)
    each, mean = by_place[..., :ORIENTATIONS, :], by_place[..., ORIENTATIONS, :]
    chosen = [_halved(each, choose) for choose in (torch.maximum, torch.minimum)[: kept - 1]]
    return [functional.relu(it).permute(0, 3, 1, 2) for it in (mean, *chosen)]


def _halved(each: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the maxima or minima (N, h, w, C) of (N, h, w, 8, C); comparing halves is faster than amax."""
    while each.shape[-2] > 1:
        half = each.shape[-2] // 2
        each = choose(each[..., :half, :], each[..., half:, :])
    return each[..., 0, :]


def _statistics(maps: Tensor) -> Tensor:
    """Return mean, deviation, and deviation of averages over squares, (N, 3 C), of maps (N, C, h, w)."""
    # the maps are squared in place: allocating new ones would take longer than the squaring
    height, width = maps.shape[-2:]
    # if the sides do not divide, squares overlap by a position, so that both borders are treated alike
    squares = functional.adaptive_avg_pool2d(maps, (-(-height // SQUARE), -(-width // SQUARE)))
    mean = _mean(maps)
    variances = [_mean(it.square_()) - mean.square() for it in (maps, squares)]
    return torch.cat([mean, *[it.clamp_min_(0).add_(TINY).sqrt_() for it in variances]], 1)


def _mean(maps: Tensor) -> Tensor:
    """Return the mean over positions, float32 (N, C), of maps (N, C, h, w)."""
    return by_position(maps).mean(1)
