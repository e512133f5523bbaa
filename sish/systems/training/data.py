"""What the systems' networks learn from: a folder with a ``labels.csv``, its groups kept apart.

A *group* is a patient or a lesion: all pictures of one are on the same side of every split. The split goes by
a hash of the group's name, so it needs no list, and adding pictures moves nobody else's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sish.errors import LabelsError, ParameterError
from sish.labels import read_labels
from sish.slides.tables import posix_path
from sish.systems.item import Item
from sish.systems.items import groups_of, item_of
from sish.systems.small_pictures import SizePx, read_given_mask, read_picture

__all__ = [
    "FindingsData",
    "FindingsFolder",
    "MaskData",
    "MaskFolder",
    "distorted",
    "fold_of",
    "labelled_items",
    "split_groups",
]

_PLACES = 1 << 32  # that a group's hash can fall on in a split
Batch = tuple[Tensor, Tensor]
"""Pictures float (N, C, H, W), and what is to be learnt of each."""


def labelled_items(folder: Path) -> tuple[Item, ...]:
    """The pictures that the ``labels.csv`` of a folder names, with findings, group and mask.

    Columns: ``path``, ``label`` or ``labels`` (joined by a bar, ``No Finding`` for none), and, where known,
    ``mask`` and the group: ``patient``, ``patient_id``, ``lesion_id`` or ``source_tile``. LabelsError where
    a line has no path, or names a mask that is not there.
    """
    table = read_labels(Path(folder) / "labels.csv")
    bare = next((row for row in table.rows if row.path is None), None)
    if bare is not None:
        raise LabelsError(f"{table.path}, line {bare.line}: {bare.name} has no path; give its picture")
    groups, folder = groups_of(table), table.path.parent
    return tuple(item_of(folder / posix_path(row.path or ""), row, table, groups) for row in table.rows)


def fold_of(item: Item, folds: int, *, salt: str = "") -> int:
    """Which of ``folds`` an item is in, 0 to folds - 1: the same for all of its group.

    Another ``salt`` deals the groups anew, so that a split inside a fold has nothing to do with the folds.
    """
    name = f"{salt}{item.group or item.item_id}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % folds


def split_groups(items: Sequence[Item], valid_share: float) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Training and validation, no group in both; about ``valid_share`` of the groups validate.

    Where so few groups are given that none falls into the share, the nearest to it validates. LabelsError
    where there are not two groups.
    """
    if not 0 < valid_share < 1:
        raise ParameterError(f"the share held out must be between 0 and 1, got {valid_share}")
    places = [fold_of(item, _PLACES, salt="valid ") for item in items]
    if len(set(places)) < 2:
        raise LabelsError(
            f"got {len(items)} pictures of {len(set(places))} patient or lesion; give pictures of two at"
            " least, one to train on and one to validate on"
        )
    limit = max(valid_share * _PLACES, min(places) + 1)
    limit = min(limit, max(places))  # somebody must train, whatever the share
    train = tuple(item for item, place in zip(items, places, strict=True) if place >= limit)
    valid = tuple(item for item, place in zip(items, places, strict=True) if place < limit)
    return train, valid


class _ItemData(pl.LightningDataModule):
    """Pictures that are read once into memory; subclasses say what is learnt from them."""

    train_set: TensorDataset
    valid_set: TensorDataset

    def __init__(self, items: Sequence[Item], valid_share: float, batch_size: int) -> None:
        super().__init__()
        if batch_size < 2:
            raise ParameterError(f"batch_size is {batch_size}; give 2 at least (batches are normalised)")
        self.train_items, self.valid_items = split_groups(items, valid_share)
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled batches; a last one of a single picture is left out, as it cannot be normalised."""
        alone = len(self.train_set) % self.batch_size == 1
        return DataLoader(self.train_set, self.batch_size, shuffle=True, drop_last=alone)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The held-out pictures, in order."""
        return DataLoader(self.valid_set, self.batch_size)

    @property
    def _augments(self) -> bool:
        return self.trainer is not None and bool(self.trainer.training)


def _without_fold(folder: Path, fold: int, folds: int) -> list[Item]:
    """The pictures of a folder, without the fold that is kept aside."""
    if folds < 1 or not -1 <= fold < folds:
        raise ParameterError(f"got fold {fold} of {folds}; give one of 0 to folds - 1, or -1 for none")
    return [item for item in labelled_items(folder) if fold < 0 or fold_of(item, folds) != fold]


