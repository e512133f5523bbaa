"""``sish train-codes`` and ``sish train-masks``: ``fit``, ``validate`` and ``export``.

Each is a LightningCLI: options of the trainer, the network and the data are read from a YAML file
(``--config``) and from the command line, which takes precedence. ``fit`` keeps ``best.ckpt``, of the lowest
validation loss, and ``last.ckpt``. The training of masks stops when that loss no longer falls. The training
of codes goes to its end, since the lists of hits still improve. ``export`` turns a checkpoint into weights
(safetensors)::

    sish train-codes fit --data.folder nih_cxr --data.fold 0
    sish train-codes export --checkpoint runs/codes/checkpoints/last.ckpt --output codes.safetensors
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from sish.parsing import ArgumentParser
from sish.printing import print_line
from sish.systems.lesions.mask_predictor import KIND as MASKS
from sish.systems.lesions.mask_predictor import MaskPredictor, load_mask_predictor
from sish.systems.network_file import read_stored
from sish.systems.training.data import FindingsFolder, MaskFolder
from sish.systems.training.modules import CodeModule, MaskModule
from sish.systems.xray.generator import KIND as CODES
from sish.systems.xray.generator import CodeGenerator, load_code_generator
from sish.vqvae.checkpoints import add_run_options, settle_run
from sish.vqvae.cli import TrainingCLI, TrainingParser
from sish.vqvae.running import run_command


@dataclass(frozen=True, slots=True)
class Task:
    """The training of one kind of network."""

    module: type[pl.LightningModule]
    """The network in training."""
    data: type[pl.LightningDataModule]
    """The training data."""
    kind: str
    """The kind of network in its files."""
    load: Callable[[Path], CodeGenerator | MaskPredictor]
    """Reads its weights."""
    links: tuple[tuple[str, str, Literal["parse", "instantiate"]], ...]
    """Options that follow others: source, target, and when."""
    epochs: int
    """The most epochs."""
    patience: int
    """Number of epochs without a lower validation loss that end a run."""
    description: str
    """One sentence on it."""


TASKS = {
    "codes": Task(
        module=CodeModule,
        data=FindingsFolder,
        kind=CODES,
        load=load_code_generator,
        links=(
            ("model.net.size_px", "data.size_px", "parse"),
            ("data.findings", "model.findings", "instantiate"),
        ),
        epochs=20,
        patience=20,
        description="Train a generator of X-ray codes on labelled images.",
    ),
    "masks": Task(
        module=MaskModule,
        data=MaskFolder,
        kind=MASKS,
        load=load_mask_predictor,
        links=(("model.net.size_px", "data.size_px", "parse"),),
        epochs=12,
        patience=5,
        description="Train a predictor of lesion masks on photographs with masks.",
    ),
}
"""The trainings by name."""


class _TrainingCLI(LightningCLI):
    """LightningCLI that stops early and knows which of its options follow others."""

    def __init__(self, name: str, args: list[str], prog: str) -> None:
        """Run the task ``name`` with the words ``args``."""
        self.task, self.task_name = TASKS[name], name
        also = f" Also here: `export`, which turns a checkpoint into weights (see `{prog} export --help`)."
        super().__init__(
            self.task.module,
            self.task.data,
            args=args,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            parser_class=TrainingParser,
            parser_kwargs={"prog": prog, "description": self.task.description + also},
        )

    subcommands = staticmethod(TrainingCLI.subcommands)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and refuse a checkpoint that is none before Lightning opens it (WeightsError)."""
        super().parse_arguments(parser, args)
        settle_run(self.config, self.task_name, lambda path: read_stored(path, self.task.kind))

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks, the links and the defaults of the trainer."""
        for source, target, when in self.task.links:
            parser.link_arguments(source, target, apply_on=when)
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        add_run_options(parser, self.task_name, "valid/loss")
        parser.set_defaults(
            {
                "early_stopping.monitor": "valid/loss",
                "early_stopping.patience": self.task.patience,
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "trainer.max_epochs": self.task.epochs,
                "trainer.num_sanity_val_steps": 0,
                "trainer.log_every_n_steps": 1,
            }
        )


def main(name: str, args: list[str] | None = None, prog: str | None = None) -> int:
    """Run one command of a training.

    Parameters
    ----------
    name : str
        Which of `TASKS`.
    args : list of str, optional
        The command line after the name. Default: that of the process.
    prog : str, optional
        Name of the command in help.

    Returns
    -------
    int
        0 if it worked, 1 after an error, told on one line on stderr. Wrong options exit with 2.
    """
    argv = sys.argv[1:] if args is None else list(args)
    prog = prog or f"sish train-{name}"
    return run_command(lambda: _run(name, argv, prog))


def _run(name: str, argv: list[str], prog: str) -> None:
    if argv[:1] == ["export"]:
        _export(TASKS[name], argv[1:], prog)
    else:
        _TrainingCLI(name, argv, prog)


def _export(task: Task, argv: list[str], prog: str) -> None:
    parser = ArgumentParser(
        prog=f"{prog} export", description="Turn a checkpoint into weights (safetensors with configuration)."
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint of a training run (.ckpt)")
    parser.add_argument(
        "--output", type=Path, required=True, help="file to write (.safetensors), or a folder"
    )
    options = parser.parse_args(argv)
    stored = read_stored(Path(options.checkpoint), task.kind)
    output = Path(options.output)
    if output.is_dir() or not output.suffix:
        output = output / f"{stored.config['name']}.safetensors"
    fingerprint = task.load(stored.path).save(output, training=stored.training, inputs=[stored.path])
    print_line(f"{output}: {fingerprint}")
