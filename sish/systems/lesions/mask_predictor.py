"""The mask predictor: from a photograph of a lesion to its outline.

It is a small U-Net (Ronneberger et al. 2015), trained with the focal Tversky loss (Abraham & Khan 2018). In
Mehta, section 3.4, an R2U-Net predicts the masks. A plain U-Net of a few hundred thousand weights is enough
for pictures of this size, and trains in minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sish.errors import ParameterError, WeightsError, about_its_path
from sish.systems.network_file import MOST_PX, filled, fingerprint_of, read_stored, write_stored
from sish.systems.small_pictures import SizePx
from sish.vqvae.tensor_files import fitting_config

KIND = "sish-masks-1"
"""The kind of these networks in their files."""


def tversky_index(
    probabilities: Tensor, masks: Tensor, *, alpha: float = 0.7, beta: float = 0.3, smooth: float = 1.0
) -> Tensor:
    """Return (TP + s) / (TP + alpha FN + beta FP + s) of each picture.

    With alpha = beta = 0.5 and s = 0 it is the Dice coefficient.

    Parameters
    ----------
    probabilities : float (N, H, W)
        Predictions in [0, 1].
    masks : float (N, H, W)
        0 and 1.
    alpha, beta : float
        Weights of missed and of wrong pixels.
    smooth : float
        s: it makes the index 1 if mask and prediction are both empty.

    Returns
    -------
    float (N,)
        In [0, 1].

    Examples
    --------
    One pixel right, one missed, none wrong, with s = 0: 1 / (1 + 0.7).

    >>> inside, found = torch.tensor([[[1.0, 1.0, 0.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]])
    >>> round(float(tversky_index(found, inside, smooth=0)), 4)
    0.5882
    """
    hit = (probabilities * masks).sum((1, 2))
    missed = ((1 - probabilities) * masks).sum((1, 2))
    wrong = (probabilities * (1 - masks)).sum((1, 2))
    return (hit + smooth) / (hit + alpha * missed + beta * wrong + smooth)


def focal_tversky_loss(
    probabilities: Tensor, masks: Tensor, *, alpha: float = 0.7, beta: float = 0.3, gamma: float = 4 / 3
) -> Tensor:
    """Return the mean over pictures of (1 - TI) ** (1 / gamma) (Abraham & Khan 2018, equations 3 and 4).

    Parameters
    ----------
    probabilities : float (N, H, W)
        Predictions in [0, 1].
    masks : float (N, H, W)
        0 and 1.
    alpha, beta : float
        Weights of missed and of wrong pixels, as in the paper. A missed pixel costs more, since most of a
        picture is not lesion.
    gamma : float
        As in the paper: above 1, it raises the loss of pictures that are nearly right.

    Returns
    -------
    float ()
        The loss.

    Examples
    --------
    TI = (1 + 1) / (1 + 0.7 + 1) with s = 1: the loss is (0.7 / 2.7) ** 0.75.

    >>> inside, found = torch.tensor([[[1.0, 1.0, 0.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]])
    >>> round(float(focal_tversky_loss(found, inside)), 4) == round((0.7 / 2.7) ** 0.75, 4)
    True
    """
    # the slope of the root is infinite at 0: a perfect picture would turn the weights into NaN
    rest = (1 - tversky_index(probabilities, masks, alpha=alpha, beta=beta)).clamp_min(1e-6)
    return rest.pow(1 / gamma).mean()


def intersection_over_union(predicted: NDArray[np.bool_], given: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return |X and Y| / |X or Y| of pairs of masks.

    Parameters
    ----------
    predicted, given : bool (N, h, w)
        Masks.

    Returns
    -------
    float64 (N,)
        1 if both masks are empty.

    Examples
    --------
    >>> a = np.array([[[True, True, False]], [[False] * 3]])
    >>> intersection_over_union(a, np.array([[[False, True, True]], [[False] * 3]])).round(4).tolist()
    [0.3333, 1.0]
    """
    both = np.logical_and(predicted, given).sum((1, 2))
    either = np.logical_or(predicted, given).sum((1, 2))
    shares: NDArray[np.float64] = np.divide(both, either, out=np.ones(len(predicted)), where=either > 0)
    return shares


@dataclass(frozen=True)  # without slots: jsonargparse reads a default dataclass through vars()
class UNetConfig:
    """The configuration of the network."""

    name: str = "unet"
    """Name of the architecture; the first part of the fingerprint."""
    channels: tuple[int, ...] = (8, 16, 32, 64, 96)
    """Channels of each level, the finest first; the picture is halved between levels."""
    size_px: SizePx = (128, 96)
    """Width and height that pictures are resized to."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built (ParameterError)."""
        stride = 1 << (len(self.channels) - 1) if self.channels else 0
        if not self.channels or min(self.channels) < 1:
            raise ParameterError(f"channels are {self.channels}; give one level at least, of 1 or more")
        if len(self.size_px) != 2 or max(self.size_px) > MOST_PX:
            raise ParameterError(f"size_px is {self.size_px}; give width and height, at most {MOST_PX} each")
        if min(self.size_px) < stride or self.size_px[0] % stride or self.size_px[1] % stride:
            raise ParameterError(
                f"{self.size_px[0]} x {self.size_px[1]} px cannot be halved {len(self.channels) - 1} times;"
                f" give multiples of {stride}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"channels": list(self.channels), "size_px": list(self.size_px)}


class UNet(nn.Module):
    """Down through the levels and up again, each level joined with what it was on the way down."""

    def __init__(self, config: UNetConfig) -> None:
        """Build the network of ``config``."""
        super().__init__()
        self.config = config
        self.down = nn.ModuleList(_two_convolutions(a, b) for a, b in pairwise((3, *config.channels)))
        fine_to_coarse = list(pairwise(config.channels))
        self.up = nn.ModuleList(_two_convolutions(a + b, a) for a, b in reversed(fine_to_coarse))
        self.output = nn.Conv2d(config.channels[0], 1, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it

    def forward(self, images: Tensor) -> Tensor:
        """Images float (N, 3, H, W) in [-1, 1] to the probability of lesion, float (N, H, W)."""
        kept: list[Tensor] = []
        x = images.contiguous(memory_format=torch.channels_last)  # a third faster on processors
        for level, layer in enumerate(self.down):
            x = layer(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for layer, skipped in zip(self.up, reversed(kept[:-1]), strict=True):
            x = layer(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skipped], 1))
        probabilities: Tensor = self.output(x).sigmoid().squeeze(1)
        return probabilities


def _two_convolutions(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class MaskPredictor:
    """A trained `UNet` that no longer changes: from photographs to masks."""

    def __init__(self, network: UNet) -> None:
        """Freeze ``network``."""
        self._network = network.eval().requires_grad_(False)
        self.fingerprint = fingerprint_of(network, network.config.as_dict())

    @property
    def size_px(self) -> SizePx:
        """Width and height of the pictures that it reads."""
        return self._network.config.size_px

    @torch.inference_mode()
    def masks(self, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Predict the masks of photographs.

        Parameters
        ----------
        images : uint8 (N, h, w, 3)
            Photographs of its size.

        Returns
        -------
        bool (N, h, w)
            True where the probability of lesion is above 0.5; all false if it sees no lesion.

        Raises
        ------
        ParameterError
            If the photographs have another shape or dtype.
        """
        width, height = self.size_px
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3):
            raise ParameterError(
                f"wanted photographs as uint8 (N, {height}, {width}, 3), got {images.dtype} {images.shape}"
            )
        out = np.empty(images.shape[:3], np.bool_)
        for number, image in enumerate(images):
            pixels = torch.from_numpy(image[None].copy()).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
            out[number] = (self._network(pixels)[0] > 0.5).numpy()
        return out

    def save(self, path: Path, *, training: dict[str, Any] | None = None, inputs: Iterable[Path] = ()) -> str:
        """Write it as safetensors, with facts of its training.

        Parameters
        ----------
        path : Path
            The file to write.
        training : dict of str to object, optional
            Facts of its training, plain values.
        inputs : iterable of Path
            Files that must not be replaced.

        Returns
        -------
        str
            The fingerprint.
        """
        return write_stored(path, KIND, self._network, self._network.config.as_dict(), training or {}, inputs)


@about_its_path
def load_mask_predictor(path: str | Path) -> MaskPredictor:
    """Read a mask predictor from a weights file (.safetensors) or a checkpoint (.ckpt).

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    MaskPredictor
        The mask predictor, ready to be used; it no longer changes.

    Raises
    ------
    WeightsError
        If the file is missing, or is not of a mask predictor.

    Examples
    --------
    >>> import tempfile
    >>> made = MaskPredictor(UNet(UNetConfig(channels=(4, 8), size_px=(32, 24))))
    >>> path = Path(tempfile.mkdtemp(), "masks.safetensors")
    >>> made.save(path) == load_mask_predictor(path).fingerprint
    True
    >>> load_mask_predictor(path).masks(np.zeros((2, 24, 32, 3), np.uint8)).shape
    (2, 24, 32)
    """
    stored = read_stored(Path(path), KIND)
    values = fitting_config(stored.path, stored.config, vars(UNetConfig()))
    try:
        config = UNetConfig(**values)
    except (TypeError, ValueError, ParameterError) as error:
        raise WeightsError(f"{path}: its configuration does not fit this release ({error})") from error
    return MaskPredictor(filled(partial(UNet, config), stored))
