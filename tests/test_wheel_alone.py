"""The wheel alone, in an environment that has nothing else of the project: `make test-wheel` makes one."""

import hashlib
import json
import os
import shlex
import signal
import subprocess
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from learnable import write_lesions, write_xrays
from PIL import Image
from test_licences import NAMED
from test_wheel import tracked, wanted

if "SISH_WHEEL_ENVIRONMENT" not in os.environ:
    pytest.skip("needs an environment with the wheel (make test-wheel)", allow_module_level=True)

PROGRAMS = Path(os.environ["SISH_WHEEL_ENVIRONMENT"]).resolve() / "bin"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "OMP_NUM_THREADS": "1"}
"""No PYTHONPATH, and nothing else that leads to the clone."""


def run(program: str, *words: object, cwd: Path) -> str:
    """Run a program of the environment in a folder outside of the clone; returns what it prints."""
    command = [PROGRAMS / program, *map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=600
    )
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_python(code: str, cwd: Path) -> str:
    """Run lines of Python in the environment; returns what they print."""
    return run("python", "-c", code, cwd=cwd).strip()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of packages that has sish."""
    where = run_python("import sish; print(*sish.__path__)", tmp_path_factory.mktemp("elsewhere"))
    site = Path(where).parent
    assert site.is_relative_to(PROGRAMS.parent)
    return site


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The index that `sish demo` makes in an empty folder."""
    folder = tmp_path_factory.mktemp("empty")
    run("sish", "demo", cwd=folder)
    (made,) = folder.iterdir()
    assert list(made.glob("*.html")), "the report"
    (archive,) = made.glob("*.sish")
    return archive


def test_all_packages_fit_together(tmp_path):
    assert "No broken requirements found" in run("python", "-m", "pip", "check", cwd=tmp_path)


def test_the_environment_has_every_file_of_the_source_and_nothing_of_the_clone(site):
    files = {str(path.relative_to(site)) for path in (site / "sish").rglob("*") if path.is_file()}
    assert {name for name in files if "__pycache__" not in name} == wanted(tracked())
    assert not [name for name in ("index", "vqvae", "tests", "benchmarks") if (site / name).exists()]


@pytest.mark.parametrize("name", NAMED)
def test_files_of_others_are_what_the_licences_name(name, site):
    assert hashlib.sha256((site / name).read_bytes()).hexdigest() == NAMED[name]


def test_the_licences_are_there(site):
    (about,) = site.glob("sish-*.dist-info")
    names = {path.name for path in (about / "licenses").iterdir()}
    assert names == {"LICENSE", "NOTICE", "THIRD_PARTY_LICENSES.txt"}


def test_the_demo_can_be_searched(archive):
    slides = sorted((archive.parent / "slides").glob("*.tif"))
    printed = run("sish", "search", slides[0], "--index", archive, "--json", cwd=archive.parent)
    assert json.loads(printed)["results"]


def test_the_server_answers_with_its_page_and_vendored_files(archive, site):
    command = [PROGRAMS / "sish", "serve", "--index", archive, "--port", "0", "--no-browser"]
    with subprocess.Popen(
        command, cwd=archive.parent, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            origin, _, token = server.stdout.readline().strip().partition("/?token=")
            assert origin.startswith("http://127.0.0.1:") and token

            def ask(path: str, body: bytes | None = None) -> bytes:
                head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
                with urlopen(Request(origin + path, body, head), timeout=60) as answer:
                    return answer.read()

            assert b"<title>" in ask("/")
            vendored = "page/vendor/openseadragon.min.js"
            assert ask(f"/{vendored}") == (site / "sish/serve" / vendored).read_bytes()
            first = json.loads(ask("/api/slides?limit=1"))["slides"][0]["slide_id"]
            answer = ask("/api/search", json.dumps({"slide_id": first, "k": 3}).encode())
            assert len(json.loads(answer)["results"]) == 3
        finally:
            server.send_signal(signal.SIGINT)
    assert server.returncode == 0


@pytest.mark.parametrize("command", ["train", "train-codes", "train-masks"])
def test_training_tells_its_options(command, tmp_path):
    assert "fit" in run("sish", command, "--help", cwd=tmp_path)


def test_an_encoder_is_trained_and_loaded(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 24, 24, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        path = tmp_path / "images" / ("train" if number < 8 else "valid") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    net = "name=tiny channels=[8,16,240] residual_blocks=1 residual_channels=4 codes=16 code_dim=8"
    data = "folder=images split.train=train/ split.valid=valid/ cut.train_px=16 cut.valid_px=24 batch_size=4"
    run(
        "sish",
        "train",
        "fit",
        *(f"--model.net.{word}" for word in net.split()),
        *(f"--data.{word}" for word in data.split()),
        "--trainer.max_steps=3",
        "--trainer.accelerator=cpu",
        "--trainer.log_every_n_steps=1",
        "--calibrate.patches=8",
        "--checkpoint.dirpath=made",
        cwd=tmp_path,
    )
    code = "from sish.vqvae import load_encoder; print(load_encoder('made/last.ckpt').fingerprint)"
    assert run_python(code, tmp_path)


@pytest.mark.parametrize(
    ("command", "write", "net"),
    [
        ("train-codes", write_xrays, "name=tiny bits=16 channels=[4,8] size_px=16"),
        ("train-masks", write_lesions, "name=small channels=[4,8] size_px=[32,24]"),
    ],
)
def test_the_networks_of_other_systems_are_trained(command, write, net, tmp_path):
    (tmp_path / "data").mkdir()
    data = write(tmp_path / "data")
    run(
        "sish",
        command,
        "fit",
        *(f"--model.net.{word}" for word in net.split()),
        f"--data.folder={data}",
        "--data.valid_share=0.3",
        "--data.batch_size=8",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--checkpoint.dirpath=made",
        cwd=tmp_path,
    )
    assert (tmp_path / "made" / "last.ckpt").is_file()
