"""The self-test: paint slides, index them, search, and compare with the known answer."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sish.doctor.findings import BROKEN, OK, Check

SLIDES, SIDE_UM = 8, 400

ANSWERS = {
    "glandular-02": (("glandular-02", 1.0), ("glandular-01", 0.688)),
    "lymphoid-02": (("lymphoid-02", 1.0), ("lymphoid-01", 0.643)),
}
"""The two nearest slides of each query, and their scores.

They were computed on Linux x86_64 with the versions of constraints.txt: `Index.search` of each of the eight
painted slides of seed 0.
"""

TOLERANCE = 0.1
"""Largest difference of a score: versions of JPEG libraries and processors round differently."""


def check_search() -> Iterator[Check]:
    """Index eight painted slides, search by file and by id, and compare the answers with the known ones."""
    from sish.demo.synthetic import write_slides
    from sish.slide_index import Index

    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sish-doctor-") as folder:
        labels = write_slides(Path(folder, "slides"), n_slides=SLIDES, side_um=SIDE_UM)
        index = Index.create(Path(folder, "archive.sish"))
        report = index.add(labels.parent, labels=labels, show_progress=False)
        problems = [f"{Path(failure.path).name}: {failure.reason}" for failure in report.failed]
        for query, expected in ANSWERS.items():
            for asked in (query, labels.parent / f"{query}.tif"):
                answer = index.search(asked, k=len(expected))
                found = [(hit.slide_id, hit.score) for hit in answer]
                problems += _differences(query, found, expected)
    seconds = time.perf_counter() - start
    if problems:
        advice = "look at the broken parts above; if there are none, tell us by `sish doctor --report`"
        yield Check("self-test", BROKEN, "; ".join(dict.fromkeys(problems)), advice)
    else:
        queries = " and ".join(ANSWERS)
        yield Check(
            "self-test", OK, f"{SLIDES} slides indexed, {queries} searched, as known ({seconds:.1f} s)"
        )


def _differences(
    query: str, found: list[tuple[str, float]], expected: tuple[tuple[str, float], ...]
) -> list[str]:
    """Return how an answer differs from the known one."""
    if [name for name, _ in found] != [name for name, _ in expected]:
        return [
            f"{query}: found {', '.join(name for name, _ in found)}; want {', '.join(n for n, _ in expected)}"
        ]
    return [
        f"{query}: {name} scores {score:.3f}; want {known:.3f}"
        for (name, score), (_, known) in zip(found, expected, strict=True)
        if abs(score - known) > TOLERANCE
    ]
