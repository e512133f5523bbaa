"""Training patches from image files: square crops, at random places and in random orientations.

Labels are never read. All randomness comes from torch's global generator, which Lightning seeds in the main
process and in every worker.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sish.errors import ParameterError, SlideNotFoundError, SlideOpenError
from sish.slides.files import OPENSLIDE_SUFFIXES, SLIDE_SUFFIXES
from sish.slides.folders import files_below
from sish.slides.formats.levels import Pixels
from sish.slides.formats.pictures import decode_picture
from sish.slides.orientations import ORIENTATIONS, oriented
from sish.slides.tables import posix_path, read_table

IMAGE_SUFFIXES = SLIDE_SUFFIXES - OPENSLIDE_SUFFIXES
"""Endings, in lower case, of the files that count as images."""

_DRAWN = (0, 1, 2, 3, 6, 5, 4, 7)  # orientation of each random number: a seed trains the same as ever


def list_images(source: Path, prefix: str = "") -> list[Path]:
    """Return the image files of a folder, of its ``labels.csv``, or of a CSV file with a column ``path``.

    Parameters
    ----------
    source : Path
        A folder or a CSV file. Paths in a CSV file are relative to it.
    prefix : str
        Keep only paths that begin with this, as written in the CSV file or relative to the folder.

    Returns
    -------
    list of Path
        The files, sorted, so that the order does not depend on the file system.

    Raises
    ------
    SlideNotFoundError
        If there is no such source.
    LabelsError
        If the CSV file is no such table, or has no column ``path``.
    SlideOpenError
        If no image is left.
    """
    table = source / "labels.csv" if source.is_dir() else source
    if not source.exists():
        raise SlideNotFoundError(
            f"no folder or CSV file at {source}; give one with --data.folder", path=source
        )
    if table.is_file():
        rows = read_table(table, ("path",)).rows
        names = [posix_path(row.said["path"]).as_posix() for row in rows if "path" in row.said]
    else:
        names = [path.relative_to(source).as_posix() for path in files_below(source, IMAGE_SUFFIXES)]
    found = sorted({name for name in names if name.startswith(prefix)})
    if not found:
        begin = f" whose path begins with {prefix!r}" if prefix else ""
        hint = ' (for a plain folder give --data.split.train "" --data.split.valid "")' if prefix else ""
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise SlideOpenError(f"no images{begin} in {source}{hint}; wanted {kinds}")
    return [(source if source.is_dir() else source.parent) / name for name in found]


def random_below(high: int) -> int:
    """Return a whole number in [0, high) from torch's global generator."""
    return int(torch.randint(high, ()))


@dataclass(frozen=True, slots=True)
class Crop:
    """Cuts a square out of an image."""

    size_px: int
    """Side of the square."""
    augment: bool
    """Take a random place and orientation instead of the centre."""

    def __call__(self, pixels: Pixels, name: object) -> Tensor:
        """Return a square uint8 (size, size, 3) of an image (H, W, 3); ParameterError if that is smaller."""
        spare_y, spare_x = pixels.shape[0] - self.size_px, pixels.shape[1] - self.size_px
        if min(spare_y, spare_x) < 0:
            height, width = pixels.shape[:2]
            raise ParameterError(
                f"{name} is {width} x {height} px, smaller than the crop of {self.size_px};"
                " give a smaller --data.cut.train_px or --data.cut.valid_px"
            )
        y, x = (
            (random_below(spare_y + 1), random_below(spare_x + 1))
            if self.augment
            else (spare_y // 2, spare_x // 2)
        )
        part = pixels[y : y + self.size_px, x : x + self.size_px]
        if self.augment:
            part = oriented(part, _DRAWN[random_below(ORIENTATIONS)])
        return torch.from_numpy(part.copy())


class ImagePatches(Dataset[Tensor]):
    """One square crop, uint8 (size, size, 3), from each image file.

    A file that cannot be decoded is replaced by the next file. The first such file is warned of. If no file
    can be decoded, a crop raises SlideOpenError.
    """

    def __init__(self, paths: Sequence[Path], size_px: int, *, augment: bool) -> None:
        """Take the files, the side of a crop, and whether crops are random."""
        self.paths = list(paths)
        self.unreadable: set[int] = set()
        self._crop = Crop(size_px, augment)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor:
        """Return a crop of file ``number``, or of the next file that can be decoded."""
        for step in range(len(self.paths)):
            candidate = (number + step) % len(self.paths)
            pixels = self._decode(candidate)
            if pixels is not None:
                return self._crop(pixels, self.paths[candidate])
        raise SlideOpenError(f"none of the {len(self.paths)} images decodes, e.g. {self.paths[0]}")

    def _decode(self, number: int) -> Pixels | None:
        if number in self.unreadable:
            return None
        try:
            return np.asarray(decode_picture(self.paths[number]).convert("RGB"))
        except SlideOpenError as error:
            if not self.unreadable:
                warnings.warn(f"{error}; it and others like it are skipped", stacklevel=3)
            self.unreadable.add(number)
            return None
