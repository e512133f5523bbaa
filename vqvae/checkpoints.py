"""Checkpoints: the best one by what validation measures (Lightning's own), and always the last."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

__all__ = ["LastCheckpoint"]


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt`` after every validation and at the end, for ``--ckpt_path last``.

    Lightning's ``save_last`` writes it only together with a new best one, so a run that was interrupted
    would go on from its best validation and train again what came after.
    """

    def __init__(self, dirpath: Path | None = None) -> None:
        """In the folder of the best checkpoints; a run that starts anew there replaces it.

        Args:
            dirpath: the folder; follows `--checkpoint.dirpath`.
        """
        super().__init__(dirpath, "last", save_top_k=1, enable_version_counter=False)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the steps that came after the last validation, too; but not those of a fast_dev_run."""
        if self.dirpath is not None and not self._should_skip_saving_checkpoint(trainer):
            trainer.save_checkpoint(Path(self.dirpath) / f"{self.filename}.ckpt")
