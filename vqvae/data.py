"""Training data: folders of images, image lists in CSV files, and slides with patches drawn on the fly.

Labels are never read. Everything random comes from torch's global generator, which Lightning seeds in the
main process and in every worker.
"""

import csv
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from sish.errors import MissingMppError, ParameterError, SishError
from sish.vqvae.model import to_unit
from sish.vqvae.stain import jitter_stain

if TYPE_CHECKING:
    from sish.slide import Slide
    from sish.tissue import TissueMask

__all__ = [
    "IMAGE_SUFFIXES",
    "Cut",
    "ImagePatches",
    "PatchData",
    "SlidePatches",
    "Split",
    "list_images",
    "spread_batches",
    "usable_slides",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
"""What counts as an image in a folder of images."""
Pixels = NDArray[np.uint8]


def list_images(source: Path, prefix: str = "") -> list[Path]:
    """Image files of a folder, of its ``labels.csv``, or of a CSV file with a column ``path``.

    Paths in a CSV file are relative to it. Only paths that begin with ``prefix`` (as written there, or
    relative to the folder) are kept. Sorted, so the order does not hang on the file system. A missing
    source, a CSV file without ``path``, or an empty answer is a ParameterError.
    """
    table = source / "labels.csv" if source.is_dir() else source
    if not source.exists():
        raise ParameterError(f"no folder or CSV file at {source}; give one with --data.folder")
    if table.is_file():
        names = _paths_of_csv(table)
    else:
        files = (path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        names = [path.relative_to(source).as_posix() for path in files]
    found = sorted({name for name in names if name.startswith(prefix)})
    if not found:
        begin = f" whose path begins with {prefix!r}" if prefix else ""
        raise ParameterError(f"no images{begin} in {source}; wanted {', '.join(sorted(IMAGE_SUFFIXES))}")
    return [(source if source.is_dir() else source.parent) / name for name in found]


def _paths_of_csv(table: Path) -> list[str]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "path" not in (reader.fieldnames or ()):
                raise ParameterError(f"{table} has no column 'path'; its header is {reader.fieldnames}")
            return [row["path"] for row in reader if row["path"]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ParameterError(f"{table} is not a CSV file ({error}); give one with a column 'path'") from error


def _random(high: int) -> int:
    """A whole number in [0, high) from torch's global generator."""
    return int(torch.randint(high, ()))


def _turn(pixels: Pixels) -> Pixels:
    """One of the eight flips and quarter turns of a square (H = W, 3), at random."""
    way = _random(8)
    turned = np.rot90(pixels, way % 4)
    return turned[::-1] if way >= 4 else turned


@dataclass(frozen=True, slots=True)
class _Crop:
    """How a square is cut out of an image."""

    size_px: int
    """Side of the square."""
    augment: bool
    """A random place, flip and quarter turn instead of the centre."""

    def __call__(self, pixels: Pixels, name: object) -> Tensor:
        """uint8 (size, size, 3) out of uint8 (H, W, 3)."""
        spare_y, spare_x = pixels.shape[0] - self.size_px, pixels.shape[1] - self.size_px
        if min(spare_y, spare_x) < 0:
            height, width = pixels.shape[:2]
            raise ParameterError(
                f"{name} is {width} x {height} px, smaller than the crop of {self.size_px};"
                " give a smaller --data.cut.train_px or --data.cut.valid_px"
            )
        y, x = (_random(spare_y + 1), _random(spare_x + 1)) if self.augment else (spare_y // 2, spare_x // 2)
        part = pixels[y : y + self.size_px, x : x + self.size_px]
        return torch.from_numpy((_turn(part) if self.augment else part).copy())


class ImagePatches(Dataset[Tensor]):
    """One square crop, uint8 (size, size, 3), from each image file.

    A file that does not decode is replaced by the next one that does, with one warning for the first; if
    none decodes, that is a ParameterError.
    """

    def __init__(self, paths: Sequence[Path], size_px: int, *, augment: bool) -> None:
        """Files to read, the side of the crop, and whether it is random."""
        self.paths = list(paths)
        self.unreadable: set[int] = set()
        self._crop = _Crop(size_px, augment)

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor:
        """The crop of file ``number``, or of the next one that decodes."""
        for step in range(len(self.paths)):
            candidate = (number + step) % len(self.paths)
            pixels = self._decode(candidate)
            if pixels is not None:
                return self._crop(pixels, self.paths[candidate])
        raise ParameterError(f"none of the {len(self.paths)} images decodes, e.g. {self.paths[0]}")

    def _decode(self, number: int) -> Pixels | None:
        if number in self.unreadable:
            return None
        try:
            with Image.open(self.paths[number]) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
            if not self.unreadable:
                warnings.warn(
                    f"{self.paths[number]} does not decode ({error}); it and others like it are skipped",
                    stacklevel=3,
                )
            self.unreadable.add(number)
            return None


@lru_cache(maxsize=64)  # per process: a worker opens each slide once
def _opened(path: Path, mpp: float | None) -> tuple["Slide", "TissueMask"]:
    """A slide and its tissue; ``mpp`` is for slides that do not tell theirs."""
    from sish.slide import open_slide
    from sish.tissue import find_tissue

    try:
        slide = open_slide(path)
    except MissingMppError:
        if mpp is None:
            raise
        slide = open_slide(path, mpp=mpp)
    return slide, find_tissue(slide)


def usable_slides(paths: Sequence[Path], slide_mpp: float | None = None) -> list[Path]:
    """Those slides that open, have a scale (or are given one) and hold tissue; a warning for each other.

    A ParameterError if there are none.
    """
    usable = []
    for path in paths:
        reason = _why_unusable(path, slide_mpp)
        if reason:
            warnings.warn(f"{path} is skipped: {reason}", stacklevel=2)
        else:
            usable.append(path)
    if not usable:
        raise ParameterError(f"none of the {len(paths)} slides can be used; see the warnings for each")
    return usable


def _why_unusable(path: Path, slide_mpp: float | None) -> str:
    try:
        _, tissue = _opened(path, slide_mpp)
    except MissingMppError as error:
        return f"{error} (here: --data.cut.slide_mpp)"
    except SishError as error:
        return str(error)
    return "no tissue was found" if tissue.is_empty else ""


@dataclass(frozen=True)  # without slots: jsonargparse reads a default dataclass through vars()
class Split:
    """Which files train and which validate."""

    train: str = ""
    """Train on files whose path, relative to the folder, begins so, e.g. train/."""
    valid: str = ""
    """Validate on files whose path begins so, e.g. valid/."""
    share: float = 0.05
    """Share of the training files held out for validation where `valid` is empty."""

    def __post_init__(self) -> None:
        """Refuse an impossible share (ParameterError)."""
        if not 0 < self.share < 1:
            raise ParameterError(f"the share held out must be between 0 and 1, got {self.share}")


@dataclass(frozen=True)  # without slots, as above
class Cut:
    """How patches are cut."""

    train_px: int = 64
    """Side of the random square that training sees, a multiple of the network's stride."""
    valid_px: int = 96
    """Side of the centre square that validation sees, a multiple of the network's stride."""
    mpp: float = 1.0
    """Micrometres per pixel at which slides are read (images are taken as they are)."""
    slide_mpp: float | None = None
    """Micrometres per pixel of level 0, for slides that do not tell."""
    per_slide: int = 500
    """Patches drawn from each slide in an epoch."""

    def __post_init__(self) -> None:
        """Refuse what cannot be cut (ParameterError)."""
        if min(self.train_px, self.valid_px, self.per_slide) < 1 or self.mpp <= 0:
            raise ParameterError(f"sizes, counts and mpp of patches must be positive, got {self}")


class SlidePatches(Dataset[Tensor]):
    """Patches uint8 (size, size, 3) from the tissue of slides, others in each epoch if ``augment``."""

    def __init__(self, paths: Sequence[Path], size_px: int, cut: Cut, *, augment: bool) -> None:
        """``cut.per_slide`` patches a slide and epoch, of `usable_slides`."""
        self.cut = cut
        self.paths = list(paths)
        self._crop = _Crop(size_px, augment)

    def __len__(self) -> int:
        """Patches in an epoch."""
        return len(self.paths) * self.cut.per_slide

    def __getitem__(self, number: int) -> Tensor:
        """A patch of slide ``number // per_slide``; without augmentation the place depends on number only."""
        slide, tissue = _opened(self.paths[number // self.cut.per_slide], self.cut.slide_mpp)
        if self._crop.augment:
            seed = _random(2**31)
        else:
            seed = number % self.cut.per_slide
        generator = np.random.default_rng(seed)
        places = np.argwhere(tissue.mask)
        row_column = places[generator.integers(len(places))] + generator.random(2)
        center = np.asarray(tissue.l0_xy) + row_column[::-1] * tissue.l0_per_px
        half = self._crop.size_px * self.cut.mpp / slide.mpp / 2
        x, y = np.round(center - half).astype(int).tolist()
        pixels = slide.read((x, y), self._crop.size_px, self.cut.mpp)
        return self._crop(pixels, slide.path)


def _share_out(paths: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Train and valid: by a hash of the name, so that adding files moves no other file.

    Where no name falls into the share (few files), the nearest one is held out.
    """

    def place(path: Path) -> float:
        return int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:4], "big") / 2**32

    held_out = [path for path in paths if place(path) < share]
    if not held_out and len(paths) > 1:
        held_out = [min(paths, key=place)]
    others = set(paths) - set(held_out)
    return [path for path in paths if path in others], held_out


def spread_batches(patches: Dataset[Tensor], count: int, batch_size: int = 32) -> Iterator[Tensor]:
    """Up to ``count`` of the patches, evenly spread over the data set, in batches uint8 (n, H, W, 3)."""
    total = len(patches)  # type: ignore[arg-type]  # every data set here is sized
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()
    for start in range(0, len(chosen), batch_size):
        yield torch.stack([patches[number] for number in chosen[start : start + batch_size]])


class PatchData(pl.LightningDataModule):
    """Patches for training and validation. Labels are never read."""

    def __init__(
        self,
        folder: Path | None = None,
        slides: Path | None = None,
        split: Split = Split(),
        cut: Cut = Cut(),
        stain_jitter: float = 0.05,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        """Where patches come from and how they are cut.

        Args:
            folder: folder of images (with or without a labels.csv), or a CSV file with a column `path`.
            slides: folder of whole-slide images; patches are drawn from their tissue on the fly.
            split: which files train and which validate.
            cut: how patches are cut.
            stain_jitter: how far each stain is scaled at random, e.g. 0.05 for 5 percent.
            batch_size: patches in a batch.
            num_workers: processes that read; 0 reads in the training process.
        """
        super().__init__()
        if folder is None and slides is None:
            raise ParameterError("no training data; give --data.folder or --data.slides")
        if batch_size < 1 or num_workers < 0 or stain_jitter < 0:
            raise ParameterError(
                "batch_size must be at least 1, num_workers and stain_jitter not negative, got"
                f" {batch_size}, {num_workers}, {stain_jitter}"
            )
        self.folder = folder
        self.slides = slides
        self.split = split
        self.cut = cut
        self.stain_jitter = stain_jitter
        self.batch_size = batch_size
        self.num_workers = num_workers

    def setup(self, stage: str) -> None:
        """List files and make the data sets (ParameterError where there is nothing to train on)."""
        train_images, valid_images = self._images()
        train_slides, valid_slides = self._slides()
        if not (train_images or train_slides) or not (valid_images or valid_slides):
            raise ParameterError(
                "nothing is left to train or to validate on; give more files or another --data.split.share"
            )
        self.train_set = self._patches(train_images, train_slides, self.cut.train_px, augment=True)
        self.valid_set = self._patches(valid_images, valid_slides, self.cut.valid_px, augment=False)
        self.plain_set = self._patches(train_images, train_slides, self.cut.valid_px, augment=False)

    def _images(self) -> tuple[list[Path], list[Path]]:
        if self.folder is None:
            return [], []
        train = list_images(self.folder, self.split.train)
        if not self.split.valid:
            return _share_out(train, self.split.share)
        valid = list_images(self.folder, self.split.valid)
        held_out = set(valid)
        return [path for path in train if path not in held_out], valid

    def _slides(self) -> tuple[list[Path], list[Path]]:
        if self.slides is None:
            return [], []
        from sish.slide import find_slides

        found = find_slides(self.slides)
        if not found:
            raise ParameterError(f"no slides in {self.slides}; give a folder of slides with --data.slides")
        usable = usable_slides(found, self.cut.slide_mpp)
        train, valid = _share_out(usable, self.split.share)
        # with few slides the hash may hold out none or all: then only places differ, not slides
        return (train, valid) if train and valid else (usable, usable)

    def _patches(
        self, images: list[Path], slides: list[Path], size_px: int, *, augment: bool
    ) -> Dataset[Tensor]:
        parts: list[Dataset[Tensor]] = []
        if images:
            parts.append(ImagePatches(images, size_px, augment=augment))
        if slides:
            parts.append(SlidePatches(slides, size_px, self.cut, augment=augment))
        return parts[0] if len(parts) == 1 else ConcatDataset(parts)

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Random crops, shuffled."""
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Centre crops of the held-out files, in order."""
        return self._loader(self.valid_set)

    def calibration_batches(self, patches: int) -> Iterator[Tensor]:
        """Up to ``patches`` plain centre crops of the training files, evenly spread: uint8 (n, H, W, 3)."""
        return spread_batches(self.plain_set, patches, self.batch_size)

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> Tensor:
        """uint8 (N, H, W, 3) to what the network reads; in training with jittered stains."""
        if self.trainer is not None and self.trainer.training:
            batch = jitter_stain(batch, self.stain_jitter)
        return to_unit(batch)

    def _loader(self, patches: Dataset[Tensor], *, shuffle: bool = False) -> DataLoader[Tensor]:
        options: dict[str, Any] = {"num_workers": self.num_workers, "shuffle": shuffle}
        if self.num_workers:
            options["persistent_workers"] = True
        return DataLoader(patches, batch_size=self.batch_size, drop_last=False, **options)
