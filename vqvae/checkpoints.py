"""Checkpoints of a training run: the best one by validation (Lightning's own), and always the last.

Each run has its own folder. A new run never writes into a folder with checkpoints of another.
"""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser

from sish.errors import MissingPackageError, ParameterError
from sish.extras import install
from sish.outputs import check_outside_databases
from sish.printing import print_line

_LIGHTNING_CHECKPOINTS = ("last", "best", "hpc")
"""Names that Lightning resolves to paths."""

RUNS = Path("runs")
"""Where runs are kept, unless ``--trainer.default_root_dir`` says otherwise."""


class LastCheckpoint(ModelCheckpoint):
    """Write ``last.ckpt`` after every validation and at the end, for ``--ckpt_path last``.

    Lightning's ``save_last`` writes it only together with a new best one: an interrupted run would go back
    to its best validation, and train again from there.
    """

    def __init__(self, dirpath: Path | None = None) -> None:
        """Choose the folder, that of the best checkpoints.

        Parameters
        ----------
        dirpath : Path, optional
            the folder; follows `--checkpoint.dirpath`.
        """
        super().__init__(dirpath, "last", save_top_k=1, enable_version_counter=False)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print where the run writes: the progress bar does not, and a log file has nothing else."""
        log_dir = trainer.log_dir  # every rank must ask: the answer is broadcast
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # its stub lacks it
            logs = "" if trainer.logger is None else f", metrics and configuration to {_from_here(log_dir)}"
            print_line(f"writing last.ckpt and the best checkpoint to {_from_here(self.dirpath)}{logs}")
            sys.stdout.flush()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last checkpoint, for steps after the last validation; nothing in a fast_dev_run."""
        if self.dirpath is not None and not self._should_skip_saving_checkpoint(trainer):
            trainer.save_checkpoint(Path(self.dirpath) / f"{self.filename}.ckpt")


def _from_here(path: str | os.PathLike[str] | None) -> Path:
    """Return a path relative to the working directory if it lies below it, else in full."""
    full = Path(path or "").resolve()
    return full.relative_to(Path.cwd()) if full.is_relative_to(Path.cwd()) else full


def add_run_options(parser: LightningArgumentParser, run_name: str, monitor: str) -> None:
    """Add the checkpoints and the logger of a run, kept in its own folder below `RUNS`.

    Parameters
    ----------
    parser : LightningArgumentParser
        The parser of the command line.
    run_name : str
        Folder of such runs below `RUNS`.
    monitor : str
        The logged number that is lowest in the best checkpoint.
    """
    parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
    parser.add_lightning_class_args(LastCheckpoint, "last")
    parser.link_arguments("checkpoint.dirpath", "last.dirpath")
    parser.set_defaults(
        {
            "checkpoint.dirpath": str(RUNS / run_name / "checkpoints"),
            "checkpoint.monitor": monitor,
            "trainer.logger": {
                "class_path": "pytorch_lightning.loggers.CSVLogger",
                "init_args": {"save_dir": str(RUNS), "name": run_name},
            },
            "trainer.enable_model_summary": False,
            "trainer.enable_progress_bar": sys.stderr.isatty(),
        }
    )


def settle_run(config: Namespace, run_name: str, read: Callable[[Path], object]) -> None:
    """Settle where a run writes, and refuse to replace or to resume what does not belong to it.

    Parameters
    ----------
    config : Namespace
        The parsed command line; paths in it are changed to lie below ``--trainer.default_root_dir``.
    run_name : str
        Folder of such runs below `RUNS`.
    read : callable
        Reads a checkpoint, and raises a SishError if it is not of the run's kind.

    Raises
    ------
    MissingPackageError
        If the logger is TensorBoard's, and that is not installed.
    """
    options = config[config.subcommand]
    if "TensorBoardLogger" in str(options.trainer.logger) and not _has_tensorboard():
        raise MissingPackageError(
            f"TensorBoard is not installed; {install('tensorboard')}, or leave --trainer.logger"
            " out: metrics.csv is written anyway"
        )
    _follow_root(options, run_name)
    if config.subcommand == "fit":
        _check_own_folder(options)
    path = options.ckpt_path
    if path is not None and path not in _LIGHTNING_CHECKPOINTS:
        read(Path(path))


def _has_tensorboard() -> bool:
    return any(find_spec(name) is not None for name in ("tensorboard", "tensorboardX"))


def _follow_root(options: Namespace, run_name: str) -> None:
    """Move the defaults below ``runs`` to ``--trainer.default_root_dir``, if that is given."""
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
    """Refuse a folder with checkpoints that the run does not resume (ParameterError)."""
    folder = options.checkpoint.dirpath
    if folder is None or options.trainer.fast_dev_run:  # Lightning makes a new folder, or keeps nothing
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
