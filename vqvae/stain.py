"""Mild random changes of stain, as between scanners or laboratories.

Colours are separated into haematoxylin, eosin and DAB by the optical densities of Ruifrok and Johnston
(Anal Quant Cytol Histol 23, 2001). In each image, each stain is scaled and shifted a little; then the stains
are mixed again (the augmentation of Tellez et al., IEEE TMI 2018). It runs on batches, on the device where
they are; scikit-image's ``rgb2hed`` takes arrays on the processor.
"""

import torch
from torch import Tensor

RGB_FROM_HED = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
HED_FROM_RGB = torch.linalg.inv(RGB_FROM_HED)
_DARKEST = 1.0  # grey level added to all: the logarithm of 0 is infinite


def jitter_stain(images: Tensor, strength: float, generator: torch.Generator | None = None) -> Tensor:
    """Return images with slightly changed stains.

    Parameters
    ----------
    images : Tensor
        uint8 (N, H, W, 3).
    strength : float
        Each stain of each image is scaled by up to 1 +- this, and shifted by up to a tenth of this in units
        of optical density; 0 changes nothing.
    generator : torch.Generator, optional
        Source of randomness. Default: torch's global one.

    Returns
    -------
    Tensor
        uint8 (N, H, W, 3).

    Examples
    --------
    >>> white = torch.full((2, 8, 8, 3), 255, dtype=torch.uint8)
    >>> jitter_stain(white, 0.05).shape
    torch.Size([2, 8, 8, 3])
    """
    if strength == 0:
        return images
    factors = torch.rand((2, len(images), 1, 1, 3), generator=generator).mul_(2).sub_(1).mul_(strength)
    scale, shift = factors.to(images.device)
    density = -torch.log((images.float() + _DARKEST) / (255 + _DARKEST))
    stains = density @ HED_FROM_RGB.to(images.device)
    changed = (stains * (1 + scale) + 0.1 * shift) @ RGB_FROM_HED.to(images.device)
    return torch.exp(-changed).mul_(255 + _DARKEST).sub_(_DARKEST).round_().clamp_(0, 255).byte()
