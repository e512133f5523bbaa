"""Self-supervised training of the texture network: two views of a patch become near, of two patches far.

The loss is NT-Xent (Chen et al., ICML 2020, "SimCLR", equation 1). Labels are never read.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sish.errors import ParameterError
from sish.vqvae.model import VQVAE, VQVAEConfig
from sish.vqvae.module import VQVAEModule
from sish.vqvae.pretrained import read_model, shipped_model
from sish.vqvae.views import Views


def contrast_loss(left: Tensor, right: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the NT-Xent loss of two views of each patch (Chen et al., ICML 2020, equation 1).

    Parameters
    ----------
    left, right : Tensor
        Embeddings of the first and of the second views, float (N, D) each. With N = 1 the loss is 0.
    temperature : float
        Divides the cosine similarities.

    Returns
    -------
    Tensor
        Scalar: the loss.
    Tensor
        Scalar: the share of views whose nearest neighbour among all 2 N is the other view of their patch.

    Examples
    --------
    >>> one, other = torch.eye(4), torch.eye(4)
    >>> loss, found = contrast_loss(one, other, 0.05)
    >>> round(float(loss), 3), float(found)
    (0.0, 1.0)
    """
    both = functional.normalize(torch.cat([left, right]).float(), dim=1)
    with torch.autocast(both.device.type, enabled=False):
        similarity = both @ both.T / temperature
    similarity = similarity.masked_fill(torch.eye(len(both), dtype=torch.bool, device=both.device), -1e9)
    partner = torch.arange(len(both), device=both.device).roll(len(left))
    found = (similarity.argmax(1) == partner).float().mean()
    return functional.cross_entropy(similarity, partner), found


class ContrastModule(VQVAEModule):
    """A texture network in training, beside a trained autoencoder that does not change.

    Logged for ``train`` and ``valid``: ``contrast`` (the loss) and ``found`` (the share of views whose
    nearest neighbour in the batch is the other view of their patch).
    """

    def __init__(
        self,
        weights: Path | None = None,
        texture_channels: tuple[int, ...] = (4, 8, 16),
        texture_blocks: tuple[int, ...] = (0, 1, 2),
        views: Views = Views(),  # noqa: B008  # frozen, so sharing the default is safe
        temperature: float = 0.2,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
    ) -> None:
        """Build a texture network beside an autoencoder, and set how it is trained.

        Parameters
        ----------
        weights : Path, optional
            the autoencoder (.safetensors or .ckpt); without it, the shipped one.
        texture_channels : tuple of int
            channels of each stage of the network.
        texture_blocks : tuple of int
            residual blocks of each stage.
        views : Views
            how two views of a patch are made.
        temperature : float
            temperature of the loss; the smaller, the more the nearest of the other patches count.
        learning_rate : float
            highest learning rate of AdamW; it falls to 0 along a cosine.
        weight_decay : float
            weight decay of AdamW.

        Raises
        ------
        ParameterError
            If the temperature is not positive.
        """
        if temperature <= 0:
            raise ParameterError(f"temperature must be positive, got {temperature}")
        base = _autoencoder(weights)
        shape = {"texture_channels": texture_channels, "texture_blocks": texture_blocks}
        config = VQVAEConfig.from_dict(base.config.as_dict() | {"features": "texture"} | shape)
        super().__init__(config, learning_rate, warmup_steps=50, weight_decay=weight_decay)
        self.vqvae.requires_grad_(False)
        self.vqvae.load_state_dict(base.autoencoder(), strict=False)
        self.vqvae.texture.net.requires_grad_(True)
        self.views, self.temperature = views, temperature
        width = self.vqvae.texture.net.out
        self.head = nn.Sequential(
            nn.Linear(width, 4 * width), nn.BatchNorm1d(4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of a batch of patches, float (N, 3, H, W) in [-1, 1]."""
        return self._contrast("train", batch, on_step=True)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Log the loss of a batch of held-out patches, float (N, 3, H, W) in [-1, 1]."""
        self._contrast("valid", batch, on_step=False, batch_size=len(batch), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Do nothing: the codes do not change, so none are counted."""

    def _contrast(self, stage: str, batch: Tensor, **how: Any) -> Tensor:
        pairs = torch.cat([self.views.draw(batch), self.views.draw(batch)])
        embedded = self.head(self.vqvae.texture.net(pairs))
        left, right = embedded.chunk(2)
        loss, found = contrast_loss(left, right, self.temperature)
        self.log_dict({f"{stage}/contrast": loss, f"{stage}/found": found}, **how)
        return loss


def _autoencoder(weights: Path | None) -> VQVAE:
    return shipped_model() if weights is None else read_model(weights)[0]
