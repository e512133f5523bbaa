"""The command line: train a tiny network, go on, export, load."""

import csv
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sish.cli import main as sish
from sish.demo.synthetic import write_slides
from sish.printing import warnings_on_one_line
from sish.vqvae import load_encoder
from sish.vqvae.cli import main
from sish.vqvae.pictures import code_colors, draw_curves, draw_neighbours

CONFIGS = Path(__file__).parents[1] / "vqvae" / "configs"

NET = [
    "--model.net.name=tiny",
    "--model.net.channels=[8,16,240]",
    "--model.net.residual_blocks=1",
    "--model.net.residual_channels=4",
    "--model.net.codes=16",
    "--model.net.code_dim=8",
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number in range(12):
        part = "train" if number < 8 else "valid"
        (folder / part).mkdir(exist_ok=True)
        pixels = generator.integers(0, 255, (4, 4, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
        Image.fromarray(pixels).save(folder / part / f"{number}.png")
    return folder


def options(images, folder, steps):
    return [
        "fit",
        *NET,
        f"--data.folder={images}",
        "--data.split.train=train/",
        "--data.split.valid=valid/",
        "--data.cut.train_px=16",
        "--data.cut.valid_px=24",
        "--data.batch_size=4",
        f"--checkpoint.dirpath={folder}/checkpoints",
        f"--trainer.logger.init_args.save_dir={folder}",
        f"--trainer.max_steps={steps}",
        "--trainer.accelerator=cpu",
        "--trainer.log_every_n_steps=1",
        "--calibrate.patches=8",
    ]


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A folder with a run of three steps in it."""
    folder = tmp_path_factory.mktemp("run")
    assert main(options(images, folder, 3)) == 0
    return folder


def metrics(folder, version=0):
    with (folder / "vqvae" / f"version_{version}" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_fit_logs_and_draws(run):
    rows = metrics(run)
    for stage in ("train", "valid"):
        for name in ("loss", "mse", "commitment", "perplexity", "codes_in_use"):
            values = [float(row[f"{stage}/{name}"]) for row in rows if row[f"{stage}/{name}"]]
            assert values, (stage, name)
            assert np.isfinite(values).all()
    assert max(int(row["step"]) for row in rows) == 2
    pictures = run / "vqvae" / "version_0" / "pictures"
    with Image.open(next(pictures.glob("step_*.png"))) as sheet:
        assert sheet.size == (4 * 26 - 2, 3 * 26 - 2)
    with Image.open(next(pictures.glob("neighbours_*.png"))) as sheet:
        assert sheet.size == (4 * 26 - 2, 4 * 26 - 2)  # four patches, and below each the three others
    assert (pictures / "curves.png").stat().st_size > 1000
    assert (run / "vqvae" / "version_0" / "config.yaml").is_file()


def test_fit_says_where_it_writes_and_no_more_and_repeats_with_its_seed(images, run, tmp_path, capfd):
    assert main(options(images, tmp_path, 3)) == 0
    out, err = capfd.readouterr()
    assert err == "" and out.count("\n") == 1
    assert str(tmp_path / "checkpoints") in out and str(tmp_path / "vqvae" / "version_0") in out
    first, second = (load_encoder(folder / "checkpoints" / "last.ckpt") for folder in (run, tmp_path))
    assert first.fingerprint == second.fingerprint


def test_resume_goes_on_from_the_last_checkpoint(images, run, tmp_path):
    assert main(options(images, tmp_path, 2)) == 0
    checkpoints = tmp_path / "checkpoints"
    before = torch.load(checkpoints / "last.ckpt", weights_only=True)
    assert main([*options(images, tmp_path, 5), "--ckpt_path=last"]) == 0
    after = torch.load(checkpoints / "last.ckpt", weights_only=True)
    assert (before["global_step"], after["global_step"]) == (2, 5)
    batches = "vqvae.quantizer.batches"
    assert (int(before["state_dict"][batches]), int(after["state_dict"][batches])) == (2, 5)
    assert min(int(row["step"]) for row in metrics(tmp_path, 1)) >= 2


def checkpoints_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.ckpt")}


def test_a_second_run_from_scratch_leaves_the_first_alone(images, run, tmp_path, capsys):
    before = checkpoints_of(run / "checkpoints")
    elsewhere = tmp_path / "own"
    assert main(options(images, elsewhere, 1)) == 0
    for more in ([], ["--ckpt_path", str(elsewhere / "checkpoints" / "last.ckpt")]):
        capsys.readouterr()
        assert main([*options(images, run, 4), *more]) == 1
        err = capsys.readouterr().err
        assert "of another run" in err and "--ckpt_path last" in err and err.count("\n") == 1
    assert checkpoints_of(run / "checkpoints") == before


def test_everything_goes_below_the_root_that_is_given(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    usual = [it for it in options(images, "none", 1) if "checkpoint.dirpath" not in it and "logger" not in it]
    assert main([*usual, "--trainer.default_root_dir=mine"]) == 0
    assert Path("mine/vqvae/checkpoints/last.ckpt").is_file()
    assert Path("mine/vqvae/version_0/metrics.csv").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert main([*usual, "--trainer.default_root_dir=mine", "--checkpoint.dirpath=own"]) == 0
    assert Path("own/last.ckpt").is_file() and Path("mine/vqvae/version_1").is_dir()


def test_steps_after_the_last_validation_are_kept(images, tmp_path):
    assert main([*options(images, tmp_path, 3), "--trainer.val_check_interval=2"]) == 0
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 3
    assert main([*options(images, tmp_path / "short", 1), "--trainer.val_check_interval=2"]) == 0
    assert load_encoder(tmp_path / "short" / "checkpoints" / "last.ckpt").hamming_threshold >= 0


def test_a_trial_run_leaves_the_last_checkpoint_alone(images, tmp_path):
    assert main(options(images, tmp_path, 2)) == 0
    assert main([*options(images, tmp_path, 2), "--trainer.fast_dev_run=true"]) == 0
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_slides_train_in_mixed_precision_with_pictures_in_tensorboard(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_slides(tmp_path / "slides", n_slides=3, side_um=300)
    arguments = [*options("none", tmp_path, 6), "--data.slides=slides", "--data.cut.per_slide=6"]
    arguments = ["train", *(word for word in arguments if "data.folder" not in word)]
    arguments += ["--trainer.precision=bf16-mixed", "--trainer.logger=TensorBoardLogger"]
    Path("slides/empty.svs").touch()
    with pytest.warns(UserWarning, match=r"^slides/empty\.svs is skipped: is empty"):
        assert sish(arguments) == 0
    assert len(list(Path("vqvae/version_0").glob("events.*"))) == 1
    assert len(list(Path("vqvae/version_0/pictures").glob("neighbours_*.png"))) == 2
    assert len(list(Path("runs/patches").glob("*.squares"))) == 1
    Path("slides/empty.svs").unlink()
    assert sish([*arguments, "--trainer.max_steps=9", "--ckpt_path=checkpoints/last.ckpt"]) == 0
    assert torch.load("checkpoints/last.ckpt", weights_only=True)["global_step"] == 9
    assert sish(["train", "export", "--checkpoint=checkpoints/last.ckpt", "--output=mine.safetensors"]) == 0
    assert load_encoder("mine.safetensors").config.name == "tiny"


def test_training_stops_when_nothing_improves(images, tmp_path, capsys):
    assert main([*options(images, tmp_path, 40), "--stop.patience=2", "--stop.min_delta=9"]) == 0
    # an epoch has two steps: the first validation sets the mark, two do not better it, and the last is kept
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
    assert "stopped at step 6: valid/mse was best 2 validations ago" in capsys.readouterr().err


def test_a_missing_logger_is_one_line(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sish.vqvae.checkpoints.find_spec", lambda name: None)
    assert main([*options(images, tmp_path, 1), "--trainer.logger=TensorBoardLogger"]) == 1
    err = capsys.readouterr().err
    assert f"pip install -e '{Path(__file__).parents[1]}[tensorboard]'" in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_two_processes_train_one_network(images, tmp_path):
    devices = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    done = subprocess.run(
        [sys.executable, "-m", "sish.vqvae", *options(images, tmp_path, 2), *devices],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    # two ranks of 4 crops with 2 x 2 codes each: the average use is of the joined batch
    assert float(checkpoint["state_dict"]["vqvae.quantizer.ema_counts"].sum()) == pytest.approx(32, rel=1e-4)
    assert (tmp_path / "vqvae" / "version_0" / "pictures" / "curves.png").is_file()


def test_export_and_load(images, run, tmp_path, capsys):
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert main(["export", f"--checkpoint={checkpoint}", f"--output={tmp_path}"]) == 0
    encoder = load_encoder(tmp_path / "tiny.safetensors")
    assert encoder.fingerprint in capsys.readouterr().out
    assert encoder.fingerprint == load_encoder(checkpoint).fingerprint
    pixels = np.zeros((2, 16, 24, 3), np.uint8)
    assert encoder.encode(pixels).codes.shape == (2, 2, 3)
    assert np.array_equal(encoder.encode(pixels).codes, load_encoder(checkpoint).encode(pixels).codes)


def test_export_makes_the_barcode_of_other_statistics(images, run, tmp_path, capsys):
    checkpoint = f"--checkpoint={run}/checkpoints/last.ckpt"
    measured = [f"--data.folder={images}", "--data.prefix=train/", "--data.size_px=24"]
    pooled, oriented = tmp_path / "pooled.safetensors", tmp_path / "oriented.safetensors"
    assert main(["export", checkpoint, "--features=pooled", f"--output={pooled}", *measured]) == 0
    way = ["export", f"--checkpoint={pooled}", "--features=oriented", f"--output={oriented}"]
    assert main([*way, *measured]) == 0
    found = [load_encoder(it) for it in (run / "checkpoints" / "last.ckpt", pooled, oriented)]
    assert [it.orientation_invariant for it in found] == [True, False, True]
    patch = np.asarray(Image.open(images / "train" / "0.png"))[None]
    assert all(np.array_equal(it.encode(patch).codes, found[0].encode(patch).codes) for it in found)
    capsys.readouterr()
    assert main(way) == 1  # nothing to measure them on
    assert "--data.folder" in capsys.readouterr().err
    assert main([*way, *measured[:2], "--data.size_px=20"]) == 1
    assert "multiple of 8" in capsys.readouterr().err


def test_export_measures_features_again(images, run, tmp_path):
    base = ["export", f"--checkpoint={run}/checkpoints/last.ckpt"]
    again = [f"--data.folder={images}", "--data.prefix=train/", "--data.size_px=24", "--patches=5"]
    assert main([*base, f"--output={tmp_path}/a.safetensors"]) == 0
    assert main([*base, f"--output={tmp_path}/b.safetensors", *again]) == 0
    first, second = (load_encoder(tmp_path / f"{name}.safetensors") for name in "ab")
    assert "measured on 8 patches" in first.hamming.obtained
    assert "measured on 5 patches" in second.hamming.obtained
    assert first.fingerprint != second.fingerprint
    assert np.array_equal(first.codebook, second.codebook)


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "--data.folder=no/such/folder"],
        ["fit"],
        ["fit", "--data.folder=.", "--model.net.codes=300"],
        ["fit", "--data.folder=.", "--model.learning_rate=-1"],
        ["export", "--checkpoint=none.ckpt", "--output=out.safetensors"],
    ],
)
def test_bad_input_is_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as stop:  # refused while the options were read
        code = stop.code
    err = capsys.readouterr().err
    assert code in (1, 2)
    assert "Traceback" not in err
    assert code == 2 or len(err.splitlines()) == 1


def test_checkpoints_that_are_none(images, tmp_path, capsys):
    (tmp_path / "bad.ckpt").write_text("hello")
    for name in ("bad.ckpt", "none.ckpt"):
        assert main([*options(images, tmp_path, 1), f"--ckpt_path={tmp_path / name}"]) == 1
        err = capsys.readouterr().err
        assert name in err
        assert len(err.splitlines()) == 1


def test_a_checkpoint_of_another_network(images, run, tmp_path, capsys):
    checkpoint = run / "checkpoints" / "last.ckpt"
    other = [*options(images, tmp_path, 9), f"--ckpt_path={checkpoint}", "--model.net.codes=17"]
    assert main(other) == 1
    assert "another network: codes differ" in capsys.readouterr().err


def test_nothing_to_resume_from_is_said(images, tmp_path):
    with pytest.warns(UserWarning, match="no last checkpoint"):
        assert main([*options(images, tmp_path, 1), "--ckpt_path=last"]) == 0


def test_warnings_are_lines_for_the_user():
    with warnings_on_one_line():
        assert warnings.formatwarning("two\nlines", UserWarning, "file.py", 3) == "warning: two lines\n"
    assert "file.py:3" in warnings.formatwarning("two\nlines", UserWarning, "file.py", 3)


def test_logs_that_cannot_be_written(images, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([*options(images, tmp_path, 1), f"--trainer.logger.init_args.save_dir={tmp_path}/file"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_validate_prints_what_fit_logged(images, run, tmp_path, capsys):
    arguments = ["validate", *options(images, tmp_path, 3)[1:], f"--ckpt_path={run}/checkpoints/last.ckpt"]
    assert main(arguments) == 0
    assert "valid/perplexity" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["fit", "--trainer.max_stepz=3"], ["fit", "--trainer.max_steps=many"], ["nonsense"], ["export"], []],
)
def test_wrong_options_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_image_off_the_stride_is_one_line(images, tmp_path, capsys):
    assert main([*options(images, tmp_path, 1), "--data.cut.train_px=20"]) == 1
    err = capsys.readouterr().err
    assert "multiple of 8" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["default", "paper"])
def test_shipped_configurations_parse(name, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", f"--config={CONFIGS}/{name}.yaml", f"--data.folder={tmp_path}", "--print_config"])
    assert stop.value.code == 0
    assert f"name: {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["default", "paper"])
def test_shipped_configurations_are_the_presets(name):
    import yaml

    from sish.vqvae.model import PRESETS, VQVAEConfig

    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert VQVAEConfig.from_dict(values["model"]["net"]) == PRESETS[name]


def test_help_explains_options(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("folder of images", "Entries of the codebook", "highest learning rate"):
        assert words in text
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "export" in capsys.readouterr().out


def test_near_codewords_get_near_colours():
    line = np.linspace(0, 1, 9, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    red = code_colors(line)[:, 0].astype(int)
    steps = np.diff(red)
    assert (steps > 0).all() or (steps < 0).all()
    assert {red.min(), red.max()} == {0, 255}


def test_neighbours_are_the_nearest_others():
    images = np.zeros((9, 4, 4, 3), np.uint8) + np.arange(9, dtype=np.uint8)[:, None, None, None]
    angles = np.array([0, 120, 240, 1, 121, 241, 3, 123, 243]) * np.pi / 180
    sheet = draw_neighbours(images, np.stack([np.cos(angles), np.sin(angles)], 1), queries=3, k=2)
    assert sheet.shape == (3 * 6 - 2, 3 * 6 - 2, 3)
    # queries 0, 4, 8: below each the others of its bundle, the nearer first
    assert sheet[::6, ::6, 0].tolist() == [[0, 4, 8], [3, 1, 5], [6, 7, 2]]


@pytest.mark.parametrize(
    ("log", "height"),
    [
        ("step,train/loss,train/mse,train/perplexity\n0,1,0.5,3\n1,1,0.4,4\n", 220),  # never validated
        ("step,train/mse,train/commitment,valid/mse,valid/perplexity\n0,1,1,,\n0,,,2,9\n", 440),
        ("step,train/contrast,train/found,valid/contrast\n0,1,0.5,\n0,,,2\n", 220),
    ],
)
def test_curves_of_what_is_logged(log, height, tmp_path):
    (tmp_path / "metrics.csv").write_text(log)
    draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (720, height)
