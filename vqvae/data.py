"""Training data: folders of images, image lists in CSV files, and slides with patches drawn on the fly.

Labels are never read. All randomness comes from torch's global generator, which Lightning seeds in the main
process and in every worker.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from sish.errors import ParameterError, SlideOpenError
from sish.slides.files import find_slides
from sish.vqvae.images import ImagePatches, list_images
from sish.vqvae.model import to_unit
from sish.vqvae.slide_patches import Cut, SlidePatches, SlideSquares, find_places
from sish.vqvae.stain import jitter_stain


@dataclass(frozen=True)  # without slots: jsonargparse reads a default dataclass through vars()
class Split:
    """Which files train and which validate."""

    train: str = ""
    """Train on files whose path, relative to the folder, begins with this, e.g. train/."""
    valid: str = ""
    """Validate on files whose path begins with this, e.g. valid/."""
    share: float = 0.05
    """Share of the training files held out for validation if `valid` is empty."""

    def __post_init__(self) -> None:
        """Refuse an impossible share (ParameterError)."""
        if not 0 < self.share < 1:
            raise ParameterError(f"the share held out must be between 0 and 1, got {self.share}")


def _share_out(paths: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Split files into training and validation by a hash of the name: new files do not move others."""

    def place(path: Path) -> float:
        return int.from_bytes(hashlib.sha256(os.fsencode(path.name)).digest()[:4], "big") / 2**32

    held_out = [path for path in paths if place(path) < share]
    if not held_out and len(paths) > 1:  # few files: hold out the one that is nearest to the share
        held_out = [min(paths, key=place)]
    others = set(paths) - set(held_out)
    return [path for path in paths if path in others], held_out


def spread_batches(patches: Dataset[Tensor], count: int, batch_size: int = 32) -> Iterator[Tensor]:
    """Yield batches uint8 (n, H, W, 3) of up to ``count`` patches, evenly spread over the data set."""
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
        cut: Cut = Cut(),  # noqa: B008  # frozen, so sharing the default is safe
        stain_jitter: float = 0.05,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        """Choose where patches come from and how they are cut.

        Parameters
        ----------
        folder : Path, optional
            folder of images (with or without a labels.csv), or a CSV file with a column `path`.
        slides : Path, optional
            folder of whole-slide images; patches are drawn from their tissue during training.
        split : Split
            which files train and which validate.
        cut : Cut
            how patches are cut.
        stain_jitter : float
            how far each stain is scaled at random, e.g. 0.05 for 5 percent.
        batch_size : int
            patches in a batch.
        num_workers : int
            processes that read; 0 reads in the training process.

        Raises
        ------
        ParameterError
            If there is neither a folder nor slides, or a number is out of range.
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
        """List files and make the data sets; ParameterError if there is nothing to train or validate on."""
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

    def _slides(self) -> tuple[list[int], list[int]]:
        """Return the numbers, in `SlideSquares`, of the slides that train and of those that validate."""
        if self.slides is None:
            return [], []
        found = find_slides(self.slides)
        if not found:
            raise SlideOpenError(f"no slides in {self.slides}; give a folder of slides with --data.slides")
        usable = find_places(found, self.cut.slide_mpp, self.cut.override_slide_mpp)
        self._squares = SlideSquares(usable, self.cut)
        number = {places.path: number for number, places in enumerate(usable)}
        train, valid = _share_out(list(number), self.split.share)
        # with few slides the hash may hold out none or all: then training and validation share the slides
        parts = (train, valid) if train and valid else (list(number), list(number))
        return [number[path] for path in parts[0]], [number[path] for path in parts[1]]

    def _patches(
        self, images: list[Path], slides: list[int], size_px: int, *, augment: bool
    ) -> Dataset[Tensor]:
        parts: list[Dataset[Tensor]] = []
        if images:
            parts.append(ImagePatches(images, size_px, augment=augment))
        if slides:
            parts.append(SlidePatches(self._squares, slides, size_px, augment=augment))
        return parts[0] if len(parts) == 1 else ConcatDataset(parts)

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Return random crops of the training files, shuffled."""
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Return centre crops of the held-out files, in order."""
        return self._loader(self.valid_set)

    def calibration_batches(self, patches: int) -> Iterator[Tensor]:
        """Yield batches uint8 (n, H, W, 3) of up to ``patches`` centre crops of the training files."""
        return spread_batches(self.plain_set, patches, self.batch_size)

    def example_batches(self, patches: int) -> Iterator[Tensor]:
        """Yield batches uint8 (n, H, W, 3) of up to ``patches`` centre crops of the held-out files."""
        return spread_batches(self.valid_set, patches, self.batch_size)

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> Tensor:
        """Return patches uint8 (N, H, W, 3) as `to_unit` gives them; in training with other stains."""
        if self.trainer is not None and self.trainer.training:
            batch = jitter_stain(batch, self.stain_jitter)
        return to_unit(batch)

    def _loader(self, patches: Dataset[Tensor], *, shuffle: bool = False) -> DataLoader[Tensor]:
        options: dict[str, Any] = {"num_workers": self.num_workers, "shuffle": shuffle}
        if self.num_workers:
            options["persistent_workers"] = True
        return DataLoader(patches, batch_size=self.batch_size, drop_last=False, **options)
