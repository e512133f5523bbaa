"""Execute the notebooks of this folder, each in a fresh kernel and an empty folder: ``make notebooks``.

A cell that fails, or that writes to stderr, fails the run. With ``--write`` (``make notebooks-write``) the
files keep the new outputs; without it they stay as they are.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent


def main() -> int:
    """Execute the given notebooks, or all; return 0 if every cell ran, else 1."""
    parser = argparse.ArgumentParser(description="Execute notebooks.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of this folder")
    parser.add_argument("--write", action="store_true", help="keep what the cells show")
    options = parser.parse_args()
    failed = 0
    for path in options.notebooks or sorted(HERE.glob("*.ipynb")):
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        wrong = execute(notebook)
        failed += bool(wrong)
        print(f"[{time.perf_counter() - start:5.1f} s] {path.name} {wrong or 'ran'}")
        if options.write and not wrong:
            nbformat.write(notebook, path)
    return int(failed > 0)


def execute(notebook: nbformat.NotebookNode) -> str:
    """Run all cells in place; return what went wrong, or an empty text."""
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        try:
            NotebookClient(notebook, timeout=300, record_timing=False, resources=resources).execute()
        except CellExecutionError as error:
            return f"failed\n{error}"
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    for output in outputs:
        keep_one_picture(output)
        if output.get("name") == "stderr":
            return f"wrote to stderr\n{output['text']}"
    return ""


def keep_one_picture(output: dict[str, Any]) -> None:
    """Drop the JPEG of an image that Pillow shows as PNG, too; one is enough in a versioned file."""
    data = output.get("data", {})
    if "image/png" in data:
        data.pop("image/jpeg", None)


if __name__ == "__main__":
    sys.exit(main())
