"""Training data of the systems' networks: the pictures of a folder with a ``labels.csv``.

A *group* is a patient or a lesion: all pictures of a group are on the same side of every split. The side
depends on a hash of the group's name alone, so new pictures never move others to another side.
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

_PLACES = 1 << 32  # number of values of a group's hash in a split
Batch = tuple[Tensor, Tensor]
"""Pictures float (N, C, H, W), and the target of each."""


def labelled_items(folder: Path) -> tuple[Item, ...]:
    """Return the pictures that the ``labels.csv`` of a folder names, with findings, group and mask.

    Parameters
    ----------
    folder : Path
        Its labels file has the columns ``path``, ``label`` or ``labels`` (joined by a bar, ``No Finding`` for
        none), and optionally ``mask`` and the group: ``patient``, ``patient_id``, ``lesion_id`` or
        ``source_tile``.

    Returns
    -------
    tuple of Item
        One for each row.

    Raises
    ------
    LabelsError
        If a row has no path, or names a mask that does not exist.
    """
    table = read_labels(Path(folder) / "labels.csv")
    bare = next((row for row in table.rows if row.path is None), None)
    if bare is not None:
        raise LabelsError(f"{table.path}, line {bare.line}: {bare.name} has no path; give its picture")
    groups, folder = groups_of(table), table.path.parent
    return tuple(item_of(folder / posix_path(row.path or ""), row, table, groups) for row in table.rows)


def fold_of(item: Item, folds: int, *, salt: str = "") -> int:
    """Return the fold of an item: the same for all items of its group.

    Parameters
    ----------
    item : Item
        An item.
    folds : int
        Number of folds.
    salt : str
        Another salt deals the groups in another way, so that a split inside a fold is independent of folds.

    Returns
    -------
    int
        0 to folds - 1.
    """
    name = f"{salt}{item.group or item.item_id}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % folds


def split_groups(items: Sequence[Item], valid_share: float) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Split items into training and validation, no group in both.

    Parameters
    ----------
    items : sequence of Item
        Items of at least two groups.
    valid_share : float
        About this share of the groups validates, at least one group and not all.

    Returns
    -------
    tuple of Item
        For training.
    tuple of Item
        For validation.

    Raises
    ------
    ParameterError
        If the share is not between 0 and 1.
    LabelsError
        If there are not two groups.
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
    limit = min(limit, max(places))  # at least one group trains, whatever the share
    train = tuple(item for item, place in zip(items, places, strict=True) if place >= limit)
    valid = tuple(item for item, place in zip(items, places, strict=True) if place < limit)
    return train, valid


class _ItemData(pl.LightningDataModule):
    """Pictures in memory; subclasses say what is learnt from them."""

    train_set: TensorDataset
    valid_set: TensorDataset

    def __init__(self, items: Sequence[Item], valid_share: float, batch_size: int) -> None:
        super().__init__()
        if batch_size < 2:
            raise ParameterError(f"batch_size is {batch_size}; give 2 at least (batches are normalised)")
        self.train_items, self.valid_items = split_groups(items, valid_share)
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return shuffled batches, without a last one of a single picture, which cannot be normalised."""
        alone = len(self.train_set) % self.batch_size == 1
        return DataLoader(self.train_set, self.batch_size, shuffle=True, drop_last=alone)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the held-out pictures, in order."""
        return DataLoader(self.valid_set, self.batch_size)

    @property
    def _augments(self) -> bool:
        return self.trainer is not None and bool(self.trainer.training)


def _without_fold(folder: Path, fold: int, folds: int) -> list[Item]:
    """Return the pictures of a folder without those of one fold."""
    if folds < 1 or not -1 <= fold < folds:
        raise ParameterError(f"got fold {fold} of {folds}; give one of 0 to folds - 1, or -1 for none")
    return [item for item in labelled_items(folder) if fold < 0 or fold_of(item, folds) != fold]


class FindingsData(_ItemData):
    """X-rays and their findings, patients kept apart between training and validation."""

    def __init__(
        self, items: Sequence[Item], *, valid_share: float = 0.2, batch_size: int = 32, size_px: int = 64
    ) -> None:
        """Split the items; `setup` reads the pictures and resizes them to ``size_px`` a side."""
        super().__init__(items, valid_share, batch_size)
        self.size_px = size_px
        self.findings = _findings(self.train_items)

    def setup(self, stage: str) -> None:
        """Read the pictures."""
        self.train_set, self.valid_set = self._read(self.train_items), self._read(self.valid_items)

    def _read(self, items: Sequence[Item]) -> TensorDataset:
        pictures = np.stack([read_picture(item.path, (self.size_px, self.size_px), "L") for item in items])
        targets = np.array([[finding in item.labels for finding in self.findings] for item in items])
        return TensorDataset(torch.from_numpy(pictures), torch.from_numpy(targets.astype(np.float32)))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Turn pictures uint8 (N, H, W) into float (N, 1, H, W); distort them a little in training."""
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
        """Choose the folder and the pictures that are read.

        Parameters
        ----------
        folder : Path
            folder with a labels.csv: path, labels (or label), patient_id.
        valid_share : float
            share of the patients that are held out for validation.
        batch_size : int
            pictures in a batch.
        size_px : int
            side that pictures are resized to; on the command line the network's.
        fold : int
            patients of this fold are never read, so that they can be searched for later; -1: none.
        folds : int
            number of folds that patients are dealt into.
        """
        items = _without_fold(folder, fold, folds)
        super().__init__(items, valid_share=valid_share, batch_size=batch_size, size_px=size_px)


