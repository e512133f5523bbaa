"""The wheel has all of the source, where it is imported, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"sish": "sish", "index": "sish/index", "vqvae": "sish/vqvae"}
"""Folders at the top of the project, and where the wheel has them."""


def tracked() -> list[str]:
    """The project's files, as git knows them, that are there."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout: what belongs to the project is not known")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def wanted(names: list[str]) -> set[str]:
    """Where the wheel must have each tracked file of the packages (the links in sish/ are not files)."""
    inside = set()
    for name in names:
        folder, _, rest = name.partition("/")
        if folder in FOLDERS and not (ROOT / name).is_symlink():
            inside.add(f"{FOLDERS[folder]}/{rest}")
    return inside


def copy_tracked(folder: Path) -> list[str]:
    """Copy the project's files into a folder, links as links; returns their names."""
    names = tracked()
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return names


@pytest.mark.slow
def test_the_wheel_is_the_source(tmp_path):
    names = copy_tracked(tmp_path / "source")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        tmp_path,
        ".",
    ]
    built = subprocess.run(command, cwd=tmp_path / "source", capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if not name.endswith("/")}
        about = {name for name in inside if name.partition("/")[0].endswith(".dist-info")}
        assert inside - about == wanted(names)
        assert {"sish/py.typed", "sish/index/store/store.py", "sish/vqvae/__init__.py"} <= inside
        for folder, package in FOLDERS.items():
            for name in (
                n for n in inside if n.startswith(package + "/") and n.count("/") == package.count("/") + 1
            ):
                assert archive.read(name) == (ROOT / folder / name.removeprefix(package + "/")).read_bytes()
        (licence,) = (name for name in about if name.endswith("/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        (notice,) = (name for name in about if name.endswith("/NOTICE"))
        assert archive.read(notice) == (ROOT / "NOTICE").read_bytes()
        weights = [
            archive.getinfo(name).file_size for name in inside if name.startswith("sish/vqvae/weights/")
        ]
        assert sum(weights) < 20_000_000
        (entries,) = (name for name in about if name.endswith("/entry_points.txt"))
        assert b"sish = sish.__main__:main" in archive.read(entries)


def test_the_licence_is_the_whole_standard_text():
    text = (ROOT / "LICENSE").read_text()
    assert text.split()[:5] == ["Apache", "License", "Version", "2.0,", "January"]
    assert "END OF TERMS AND CONDITIONS" in text
    assert [f"   {number}. " in text for number in range(1, 10)] == [True] * 9
    assert len(text) > 11_000
