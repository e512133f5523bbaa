"""Measuring the barcode's features on training patches: before that, a network cannot be searched with."""

from collections.abc import Iterable

import pytorch_lightning as pl
import torch
from torch import Tensor

from sish.vqvae.data import PatchData
from sish.vqvae.features import WhitenedFeatures
from sish.vqvae.model import VQVAE, to_unit
from sish.vqvae.module import VQVAEModule
from sish.vqvae.views import Views

_VIEWS_SEED = 0
_ZOOM, _SHIFT_PX = 1.15, 4.0  # less than `contrast` trains with: both views show most of the patch


@torch.no_grad()
def calibrate(model: VQVAE, batches: Iterable[Tensor]) -> None:
    """Measure the feature statistics of a network on training patches, and keep them in it.

    Whitened features are also measured on two views of each patch. The views are the same in every call.

    Parameters
    ----------
    model : VQVAE
        The network, trained. Its `head` is changed.
    batches : iterable of Tensor
        Patches without augmentation, uint8 (N, H, W, 3), H and W multiples of the stride; at least 2 in all.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = VQVAE()
    >>> model.head.calibrated
    False
    >>> calibrate(model, [torch.randint(256, (4, 64, 64, 3), dtype=torch.uint8)])
    >>> model.head.calibrated
    True
    """
    device = model.quantizer.codebook.device
    raw, changes = [], []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_VIEWS_SEED)
        for batch in batches:
            images = to_unit(batch.to(device))
            raw.append(model.raw_features(images))
            if isinstance(model.head, WhitenedFeatures):
                views = Views(images.shape[-1], zoom=_ZOOM, shift_px=_SHIFT_PX)
                changes.append(
                    model.raw_features(views.draw(images)) - model.raw_features(views.draw(images))
                )
    model.head.calibrate(torch.cat(raw), torch.cat(changes) if changes else None)


class Calibrate(pl.Callback):
    """Measure the features on training patches after each validation and at the end."""

    def __init__(self, patches: int = 512) -> None:
        """Set how many patches to measure on.

        Parameters
        ----------
        patches : int
            training patches to measure on; `export` can do it again on more of them.
        """
        self.patches = patches
        self._measured_at = -1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Calibrate, except in the sanity check."""
        if not trainer.sanity_checking:
            self._calibrate(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Calibrate if steps came after the last validation."""
        if trainer.global_step != self._measured_at:
            self._calibrate(trainer, pl_module)

    def _calibrate(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Calibrate, except a network whose barcode features come from DenseNet121."""
        data: PatchData | None = getattr(trainer, "datamodule", None)
        if data is None or not isinstance(pl_module, VQVAEModule):
            return
        if pl_module.vqvae.config.features != "densenet121":
            calibrate(pl_module.vqvae, data.calibration_batches(self.patches))
            self._measured_at = trainer.global_step