def _findings(items: Sequence[Item]) -> tuple[str, ...]:
    """Return every finding of the training pictures, sorted; LabelsError if there is nothing to learn."""
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
        """Split the items; `setup` reads photographs and masks and resizes them to ``size_px``."""
        super().__init__(items, valid_share, batch_size)
        self.size_px = size_px

    def setup(self, stage: str) -> None:
        """Read photographs and masks; LabelsError if every training mask is empty."""
        self.train_set, self.valid_set = self._read(self.train_items), self._read(self.valid_items)
        if not self.train_set.tensors[1].any():
            raise LabelsError("every training mask is empty; give masks that are not 0 inside the lesion")

    def _read(self, items: Sequence[Item]) -> TensorDataset:
        masks = np.stack([read_given_mask(item, self.size_px) for item in items])
        pictures = np.stack([read_picture(item.path, self.size_px) for item in items])
        return TensorDataset(torch.from_numpy(pictures), torch.from_numpy(masks))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Return photographs in [-1, 1], (N, 3, H, W), and masks (N, H, W), float; in training distorted."""
        pictures = batch[0].permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
        masks = batch[1][:, None].float()
        if not self._augments:
            return pictures, masks[:, 0]
        both = distorted(torch.cat([pictures, masks], 1), mirror=True)
        light = 1 + 0.2 * (2 * torch.rand(len(both), 3, 1, 1) - 1)  # cameras differ in colour and exposure
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
        """Choose the folder and the photographs that are read.

        Parameters
        ----------
        folder : Path
            folder with a labels.csv: path, mask, lesion_id (and label, which is not looked at).
        valid_share : float
            share of the lesions that are held out for validation.
        batch_size : int
            photographs in a batch.
        size_px : (int, int)
            width and height they are resized to; on the command line the network's.
        fold : int
            lesions of this fold are never read, so that they can be searched for later; -1: none.
        folds : int
            number of folds that lesions are dealt into.
        """
        items = _without_fold(folder, fold, folds)
        super().__init__(items, valid_share=valid_share, batch_size=batch_size, size_px=size_px)


def distorted(
    pictures: Tensor, *, mirror: bool, turn: float = 0.15, scale: float = 0.1, shift: float = 0.1
) -> Tensor:
    """Turn, scale and shift each picture at random; its border is repeated outside.

    Parameters
    ----------
    pictures : float (N, C, H, W)
        Pictures.
    mirror : bool
        Also flip half of them in each direction. Not for X-rays, where the heart would change sides.
    turn : float
        Largest angle, in radians.
    scale, shift : float
        Largest change of scale, and largest shift, as shares of the side.

    Returns
    -------
    float (N, C, H, W)
        The distorted pictures.
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
