"""An archive for tests of the page: slides of two scales, one with bounds, one gone, with marks on them.

The marks are squares of two colours that no tissue has and that the page does not use. A screenshot in which
both are found tells where every level-0 pixel of the slide lies on the screen.
"""

import csv
from pathlib import Path

import numpy as np
from leica import write_leica
from PIL import Image
from pyramids import write_pyramid

import sish
from sish.demo.painting import paint
from sish.demo.synthetic import SITES, plan

N_SLIDES = 12
SIDE_UM = 600
MARK_UM = 40
BOUNDED, BEFORE, BEYOND = "squamous-01", (3100, 1700), (900, 2200)
"""The slide on a larger glass, and level-0 pixels of the glass before and beyond what is scanned."""
FINE = "-02"
"""The slides whose ids end so have 0.25 um per pixel, the others 0.5."""
ODD = "block A/50% lymphoid-02"
"""An id that is no name of a file."""
GONE = "hepatic-02"
"""The slide whose file was deleted."""
FIRST, SECOND = (0, 255, 0), (0, 255, 255)
"""The colours of the marks: the first near the top left corner, the second near the bottom right one."""


def write_archive(folder: Path) -> Path:
    """Write slides and an index of them; returns the index."""
    slides = folder / "slides"
    slides.mkdir()
    plans = [plan(number, 7, SIDE_UM) for number in range(N_SLIDES)]
    for each in plans:
        _write(slides / each.name, marked(paint(each.label, each.shape_um, each.look, each.seed)))
    with (slides / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "slide_id", "label", "patient", "site", "stain", "year"])
        for number, each in enumerate(plans):
            slide_id = ODD if ODD.endswith(each.name.removesuffix(".tif")) else ""
            stain = "Giemsa" if number % 4 == 3 else "H&E"
            row = [each.name, slide_id, each.label, each.patient, SITES[each.label], stain, 2010 + number]
            table.writerow(row)
    path = folder / "archive.sish"
    report = sish.Index.create(path).add(slides, labels=slides / "labels.csv", show_progress=False)
    assert len(report.added) == N_SLIDES, report
    (slides / f"{GONE}.tif").unlink()
    return path


def marked(pixels: np.ndarray) -> np.ndarray:
    """Return pixels (H, W, 3) at 0.5 um/px with both marks in them."""
    side = MARK_UM * 2
    found = pixels.copy()
    found[:side, :side] = FIRST
    found[-side:, -side:] = SECOND
    return found


def _write(path: Path, pixels: np.ndarray) -> None:
    height, width = pixels.shape[:2]
    if path.stem == BOUNDED:
        glass = BEFORE[0] + width + BEYOND[0], BEFORE[1] + height + BEYOND[1]
        write_leica(path, pixels, BEFORE, glass)
    elif path.stem.endswith(FINE):
        large = Image.fromarray(pixels).resize((2 * width, 2 * height), Image.Resampling.BICUBIC)
        write_pyramid(path, np.asarray(large), mpp=0.25)
    else:
        write_pyramid(path, pixels, mpp=0.5)


def marks_of(index: sish.Index, slide_id: str) -> np.ndarray:
    """Return the centres of a slide's two marks, level-0 pixels, float (2, 2)."""
    row = next(row for row in index.slides if row.slide_id == slide_id)
    size = np.array([row.width, row.height])
    start, end = (BEFORE, size - BEYOND) if slide_id == BOUNDED else ((0, 0), size)
    half = MARK_UM / 2 / row.mpp
    return np.array([np.add(start, half), np.subtract(end, half)])
