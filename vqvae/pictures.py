"""Pictures of what the network does: reconstructions, codes as colours, training curves."""

import csv
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sish.vqvae.model import VQVAE, from_unit
from sish.vqvae.module import VQVAEModule

__all__ = ["SavePictures", "code_colors", "draw_curves", "draw_reconstructions"]

Pixels = NDArray[np.uint8]

_GAP_PX = 2


def code_colors(codebook: NDArray[np.float32]) -> Pixels:
    """A colour for each code, uint8 (K, 3): the ranks along the first three principal axes of (K, D).

    Near codewords get near colours.
    """
    centred = codebook - codebook.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:3]
    ranks = (centred @ axes.T).argsort(0).argsort(0)
    colors = np.full((len(codebook), 3), 128, np.uint8)
    colors[:, : ranks.shape[1]] = np.round(255 * ranks / max(1, len(codebook) - 1))
    return colors


@torch.no_grad()
def draw_reconstructions(model: VQVAE, images: Tensor) -> Pixels:
    """Three rows: inputs float (N, 3, H, W) in [-1, 1], their reconstructions, their codes as colours.

    The model is in evaluation mode.
    """
    out = model(images)
    colors = code_colors(model.quantizer.codebook.detach().float().cpu().numpy())
    codes = colors[out.quantized.codes.cpu().numpy()]
    stride = model.config.stride
    rows = [
        from_unit(images).cpu().numpy(),
        from_unit(out.reconstruction).cpu().numpy(),
        codes.repeat(stride, 1).repeat(stride, 2),
    ]
    count, height, width, _ = rows[0].shape
    sheet = np.full((3 * (height + _GAP_PX) - _GAP_PX, count * (width + _GAP_PX) - _GAP_PX, 3), 255, np.uint8)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            y, x = row * (height + _GAP_PX), column * (width + _GAP_PX)
            sheet[y : y + height, x : x + width] = tile
    return sheet


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw the curves of a ``metrics.csv`` as CSVLogger writes it: MSE, commitment, perplexity, codes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    names = ("mse", "commitment", "perplexity", "codes_in_use")
    for number, name in enumerate(names):
        axes = figure.add_subplot(2, 2, number + 1)
        lowest = 1.0
        for stage in ("train", "valid"):
            points = [(int(r["step"]), float(r[f"{stage}/{name}"])) for r in rows if r.get(f"{stage}/{name}")]
            if points:
                axes.plot(*np.asarray(points).T, label=stage, linewidth=1)
                lowest = min(lowest, *(value for _, value in points))
        axes.set(title=name.replace("_", " "), xlabel="step")
        if number < 2 and lowest > 0:
            axes.set_yscale("log")
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.savefig(picture, dpi=80)


class SavePictures(pl.Callback):
    """After each validation, draw its first patches with reconstructions and codes; at the end the curves."""

    def __init__(self, patches: int = 10) -> None:
        """Show so many patches.

        Args:
            patches: validation patches in a picture.
        """
        self.patches = patches
        self._shown: Tensor | None = None

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Tensor,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first patches."""
        if batch_idx == 0:
            self._shown = batch[: self.patches]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write ``pictures/step_NNNNNNNN.png`` in the folder of the run's logs."""
        log_dir = trainer.log_dir  # every rank must ask: the answer is broadcast
        if trainer.sanity_checking or log_dir is None or not trainer.is_global_zero:
            return
        if self._shown is None or not isinstance(pl_module, VQVAEModule):
            return
        folder = Path(log_dir, "pictures")
        folder.mkdir(parents=True, exist_ok=True)
        sheet = draw_reconstructions(pl_module.vqvae, self._shown)
        Image.fromarray(sheet).save(folder / f"step_{trainer.global_step:08d}.png", optimize=True)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write ``pictures/curves.png``."""
        log_dir = trainer.log_dir  # every rank must ask: the answer is broadcast
        if log_dir is None or not trainer.is_global_zero:
            return
        if trainer.logger is not None:
            trainer.logger.save()
        metrics = Path(log_dir, "metrics.csv")
        if metrics.is_file():
            (metrics.parent / "pictures").mkdir(exist_ok=True)
            draw_curves(metrics, metrics.parent / "pictures" / "curves.png")
