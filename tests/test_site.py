"""The site of the documentation: the reference tells all there is, links hold, and a page fetches nothing."""

import importlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_help import COMMANDS

pytest.importorskip("furo", reason="needs the extra docs")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = DOCS / "_build" / "html"
FACES = ("sish", "sish.slides", "sish.index", "sish.vqvae", "sish.systems")
sys.path.insert(0, str(DOCS / "_ext"))


HOLDS = "[a part](index.md#a-part) and $x_1^2 + \\frac{1}{2}$"
LEADS_NOWHERE = {
    "[gone](gone.md)": "gone.md",
    "[no such part](index.md#no-part)": "no-part",
    "![no picture](gone.png)": "gone.png",
    "$\\nocommand x$": "nocommand",
}


def test_what_leads_nowhere_is_an_error(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "notebooks").mkdir()
    index = "# In\n\n## A part\n\n```{toctree}\nother\n../notebooks/one\n```\n"
    (tmp_path / "docs" / "index.md").write_text(index)
    (tmp_path / "docs" / "other.md").write_text("\n\n".join(["# Other", HOLDS, *LEADS_NOWHERE]))
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# One\n\n[gone](../left.md)"}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "notebooks" / "one.ipynb").write_text(json.dumps(notebook))
    words = ["--conf-dir", DOCS, "--nitpicky", "--fail-on-warning", "--keep-going", "--quiet"]
    command = [sys.executable, "-m", "sphinx", *map(str, [*words, tmp_path, tmp_path / "html"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert not [it for it in (*LEADS_NOWHERE.values(), "left.md") if it not in done.stderr], done.stderr
    assert len(re.findall("WARNING|ERROR", done.stderr)) == len(LEADS_NOWHERE) + 1  # and what holds is none


@pytest.mark.slow
def test_every_command_and_option_is_told():
    from commands import parser_of, text

    pages = "".join(
        (DOCS / "reference" / name).read_text() for name in ("commands.md", "commands-training.md")
    )
    words = [line.split()[0] for line in re.findall("made by docs/_ext: commands (.+) -->", pages)]
    told = {name: text(name) for name in words}
    assert not [it for it in COMMANDS if it and f"## `sish {' '.join(it)}`\n" not in told[it[0]]]
    assert {name for action in parser_of([])._actions for name in action.choices or ()} == set(words)
    for name in ("index", "search", "serve"):
        below = [parser_of([name]), *(parser_of(it) for it in COMMANDS if it[:1] == [name] and len(it) > 1)]
        options = {option for it in below for option in it._option_string_actions if option != "-h"}
        assert not {it for it in options - {"--help"} if not it.endswith(".help") and it not in told[name]}


def test_every_call_is_told():
    from calls import text

    from sish.serve.app import CALLS

    told = text()
    assert CALLS and not [it.path for it in CALLS if f"## `{it.method} {it.path}`\n" not in told]
    assert not [name for it in CALLS for name in (*it.asked, *it.body) if f"| `{name}` |" not in told]


# ---- what `make docs` made


class Page(HTMLParser):
    """The ids of a page, its pictures, and what a browser fetches to show it."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.pictures, self.fetched = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids.add(given.get("id"))
        if tag == "img":
            self.pictures.append(given["src"])
        if tag == "link" and given.get("rel") not in ("stylesheet", "icon", "preload"):
            return
        if tag in ("img", "script", "iframe", "link", "source", "video", "audio"):
            self.fetched.append(given.get("src") or given.get("href") or "")


@pytest.fixture(scope="module")
def made():
    """The pages that `make docs` made."""
    if not (MADE / "docs" / "index.html").exists():
        reason = "needs the pages that `make docs` makes"
        pytest.fail(reason) if os.environ.get("SISH_TEST_EVERYTHING") else pytest.skip(reason)
    return {path.relative_to(MADE).as_posix(): Page(path) for path in MADE.rglob("*.html")}


def test_a_page_fetches_only_what_lies_beside_it(made):
    assert len(made) > 20
    for name, page in made.items():
        assert not [it for it in page.fetched if re.match(r"\w+:|//", it) and not it.startswith("data:")], (
            name
        )
        local = [it.partition("?")[0] for it in page.fetched if it and not it.startswith("data:")]
        assert not [it for it in local if not (MADE / name).parent.joinpath(it).exists()], name
    styles = "".join(path.read_text(encoding="utf-8") for path in MADE.rglob("*.css"))
    assert not re.findall(r"url\(['\"]?(?:https?:)?//|@import", styles)


@pytest.mark.parametrize("face", FACES)
def test_every_public_name_is_told(face, made):
    page = made[f"docs/reference/{face.replace('.', '-')}.html"]
    names = [name for name in importlib.import_module(face).__all__ if not name.startswith("_")]
    assert len(names) > 5 and not [name for name in names if name.lower().replace("_", "-") not in page.ids]
    told = {
        it.rpartition(".")[2] for it in page.ids | made["docs/reference/sish.html"].ids if it and "." in it
    }
    assert not set(names) - told


def test_notebooks_are_shown_with_their_pictures(made):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = [
            it for cell in cells for it in cell.get("outputs", []) if "image/png" in it.get("data", {})
        ]
        assert len(made[f"notebooks/{path.stem}.html"].pictures) >= len(outputs)
