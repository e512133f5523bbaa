"""Views of a patch: the same tissue, slightly moved, as another scanner or laboratory would show it.

Views differ in place, angle and scale, in stain (haematoxylin, eosin and DAB are scaled and shifted, see
`sish.vqvae.stain`), in the strength of the staining, and in sharpness.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sish.errors import ParameterError
from sish.vqvae.stain import HED_FROM_RGB, RGB_FROM_HED


@dataclass(frozen=True)  # without slots: jsonargparse reads a default dataclass through vars()
class Views:
    """How views are drawn from a patch, at random.

    Examples
    --------
    >>> Views(size_px=48).draw(torch.zeros(16, 3, 96, 96)).shape
    torch.Size([16, 3, 48, 48])
    """

    size_px: int = 48
    """Side of a view, a multiple of the network's stride."""
    zoom: float = 1.35
    """A view has 1 / zoom to zoom times the scale of the patch."""
    shift_px: float = 10.0
    """The centre of a view lies up to this far from that of the patch, in x and in y."""
    stain: float = 0.2
    """Each stain is scaled by up to 1 +- this."""
    stain_shift: float = 0.04
    """Each stain is shifted by up to this, in units of optical density."""
    strength: float = 0.15
    """The optical density of all stains together is scaled by up to exp(+- this)."""
    blur: float = 0.2
    """Share of views that are blurred."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range (ParameterError)."""
        numbers = (self.shift_px, self.stain, self.stain_shift, self.strength)
        if self.size_px < 8 or self.zoom < 1 or min(numbers) < 0 or not 0 <= self.blur <= 1:
            raise ParameterError(f"views need size_px >= 8, zoom >= 1, a share of blur, got {self}")

    def draw(self, images: Tensor) -> Tensor:
        """Return a view (N, 3, size, size) of each of the images float (N, 3, H, W), all in [-1, 1]."""
        with torch.autocast(
            images.device.type, enabled=False
        ):  # coordinates in bfloat16 are half a pixel off
            return self._drawn(images)

    def _drawn(self, images: Tensor) -> Tensor:
        pixels = functional.grid_sample(
            images, self._grid(images), padding_mode="reflection", align_corners=False
        )
        density = self._stained(-torch.log((pixels.float() + 1).clamp_(0, 2).mul_(0.5).add_(1 / 256)))
        views = torch.exp(-density).clamp_(0, 1).mul_(2).sub_(1)
        chosen = torch.rand(len(views), device=views.device) < self.blur
        views[chosen] = _blurred(views[chosen])
        return views.contiguous(memory_format=torch.channels_last)

    def _grid(self, images: Tensor) -> Tensor:
        """Return where the pixels of the views lie, float (N, size, size, 2), for `grid_sample`."""
        count, side = len(images), images.shape[-1]
        angle = torch.rand(count) * 2 * math.pi
        zoom = math.log(self.zoom)
        half = torch.empty(count).uniform_(-zoom, zoom).exp_() * self.size_px / side
        shift = torch.empty(count, 2).uniform_(-1, 1) * (2 * self.shift_px / side)
        cosine, sine = half * torch.cos(angle), half * torch.sin(angle)
        rows = [torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1)]
        shape = [count, 3, self.size_px, self.size_px]
        return functional.affine_grid(torch.stack(rows, 1), shape, align_corners=False).to(images.device)

    def _stained(self, density: Tensor) -> Tensor:
        """Return optical densities (N, 3, h, w) in other stains, by one 3 x 3 matrix for each image."""
        count = len(density)
        scale = 1 + torch.empty(count, 3).uniform_(-1, 1) * self.stain
        shift = torch.empty(count, 3).uniform_(-1, 1) * self.stain_shift
        strength = torch.empty(count, 1, 1).uniform_(-self.strength, self.strength).exp_()
        mixing = torch.einsum("ij,nj,jk->nki", HED_FROM_RGB, scale, RGB_FROM_HED) * strength
        moved = ((shift @ RGB_FROM_HED) * strength[:, 0])[..., None]
        changed = mixing.to(density.device) @ density.flatten(2) + moved.to(density.device)
        return changed.view_as(density)


def _blurred(images: Tensor) -> Tensor:
    """Return images (N, 3, h, w), each pixel blended with the mean of its 3 x 3 neighbourhood."""
    padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
    return 0.7 * functional.avg_pool2d(padded, 3, stride=1) + 0.3 * images
