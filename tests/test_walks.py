"""The two walks in CONTRIBUTING: the functions are called in the order in which it names them."""

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sish

ROOT = Path(__file__).parents[1]
STEP = re.compile(r"^\d+\. `(?P<file>[^`]+)` `(?P<name>[^`]+)`", re.MULTILINE)

Call = tuple[str, str]


def steps(title: str) -> list[Call]:
    """The steps of one walk: files and functions, in order."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    _, _, section = text.partition(f"\n## {title}\n")
    return [(step["file"], step["name"]) for step in STEP.finditer(section.partition("\n## ")[0])]


@contextmanager
def calls() -> Iterator[list[Call]]:
    """Every function of the project that is called meanwhile, in any thread, by its first call."""
    seen: dict[Call, None] = {}

    def note(frame, event: str, argument: object) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(ROOT):
            path = file.resolve().relative_to(ROOT).as_posix()
            seen.setdefault((path, frame.f_code.co_qualname))

    found: list[Call] = []
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        found += seen


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Two small slides of tissue, with labels."""
    folder = tmp_path_factory.mktemp("slides")
    rng = np.random.default_rng(0)
    for name in "ab":
        pixels = np.full((1400, 1400, 3), 245, np.uint8)
        pixels[300:1100, 300:1100] = rng.integers(90, 200, (800, 800, 3)) * np.array([1, 0.6, 1])
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "labels.csv").write_text("slide_id,label\na,one\nb,two\n")
    return folder


def followed(title: str, run: Callable[[], object]) -> tuple[list[Call], list[Call]]:
    """The steps that CONTRIBUTING names, and the same in the order in which they were made."""
    wanted = steps(title)
    with calls() as made:
        run()
    return wanted, [call for call in made if call in wanted]


@pytest.mark.slow
def test_the_walks(slides, tmp_path):
    index = sish.Index.create(tmp_path / "x.sish", measure=slides, mpp=1.0)  # else the add measures first
    wanted, made = followed(
        "The way of a slide into an index",
        lambda: index.add(slides, labels=slides / "labels.csv", mpp=1.0, show_progress=False),
    )
    assert made == wanted
    index = sish.Index.open(tmp_path / "x.sish")

    def ask() -> None:
        results = index.search(slides / "a.png", mpp=1.0)
        assert [hit.slide_id for hit in results] == ["a", "b"]
        sish.write_report(results, tmp_path / "report.html", index=index)

    wanted, made = followed("The way of a query to its answer", ask)
    assert made == wanted