class FindingsData(_ItemData):
    """X-rays and their findings, patients kept apart between training and validation."""

    def __init__(
        self, items: Sequence[Item], *, valid_share: float = 0.2, batch_size: int = 32, size_px: int = 64
    ) -> None:
        """``size_px`` is the side that pictures are resized to, in `setup`."""
        super().__init__(items, valid_share, batch_size)
        self.size_px = size_px
        self.findings = _findings(self.train_items)

    def setup(self, stage: str) -> None:
        """Read the pictures (SlideOpenError for one that is none)."""
        self.train_set, self.valid_set = self._read(self.train_items), self._read(self.valid_items)

    def _read(self, items: Sequence[Item]) -> TensorDataset:
        pictures = np.stack([read_picture(item.path, (self.size_px, self.size_px), "L") for item in items])
        targets = np.array([[finding in item.labels for finding in self.findings] for item in items])
        return TensorDataset(torch.from_numpy(pictures), torch.from_numpy(targets.astype(np.float32)))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Pictures uint8 (N, H, W) to float (N, 1, H, W); in training shifted, turned, scaled a little."""
        pictures, targets = batch[0][:, None].float(), batch[1]
        return (distorted(pictures, mirror=False) if self._augments else pictures), targets


class FindingsFolder(FindingsData):
    """The X-rays of a folder, for the command line."""

    def __init__(
        self,
        folder: Path,
        valid_share: float = 0.2,
        batch_size: int = 32,
        size_px: int = 64,
        fold: int = -1,
        folds: int = 5,
    ) -> None:
        """Where the pictures come from.

        Args:
            folder: folder with a labels.csv: path, labels (or label), patient_id.
            valid_share: share of the patients that are held out for validation.
            batch_size: pictures in a batch.
            size_px: side that pictures are resized to; on the command line the network's.
            fold: patients of this fold are never read, so that they can be searched for later; -1: none.
            folds: number of folds that patients are dealt into.
        """
        items = _without_fold(folder, fold, folds)
        super().__init__(items, valid_share=valid_share, batch_size=batch_size, size_px=size_px)


def _findings(items: Sequence[Item]) -> tuple[str, ...]:
    """Every finding of the training pictures, sorted; LabelsError where they teach nothing."""
    findings = tuple(sorted(frozenset[str]().union(*(item.labels for item in items))))
    if not findings:
        raise LabelsError(
            f"none of {len(items)} training pictures has a finding; give a labels.csv with a column labels"
        )
    if len({item.labels for item in items}) < 2:
        raise LabelsError(
            f"all {len(items)} training pictures have the same findings, {items[0].label!r}; give pictures"
            " with others or with none"
        )
    return findings


class MaskData(_ItemData):
    """Photographs and the masks of their lesions, lesions kept apart between training and validation."""

    def __init__(
        self,
        items: Sequence[Item],
        *,
        valid_share: float = 0.2,
        batch_size: int = 16,
        size_px: SizePx = (128, 96),
    ) -> None:
        """``size_px`` is width and height that photographs are resized to, in `setup`."""
        super().__init__(items, valid_share, batch_size)
        self.size_px = size_px

    def setup(self, stage: str) -> None:
        """Read photographs and masks (MissingMaskError for one without)."""
        self.train_set, self.valid_set = self._read(self.train_items), self._read(self.valid_items)
        if not self.train_set.tensors[1].any():
            raise LabelsError("every training mask is empty; give masks that are not 0 inside the lesion")

    def _read(self, items: Sequence[Item]) -> TensorDataset:
        masks = np.stack([read_given_mask(item, self.size_px) for item in items])
        pictures = np.stack([read_picture(item.path, self.size_px) for item in items])
        return TensorDataset(torch.from_numpy(pictures), torch.from_numpy(masks))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Photographs as float (N, 3, H, W) in [-1, 1], masks float (N, H, W); distorted in training."""
        pictures = batch[0].permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
        masks = batch[1][:, None].float()
        if not self._augments:
            return pictures, masks[:, 0]
        both = distorted(torch.cat([pictures, masks], 1), mirror=True)
        light = 1 + 0.2 * (2 * torch.rand(len(both), 3, 1, 1) - 1)  # colour and exposure differ by camera
        return both[:, :3] * light, (both[:, 3] >= 0.5).float()


class MaskFolder(MaskData):
    """The photographs of a folder, for the command line."""

    def __init__(
        self,
        folder: Path,
        valid_share: float = 0.2,
        batch_size: int = 16,
        size_px: SizePx = (128, 96),
        fold: int = -1,
        folds: int = 5,
    ) -> None:
        """Where the photographs come from.

        Args:
            folder: folder with a labels.csv: path, mask, lesion_id (and label, which is not looked at).
            valid_share: share of the lesions that are held out for validation.
            batch_size: photographs in a batch.
            size_px: width and height they are resized to; on the command line the network's.
            fold: lesions of this fold are never read, so that they can be searched for later; -1: none.
            folds: number of folds that lesions are dealt into.
        """
        items = _without_fold(folder, fold, folds)
        super().__init__(items, valid_share=valid_share, batch_size=batch_size, size_px=size_px)


def distorted(
    pictures: Tensor, *, mirror: bool, turn: float = 0.15, scale: float = 0.1, shift: float = 0.1
) -> Tensor:
    """Pictures float (N, C, H, W), each turned, scaled and shifted at random, its border repeated.

    ``turn`` is in radians, ``scale`` and ``shift`` are shares of the side; each is the most that happens.
    ``mirror`` also flips half of them, both ways: not for X-rays, where the heart would change sides.
    """
    count, _, height, width = pictures.shape
    angle, zoom_by, *place = (2 * torch.rand(4, count) - 1).unbind()
    zoom = 1 + scale * zoom_by
    flip = torch.randint(0, 2, (2, count)) * 2 - 1 if mirror else torch.ones(2, count)
    cosine, sine, aspect = (turn * angle).cos() * zoom, (turn * angle).sin() * zoom, height / width
    rows = (
        torch.stack([cosine * flip[0], -sine * aspect * flip[1], 2 * shift * place[0]], 1),
        torch.stack([sine / aspect * flip[0], cosine * flip[1], 2 * shift * place[1]], 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1).to(pictures), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
