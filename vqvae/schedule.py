"""The learning rate of a training run: a linear rise, then a cosine down to 0."""

import math

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def training_steps(trainer: pl.Trainer) -> int:
    """Return the number of optimizer steps of a run: at least 1, and finite for a run without end."""
    return max(1, int(min(trainer.estimated_stepping_batches, 2**53)))


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: int) -> OptimizerLRScheduler:
    """Return what `LightningModule.configure_optimizers` returns: the optimizer and its schedule.

    One factor in a LambdaLR, and not torch's LinearLR and CosineAnnealingLR in a SequentialLR: that takes no
    warm-up of 0 or 1 steps, and `--ckpt_path last` of an earlier release could not go on.

    Parameters
    ----------
    optimizer : Optimizer
        Its learning rate is the highest of the run.
    steps : int
        Steps of the run; the learning rate is 0 after the last.
    warmup : int
        Steps of the rise.

    Returns
    -------
    OptimizerLRScheduler
        A dictionary with ``optimizer`` and ``lr_scheduler``; the schedule moves at each step.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
    }
