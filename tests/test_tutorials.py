"""The pages of the tutorial and the guides to adding and searching, run as they stand there."""

import csv
import shutil

import pytest
from pages import Page

import sish
from sish.cli import main

EMBEDDINGS = Page("docs/tutorial/own-embeddings.md")
SLIDES = Page("docs/tutorial/own-slides.md")
SEARCH = Page("docs/how-to/search.md")


def test_the_page_of_embeddings(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    names = EMBEDDINGS.run()
    first, report, added, slides = capsys.readouterr().out.splitlines()[:4]
    assert (
        first.count("'a')") == 5
        and report == "1 added"
        and added.startswith("31 ['new-slide', 'slide-00'")
        and slides.startswith("['slide-")
    )
    assert len(names["frame"]) == 5


@pytest.fixture
def here(synthetic_slides, tmp_path, monkeypatch):
    """A working folder with the slides and tables that the pages name."""
    shutil.copytree(synthetic_slides, tmp_path / "slides")
    (tmp_path / "slides" / "glandular-02.tif").rename(tmp_path / "slides" / "case-17.svs")
    with (tmp_path / "slides" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["path"] = {"glandular-02.tif": "case-17.svs"}.get(row["path"], row["path"])
    with (tmp_path / "slides" / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    shutil.copy(tmp_path / "slides" / "labels.csv", tmp_path / "labels.csv")
    shutil.copy(tmp_path / "slides" / "squamous-01.tif", tmp_path / "query.svs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_page_of_slides(here, capsys):
    commands = [words for words in SLIDES.commands() if words[0] not in ("doctor", "serve")]
    assert " ".join(words[0] for words in commands) == "preview index index index search search evaluate"
    for words in commands:
        assert main(words) == 0, capsys.readouterr().err
    assert (here / "answer.html").stat().st_size and (here / "results").is_dir()
    capsys.readouterr()
    names = SLIDES.run()
    assert capsys.readouterr().out.startswith("0 added, 8 already there") and names["results"][0].placed


def test_the_guide_to_searching(built_index, tmp_path, monkeypatch, capsys):
    shutil.copytree(built_index, tmp_path / "archive.sish")
    monkeypatch.chdir(tmp_path)
    index = sish.Index.open("archive.sish")
    facts = [f"{row.slide_id},lung,{50 + k}" for k, row in enumerate(index.slides)]
    (tmp_path / "facts.csv").write_text("\n".join(["slide_id,site,age", *facts]))
    index.relabel("facts.csv")
    first = index.slides[0].slide_id

    def adapted(text):
        return text.replace("slide-17", first)

    names = Page(SEARCH.path, adapted(SEARCH.text)).run()
    assert names["results"][0].slide_id == first == names["hits"]["results"][0]["slide_id"]
    assert names["better"].query.slide_id == first
    assert (tmp_path / "heatmap.png").stat().st_size and len(list((tmp_path / "hits").iterdir())) == 5
    tune, search = Page(SEARCH.path, adapted(SEARCH.text)).commands()
    assert main(search) == 0 and main(tune) == 1  # of an archive so small
    assert "there is no budget to tune" in capsys.readouterr().err
