"""The page of the pieces alone: each example prints what the page says."""

import doctest
from pathlib import Path

import pytest


def test_the_examples_print_what_the_page_says():
    pytest.importorskip("torch")
    page = Path(__file__).parents[1] / "docs" / "reference" / "pieces.md"
    text = page.read_text().replace("```", "")  # the end of a block is not part of what it prints
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert len(examples.examples) > 30
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    failed: list[str] = []
    runner.run(examples, out=failed.append)
    assert not failed, "".join(failed)
