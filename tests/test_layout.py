"""A clone that is called sish, installed as it is, and imported from anywhere."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from test_wheel import FOLDERS, copy_tracked, wanted


def run(*words, cwd, python=sys.executable):
    done = subprocess.run(
        [python, *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the project's files in a folder called sish."""
    folder = tmp_path_factory.mktemp("projects") / "sish"
    return folder, copy_tracked(folder)


@pytest.fixture(scope="module")
def python(clone, tmp_path_factory):
    """An interpreter that sees the packages of this one, and an editable install of the clone."""
    venv = tmp_path_factory.mktemp("venv")
    run("-m", "venv", "--without-pip", venv, cwd=venv)
    python = venv / "bin" / "python"
    site = run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=venv, python=python)
    Path(site, "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")  # not what its .pth files add
    install = ["install", "--no-deps", "--no-build-isolation", "--editable", clone[0]]
    run("-m", "pip", "--python", python, "-q", *install, cwd=venv)
    return python


@pytest.mark.slow
@pytest.mark.parametrize("place", ["in the clone", "beside it", "elsewhere"])
@pytest.mark.parametrize("how", ["a script", "-c", "-m"])
def test_the_package_is_found_from_everywhere(place, how, clone, python, tmp_path):
    folder, _ = clone
    here = {"in the clone": folder, "beside it": folder.parent, "elsewhere": tmp_path}[place]
    code = "import sish, sish.index.keys, sish.vqvae; print(sish.Recipe.__module__, *sish.__path__)"
    script = here / f"script_{how[-1]}.py"
    script.write_text(code)
    words = {"a script": [script.name], "-c": ["-c", code], "-m": ["-m", script.stem]}[how]
    module, path = run(*words, cwd=here, python=python).split(" ", 1)
    assert module == "sish.recipe" and Path(path).resolve() == folder / "sish"
    script.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index", "vqvae", "tests", "benchmarks", "notebooks"])
def test_no_other_folder_of_the_clone_can_be_imported_by_others(name, clone, python, tmp_path):
    code = f"import importlib.util; print(importlib.util.find_spec({name!r}))"
    assert run("-c", code, cwd=tmp_path, python=python) == "None"
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.py").touch()
    run("-c", f"import {name}.mine", cwd=tmp_path, python=python)


@pytest.mark.slow
def test_the_console_script_runs_beside_the_clone(clone, python):
    assert run("--version", cwd=clone[0].parent, python=python.parent / "sish").startswith("sish ")
    assert run("-m", "sish", "--version", cwd=clone[0].parent, python=python).startswith("sish ")


@pytest.mark.slow
def test_an_archive_of_the_source_makes_the_same_wheel(clone, tmp_path):
    folder, names = clone
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    run("-c", build, cwd=folder)
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (source,) = (tmp_path / "unpacked").iterdir()
    run("-m", "pip", "-q", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as built:
        inside = {name for name in built.namelist() if ".dist-info/" not in name and not name.endswith("/")}
    assert inside == wanted(names)
    assert all(any(name.startswith(f"{package}/") for name in inside) for package in FOLDERS.values())
