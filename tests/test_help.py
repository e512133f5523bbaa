"""Help is for people who do not read Python, and every command and benchmark has it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import Page

from sish.cli import main
from sish.cli.entry import _PARSED_ELSEWHERE, _parser
from sish.cli.index import COMMANDS as INDEX_COMMANDS

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(
    path.stem for path in (ROOT / "benchmarks").glob("*.py") if '__name__ == "__main__"' in path.read_text()
)
COMMANDS = [
    [], ["index"], *(["index", name] for name in INDEX_COMMANDS),
    ["search"], ["evaluate"], ["preview"], ["export"], ["demo"], ["systems", "search"], ["smily", "build"],
    ["smily", "search"], ["train"], ["train", "fit"], ["train", "contrast"], ["train", "export"],
    ["train-codes", "fit"], ["train-masks", "export"], ["doctor"],
]  # fmt: skip


def reads_well(text):
    return not re.search(r"<function|<class|<lambda|object at 0x|Traceback|typing\.", text)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_of_commands(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and out.startswith("usage: sish") and reads_well(out)


def test_the_pages_show_commands_that_are_there():
    shown = 0
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("[!_]*/*.md")):
        page = Page(str(path.relative_to(ROOT)))
        for words in page.commands():
            plain = [word for word in words if not word.startswith("$")]
            ends = (place for place, word in enumerate(words) if word in (">", "|"))
            if words[0] not in _PARSED_ELSEWHERE and plain == words:  # the shell makes other words of $(...)
                _parser({"index": "a.sish"}).parse_args(words[: next(ends, None)])  # SystemExit if not
                shown += 1
    assert shown > 30


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_of_benchmarks(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and reads_well(done.stdout + done.stderr)
    assert done.stdout.startswith(f"usage: python -m benchmarks.{name} ")
    text = " ".join(done.stdout.partition("options:")[2].split())
    assert not re.search(r"(--\w+) (\[?[A-Z_]+\]? )?--", text)  # each option is explained
