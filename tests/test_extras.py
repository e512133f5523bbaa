"""The hints that tell how to install an optional package."""

import shlex
from pathlib import Path

import sish.extras
from sish.extras import install


def test_in_a_clone_the_hint_installs_the_clone():
    assert install("serve") == f"pip install -e {shlex.quote(f'{Path(__file__).parents[1]}[serve]')}"


def test_beside_a_wheel_the_hint_names_the_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(sish.extras, "__file__", str(tmp_path / "site-packages" / "sish" / "extras.py"))
    for extra, package in (("interop", "h5py"), ("tables", "pyarrow"), ("postgres", "psycopg[binary]")):
        words = shlex.split(install(extra))
        assert words[:2] == ["pip", "install"]
        assert any(word.startswith(f"{package}>=") for word in words[2:])
        assert "sish" not in words and all(";" not in word for word in words)
