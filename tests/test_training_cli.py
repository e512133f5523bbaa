"""`sish train-codes` and `sish train-masks`: fit, resume, validate, export, and what they refuse."""

import csv
import sys

import numpy as np
import pytest
import torch
from learnable import write_lesions, write_xrays

from sish.cli import main as sish_main
from sish.cli.training import main
from sish.systems.lesions.mask_predictor import load_mask_predictor
from sish.systems.xray.generator import load_code_generator

CODES = [
    "--model.net.name=tiny",
    "--model.net.bits=16",
    "--model.net.channels=[4,8]",
    "--model.net.size_px=16",
]
MASKS = ["--model.net.name=small", "--model.net.channels=[4,8]", "--model.net.size_px=[32,24]"]


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    return write_xrays(tmp_path_factory.mktemp("xrays"))


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    return write_lesions(tmp_path_factory.mktemp("lesions"))


def options(command, data, folder, net, epochs=2):
    return [
        command,
        *net,
        f"--data.folder={data}",
        "--data.valid_share=0.3",
        "--data.batch_size=8",
        f"--checkpoint.dirpath={folder}/checkpoints",
        f"--trainer.logger.init_args.save_dir={folder}",
        f"--trainer.max_epochs={epochs}",
        "--trainer.accelerator=cpu",
    ]


@pytest.fixture(scope="module")
def run(xrays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert main("codes", options("fit", xrays, folder, CODES)) == 0
    return folder


def test_fit_logs_and_keeps_checkpoints(run):
    with (run / "codes" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["valid/loss"] for row in rows) and any(row["train/loss"] for row in rows)
    assert (run / "codes" / "version_0" / "config.yaml").is_file()
    for name in ("best", "last"):
        generator = load_code_generator(run / "checkpoints" / f"{name}.ckpt")
        assert (generator.bits, generator.size_px, generator.findings) == (16, 16, ("Effusion", "Mass"))


def test_fit_says_where_it_writes_and_no_more_and_repeats_with_its_seed(xrays, run, tmp_path, capfd):
    assert main("codes", options("fit", xrays, tmp_path, CODES)) == 0
    out, err = capfd.readouterr()
    assert err == "" and out.count("\n") == 1 and str(tmp_path / "checkpoints") in out
    first, second = (load_code_generator(folder / "checkpoints/last.ckpt") for folder in (run, tmp_path))
    assert first.fingerprint == second.fingerprint
    other = [*options("fit", xrays, tmp_path / "other", CODES), "--seed_everything=1"]
    assert main("codes", other) == 0
    assert load_code_generator(tmp_path / "other/checkpoints/last.ckpt").fingerprint != first.fingerprint


def test_a_missing_logger_is_one_line(xrays, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sish.vqvae.checkpoints.find_spec", lambda name: None)
    arguments = [word for word in options("fit", xrays, tmp_path, CODES) if "logger" not in word]
    assert main("codes", [*arguments, "--trainer.logger=TensorBoardLogger"]) == 1
    err = capsys.readouterr().err
    assert "[tensorboard]" in err and err.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "train-codes", "train-masks"])
def test_training_without_torch_is_one_line(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert sish_main([command, "--help"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"sish: error: sish {command} needs torch") and err.count("\n") == 1


def test_a_second_run_from_scratch_leaves_the_first_alone(xrays, run, capsys):
    before = {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    assert main("codes", options("fit", xrays, run, CODES)) == 1
    assert "of another run" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before


def test_resume_goes_on(xrays, run, tmp_path):
    last = run / "checkpoints" / "last.ckpt"
    assert main("codes", [*options("fit", xrays, tmp_path, CODES, epochs=4), f"--ckpt_path={last}"]) == 0
    before, after = (
        torch.load(path, weights_only=True) for path in (last, tmp_path / "checkpoints/last.ckpt")
    )
    assert after["global_step"] == 2 * before["global_step"]


def test_export_is_the_checkpoint_without_pickle(run, tmp_path, capsys):
    checkpoint = run / "checkpoints" / "best.ckpt"
    assert main("codes", ["export", f"--checkpoint={checkpoint}", f"--output={tmp_path}"]) == 0
    generator = load_code_generator(tmp_path / "tiny.safetensors")
    assert generator.fingerprint in capsys.readouterr().out
    pixels = np.random.default_rng(0).integers(0, 255, (3, 16, 16), dtype=np.uint8)
    assert np.array_equal(generator.codes(pixels), load_code_generator(checkpoint).codes(pixels))


def test_masks_the_same_way(lesions, tmp_path, capsys):
    assert main("masks", options("fit", lesions, tmp_path, MASKS)) == 0
    checkpoint = tmp_path / "checkpoints" / "best.ckpt"
    assert main("masks", [*options("validate", lesions, tmp_path, MASKS), f"--ckpt_path={checkpoint}"]) == 0
    assert "valid/iou" in capsys.readouterr().out
    assert main("masks", ["export", f"--checkpoint={checkpoint}", f"--output={tmp_path}/m.safetensors"]) == 0
    assert load_mask_predictor(tmp_path / "m.safetensors").size_px == (32, 24)
    assert main("codes", ["export", f"--checkpoint={checkpoint}", f"--output={tmp_path}"]) == 1
    assert "sish-codes-1 is wanted" in capsys.readouterr().err


def test_a_run_that_no_longer_gains_ends(xrays, tmp_path):
    more = ["--early_stopping.patience=1", "--early_stopping.min_delta=1000"]
    assert main("codes", [*options("fit", xrays, tmp_path, CODES, epochs=30), *more]) == 0
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 1


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("codes", ["fit", "--data.folder=no/such"], "no/such"),
        ("codes", ["fit", "--data.folder=LESIONS", "--data.fold=7"], "fold 7 of 5"),
        ("codes", ["fit", "--data.folder=LESIONS", "--model.learning_rate=-1"], "learning_rate"),
        ("masks", ["fit", "--data.folder=XRAYS"], "has no mask"),
        ("codes", ["fit", "--data.folder=XRAYS", "--ckpt_path=none.ckpt"], "none.ckpt"),
        ("codes", ["export", "--checkpoint=none.ckpt", "--output=out"], "none.ckpt"),
    ],
)
def test_bad_input_is_one_line(name, arguments, words, xrays, lesions, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words_of = [word.replace("LESIONS", str(lesions)).replace("XRAYS", str(xrays)) for word in arguments]
    assert main(name, words_of) == 1
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1


def test_a_checkpoint_of_another_network(xrays, run, tmp_path, capsys):
    other = [*options("fit", xrays, tmp_path, CODES, 9), "--model.net.bits=24"]
    assert main("codes", [*other, f"--ckpt_path={run}/checkpoints/last.ckpt"]) == 1
    assert "another network: bits differ" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["fit", "--model.nonsense=1"], ["nonsense"], ["export"]])
def test_wrong_options_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main("codes", arguments)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["sish train-codes export --help"]),
        (["fit", "--help"], ["bits of a code", "folder with a labels.csv"]),
    ],
)
def test_help_explains_options(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        sish_main(["train-codes", *arguments])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split()).lower()
    assert all(word in text for word in words)
