"""The command line of the texture network: train it beside an autoencoder, export both, load, encode."""

import csv

import numpy as np
import pytest
from PIL import Image

from sish.vqvae import load_encoder
from sish.vqvae.cli import main


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number in range(12):
        pixels = generator.integers(60, 255, (6, 6, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(folder / f"{'v' if number > 7 else 't'}{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A folder with a run of four steps in it."""
    folder = tmp_path_factory.mktemp("run")
    arguments = [
        "contrast",
        f"--data.folder={images}",
        "--data.split.train=t",
        "--data.split.valid=v",
        "--data.cut.train_px=48",
        "--data.cut.valid_px=48",
        "--data.batch_size=4",
        "--data.stain_jitter=0",
        "--model.texture_channels=[2,2]",
        "--model.texture_blocks=[0,1]",
        "--model.views.size_px=16",
        f"--checkpoint.dirpath={folder}/checkpoints",
        f"--trainer.logger.init_args.save_dir={folder}",
        "--trainer.max_steps=4",
        "--trainer.accelerator=cpu",
        "--trainer.log_every_n_steps=1",
        "--calibrate.patches=8",
        "--pictures.patches=2",
        "--pictures.among=4",
    ]
    assert main(arguments) == 0
    return folder


def test_what_is_learnt_is_logged(run):
    with (run / "texture" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train/contrast"]) for row in rows if row["train/contrast"]]
    valid = [float(row["valid/found"]) for row in rows if row["valid/found"]]
    assert valid and all(0 <= share <= 1 for share in valid)


def test_the_export_encodes_the_same_however_a_patch_lies(run, images, tmp_path):
    weights = tmp_path / "own.safetensors"
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert main(["export", f"--checkpoint={checkpoint}", f"--output={weights}"]) == 0
    own, shipped = load_encoder(weights), load_encoder()
    assert own.binarisation == "sign" and own.fingerprint != shipped.fingerprint
    patch = np.asarray(Image.open(images / "t0.png"))
    found = own.encode(np.stack([patch, np.rot90(patch), patch[::-1]]))
    np.testing.assert_allclose(found.features[1:], found.features[:1].repeat(2, 0), atol=1e-4)
    # the autoencoder beside it has stayed as it was
    assert np.array_equal(found.codes, shipped.encode(np.stack([patch, np.rot90(patch), patch[::-1]])).codes)


def test_a_temperature_of_nothing_is_refused_on_one_line(images, capsys):
    assert main(["contrast", f"--data.folder={images}", "--model.temperature=0"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
