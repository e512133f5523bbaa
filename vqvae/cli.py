"""The command line: ``python -m sish.vqvae {fit,validate,export}``, and what ``sish train`` calls.

A LightningCLI, so every option of the trainer, the network and the data can stand in a YAML file
(``--config``) or on the command line, and the latter wins. ``export`` turns a checkpoint into weights.
"""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from sish.errors import SishError
from sish.vqvae.calibration import Calibrate, calibrate
from sish.vqvae.data import ImagePatches, PatchData, list_images, spread_batches
from sish.vqvae.module import VQVAEModule
from sish.vqvae.pictures import SavePictures
from sish.vqvae.pretrained import read_model, save_weights

__all__ = ["TrainingCLI", "main"]

_LIGHTNING_CHECKPOINTS = ("last", "best", "hpc")  # names that Lightning resolves, not paths

_DESCRIPTION = """Train the encoder of sish. Also here: `export`, which turns a checkpoint into weights
(see `export --help`)."""


class TrainingCLI(LightningCLI):
    """LightningCLI with the callbacks of this package, each configurable by its own options."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Those that make sense here; the values are arguments that the command line does not offer."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "validate": {"model", "dataloaders", "datamodule"},
        }

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and refuse a checkpoint that is none before Lightning opens it (WeightsError)."""
        super().parse_arguments(parser, args)
        path = self.config[self.config.subcommand].ckpt_path
        if path is not None and path not in _LIGHTNING_CHECKPOINTS:
            read_model(Path(path))

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks and the defaults of the trainer."""
        parser.add_lightning_class_args(Calibrate, "calibrate")
        parser.add_lightning_class_args(SavePictures, "pictures")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.dirpath": "runs/vqvae/checkpoints",
                "checkpoint.save_last": True,
                "checkpoint.monitor": "valid/mse",
                "checkpoint.filename": "step={step}",
                "checkpoint.auto_insert_metric_name": False,
                "trainer.logger": {
                    "class_path": "pytorch_lightning.loggers.CSVLogger",
                    "init_args": {"save_dir": "runs", "name": "vqvae"},
                },
                "trainer.enable_model_summary": False,
                "trainer.enable_progress_bar": sys.stderr.isatty(),
            }
        )


def main(args: list[str] | None = None) -> int:
    """Run one command: 0 when it worked, 1 with one line on stderr when not; wrong options exit with 2."""
    argv = sys.argv[1:] if args is None else list(args)
    _be_quiet()
    try:
        if argv[:1] == ["export"]:
            _export(argv[1:])
        else:
            TrainingCLI(
                VQVAEModule,
                PatchData,
                args=argv,
                seed_everything_default=0,
                save_config_kwargs={"overwrite": True},
                parser_kwargs={"prog": "python -m sish.vqvae", "description": _DESCRIPTION},
            )
    except (SishError, OSError, MisconfigurationException) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    return 0


def _be_quiet() -> None:
    """Leave out what Lightning says about every run; warnings of this package stay."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("pytorch_lightning", "lightning_fabric", "torch", "jsonargparse"):
        warnings.filterwarnings("ignore", module=rf"{module}(\..*)?$")
    # --ckpt_path last starts anew where there is no checkpoint yet, and should say so
    warnings.filterwarnings("default", message=".*there is no last checkpoint")


def _export_parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m sish.vqvae export",
        description="Turn a checkpoint into weights (safetensors with their configuration).",
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint of a training run (.ckpt)")
    parser.add_argument(
        "--output", type=Path, required=True, help="file to write (.safetensors), or a folder for it"
    )
    parser.add_argument(
        "--data.folder",
        type=Path | None,
        default=None,
        help="training images (folder or CSV file): measure the barcode's features on them again",
    )
    parser.add_argument("--data.prefix", type=str, default="", help="only files whose path begins so")
    parser.add_argument("--data.size_px", type=int, default=96, help="side of the centre square of each")
    parser.add_argument("--patches", type=int, default=4096, help="images to measure on, at most")
    parser.add_argument("--training", type=dict[str, Any], default={}, help="facts to keep with the weights")
    return parser


def _export(argv: list[str]) -> None:
    options = _export_parser().parse_args(argv)
    model, facts = read_model(options.checkpoint)
    if options.data.folder is not None:
        paths = list_images(options.data.folder, options.data.prefix)
        patches = ImagePatches(paths, options.data.size_px, augment=False)
        calibrate(model, spread_batches(patches, options.patches))
    output = Path(options.output)
    if output.is_dir() or not output.suffix:
        output = output / f"{model.config.name}.safetensors"
    fingerprint = save_weights(model, output, training=facts | options.training)
    sys.stdout.write(f"{output}: {fingerprint}\n")
