"""The examples of docs/explanation/systems.md as they stand there, on small made-up data."""

import shutil

import pytest
from learnable import write_lesions, write_xrays
from pages import Page
from plain_encoder import PlainEncoder
from system_contract import write_pictures

from sish.cli import main
from sish.demo.synthetic import write_slides

PAGE = Page("docs/explanation/systems.md")


def commands(*names):
    """The command lines of the page that begin with these words, in order."""
    return [words for words in PAGE.commands() if words[0] in names]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_fields(folder):
    """A folder `fields` of twelve pictures; one has the name that the page asks for."""
    (folder / "fields").mkdir()
    for item in write_pictures(folder / "fields"):
        item.mask.unlink()
        name = "b002" if item.item_id == "rose3" else item.item_id
        item.path.rename(item.path.with_name(f"{name}.jpg"))


def test_the_python_examples(here, capsys):
    write_fields(here)
    PAGE.run()
    assert "('rose" in capsys.readouterr().out  # the first in the folder, b002, is one of them


def test_regions_from_the_command_line(here, monkeypatch, capsys):
    monkeypatch.setattr("sish.vqvae.pretrained.load_encoder", lambda *given, **more: PlainEncoder())
    made = write_slides(here / "slides", n_slides=4, side_um=400)
    shutil.move(made, here / "labels.csv")
    for name, slide in zip("abc", sorted((here / "slides").glob("*.tif")), strict=False):
        shutil.copy(slide, here / f"{name}.svs")
    for words in commands("smily"):
        assert main(words) == 0, words
        assert capsys.readouterr().out


def write_trained_folders(folder):
    """Folders `nih_cxr` and `ham10000` with the pictures that the page names."""
    for name, write, count, known in (
        ("nih_cxr", write_xrays, 16, "00000013_026.png"),
        ("ham10000", write_lesions, 8, "ISIC_0024313.jpg"),
    ):
        (folder / name / "images").mkdir(parents=True)
        write(folder / name, n=count)
        table = folder / name / "labels.csv"
        shutil.move(folder / name / "0.png", folder / name / "images" / known)
        table.write_text(table.read_text().replace("\n0.png", f"\nimages/{known}"))


def test_folders_are_searched_and_networks_trained(here, capsys):
    write_fields(here)
    write_trained_folders(here)
    for words in commands("train-codes", "train-masks", "systems"):
        assert main(words) == 0, words
    out = capsys.readouterr().out
    assert all(f"{query}: compared with" in out for query in ("b002", "00000013_026", "ISIC_0024313"))
