"""Measuring the barcode's features on training patches, so that any checkpoint can be searched with."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch
from torch import Tensor

from sish.vqvae.model import VQVAE, to_unit
from sish.vqvae.module import VQVAEModule

if TYPE_CHECKING:
    from sish.vqvae.data import PatchData

__all__ = ["Calibrate", "calibrate"]


@torch.no_grad()
def calibrate(model: VQVAE, batches: Iterable[Tensor]) -> None:
    """Measure the feature statistics of ``model`` on batches of plain patches, uint8 (N, H, W, 3)."""
    device = model.quantizer.codebook.device
    raw = [model.pooled.raw(model.maps(to_unit(batch.to(device)))) for batch in batches]
    model.pooled.calibrate(torch.cat(raw))


class Calibrate(pl.Callback):
    """After each validation, and so before each checkpoint, measure the features on training patches."""

    def __init__(self, patches: int = 512) -> None:
        """Measure on so many patches.

        Args:
            patches: training patches to measure on; `export` can do it again on more of them.
        """
        self.patches = patches

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Calibrate, except in the sanity check and where no barcode features are made."""
        data: PatchData | None = getattr(trainer, "datamodule", None)
        if trainer.sanity_checking or data is None or not isinstance(pl_module, VQVAEModule):
            return
        if pl_module.vqvae.config.features == "pooled":
            calibrate(pl_module.vqvae, data.calibration_batches(self.patches))
