"""Pages of the documentation, whose examples are tests."""

import re
import shlex
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class Page:
    """A page by its path from the top of the clone; `.below` is a part of it."""

    def __init__(self, path: str, text: str | None = None) -> None:
        self.path = path
        self.text = (ROOT / path).read_text(encoding="utf-8") if text is None else text

    def below(self, heading: str) -> "Page":
        """The part below a heading, up to the next heading of its level."""
        level = heading.partition(" ")[0]
        after = self.text[self.text.index(f"\n{heading}\n") :].partition("\n")[2]
        return Page(self.path, after.partition("\n")[2].partition(f"\n{level} ")[0])

    def blocks(self, language: str) -> list[str]:
        """The blocks of code of one language (empty: of none), as they stand."""
        fences = re.findall(r"^```(.*)\n((?:(?!```).*\n)*)```$", self.text, re.MULTILINE)
        return [block for told, block in fences if told == language]

    def run(self, names: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the Python blocks one after another, with these names; return all names."""
        names = {} if names is None else names
        assert self.blocks("python"), f"no example in {self.path}"
        for block in self.blocks("python"):
            exec(compile(block, self.path, "exec"), names)
        return names

    def commands(self) -> list[list[str]]:
        """The words after ``sish`` of each such line in the blocks of no language, without comments."""
        lines = "".join(self.blocks("")).replace("\\\n", " ").splitlines()
        words = (shlex.split(line, comments=True) for line in lines)
        return [line[1:] for line in words if line[:1] == ["sish"]]
