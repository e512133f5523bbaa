"""Generate whole slides from a seed, for the demo and for tests.

Each slide is a small pyramidal TIFF (0.5 um/px, JPEG tiles) that OpenSlide reads. It shows one tissue of
``sish.demo.painting``. Stain, scale and density differ between patients; outline and places differ between
slides.
"""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from sish.demo.painting import MPP, TISSUES, Look, paint
from sish.errors import OutputError, ParameterError

SITES = {
    "glandular": "colon",
    "lymphoid": "lymph node",
    "fibrous": "soft tissue",
    "adipose": "soft tissue",
    "squamous": "skin",
    "hepatic": "liver",
}
"""The site in the body of each tissue."""

LEVELS = 3
"""Levels of the pyramid; each is half as wide as the one before."""

TILE_PX = 256
JPEG_QUALITY = 85
SUBSAMPLING = (2, 2)
"""Pixels across and down that share one colour in the JPEG streams: 4:2:0."""

TWO_PIECES = 0.3
"""Share of the slides that carry two regions."""


_COLUMNS = ("path", "label", "patient", "site")


@dataclass(frozen=True, slots=True)
class Plan:
    """One slide to be made."""

    name: str
    """File name."""
    label: str
    """Tissue type."""
    patient: str
    """Patient; every fourth slide of a type is of the same patient as the one before."""
    look: Look
    """The patient's look."""
    shape_um: tuple[int, int]
    """Height and width in micrometres."""
    pieces: int
    """Separate regions of tissue."""
    seed: int
    """Seed of everything painted."""


def write_slides(
    folder: str | os.PathLike[str], n_slides: int = 36, seed: int = 0, side_um: int = 1000
) -> Path:
    """Write slides and their labels.csv with the columns path, label, patient and site.

    The tissues take turns. The same arguments give the same bytes.

    Parameters
    ----------
    folder : path
        Where to write; it is made if it does not exist.
    n_slides : int
        How many slides.
    seed : int
        The seed of all slides.
    side_um : int
        About the height and width of a slide in micrometres; it has twice as many pixels.

    Returns
    -------
    Path
        The labels.csv.

    Raises
    ------
    ParameterError
        If a number is too small, or the folder holds other slides.
    OutputError
        If the folder cannot be written.
    """
    if n_slides < 1 or side_um < TILE_PX:
        raise ParameterError(f"got n_slides={n_slides}, side_um={side_um}; want at least 1 and {TILE_PX}")
    folder = Path(folder)
    plans = [plan(number, seed, side_um) for number in range(n_slides)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_ours(folder)
        for each in plans:
            pixels = paint(each.label, each.shape_um, each.look, each.seed, each.pieces)
            write_pyramid(folder / each.name, pixels)
        write_labels(folder / "labels.csv", plans)
    except OSError as error:
        raise OutputError(
            f"cannot write slides to {folder}: {error.strerror}; give another folder", path=folder
        ) from error
    return folder / "labels.csv"


def _check_ours(folder: Path) -> None:
    """Raise ParameterError if the folder's labels.csv names a slide that was not painted here."""
    labels = folder / "labels.csv"
    if not labels.exists():
        return
    head, *rows = labels.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if head != ",".join(_COLUMNS) or any(row.partition("-")[0] not in TISSUES for row in rows):
        raise ParameterError(f"{labels} names slides of somebody else; give another folder")


def write_labels(path: Path, plans: list[Plan]) -> None:
    """Write a labels file of slides."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_COLUMNS)
        table.writerows([each.name, each.label, each.patient, SITES[each.label]] for each in plans)


def plan(number: int, seed: int, side_um: int) -> Plan:
    """Plan slide ``number``: its tissue, patient, look and size."""
    kind = number % len(TISSUES)
    turn = number // len(TISSUES)
    label = list(TISSUES)[kind]
    patient = turn - (turn + 1) // 4
    rng = np.random.default_rng([seed, number])
    height, width = rng.uniform(0.9, 1.15, 2) * side_um
    return Plan(
        name=f"{label}-{turn + 1:02d}.tif",
        label=label,
        patient=f"P{1 + kind + patient * len(TISSUES):03d}",
        look=patient_look(np.random.default_rng([seed, kind, patient, 1])),
        shape_um=(int(height), int(width)),
        pieces=1 + int(rng.random() < TWO_PIECES),
        seed=int(rng.integers(2**31)),
    )


def patient_look(rng: np.random.Generator) -> Look:
    """Draw the look of one patient's slides: the laboratory's stain and the patient's cells."""
    red, green, blue = rng.normal(0, 0.7, 3)
    return Look(
        hematoxylin=rng.uniform(0.8, 1.25),
        eosin=rng.uniform(0.75, 1.25),
        tint=(red, green, blue),
        scale=rng.uniform(0.88, 1.15),
        density=rng.uniform(0.9, 1.12),
    )


def write_pyramid(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write uint8 (H, W, 3) as a pyramidal TIFF of JPEG tiles with its scale in the resolution tags."""
    per_cm = 10_000 / MPP
    with tifffile.TiffWriter(path) as tiff:
        for level in range(LEVELS):
            factor = 2**level
            picture = Image.fromarray(pixels).reduce(factor) if level else Image.fromarray(pixels)
            tiff.write(
                jpeg_tiles(picture),
                shape=(picture.height, picture.width, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="ycbcr",
                compression="deflate",
                resolution=(per_cm / factor, per_cm / factor),
                resolutionunit="CENTIMETER",
                subfiletype=1 if level else 0,
                software="sish",
                metadata=None,
            )
    # tifffile writes ready-made tiles, but declares JPEG and its subsampling only if the large package
    # imagecodecs is installed. So both tags are set here.
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for page in tiff.pages:
            tags = page.aspage().tags
            tags["Compression"].overwrite(tifffile.COMPRESSION.JPEG)
            tags["YCbCrSubSampling"].overwrite(SUBSAMPLING)


def jpeg_tiles(picture: Image.Image) -> Iterator[bytes]:
    """Yield the JPEG stream of each tile of a picture, row by row, padded at the right and bottom edges."""
    for top in range(0, picture.height, TILE_PX):
        for left in range(0, picture.width, TILE_PX):
            stream = io.BytesIO()
            square = picture.crop((left, top, left + TILE_PX, top + TILE_PX))
            square.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
            yield stream.getvalue()
