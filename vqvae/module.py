"""Training of the autoencoder: the losses, the optimiser, and what is logged."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from sish.errors import ParameterError
from sish.vqvae.model import CONFIG_KEY, VQVAE, VQVAEConfig, VQVAEOutput
from sish.vqvae.quantizer import perplexity
from sish.vqvae.schedule import training_steps, warmup_cosine
from sish.vqvae.tensor_files import check_same_network


class VQVAEModule(pl.LightningModule):
    """A VQ-VAE in training.

    Logged for ``train`` (each step) and ``valid`` (the whole set): ``loss``, ``mse`` (reconstruction, on the
    [-1, 1] scale), ``commitment``, ``perplexity`` and ``codes_in_use``.
    """

    def __init__(
        self,
        net: VQVAEConfig = VQVAEConfig(),  # noqa: B008  # frozen, so sharing the default is safe
        learning_rate: float = 5e-4,
        warmup_steps: int = 200,
        weight_decay: float = 0.0,
    ) -> None:
        """Build a network, and set how it is trained.

        Parameters
        ----------
        net : VQVAEConfig
            what the network is; see the files in vqvae/configs for presets.
        learning_rate : float
            highest learning rate of AdamW; it falls to 0 along a cosine.
        warmup_steps : int
            steps of linear rise before that.
        weight_decay : float
            weight decay of AdamW.

        Raises
        ------
        ParameterError
            If a number is out of range.
        """
        super().__init__()
        if learning_rate <= 0 or warmup_steps < 0 or weight_decay < 0:
            raise ParameterError(
                "learning_rate must be positive, warmup_steps and weight_decay not negative, got"
                f" {learning_rate}, {warmup_steps}, {weight_decay}"
            )
        self.vqvae = VQVAE(net)
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.weight_decay = weight_decay
        self.register_buffer("valid_counts", torch.zeros(net.codes), persistent=False)
        self.valid_counts: Tensor

    def forward(self, images: Tensor) -> VQVAEOutput:
        """Return the autoencoder's output for images float (N, 3, H, W) in [-1, 1]."""
        out: VQVAEOutput = self.vqvae(images)
        return out

    def embed(self, images: Tensor) -> Tensor:
        """Return the features float (N, 1024) of patches float (N, 3, H, W) in [-1, 1]."""
        return self.vqvae.features(images)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the loss of a batch, float (N, 3, H, W) in [-1, 1]."""
        out: VQVAEOutput = self(batch)
        self._log_losses("train", out, on_step=True)
        self._log_codes("train", out.quantized.counts)
        return out.loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Log the losses of a batch, and count its codes for the end of the epoch."""
        out: VQVAEOutput = self(batch)
        self._log_losses("valid", out, on_step=False, batch_size=len(batch), sync_dist=True)
        self.valid_counts += out.quantized.counts

    def on_validation_epoch_start(self) -> None:
        """Start the counts of codes again."""
        self.valid_counts.zero_()

    def on_validation_epoch_end(self) -> None:
        """Log the perplexity of the whole set; that of a batch is much lower."""
        counts = self.trainer.strategy.reduce(self.valid_counts, reduce_op="sum")
        self._log_codes("valid", counts)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with a linear warm-up and a cosine to zero at the last step of the run."""
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learned, self.learning_rate, weight_decay=self.weight_decay)
        steps = training_steps(self.trainer)
        return warmup_cosine(optimizer, steps, min(self.warmup_steps, steps // 2))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the configuration to a checkpoint."""
        checkpoint[CONFIG_KEY] = self.vqvae.config.as_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network before its tensors fail to fit (WeightsError)."""
        check_same_network(self.vqvae.config.as_dict(), checkpoint.get(CONFIG_KEY, {}))

    def _log_losses(self, stage: str, out: VQVAEOutput, **how: Any) -> None:
        values = {
            f"{stage}/loss": out.loss,
            f"{stage}/mse": out.mse,
            f"{stage}/commitment": out.quantized.commitment,
        }
        self.log_dict(values, prog_bar=False, **how)

    def _log_codes(self, stage: str, counts: Tensor) -> None:
        values = {
            f"{stage}/perplexity": perplexity(counts),
            f"{stage}/codes_in_use": (counts > 0).sum().float(),
        }
        self.log_dict(values)  # counts are already summed over the processes
