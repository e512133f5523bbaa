"""The page's files: small modules, whose imports exist, without anything that the policy forbids."""

import re
from importlib import resources
from pathlib import Path

import pytest

_PAGE = Path(str(resources.files("sish.serve").joinpath("page")))
_MODULES = sorted(_PAGE.glob("*.js"))
_MOST_LINES = 200
_IMPORT = re.compile(r'import (?:\* as \w+|\{([^}]*)\}) from "\./([\w.]+)";')
_EXPORT = re.compile(r"^export (?:async )?(?:const|function|class) ([\w$]+)", re.M)
_MARKUP = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function")


@pytest.fixture(params=_MODULES, ids=lambda path: path.name)
def module(request: pytest.FixtureRequest) -> Path:
    """Each module of the page."""
    assert isinstance(request.param, Path)
    return request.param


def test_there_are_modules() -> None:
    assert {"main.js", "store.js", "gallery.js"} <= {path.name for path in _MODULES}


def test_a_module_is_short_enough_to_be_read(module: Path) -> None:
    lines = len(module.read_text("utf-8").splitlines())
    assert lines <= _MOST_LINES, f"{module.name} has {lines} lines; split it: one concern a file"


def test_what_a_module_imports_is_exported(module: Path) -> None:
    text = module.read_text("utf-8")
    assert len(re.findall("^import ", text, re.M)) == len(_IMPORT.findall(text)), "imports in another form"
    for names, file in _IMPORT.findall(text):
        source = _PAGE / file
        assert source.is_file(), f"{module.name} imports {file}, which is not there"
        exported = _EXPORT.findall(source.read_text("utf-8"))
        for name in filter(None, (name.split(" as ")[0].strip() for name in names.split(","))):
            assert name in exported, f"{module.name} imports {name}, which {file} does not export"


def test_no_text_of_a_slide_can_become_markup_or_code(module: Path) -> None:
    text = module.read_text("utf-8")
    assert not [word for word in _MARKUP if word in text]


def test_nothing_is_fetched_from_elsewhere() -> None:
    for path in (*_MODULES, *_PAGE.glob("*.css"), *_PAGE.glob("*.html")):
        found = set(re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"']*", _without_comments(path)))
        assert found <= {"http://www.w3.org/2000/svg"}, path.name


def test_pages_have_no_inline_script_or_style() -> None:
    for path in _PAGE.glob("*.html"):
        text = path.read_text("utf-8")
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text), path.name
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), path.name


def _without_comments(path: Path) -> str:
    """Return the text of a file without the lines that are comments."""
    return "\n".join(
        line for line in path.read_text("utf-8").splitlines() if not line.lstrip().startswith("//")
    )
