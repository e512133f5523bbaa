"""The examples of docs/how-to/tables.md as they stand there."""

import re
import shlex
import shutil

import pytest
from pages import Page

import sish
from sish.cli import main

PAGE = Page("docs/how-to/tables.md")


@pytest.fixture
def here(tmp_path, monkeypatch, own_index):
    """A working folder with the files that the page names; its slides have the columns of its filters."""
    rows = own_index.slides
    table = [
        "slide_id,site,age,stain,grade",
        *(f"{row.slide_id},lung,{60 + k},HE,>2" for k, row in enumerate(rows)),
    ]
    (tmp_path / "facts.csv").write_text("\n".join(table))
    own_index.relabel(tmp_path / "facts.csv")
    own_index.path.rename(tmp_path / "archive.sish")
    shutil.copy(rows[0].path, tmp_path / "slide.svs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_examples(here, capsys):
    pytest.importorskip("pandas")
    names = PAGE.run()
    assert "slide_id" in capsys.readouterr().out
    for table, columns in (
        ("hits", "rank"),
        ("pairs", "hamming"),
        ("patches", "barcode"),
        ("per_query", "mv5"),
    ):
        assert len(names[table]) and columns in names[table]


def test_the_command_lines(here, capsys):
    pytest.importorskip("pyarrow")
    lines = [line.partition(" > ")[0] for line in "".join(PAGE.blocks("")).splitlines()]
    assert len(lines) == 4
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert sish.Index.open("archive.sish").slides[0].slide_id in (here / "hits.csv").read_text()
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    (query,) = PAGE.blocks("sql")
    found = dict(duckdb.sql(query).fetchall())
    assert found == {row.slide_id: row.n_patches for row in sish.Index.open("archive.sish").slides}


def test_the_page_names_the_columns_of_the_file():
    pyarrow = pytest.importorskip("pyarrow")
    from sish.parquet import _schema

    part = PAGE.text[PAGE.text.index("## Parquet") :]
    told = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]+)\|", part, re.MULTILINE)))
    assert [name for name in told if name != "vector"] == _schema(pyarrow, [], None, {}).names
