"""Mild changes of stain, as a scanner or another laboratory would make them.

Colours are separated into haematoxylin, eosin and DAB by the optical densities of Ruifrok and Johnston
(Anal Quant Cytol Histol 23, 2001); each stain is scaled and shifted by a little, per image, and mixed again
(the augmentation of Tellez et al., IEEE TMI 2018).
"""

import torch
from torch import Tensor

__all__ = ["HED_FROM_RGB", "RGB_FROM_HED", "jitter_stain"]

RGB_FROM_HED = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
HED_FROM_RGB = torch.linalg.inv(RGB_FROM_HED)
_DARKEST = 1.0  # grey levels; the logarithm of 0 is not a density


def jitter_stain(images: Tensor, strength: float, generator: torch.Generator | None = None) -> Tensor:
    """Images uint8 (N, H, W, 3) with each stain of each image scaled by up to 1 +- ``strength``.

    The shift is a tenth of that, in units of optical density. Randomness is torch's global one where no
    ``generator`` is given. ``strength`` 0 gives the images back.
    """
    if strength == 0:
        return images
    factors = torch.rand((2, len(images), 1, 1, 3), generator=generator).mul_(2).sub_(1).mul_(strength)
    scale, shift = factors.to(images.device)
    density = -torch.log((images.float() + _DARKEST) / (255 + _DARKEST))
    stains = density @ HED_FROM_RGB.to(images.device)
    changed = (stains * (1 + scale) + 0.1 * shift) @ RGB_FROM_HED.to(images.device)
    return torch.exp(-changed).mul_(255 + _DARKEST).sub_(_DARKEST).round_().clamp_(0, 255).byte()
