"""Train the systems' networks: losses, optimiser, logged figures, and when to stop.

In Python, call `train_code_generator` and `train_mask_predictor`. On the command line, `sish train-codes` and
`sish train-masks` (`sish.cli.training`) do the same.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from sish.errors import ParameterError
from sish.systems.item import Item
from sish.systems.lesions import mask_predictor
from sish.systems.lesions.mask_predictor import (
    MaskPredictor,
    UNet,
    UNetConfig,
    focal_tversky_loss,
    intersection_over_union,
    load_mask_predictor,
)
from sish.systems.network_file import CONFIG_KEY
from sish.systems.training.data import Batch, FindingsData, MaskData
from sish.systems.xray import generator
from sish.systems.xray.generator import CodeGenerator, CodeNetwork, GeneratorConfig, load_code_generator
from sish.vqvae.checkpoints import LastCheckpoint
from sish.vqvae.schedule import training_steps, warmup_cosine
from sish.vqvae.tensor_files import KIND_KEY, check_same_network


class _Module(pl.LightningModule):
    """AdamW along one rise and fall of the learning rate, and checkpoints that say what they hold."""

    kind: str
    network: nn.Module

    def __init__(self, learning_rate: float, weight_decay: float) -> None:
        super().__init__()
        if learning_rate <= 0 or weight_decay < 0:
            raise ParameterError(
                f"learning_rate must be positive and weight_decay not negative, got {learning_rate},"
                f" {weight_decay}"
            )
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def config_dict(self) -> dict[str, Any]:
        """Return what is needed to build the network again, plain values."""
        raise NotImplementedError

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW; its learning rate rises over a tenth of the run and falls to 0 along a cosine."""
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        steps = training_steps(self.trainer)
        return warmup_cosine(optimizer, steps, max(1, steps // 10))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the kind and the configuration of the network into a checkpoint."""
        checkpoint[KIND_KEY] = self.kind
        checkpoint[CONFIG_KEY] = self.config_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network before its tensors fail to fit (WeightsError)."""
        theirs = checkpoint.get(CONFIG_KEY, {}) | {"kind": checkpoint.get(KIND_KEY)}
        check_same_network(self.config_dict() | {"kind": self.kind}, theirs)


class CodeModule(_Module):
    """A code generator in training: binary cross-entropy on the findings.

    Logged for ``train`` and ``valid``: ``loss``; for ``valid`` also ``share``, the mean of |2 p - 1| over
    bits, p being the share of pictures with the bit set (0: every bit splits the pictures in halves).
    """

    kind = generator.KIND

    def __init__(
        self,
        findings: Sequence[str],
        net: GeneratorConfig = GeneratorConfig(),  # noqa: B008  # frozen, so sharing the default is safe
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
    ) -> None:
        """Build the network.

        Parameters
        ----------
        findings : sequence of str
            what to learn; on the command line those of the training pictures.
        net : GeneratorConfig
            what the network is.
        learning_rate : float
            highest learning rate of AdamW.
        weight_decay : float
            weight decay of AdamW.
        """
        super().__init__(learning_rate, weight_decay)
        self.network: CodeNetwork = CodeNetwork(net, findings)

    def config_dict(self) -> dict[str, Any]:
        """Return configuration and findings, plain values."""
        return self.network.as_dict()

    def on_fit_start(self) -> None:
        """Start from the frequency of each finding, so that the first epochs need not learn it."""
        if self.trainer.ckpt_path is None:  # else a run goes on
            data: Any = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning's, a FindingsData
            rates = data.train_set.tensors[1].mean(0)
            self.network.output.bias.data.copy_(torch.logit(rates, eps=0.01))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch: pictures (N, 1, H, W), findings (N, F)."""
        loss = F.binary_cross_entropy_with_logits(self.network(batch[0]).logits, batch[1])
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and the balance of the bits."""
        out = self.network(batch[0])
        loss = F.binary_cross_entropy_with_logits(out.logits, batch[1])
        share = (2 * (out.activations >= 0.5).float().mean(0) - 1).abs().mean()
        self.log_dict({"valid/loss": loss, "valid/share": share}, batch_size=len(batch[0]))


class MaskModule(_Module):
    """A mask predictor in training: focal Tversky loss.

    Logged for ``train`` and ``valid``: ``loss``; for ``valid`` also ``iou``, intersection over union.
    """

    kind = mask_predictor.KIND

    def __init__(
        self,
        net: UNetConfig = UNetConfig(),  # noqa: B008  # frozen, so sharing the default is safe
        alpha: float = 0.7,
        beta: float = 0.3,
        gamma: float = 4 / 3,
        learning_rate: float = 4e-3,
        weight_decay: float = 1e-2,
    ) -> None:
        """Build the network.

        Parameters
        ----------
        net : UNetConfig
            what the network is.
        alpha : float
            cost of a missed pixel in the Tversky index.
        beta : float
            cost of a wrong pixel.
        gamma : float
            focus: the loss is (1 - index) ** (1 / gamma).
        learning_rate : float
            highest learning rate of AdamW.
        weight_decay : float
            weight decay of AdamW.

        Raises
        ------
        ParameterError
            If a cost or the focus is out of range.
        """
        super().__init__(learning_rate, weight_decay)
        if min(alpha, beta) < 0 or not alpha + beta or gamma <= 0:
            raise ParameterError(f"alpha, beta, gamma must not be negative, got {alpha}, {beta}, {gamma}")
        self.network: UNet = UNet(net)
        self.weights = {"alpha": alpha, "beta": beta, "gamma": gamma}

    def config_dict(self) -> dict[str, Any]:
        """Return the network's configuration, plain values."""
        return self.network.config.as_dict()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch: photographs (N, 3, H, W), masks (N, H, W)."""
        loss = focal_tversky_loss(self.network(batch[0]), batch[1], **self.weights)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and the intersection over union."""
        found = self.network(batch[0])
        loss = focal_tversky_loss(found, batch[1], **self.weights)
        iou = intersection_over_union((found > 0.5).cpu().numpy(), (batch[1] > 0.5).cpu().numpy()).mean()
        self.log_dict({"valid/loss": loss, "valid/iou": iou}, batch_size=len(batch[0]))


def train_code_generator(
    items: Sequence[Item],
    *,
    net: GeneratorConfig = GeneratorConfig(),  # noqa: B008  # frozen, so sharing the default is safe
    valid_share: float = 0.2,
    batch_size: int = 32,
    max_epochs: int = 20,
    seed: int = 0,
) -> CodeGenerator:
    """Train a code generator on X-rays with findings.

    The last epoch is kept: codes still improve after the validation loss, which also measures how sure the
    network may be, is at its lowest.

    Parameters
    ----------
    items : sequence of Item
        X-rays whose labels are findings (LabelsError if none has any, or all have the same).
    net : GeneratorConfig
        The network.
    valid_share : float
        Share of the patients that are held out; their loss is only logged.
    batch_size : int
        Pictures in a batch.
    max_epochs : int
        Number of epochs.
    seed : int
        The same items and seed give the same generator on one machine.

    Returns
    -------
    CodeGenerator
        The trained generator.
    """
    pl.seed_everything(seed, verbose=False)
    data = FindingsData(items, valid_share=valid_share, batch_size=batch_size, size_px=net.size_px)
    module = CodeModule(data.findings, net)
    with _fit(module, data, max_epochs=max_epochs) as path:
        return load_code_generator(path)


def untrained_code_generator(
    items: Sequence[Item],
    *,
    net: GeneratorConfig = GeneratorConfig(),  # noqa: B008  # frozen, so sharing the default is safe
    seed: int = 0,
) -> CodeGenerator:
    """Return a generator without training, for comparison with a trained one.

    Its weights are random, and its normalisation is measured on the training pictures: its bits are those of
    random projections, each set for about half of the pictures.

    Parameters
    ----------
    items : sequence of Item
        X-rays with findings.
    net : GeneratorConfig
        The network.
    seed : int
        Seed of the weights.

    Returns
    -------
    CodeGenerator
        The untrained generator.
    """
    pl.seed_everything(seed, verbose=False)
    data = FindingsData(items, size_px=net.size_px)
    data.setup("fit")
    network = CodeNetwork(net, data.findings).train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = None  # the mean of all batches
    with torch.no_grad():
        for pictures, _ in data.train_dataloader():
            network(pictures[:, None].float())
    return CodeGenerator(network)


def train_mask_predictor(
    items: Sequence[Item],
    *,
    net: UNetConfig = UNetConfig(),  # noqa: B008  # frozen, so sharing the default is safe
    valid_share: float = 0.1,
    batch_size: int = 16,
    max_epochs: int = 12,
    patience: int = 5,
    seed: int = 0,
) -> MaskPredictor:
    """Train a mask predictor on photographs with masks; the best epoch is kept.

    Parameters
    ----------
    items : sequence of Item
        Photographs with masks (MissingMaskError for one without).
    net : UNetConfig
        The network.
    valid_share : float
        Share of the lesions that are held out.
    batch_size : int
        Photographs in a batch.
    max_epochs : int
        The most epochs.
    patience : int
        Training stops when the loss of the held-out lesions has not fallen for so many epochs.
    seed : int
        The same items and seed give the same predictor on one machine.

    Returns
    -------
    MaskPredictor
        The trained predictor.
    """
    pl.seed_everything(seed, verbose=False)
    data = MaskData(items, valid_share=valid_share, batch_size=batch_size, size_px=net.size_px)
    with _fit(MaskModule(net), data, max_epochs=max_epochs, patience=patience) as path:
        return load_mask_predictor(path)


@contextmanager
def _fit(
    module: _Module, data: pl.LightningDataModule, *, max_epochs: int, patience: int | None = None
) -> Iterator[Path]:
    """Train, and yield the best checkpoint of a run that stops early, or the last of one without patience."""
    if max_epochs < 1 or (patience is not None and patience < 1):
        raise ParameterError(f"max_epochs is {max_epochs}, patience {patience}; both must be 1 at least")
    with tempfile.TemporaryDirectory() as folder, _quietly():
        callbacks: list[pl.Callback] = [LastCheckpoint(Path(folder))]
        if patience is not None:
            best = ModelCheckpoint(folder, monitor="valid/loss", filename="best")
            callbacks = [EarlyStopping("valid/loss", patience=patience), best]
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=max_epochs,
            callbacks=callbacks,
            logger=False,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data)
        yield Path(folder) / ("last.ckpt" if patience is None else "best.ckpt")


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence what Lightning says about every run."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for module in ("pytorch_lightning", "lightning_fabric", "torch"):
            warnings.filterwarnings("ignore", module=rf"{module}(\..*)?$")
        try:
            yield
        finally:
            logger.setLevel(level)
