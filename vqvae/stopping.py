"""An end to training that no longer helps."""

import logging

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from sish.errors import ParameterError

__all__ = ["StopEarly"]

_NEVER = 2**62  # validations
_LOG = logging.getLogger(__name__)


class StopEarly(EarlyStopping):
    """Stop when what validation measures has not become smaller for a while."""

    def __init__(self, patience: int = 0, min_delta: float = 0.0, monitor: str = "valid/mse") -> None:
        """Watch one number; how long it has been still is part of each checkpoint.

        Args:
            patience: validations without a better one before training stops; 0: train to the end.
            min_delta: what counts as better is smaller by more than this.
            monitor: what to watch; smaller is better.
        """
        if patience < 0 or min_delta < 0:
            raise ParameterError(f"patience and min_delta must not be negative, got {patience}, {min_delta}")
        how = {"strict": patience > 0, "check_on_train_epoch_end": False}  # a run may have no validation
        super().__init__(monitor, min_delta, patience or _NEVER, mode="min", **how)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say why there are fewer steps than were asked for."""
        if self.wait_count >= self.patience and trainer.is_global_zero:
            _LOG.warning(
                "stopped at step %d: %s was best %d validations ago, at %.4g",
                trainer.global_step,
                self.monitor,
                self.wait_count,
                float(self.best_score),
            )
