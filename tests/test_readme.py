"""README: short, and its examples print what it says."""

import os

import numpy as np
import pytest
from pages import ROOT, Page

README = Page("README.md")


def test_it_is_read_in_one_go():
    assert len(README.text.splitlines()) <= 150


@pytest.mark.slow
def test_the_ten_lines_print_what_it_says(tmp_path, monkeypatch, capsys):
    if not (slides := ROOT / "demo" / "slides").is_dir():
        say = pytest.fail if os.environ.get("SISH_TEST_EVERYTHING") else pytest.skip
        say("the slides of make demo are not there")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "slides").symlink_to(slides)
    monkeypatch.chdir(tmp_path)
    code = README.below("## Ten lines of Python").blocks("python")[0]
    (told,) = (block for block in README.blocks("") if block.startswith("36 added"))
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == told
    assert len([line for line in code.splitlines() if line]) <= 10 and (tmp_path / "out.html").stat().st_size


def test_the_example_of_embeddings(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("embeddings.npy", rng.normal(size=(120, 64)).astype(np.float32))
    np.save("slides.npy", np.repeat(["a", "b", "c"], 40))
    code = README.below("## Ten lines of Python").blocks("python")[1]
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[1].split()[1:3] == ["1", "a"]
