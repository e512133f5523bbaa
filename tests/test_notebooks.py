"""Notebooks as they are committed: with outputs, small, and without traces of the machine that ran them.

`make notebooks` executes them; this only looks.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def outputs_of(path):
    for cell in json.loads(path.read_text())["cells"]:
        yield from cell.get("outputs", [])


def test_the_four_are_there():
    names = ["01_first_search", "02_inside_the_codes", "03_train_your_own", "04_your_own_embeddings"]
    assert [path.stem for path in NOTEBOOKS] == names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert path.stat().st_size < 1_000_000
    pictures = 0
    for output in outputs_of(path):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr"
        data = output.get("data", {})
        pictures += bool({"image/png", "image/jpeg"} & set(data))
        text = json.dumps([output.get("text"), data.get("text/plain"), data.get("text/html")])
        assert not re.search(r"/(tmp|home|root|work|Users|var|private)/", text), text
    assert pictures >= 2


@pytest.mark.slow
def test_a_failing_cell_fails_the_run_and_only_write_writes(tmp_path):
    good, bad = tmp_path / "good.ipynb", tmp_path / "bad.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("print(6 * 7)")]), good)
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), bad)
    before = good.read_bytes(), bad.read_bytes()

    def execute(*arguments):
        command = [sys.executable, FOLDER / "execute.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    done = execute(good, bad)
    assert done.returncode == 1
    assert "good.ipynb ran" in done.stdout
    assert "ZeroDivisionError" in done.stdout
    assert (good.read_bytes(), bad.read_bytes()) == before
    assert execute("--write", good).returncode == 0
    assert next(outputs_of(good))["text"] == ["42\n"]
