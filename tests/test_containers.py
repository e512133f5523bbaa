"""Containers: their versions are those of the project, and a password reaches libpq whatever is in it."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import sish

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
APPTAINER = (ROOT / "containers/sish.def").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SCRIPT = ROOT / "containers/with-password.sh"


def test_versions_are_those_of_the_project():
    assert set(re.findall(r"sish-(\S+?)-py3", APPTAINER)) == {sish.__version__}
    assert COMPOSE["services"]["sish"]["image"] == f"sish:{sish.__version__}"


def test_both_have_one_python_of_an_exact_version():
    (docker,), (apptainer,) = (
        re.findall(pattern, text, re.MULTILINE)
        for pattern, text in ((r"^ARG PYTHON=(.*)", DOCKERFILE), (r"^From: (.*)", APPTAINER))
    )
    assert docker == apptainer
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", docker)


def test_nothing_runs_as_root_or_is_reached_from_other_machines():
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE) == ["1000"]
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"]["sish"]["ports"])
    assert "ports" not in COMPOSE["services"]["db"]


def test_a_stage_gets_every_file_that_makes_the_wheel():
    kept = set(re.findall(r"^!(.*)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    settings = (ROOT / "setup.cfg").read_text()
    files = re.search(r"^license_files =\n((?:    .*\n)+)", settings, re.MULTILINE)[1].split()
    files += re.findall(r"^long_description = file: (.*)", settings, re.MULTILINE)
    wanted = {*files, "index", "pyproject.toml", "setup.cfg", "sish", "src", "vqvae"}
    assert wanted <= kept and all((ROOT / name).exists() for name in kept)


@pytest.mark.parametrize("password", ["plain", "co:lon", "back\\slash:\\", "$(id) 'quoted' \"twice\" %s"])
def test_a_password_is_in_the_form_that_libpq_reads(password, tmp_path):
    (tmp_path / "password").write_text(password)
    (tmp_path / "sish").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "sish").chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}{os.pathsep}/usr/bin:/bin",
        "PASSWORD_FILE": str(tmp_path / "password"),
        "PGPASSFILE": str(tmp_path / "pgpass"),
    }
    done = subprocess.run(
        ["sh", SCRIPT, "serve", "a b"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "serve\na b\n" and done.stderr == ""
    line = (tmp_path / "pgpass").read_text()
    assert (tmp_path / "pgpass").stat().st_mode & 0o777 == 0o600
    fields = [
        re.sub(r"\\(.)", r"\1", each)
        for each in re.split(r"(?<!\\)(?:\\\\)*:", line.rstrip("\n"), maxsplit=4)
    ]
    assert fields == ["db", "5432", "*", "sish", password]
