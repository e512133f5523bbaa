"""The demonstration: generate slides, index, search, evaluate, and write a page to look at."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

from sish.demo.synthetic import write_slides
from sish.evaluation import Evaluation, evaluate
from sish.printing import figure, print_line
from sish.report import write_report
from sish.slide_index import Index

_QUERIES_SHOWN = 3


def run_demo(folder: str | os.PathLike[str], *, n_slides: int = 36, seed: int = 0) -> Path:
    """Generate slides, index them, search, evaluate, and write a report.

    A second run in the same folder continues with what is there.

    Parameters
    ----------
    folder : path
        Where the slides, the index and the report go.
    n_slides : int
        How many slides to generate.
    seed : int
        The seed of the slides.

    Returns
    -------
    Path
        The report.
    """
    root = Path(folder)
    start = time.perf_counter()
    labels = write_slides(root / "slides", n_slides=n_slides, seed=seed)
    print_line(f"[{time.perf_counter() - start:5.1f} s] {n_slides} slides in {root / 'slides'}")
    index = Index.open_or_create(root / "archive.sish")
    report = index.add(root / "slides", labels=labels)
    print_line(f"[{time.perf_counter() - start:5.1f} s] {report.summary()} to {index.path}")
    shown = _one_a_label(index)[:_QUERIES_SHOWN]
    answers = list(index.search_many(shown, k=5, exclude_patient=True))
    page = write_report(answers, root / "report.html", index=index)
    print_line(
        f"[{time.perf_counter() - start:5.1f} s] searched for {len(shown)} slides, own patients left out"
    )
    for answer in answers:
        hits = ", ".join(f"{hit.label} {hit.score:.2f}" for hit in answer)
        print_line(f"           {answer.query.slide_id}: {hits}")
    _tell(evaluate(index), "labels help to rank (uncertainty)")
    _tell(evaluate(index, ranking="similarity"), "no labels read (similarity)")
    print()
    print_line(f"Look at {page}, or at the slides themselves:")
    print_line(f"  {_typed_as()} serve --index {shlex.quote(str(index.path))}")
    return page


def _typed_as() -> str:
    """Return the name under which the command line was started, such as ``.venv/bin/sish``."""
    return shlex.quote(sys.argv[0]) if Path(sys.argv[0]).name == "sish" else "sish"


def _one_a_label(index: Index) -> list[str]:
    return list({row.label: row.path for row in reversed(index.slides)}.values())


def _tell(found: Evaluation, how: str) -> None:
    print(
        f"           leave-one-patient-out, {found.metrics.queries} queries, {how}: "
        + found.metrics.one_line(figure)
    )
