"""Pictures of a training run: reconstructions, codes as colours, nearest neighbours, curves."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from sish.outputs import write_output
from sish.slides.formats.levels import Pixels
from sish.vqvae.data import PatchData
from sish.vqvae.model import VQVAE, from_unit, to_unit
from sish.vqvae.module import VQVAEModule

_GAP_PX = 2
_PICTURES = (".png",)
_STAGES = ("train", "valid")
_ON_A_LOG_SCALE = ("mse", "commitment")


def code_colors(codebook: NDArray[np.float32]) -> Pixels:
    """Return a colour for each code, so that near codewords get near colours.

    Parameters
    ----------
    codebook : NDArray[np.float32]
        Shape (K, D).

    Returns
    -------
    NDArray[np.uint8]
        Shape (K, 3): the ranks of the codewords along the first three principal axes.

    Examples
    --------
    >>> code_colors(np.zeros((128, 64), np.float32)).shape
    (128, 3)
    """
    centred = codebook - codebook.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:3]
    ranks = (centred @ axes.T).argsort(0).argsort(0)
    colors = np.full((len(codebook), 3), 128, np.uint8)
    colors[:, : ranks.shape[1]] = np.round(255 * ranks / max(1, len(codebook) - 1))
    return colors


@torch.no_grad()
def draw_reconstructions(model: VQVAE, images: Tensor) -> Pixels:
    """Return a picture of inputs, reconstructions and codes, one below the other.

    Parameters
    ----------
    model : VQVAE
        A network in evaluation mode.
    images : Tensor
        Inputs, float (N, 3, H, W) in [-1, 1].

    Returns
    -------
    NDArray[np.uint8]
        Three rows of N tiles: inputs, reconstructions, codes as colours.
    """
    out = model(images)
    colors = code_colors(model.quantizer.codebook.detach().float().cpu().numpy())
    codes = colors[out.quantized.codes.cpu().numpy()]
    codes = codes.repeat(model.config.stride, 1).repeat(model.config.stride, 2)
    return _sheet([from_unit(images).cpu().numpy(), from_unit(out.reconstruction).cpu().numpy(), codes])


def draw_neighbours(images: Pixels, features: NDArray[np.float32], *, queries: int = 8, k: int = 5) -> Pixels:
    """Return a picture of some images, each with its nearest neighbours below it.

    Neighbours are near by the cosine of their standardised features.

    Parameters
    ----------
    images : NDArray[np.uint8]
        Shape (N, H, W, 3).
    features : NDArray[np.float32]
        Shape (N, F).
    queries : int
        Images to show, evenly spread over all.
    k : int
        Neighbours of each.

    Returns
    -------
    NDArray[np.uint8]
        One column of k + 1 tiles for each query.
    """
    spread = features.std(0)
    standard = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
    standard /= np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), 1e-12)
    chosen = np.unique(np.linspace(0, len(images) - 1, min(queries, len(images))).round().astype(int))
    nearness = standard[chosen] @ standard.T
    nearness[np.arange(len(chosen)), chosen] = -np.inf  # an image is not its own neighbour
    nearest = np.argsort(-nearness, axis=1, kind="stable")[:, : min(k, len(images) - 1)]
    return _sheet([images[chosen], *(images[column] for column in nearest.T)])


def _sheet(rows: Sequence[Pixels]) -> Pixels:
    """Return one image of rows of tiles uint8 (N, H, W, 3), with thin gaps between them."""
    count, height, width, _ = rows[0].shape
    high, wide = height + _GAP_PX, width + _GAP_PX
    sheet = np.full((len(rows) * high - _GAP_PX, count * wide - _GAP_PX, 3), 255, np.uint8)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            sheet[row * high : row * high + height, column * wide : column * wide + width] = tile
    return sheet


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw the training and validation curves of CSVLogger's ``metrics.csv``, one plot for each name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [name.partition("/") for name in (rows[0] if rows else {})]
    names = sorted({name for stage, _, name in columns if stage in _STAGES} - {"loss"}, key=_place)
    high = max(1, -(-len(names) // 2))
    figure = Figure(figsize=(9, 2.75 * high), layout="constrained")
    FigureCanvasAgg(figure)
    for number, name in enumerate(names):
        axes = figure.add_subplot(high, 2, number + 1)
        lowest = 1.0
        for stage in _STAGES:
            points = [(int(r["step"]), float(r[f"{stage}/{name}"])) for r in rows if r.get(f"{stage}/{name}")]
            if points:
                axes.plot(*np.asarray(points).T, label=stage, linewidth=1)
                lowest = min(lowest, *(value for _, value in points))
        axes.set(title=name.replace("_", " "), xlabel="step")
        if name in _ON_A_LOG_SCALE and lowest > 0:
            axes.set_yscale("log")
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    write_output(picture, stream.getvalue(), replaces=_PICTURES)


def _place(name: str) -> tuple[int, str]:
    """Return where a plot stands: the autoencoder's errors first, then others by name."""
    known = ("mse", "commitment")
    return (known.index(name) if name in known else len(known), name)


class SavePictures(pl.Callback):
    """After each validation, draw reconstructions and nearest neighbours; at the end, draw the curves.

    Pictures go to ``pictures/`` in the folder of the run's logs, and to its TensorBoard if it has one.
    """

    def __init__(self, patches: int = 10, among: int = 256) -> None:
        """Set how many patches to show.

        Parameters
        ----------
        patches : int
            validation patches in the picture of reconstructions.
        among : int
            validation patches among which nearest neighbours are searched.
        """
        self.patches = patches
        self.among = among

    @torch.no_grad()
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write ``step_NNNNNNNN.png`` and ``neighbours_NNNNNNNN.png``."""
        log_dir = trainer.log_dir  # every rank must ask: the answer is broadcast
        data: PatchData | None = getattr(trainer, "datamodule", None)
        if trainer.sanity_checking or log_dir is None or data is None or not trainer.is_global_zero:
            return
        folder = Path(log_dir, "pictures")
        if isinstance(pl_module, VQVAEModule) and self.patches:
            some = torch.cat(list(data.example_batches(self.patches)))
            sheet = draw_reconstructions(pl_module.vqvae, to_unit(some.to(pl_module.device)))
            _keep(sheet, folder, "step", trainer)
        embed = getattr(pl_module, "embed", None)
        if embed is not None and self.among:
            batches = list(data.example_batches(self.among))
            found = [embed(to_unit(batch.to(pl_module.device))).float().cpu() for batch in batches]
            sheet = draw_neighbours(torch.cat(batches).numpy(), torch.cat(found).numpy())
            _keep(sheet, folder, "neighbours", trainer)

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


def _keep(sheet: Pixels, folder: Path, name: str, trainer: pl.Trainer) -> None:
    """Write a picture, and add it to TensorBoard."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    Image.fromarray(sheet).save(stream, "PNG", optimize=True)
    write_output(folder / f"{name}_{trainer.global_step:08d}.png", stream.getvalue(), replaces=_PICTURES)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, sheet, trainer.global_step, dataformats="HWC")
