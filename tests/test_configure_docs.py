"""The commands and the Python of docs/how-to/configure.md as they stand there."""

import logging
import re
import shutil
import tomllib

import pytest
from pages import Page

import sish
from sish.cli import main
from sish.configuration import KINDS, read_settings, variable_of

PAGE = Page("docs/how-to/configure.md")


@pytest.fixture
def here(synthetic_slides, tmp_path, monkeypatch):
    """A working folder with slides/, one of them broken, and labels.csv."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("squamous-01", "adipose-01", "fibrous-01"):
        shutil.copy(synthetic_slides / f"{name}.tif", folder)
    (folder / "broken.tif").write_bytes(b"no slide")
    (tmp_path / "labels.csv").write_text("slide_id,label\nadipose-01,fat\n")
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_commands(here, monkeypatch, capsys):
    (exported,) = PAGE.blocks("bash")
    for name, value in re.findall(r"(SISH_\w+)=(\S+)", exported):
        monkeypatch.setenv(name, value)
    told = {}
    for words in PAGE.commands():
        if words[:3] == ["index", "add", "failed.csv"]:
            shutil.copy(here / "adipose-01.tif", here / "broken.tif")  # it is mended
            (here.parent / "labels.csv").write_text("slide_id,label\nadipose-01,fat\nbroken,fat\n")
        code = main(words)
        told[" ".join(words)] = out = capsys.readouterr().out
        has_broken = words[:3] == ["index", "add", "slides/"]
        assert code == int(has_broken), words
        assert ("nothing was written" in out) == ("--dry-run" in words)
    assert "SISH_WORKERS" in told["config"]
    assert told["index add failed.csv --labels labels.csv"].startswith("1 added")
    assert " begins: " not in told["index add slides/ --log-file add.log"]
    labels = {row.slide_id: row.label for row in sish.Index.open("archive.sish").slides}
    assert len(labels) == 4 and labels["broken"] == "fat"


def test_the_python_examples(here, capsys, monkeypatch):
    monkeypatch.setattr(logging, "basicConfig", lambda **told: None)  # the log of the tests is pytest's
    names = PAGE.run()
    assert "3 to add, 1 would fail; nothing was written" in capsys.readouterr().out
    assert names["place"] == "archive.sish" and len(names["index"]) == 3
    assert (here.parent / "failed.csv").read_text().count("\n") == 2


def test_the_file_and_the_table_are_right(tmp_path):
    (text,) = PAGE.blocks("toml")
    (tmp_path / "config.toml").write_text(text)
    settings = read_settings({"SISH_CONFIG": str(tmp_path / "config.toml")})
    assert set(settings) == set(tomllib.loads(text))
    assert re.findall(r"^\| `([\w-]+)` \| `(SISH_\w+)`", PAGE.text, re.MULTILINE) == [
        (name, variable_of(name)) for name in KINDS
    ]
