"""Checkpoints: the best one by what validation measures (Lightning's own), and always the last.

Each run has its own folder: one that starts anew never writes where another has left its checkpoints.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.callbacks import ModelCheckpoint

from sish.errors import ParameterError
from sish.outputs import check_outside_databases
from sish.printing import print_line

__all__ = ["RUNS", "LastCheckpoint", "settle_run"]

_LIGHTNING_CHECKPOINTS = ("last", "best", "hpc")
"""Names that Lightning resolves, not paths."""

RUNS = Path("runs")
"""Where runs are kept, unless ``--trainer.default_root_dir`` says otherwise."""


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt`` after every validation and at the end, for ``--ckpt_path last``.

    Lightning's ``save_last`` writes it only together with a new best one, so a run that was interrupted
    would go on from its best validation and train again what came after.
    """

    def __init__(self, dirpath: Path | None = None) -> None:
        """In the folder of the best checkpoints.

        Args:
            dirpath: the folder; follows `--checkpoint.dirpath`.
        """
        super().__init__(dirpath, "last", save_top_k=1, enable_version_counter=False)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say where the run writes: a bar on a terminal does not, and a log has nothing else."""
        log_dir = trainer.log_dir  # every rank must ask: the answer is broadcast
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # its stub lacks it
            logs = "" if trainer.logger is None else f", metrics and configuration to {_from_here(log_dir)}"
            print_line(f"writing last.ckpt and the best checkpoint to {_from_here(self.dirpath)}{logs}")
            sys.stdout.flush()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the steps that came after the last validation, too; but not those of a fast_dev_run."""
        if self.dirpath is not None and not self._should_skip_saving_checkpoint(trainer):
            trainer.save_checkpoint(Path(self.dirpath) / f"{self.filename}.ckpt")


def _from_here(path: str | os.PathLike[str] | None) -> Path:
    """A path as it is named from the working directory, where it lies below it."""
    full = Path(path or "").resolve()
    return full.relative_to(Path.cwd()) if full.is_relative_to(Path.cwd()) else full


def settle_run(config: Namespace, run_name: str, read: Callable[[Path], object]) -> None:
    """Say where a run writes, and refuse what it would replace or cannot go on from (SishError).

    ``read`` reads a checkpoint, and raises for one that is none of the run's kind.
    """
    options = config[config.subcommand]
    _follow_root(options, run_name)
    if config.subcommand == "fit":
        _check_own_folder(options)
    path = options.ckpt_path
    if path is not None and path not in _LIGHTNING_CHECKPOINTS:
        read(Path(path))


def _follow_root(options: Namespace, run_name: str) -> None:
    """Let what would go below ``runs`` go below ``--trainer.default_root_dir`` where that is given."""
    root = options.trainer.default_root_dir
    if root is None:
        return
    if Path(options.checkpoint.dirpath) == RUNS / run_name / "checkpoints":
        options.checkpoint.dirpath = options.last.dirpath = Path(root) / run_name / "checkpoints"
    logger = options.trainer.logger
    if isinstance(logger, Namespace) and logger.init_args.get("save_dir") == str(RUNS):
        logger.init_args.save_dir = str(root)
    cut = options.data.get("cut")
    if cut is not None and Path(cut.cache_folder) == RUNS / "patches":
        cut.cache_folder = Path(root) / "patches"


def _check_own_folder(options: Namespace) -> None:
    """Refuse to train into a folder with checkpoints that the run does not go on from (ParameterError)."""
    folder = options.checkpoint.dirpath
    if folder is None or options.trainer.fast_dev_run:  # Lightning's own folder of each run; nothing is kept
        return
    check_outside_databases(folder)
    there = sorted(Path(folder).glob("*.ckpt"))
    if there and not _goes_on_in(Path(folder), options.ckpt_path):
        raise ParameterError(
            f"{folder} holds {there[-1].name} of another run, which would be replaced; go on with that run by"
            " --ckpt_path last, or give this one its own --trainer.default_root_dir or --checkpoint.dirpath"
        )


def _goes_on_in(folder: Path, checkpoint: str | Path | None) -> bool:
    if checkpoint is None:
        return False
    if checkpoint == "last":
        return (folder / "last.ckpt").is_file()
    return checkpoint in _LIGHTNING_CHECKPOINTS or Path(checkpoint).resolve().parent == folder.resolve()
