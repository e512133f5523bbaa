"""The ten commands of docs/how-to/machines.md as they stand there, on a real SLURM and a real PostgreSQL."""

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from clusters import slurm
from pages import Page

import sish
from sish.demo.synthetic import write_slides

PAGE = Page("docs/how-to/machines.md")
(BLOCK,) = PAGE.blocks("bash")
INSTALL, *COMMANDS, SERVE = BLOCK.splitlines()


def test_there_are_ten_and_the_first_installs_what_the_others_need():
    assert len(COMMANDS) == 8 and re.fullmatch(r"pip install --quiet '\.\[postgres,serve\]'", INSTALL)


@pytest.fixture
def here(tmp_path):
    """A working folder, and a SLURM whose commands run in it."""
    write_slides(tmp_path / "slides", n_slides=8, side_um=700)
    (tmp_path / "cluster").mkdir()
    with slurm(tmp_path / "cluster") as cluster:
        cluster.environment["PATH"] = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"
        cluster.environment |= {
            "SLIDES": str(tmp_path / "slides"), "LABELS": str(tmp_path / "slides" / "labels.csv")
        }  # fmt: skip
        yield tmp_path, cluster


@pytest.mark.slow
def test_the_commands_take_a_lab_from_a_folder_of_slides_to_a_shared_database(here, database):
    folder, cluster = here
    cluster.environment["DB"] = f"{database.dsn}?archive=breast"
    told = {}
    for command in COMMANDS:
        told[command.split()[2] if " index " in command else command.split()[1]] = said = cluster.run(
            "bash", "-c", command, cwd=folder
        )
        if command.startswith("bash"):
            cluster.wait_for(said.split()[-1])
    assert "8 done, 0 failed, 0 left" in told["status"] or re.search(r"\b8\b.*done", told["status"])
    assert "8 new slides" in told["push"] and told["verify"].strip() == "every byte is as it was written"
    first = sorted(path.stem for path in (folder / "slides").glob("*.tif"))[0]
    assert first in told["search"]
    index = sish.Index.open(cluster.environment["DB"])
    copy = sish.Index.open(folder / "copy.sish")
    assert list(index.search(first)) == list(copy.search(first))
    serves_until_interrupted(SERVE, folder, cluster.environment)


def serves_until_interrupted(command, folder, environment):
    server = subprocess.Popen(
        ["bash", "-c", f"exec {command} --port 0"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with urllib.request.urlopen(server.stdout.readline().strip()) as answer:
            assert b"<title>sish</title>" in answer.read()
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
