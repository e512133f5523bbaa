"""The client of docs/how-to/serve.md as it stands there, and the command line of ``sish serve``."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from pages import Page
from served import served

import sish
from sish.cli import main

PAGE = Page("docs/how-to/serve.md")


def test_the_client_of_the_page(built_index, capsys):
    (code,) = PAGE.blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 22
    index = sish.Index.open(built_index)
    with served(index) as service:
        names = PAGE.run({"address": service.url})
    first = min(row.slide_id for row in index.slides)
    wanted = index.search(first, region=(0, 0, 1200, 1200), k=3)
    assert [hit["slide_id"] for hit in names["found"]["results"]] == [hit.slide_id for hit in wanted]
    assert names["facts"]["slide_id"] == first
    assert capsys.readouterr().out.splitlines()[0].startswith(f"1 {wanted[0].slide_id}")


def started(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "sish", "serve", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": ""},
    )  # fmt: skip


def test_the_command_prints_an_address_that_answers_at_once_and_stops_at_ctrl_c(built_index):
    with started("--index", str(built_index), "--port", "0", "--no-browser") as server:
        try:
            address = server.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", address)
            with urllib.request.urlopen(address) as answer:
                assert answer.status == 200 and b"<title>sish</title>" in answer.read()
        finally:
            server.send_signal(signal.SIGINT)
            out, err = server.communicate(timeout=30)
    assert (server.returncode, out, err) == (0, "", "")


def test_a_port_in_use_is_told_in_one_line(built_index, capsys):
    with served(sish.Index.open(built_index)) as service:
        port = service.origin.rpartition(":")[2]
        code = main(["serve", "--index", str(built_index), "--port", port, "--no-browser"])
    told = capsys.readouterr().err
    assert code == 1 and told.count("\n") == 1 and "give another --port" in told


def test_other_machines_are_let_in_with_a_warning(built_index):
    with started("--index", str(built_index), "--port", "0", "--no-browser", "--host", "127.0.0.2") as server:
        with urllib.request.urlopen(server.stdout.readline().strip()) as answer:  # so it runs by now
            assert answer.status == 200
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=30)
    assert "warning" in err and "without encryption" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [["--port", "99999"], ["--host", "", "--port", "0"], ["--host", "not-an-address.invalid", "--port", "0"]],
)
def test_an_address_that_cannot_be_had(built_index, words, capsys):
    assert main(["serve", "--index", str(built_index), "--no-browser", *words]) == 1
    assert "cannot listen on" in capsys.readouterr().err
