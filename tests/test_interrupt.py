"""Ctrl-C is one line and exit code 130, also while libraries are imported."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sish.cli import main

CODE = """
import os, runpy, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = ["sish", *{words!r}]
runpy.run_module("sish", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("sish.cli.entry", ["index", "list", "--index", "none"]),
        ("jsonargparse", ["index", "list", "--index", "none"]),
        ("numpy", ["index", "list", "--index", "none"]),
        ("sish.slide_index", ["index", "list", "--index", "none"]),
        ("torch", ["train", "fit"]),
        ("pytorch_lightning.cli", ["train-codes", "fit"]),
    ],
)
def test_an_interrupt_while_a_module_is_imported(module, words):
    pytest.importorskip(module)
    code = CODE.format(module=module, words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130 and done.stdout == ""
    assert "interrupted" in done.stderr and done.stderr.count("\n") == 1


def test_an_interrupt_while_a_network_is_trained(tmp_path, monkeypatch, capsys):
    """Lightning turns it into an exit with 1."""
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")

    def training_step(self, batch, batch_idx):
        raise KeyboardInterrupt

    monkeypatch.setattr("sish.vqvae.module.VQVAEModule.training_step", training_step)
    words = ["train", "fit", "--data.folder", tmp_path, "--trainer.default_root_dir", tmp_path / "runs"]
    assert main([*map(str, words), "--data.cut.train_px=64", "--data.cut.valid_px=64"]) == 130
    err = capsys.readouterr().err
    assert "interrupted; --ckpt_path last" in err and err.count("\n") == 1


def test_an_ignored_interrupt_stays_ignored():
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + CODE.format(
        module="jsonargparse", words=["index", "list", "--index", "none"]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "none" in done.stderr
