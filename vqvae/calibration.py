"""Measuring the barcode's features on training patches, so that any checkpoint can be searched with."""

from collections.abc import Iterable

import pytorch_lightning as pl
import torch
from torch import Tensor

from sish.vqvae.data import PatchData
from sish.vqvae.features import WhitenedFeatures
from sish.vqvae.model import VQVAE, to_unit
from sish.vqvae.module import VQVAEModule
from sish.vqvae.views import Views

__all__ = ["Calibrate", "calibrate"]

_VIEWS_SEED = 0
_ZOOM, _SHIFT_PX = 1.15, 4.0  # less than `contrast` trains with: most of what a patch shows stays in view


@torch.no_grad()
def calibrate(model: VQVAE, batches: Iterable[Tensor]) -> None:
    """Measure the feature statistics of ``model`` on batches of plain patches, uint8 (N, H, W, 3).

    Those that are whitened are also measured on two views of each patch, whose randomness is always the same.
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
        """Measure on so many patches.

        Args:
            patches: training patches to measure on; `export` can do it again on more of them.
        """
        self.patches = patches
        self._measured_at = -1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Calibrate, except in the sanity check."""
        if not trainer.sanity_checking:
            self._calibrate(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Calibrate where steps came after the last validation."""
        if trainer.global_step != self._measured_at:
            self._calibrate(trainer, pl_module)

    def _calibrate(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Except where no barcode features are made."""
        data: PatchData | None = getattr(trainer, "datamodule", None)
        if data is None or not isinstance(pl_module, VQVAEModule):
            return
        if pl_module.vqvae.config.features != "densenet121":
            calibrate(pl_module.vqvae, data.calibration_batches(self.patches))
            self._measured_at = trainer.global_step
