"""Prose for people who read quickly: sentences that are not too long, and no word twice in a row."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*/*.md")]
PAGES = sorted(page for page in PAGES if page.name != "CHANGELOG.md")  # which says what was, as it was said
MOST_WORDS = 40
READER = MarkdownIt("commonmark").enable("table")


def sentences_of(text):
    """Yield line and text of each sentence of the paragraphs; code counts as one word."""
    blocks = READER.parse(text)
    for before, block in pairwise(blocks):
        if block.type != "inline" or before.type != "paragraph_open":
            continue
        parts = ["`code`" if it.type == "code_inline" else it.content or " " for it in block.children]
        for sentence in re.split(r"(?<=[.!?:])\s+", "".join(parts)):
            yield block.map[0] + 1, sentence


def faults_of(text):
    """Return what is wrong with a page, with its lines."""
    found = []
    for line, sentence in sentences_of(text):
        words = re.findall(r"[^\s]+", sentence)
        if len(words) > MOST_WORDS:
            found.append(f"{line}: {len(words)} words, at most {MOST_WORDS}: {sentence[:60]}")
        found += [f"{line}: {a} {b}" for a, b in pairwise(words) if a == b and a.isalpha()]
    return found


def test_the_faults_are_found():
    long = " ".join(["word", "other"] * 21)
    assert (
        len(faults_of(f"# {long}\n\n{long}.\n\nIt is is so. `a a` stays, and so\n\n    is is code.\n")) == 2
    )
    assert not faults_of(
        f"{'It is short. ' * 30}\n\n```\n{long}\n```\n\n| {long} | b |\n|---|---|\n| a | b |\n"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_sentences_are_short(page):
    assert not faults_of(page.read_text(encoding="utf-8"))
