"""The command line: ``sish train {fit,contrast,validate,export}``, also as ``python -m sish.vqvae``.

It is a LightningCLI: every option of the trainer, the network and the data can be given in a YAML file
(``--config``) or on the command line, which has precedence. ``fit`` trains the autoencoder, ``contrast``
trains a texture network beside a trained autoencoder, and ``export`` turns a checkpoint of either into
weights.
"""

import sys
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from sish.outputs import check_output
from sish.parsing import ArgumentParser
from sish.printing import print_line
from sish.vqvae.calibration import Calibrate, calibrate
from sish.vqvae.checkpoints import add_run_options, settle_run
from sish.vqvae.contrast import ContrastModule
from sish.vqvae.data import PatchData, spread_batches
from sish.vqvae.images import ImagePatches, list_images
from sish.vqvae.module import VQVAEModule
from sish.vqvae.pictures import SavePictures
from sish.vqvae.pretrained import read_model, save_weights
from sish.vqvae.running import run_command
from sish.vqvae.stopping import StopEarly

_DESCRIPTION = """Train the encoder of sish. Also here: `contrast`, which trains the texture network (see
`contrast --help`), and `export`, which turns a checkpoint into weights (see `export --help`)."""


class TrainingParser(ArgumentParser, LightningArgumentParser):
    """Lightning's parser, with the help and the error messages of sish."""


class TrainingCLI(LightningCLI):
    """A LightningCLI with the callbacks of this package, each with its own options."""

    run_name = "vqvae"
    """Folder of the runs below ``runs/``."""
    watched = "valid/mse"
    """The logged number that is lowest in the best checkpoint."""
    max_steps = 16_000
    """Default number of steps."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the subcommands, each with the arguments that the command line does not offer."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "validate": {"model", "dataloaders", "datamodule"},
        }

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, and refuse an unreadable checkpoint or a logger that is not installed."""
        super().parse_arguments(parser, args)
        settle_run(self.config, self.run_name, read_model)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks and the defaults of the trainer."""
        parser.add_lightning_class_args(Calibrate, "calibrate")
        parser.add_lightning_class_args(SavePictures, "pictures")
        parser.add_lightning_class_args(StopEarly, "stop")
        add_run_options(parser, self.run_name, self.watched)
        parser.set_defaults(
            {
                "stop.monitor": self.watched,
                "checkpoint.filename": "step={step}",
                "checkpoint.auto_insert_metric_name": False,
                "trainer.max_steps": self.max_steps,
                "trainer.max_epochs": -1,
            }
        )


class ContrastCLI(TrainingCLI):
    """The same command line for the texture network."""

    run_name = "texture"
    watched = "valid/contrast"
    max_steps = 3_000


def main(args: list[str] | None = None, prog: str = "python -m sish.vqvae") -> int:
    """Run one command.

    Parameters
    ----------
    args : list of str, optional
        Words of the command line. Default: those of this process.
    prog : str
        Name of the program in its help.

    Returns
    -------
    int
        0 if it worked, 1 after an error (one line on stderr), 130 if it was interrupted. Wrong options exit
        with 2.
    """
    argv = sys.argv[1:] if args is None else list(args)
    return run_command(lambda: _run(argv, prog))


def _run(argv: list[str], prog: str) -> None:
    if argv[:1] == ["export"]:
        _export(argv[1:], prog)
    elif argv[:1] == ["contrast"]:
        _train(ContrastCLI, ContrastModule, ["fit", *argv[1:]], prog)
    else:
        _train(TrainingCLI, VQVAEModule, argv, prog)


def _train(cli: type[TrainingCLI], module: type[VQVAEModule], argv: list[str], prog: str) -> None:
    cli(
        module,
        PatchData,
        args=argv,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        parser_class=TrainingParser,
        parser_kwargs={"prog": prog, "description": _DESCRIPTION},
    )


def _export_parser(prog: str) -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"{prog} export",
        description="Turn a checkpoint into weights (safetensors with their configuration).",
    )
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="checkpoint of a training run (.ckpt), or weights"
    )
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
    parser.add_argument(
        "--features",
        type=Literal["oriented", "pooled"] | None,
        default=None,
        help="make the barcode of these statistics of the autoencoder instead (they need --data.folder)",
    )
    parser.add_argument("--training", type=dict[str, Any], default={}, help="facts to keep with the weights")
    return parser


def _export(argv: list[str], prog: str) -> None:
    options = _export_parser(prog).parse_args(argv)
    output = Path(options.output)
    model, facts = read_model(options.checkpoint, options.features)
    if output.is_dir() or not output.suffix:
        output = output / f"{model.config.name}.safetensors"
    inputs = [Path(options.checkpoint)]
    check_output(output, inputs=inputs, replaces=(".safetensors",))
    if options.data.folder is not None:
        paths = list_images(options.data.folder, options.data.prefix)
        patches = ImagePatches(paths, options.data.size_px, augment=False)
        calibrate(model, spread_batches(patches, options.patches))
    fingerprint = save_weights(model, output, training=facts | options.training, inputs=inputs)
    print_line(f"{output}: {fingerprint}")
