"""Training data: folders of images, image lists in CSV files, and slides with patches drawn on the fly.

Labels are never read. Everything random comes from torch's global generator, which Lightning seeds in the
main process and in every worker.
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

from sish.errors import ParameterError
from sish.slides.files import find_slides
from sish.vqvae.images import ImagePatches, list_images
from sish.vqvae.model import to_unit
from sish.vqvae.slide_patches import Cut, SlidePatches, SlideSquares, find_places
from sish.vqvae.stain import jitter_stain

__all__ = ["Cut", "PatchData", "Split", "spread_batches"]


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


def _share_out(paths: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Train and valid: by a hash of the name, so that adding files moves no other file.

    Where no name falls into the share (few files), the nearest one is held out.
    """

    def place(path: Path) -> float:
        return int.from_bytes(hashlib.sha256(os.fsencode(path.name)).digest()[:4], "big") / 2**32

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
        cut: Cut = Cut(),  # noqa: B008  # frozen, so sharing the default is safe
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

    def _slides(self) -> tuple[list[int], list[int]]:
        """Numbers of the slides, among those of `SlideSquares`, that train and that validate."""
        if self.slides is None:
            return [], []
        found = find_slides(self.slides)
        if not found:
            raise ParameterError(f"no slides in {self.slides}; give a folder of slides with --data.slides")
        usable = find_places(found, self.cut.slide_mpp, self.cut.override_slide_mpp)
        self._squares = SlideSquares(usable, self.cut)
        number = {places.path: number for number, places in enumerate(usable)}
        train, valid = _share_out(list(number), self.split.share)
        # with few slides the hash may hold out none or all: then only places differ, not slides
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
        """Random crops, shuffled."""
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Centre crops of the held-out files, in order."""
        return self._loader(self.valid_set)

    def calibration_batches(self, patches: int) -> Iterator[Tensor]:
        """Up to ``patches`` plain centre crops of the training files, evenly spread: uint8 (n, H, W, 3)."""
        return spread_batches(self.plain_set, patches, self.batch_size)

    def example_batches(self, patches: int) -> Iterator[Tensor]:
        """Up to ``patches`` of what validation sees, evenly spread: uint8 (n, H, W, 3)."""
        return spread_batches(self.valid_set, patches, self.batch_size)

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
