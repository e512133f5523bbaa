"""``sish doctor``: tells what works, and each kind of damage makes it say so."""

import configparser
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sish.cli import main
from sish.doctor import Check, Examination, children, examine, packages
from sish.doctor import checks as doctor_checks
from sish.doctor.children import run_checks
from sish.doctor.packages import ENABLES, requirements
from sish.doctor.private import Private
from sish.errors import ParameterError
from sish.index.store.lock import WriterLock

ROOT = Path(__file__).parents[1]
FOR_DEVELOPERS = {"bench", "dev", "docs", "notebooks", "test", "weights"}
CHEAP = ["python", "cores", "memory", "temporary folder", "encoding"]


def states(*names, index=None):
    return {check.name: check.state for check in examine(index, only=names).checks}


def only(name, index=None):
    (check,) = examine(index, only=[name]).checks
    return check


@pytest.fixture
def shadowed(tmp_path, monkeypatch):
    """Write modules that are found before the installed ones, also by child processes."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def shadow(name, text):
        (tmp_path / f"{name}.py").write_text(text)

    return shadow


@pytest.mark.slow
def test_this_installation_is_sound_and_every_check_runs():
    found = examine()
    assert found.is_sound, [check for check in found.checks if check.state == "broken"]
    assert [check.name for check in found.checks] == list(doctor_checks.OF_THE_MACHINE)
    assert all(check.advice for check in found.checks if check.state in ("broken", "missing"))


def test_output_that_cannot_be_written_is_one_line(tmp_path):
    code = (
        "import sys; from sish.doctor import command; command.check_names = lambda index: ['python'];"
        "sys.exit(command.main(sys.argv[1:]))"
    )
    reading, writing = os.pipe()
    os.close(reading)  # as in `sish doctor | head -0`
    with Path("/dev/full" if Path("/dev/full").exists() else os.devnull).open("w") as full:
        for out, words in ((writing, []), (writing, ["--report"]), (full, ["--json"])):
            command = [sys.executable, "-c", code, *words]
            done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
            assert done.stderr.count("\n") <= 1 and "Traceback" not in done.stderr
            assert done.returncode == 1 or full.name == os.devnull
    os.close(writing)


def test_the_report_in_a_folder_that_is_gone(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert Private.here().hide("all is well") == "all is well"


def test_a_check_that_does_not_exist_is_refused():
    with pytest.raises(ParameterError, match="no check 'weather'"):
        examine(only=["weather"])


def test_the_sentence_of_each_extra_that_a_user_may_want():
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    extras = set(setup["options.extras_require"])
    assert set(ENABLES) == extras - FOR_DEVELOPERS


def test_requirements_are_read_with_their_versions_and_extras(monkeypatch):
    lines = [
        "tomli>=2; python_version < '3'",
        "numpy>=2.0",
        "jsonargparse[signatures]>=4.40",
        'psycopg[binary]>=3.2; extra == "postgres"',
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
    assert [(each.name, each.versions, each.extra) for each in requirements()] == [
        ("numpy", ">=2.0", None),
        ("jsonargparse", ">=4.40", None),
        ("psycopg", ">=3.2", "postgres"),
    ]


# ---- damage


def test_a_package_that_raises_is_broken_and_the_checks_after_it_run(shadowed):
    shadowed("safetensors", "raise ImportError('libmissing.so: cannot open')")
    assert states("safetensors", "python", "sortedcontainers") == {
        "safetensors": "broken", "python": "ok", "sortedcontainers": "ok"
    }  # fmt: skip
    check = only("safetensors")
    assert "libmissing.so" in check.found and check.advice.startswith("pip install 'safetensors")


def test_a_package_that_kills_python_is_broken_and_the_checks_after_it_run(shadowed):
    shadowed("safetensors", "import os; os.abort()")
    assert states("python", "safetensors", "sortedcontainers") == {
        "python": "ok", "safetensors": "broken", "sortedcontainers": "ok"
    }  # fmt: skip
    assert "SIGABRT" in only("safetensors").found


def test_a_package_that_hangs_is_broken_and_the_checks_after_it_run(shadowed):
    shadowed("safetensors", "import time; time.sleep(600)")
    found = list(run_checks(["safetensors", "python"], patience_s=3))
    assert [check.state for check in found] == ["broken", "ok"]
    assert "did not end within 3 s" in found[0].found


def test_an_old_package_is_broken(shadowed, tmp_path):
    folder = tmp_path / "safetensors-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: safetensors\nVersion: 0.1.0\n")
    check = only("safetensors")
    assert check.state == "broken" and "is 0.1.0, and sish wants" in check.found


def test_a_missing_package_of_an_extra_is_no_damage(shadowed):
    shadowed("h5py", "raise ImportError('no HDF5')")
    found = examine(only=["extra interop"])
    assert found.is_sound and found.checks[0].state == "missing"
    assert "h5" in found.checks[0].found and "interop" in found.checks[0].advice


@pytest.mark.parametrize(
    ("damage", "check", "told"),
    [
        ("import tifffile; tifffile.TIFF.DECOMPRESSORS._codecs[5] = None", "tiff decoders", "LZW: "),
        (
            "import tifffile; tifffile.TIFF.DECOMPRESSORS._codecs[50000] = lambda *a, **k: bytes(196_608)",
            "tiff decoders",
            "zstd: pixels differ",
        ),
        ("from PIL import Image; Image.Image.convert = None", "picture decoders", "PNG: "),
        ("from PIL import features; features.check = lambda name: False", "picture decoders", "WEBP"),
        ("import openslide; openslide.OpenSlide.read_region = None", "openslide decoders", "not callable"),
        ("import openslide; openslide.OpenSlide.read_region = None", "slides", "Aperio: "),
        ("import onnxruntime; onnxruntime.get_available_providers = lambda: []", "onnx providers", "none"),
        ("import torch; torch.Tensor.__matmul__ = torch.Tensor.__add__", "torch devices", "computes wrongly"),
    ],
)  # fmt: skip
def test_what_fails_is_named(monkeypatch, damage, check, told):
    monkeypatch.setattr(children, "_CODE", f"{damage}\n{children._CODE}")
    found = only(check)
    assert found.state == ("missing" if "features" in damage else "broken")
    assert told in found.found and found.advice


def test_a_gpu_that_fails_is_a_drawback_and_no_damage(monkeypatch):
    damage = (
        "import torch; torch.cuda.device_count = lambda: 1; torch.cuda.get_device_name = lambda device: 'GPU'"
    )
    monkeypatch.setattr(children, "_CODE", f"{damage}\n{children._CODE}")
    found = only("torch devices")
    assert found.state == "note" and "--device cpu" in found.advice
    assert found.found.startswith("cpu, cuda:0 (GPU) fails: ")


@pytest.mark.slow
def test_a_search_with_other_answers_fails_the_self_test(monkeypatch):
    damage = "from sish.demo import synthetic as s; plan = s.plan; s.plan = lambda n, *a: plan(n + 3, *a)"
    monkeypatch.setattr(children, "_CODE", f"{damage}\n{children._CODE}")
    assert only("self-test").state == "broken"


def test_the_answer_of_the_self_test_is_compared(monkeypatch):
    from sish.doctor import self_test

    assert not self_test._differences("q", [("a", 1.0), ("b", 0.5)], (("a", 1.0), ("b", 0.55)))
    (score,) = self_test._differences("q", [("a", 1.0), ("b", 0.5)], (("a", 1.0), ("b", 0.7)))
    assert score == "q: b scores 0.500; want 0.700"
    (order,) = self_test._differences("q", [("a", 1.0), ("c", 0.5)], (("a", 1.0), ("b", 0.7)))
    assert order == "q: found a, c; want a, b"


@pytest.mark.slow
def test_kernels_that_cannot_be_kept_are_a_drawback_and_no_damage(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
    check = only("kernels")
    assert (check.state, str(tmp_path / "kept") in check.found) == ("ok", True)
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "kept"))
    check = only("kernels")
    assert (check.state, "cannot be written" in check.found) == ("note", True)
    package = tmp_path / "copy" / "sish"
    shutil.copytree(ROOT / "sish", package, ignore=shutil.ignore_patterns("__pycache__", "*.onnx"))
    monkeypatch.setattr(sys, "path", [str(package.parent), *sys.path])
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (package / "index" / "__pycache__").touch()  # no folder can be made here, not even by root
    check = only("kernels")
    assert check.state == "note" and "NUMBA_CACHE_DIR" in check.advice


def test_a_temporary_folder_that_cannot_be_written(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/proc")
    monkeypatch.chdir("/proc")
    code = (
        "import tempfile; tempfile.tempdir = '/proc'; from sish.doctor import machine;"
        "print(*machine.check_temporary_folder())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "state='broken'" in done.stdout and "TMPDIR" in done.stdout


def test_more_threads_than_cores_are_noted(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    check = only("cores")
    assert check.state == "note" and "OMP_NUM_THREADS=4096" in check.found


# ---- an index


def test_an_index_is_examined(own_index):
    found = examine(str(own_index.path), only=["index folder", "index lock", "index"])
    assert [check.state for check in found.checks] == ["ok"] * 3
    assert "format 2, 8 slides" in found.checks[2].found
    lock = WriterLock.acquire(own_index.path / "lock")
    held = only("index lock", str(own_index.path))
    lock.release()
    assert held.state == "note" and str(os.getpid()) in held.found
    manifest = own_index.path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-9])
    assert only("index", str(own_index.path)).state == "broken"


def test_an_index_that_is_not_there(tmp_path):
    found = examine(str(tmp_path / "none.sish"), only=["index folder", "index lock", "index"])
    assert [check.state for check in found.checks] == ["broken", "ok", "broken"]


# ---- the command


def test_the_command_and_its_exit_code(monkeypatch, capsys):
    monkeypatch.setattr("sish.doctor.command.check_names", lambda index: CHEAP)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHEAP) + 1 and all(line.startswith(("ok ", "note ")) for line in lines[:-1])
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sound"] and [check["name"] for check in told["checks"]] == CHEAP
    broken = Check("python", "broken", "too old", "install another")
    monkeypatch.setattr("sish.doctor.command.run_checks", lambda names, index: iter([broken]))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "broken",
        "python",
        "too",
        "old:",
        "install",
        "another",
    ]


def test_the_command_runs_where_the_others_do_not(tmp_path):
    """A broken numpy ends every other command with one line that names this one."""
    for name in ("numpy", "jsonargparse"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('broken on purpose')")
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    code = (
        "import sys, sish.doctor.command as c; c.check_names = lambda index: ['python', 'numpy'];"
        "sys.argv = ['sish', 'doctor']; from sish.__main__ import main; sys.exit(main())"
    )
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1 and "broken on purpose" in done.stdout and not done.stderr
    other = subprocess.run(
        [sys.executable, "-m", "sish", "demo"], capture_output=True, text=True, check=False, env=environment
    )
    assert other.returncode == 1
    assert other.stderr == "sish: error: broken on purpose: sish doctor tells what is broken\n"


# ---- the report


def test_a_report_tells_nothing_about_a_user_or_a_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/jane")
    monkeypatch.setattr(getpass, "getuser", lambda: "jane")
    monkeypatch.setattr(socket, "gethostname", lambda: "lab7.hospital.org")
    index = "postgresql://jane:s3cret@db.hospital.org/cases?archive=doe"
    found = [
        f"/home/jane/My Slides/liba.so: broken in {tmp_path}/x on lab7",
        f"{Path.cwd()}/a.py, {sys.prefix}/lib/b.so and /opt/Jane Doe/lib/c.so fail",
        f'cannot connect to {index}: at "10.1.2.3" (fe80::1) s3cret cases db.hospital.org lab7.hospital.org',
        f"{tempfile.gettempdir()}/doe case/x/kept.nbi",
        f"{Path.cwd()}/doe/list.csv",
        "jane@hospital.org wrote | <b>",
    ]
    report = Examination(tuple(Check("a", "broken", text) for text in found)).report(Private.here(index))
    for word in ("jane", "Jane", "lab7", "hospital", "s3cret", "cases", "10.1.2.3", "fe80", "My Slides",
                 "/tmp", str(Path.cwd()), sys.prefix, "<b>", "doe"):  # fmt: skip
        assert word not in report, word
    assert all(
        name in report
        for name in ("liba.so", "b.so", "c.so", "a.py", "TEMP/.../kept.nbi", "HERE/.../list.csv")
    )
    assert all(line.count("|") - line.count("\\|") == 4 for line in report.splitlines()[2:])


@pytest.mark.parametrize(
    "index",
    [
        "postgresql:///cases?host=db1.hospital.org,db2.hospital.org&user=jane&password=s3cret&archive=doe",
        "postgresql://jane:s3cret@db1.hospital.org:5432,db2.hospital.org/cases?archive=doe",
        "postgresql:///",  # the rest is in variables of libpq
    ],
)
def test_a_report_tells_nothing_of_a_server(index):
    hide = Private.here(index).hide
    errors = (
        'connection to server at "db1.hospital.org" (10.0.0.5), port 5432 failed: FATAL: password '
        'authentication failed for user "jane"',
        'could not translate host name "db2.hospital.org" to address',
        'server at "fe80::1%eth0": database "cases" does not exist, and schema "doe" does not',
    )
    shown = "".join(map(hide, errors))
    told = (
        "" if index == "postgresql:///" else hide("s3cret doe in cases at db1.hospital.org, db2.hospital.org")
    )
    for word in ("jane", "hospital", "10.0", "fe80", "cases", "s3cret", "doe "):
        assert word not in shown + told, word
    assert "authentication failed" in shown


def test_a_folder_at_the_end_of_a_path_is_hidden():
    hidden = Private({}).hide("cannot write /mnt/jane/doe: see '/srv/doe', '/opt/x/liba.so.1'")
    assert hidden == "cannot write .../...: see '.../...', '.../liba.so.1'"


def test_the_report_of_this_machine_tells_no_paths():
    found = examine(only=["python", "temporary folder", "kernels", "sish"])
    report = found.report()
    for word in (str(Path.home()), str(ROOT), sys.prefix, socket.gethostname()):
        assert word in ("/", "localhost") or word not in report
    assert "kernels" in report


def test_versions_are_no_addresses():
    text = "openslide-bin 4.0.1.2, numpy 2.0, 3/4 of 5, ratio 1/2, and/or"
    assert Private({}).hide(text) == text


def test_a_missing_torch_is_told_with_a_cpu_build_and_what_works_without(monkeypatch):
    monkeypatch.setattr(packages, "_problem", lambda wanted: ("is not installed", ""))
    (check,) = packages.check_package("torch")
    assert check.state == "broken" and "whl/cpu" in check.advice and "work without it" in check.advice
