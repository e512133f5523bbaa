"""Stopping a training run that no longer improves."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from sish.errors import ParameterError
from sish.printing import print_error

_NEVER = 2**62  # validations


class StopEarly(EarlyStopping):
    """Stop when a number that validation measures has not improved for some validations."""

    def __init__(self, patience: int = 0, min_delta: float = 0.0, monitor: str = "valid/mse") -> None:
        """Choose the number to watch. Checkpoints keep how long it has not improved.

        Parameters
        ----------
        patience : int
            validations without a better one before training stops; 0: train to the end.
        min_delta : float
            a better number is smaller by more than this.
        monitor : str
            the number to watch; smaller is better.

        Raises
        ------
        ParameterError
            If a number is negative.
        """
        if patience < 0 or min_delta < 0:
            raise ParameterError(f"patience and min_delta must not be negative, got {patience}, {min_delta}")
        how = {"strict": patience > 0, "check_on_train_epoch_end": False}  # a run may have no validation
        super().__init__(monitor, min_delta, patience or _NEVER, mode="min", **how)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell why training stopped before its last step."""
        if self.wait_count >= self.patience and trainer.is_global_zero:
            print_error(
                f"stopped at step {trainer.global_step}: {self.monitor} was best {self.wait_count} "
                f"validations ago, at {float(self.best_score):.4g}"
            )
