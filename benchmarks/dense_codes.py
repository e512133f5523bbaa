"""Make millions of barcodes of real tissue: every window of every field, from one pass of the encoder.

The pixels are the fields of BACH (1536 x 1536 px at 0.42 um/px) and patches of PatchCamelyon (96 px at
0.97 um/px, enlarged to 224 px, that is 0.416 um/px). Neither is stored here; the codes go to a cache folder.
A code is the barcode and the published key of a window of 128 px. Windows are 8 px apart, 177 x 177 of them
in a field.

The shipped VQ-VAE runs once on a whole field. Its maps are averaged over each window (mean and deviation of
every channel, `PooledFeatures` of `sish.vqvae.features`). Encoding the windows one by one would run the
network 31,329 times. So these are min-max barcodes of the VQ-VAE's own maps, whatever network the shipped
encoder takes its barcodes from: they measure an index, not an encoder. The statistics are standardised by
the calibration of the weights file, or by windows of some fields if it has none. Two things differ from a
window that is cut out and encoded alone (`DenseEncoder.alone`): near its border it sees its surroundings
instead of zeros, and the convolutions run in bfloat16. `border_effect` measures both together.

`real` are the windows of the 100 fields as they are, and of every sixth training patch of PatchCamelyon,
3.47 million. `varied` adds the rest of ten million: the windows of each field moved by 4 px right and down
(so half-way between the others), those of its mirror image (left and right exchanged; the network is not
symmetric), and, of every fifth field, those of its mirror image moved by 4 px.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from sish.errors import ParameterError
from sish.index.barcode import minmax_barcodes
from sish.index.keys import order_codebook, paper_keys
from sish.slides.formats.pictures import decode_picture
from sish.vqvae.fingerprint import digest_of
from sish.vqvae.model import VQVAE, to_unit
from sish.vqvae.pretrained import shipped_model

WINDOW_PX, STRIDE_PX = 128, 8
_FIELD_PX = 1536
_SIDE = WINDOW_PX // STRIDE_PX  # a window in strides, and in codes
_STRIP = 64  # rows of a feature map that are averaged together, so that they stay in the processor's cache
_CHANNELS = 16  # channels that are averaged together, for the same reason
_TOGETHER = 512  # windows whose features are made at once
_PATCH_EVERY, _PATCH_PX = 6, 224
_FOURTH_VIEW_EVERY = 5
_CALIBRATION_FIELDS, _WINDOW_EVERY = 10, 101  # measured if the weights have no calibration


@dataclass(frozen=True, slots=True)
class Codes:
    """Barcodes and published keys of the same windows."""

    barcodes: NDArray[np.uint8]
    """uint8 (N, 128)."""
    keys: NDArray[np.int64]
    """int64 (N,): `paper_keys` of each window's 16 x 16 codes, integer pooling."""


class DenseEncoder:
    """The shipped VQ-VAE, for every window of an image at once."""

    def __init__(self, images: Iterable[NDArray[np.uint8]] = (), model: VQVAE | None = None) -> None:
        """Take the shipped encoder, or another.

        If its file has no calibration, `images` are measured; ParameterError if there are none.
        """
        self._model = model or shipped_model()
        self._order = order_codebook(self._model.quantizer.codebook.detach().numpy())
        if not self._model.pooled.calibrated:
            self._calibrate(images)

    @torch.inference_mode()
    def _calibrate(self, images: Iterable[NDArray[np.uint8]]) -> None:
        order = self._model.pooled.order
        raw = [_of_windows(self._maps(image))[:, ::_WINDOW_EVERY][order].T for image in images]
        if not raw:
            raise ParameterError("the weights have no calibration of pooled features; give images to measure")
        self._model.pooled.calibrate(torch.cat(raw))

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8]) -> Codes:
        """Encode all windows of an image uint8 (H, W, 3), row by row; H and W are multiples of 8."""
        maps = self._maps(image)
        statistics = _of_windows(maps)
        pooled = self._model.pooled
        barcodes = []
        for windows in torch.split(statistics, _TOGETHER, 1):
            features = (windows[pooled.order].T - pooled.mean) / pooled.std
            barcodes.append(minmax_barcodes(features.numpy()))
        return Codes(np.concatenate(barcodes), self._keys(maps[-1]))

    @torch.inference_mode()
    def alone(self, windows: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return barcodes uint8 (N, 128) of cut-out windows uint8 (N, 128, 128, 3), in full precision."""
        maps = self._model.maps(to_unit(torch.from_numpy(np.array(windows))))
        return minmax_barcodes(self._model.pooled(maps).numpy())

    def _maps(self, image: NDArray[np.uint8]) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return self._model.maps(to_unit(torch.from_numpy(np.array(image)[None])))

    def _keys(self, latent: Tensor) -> NDArray[np.int64]:
        height, width = latent.shape[2:]
        nearest = self._model.quantizer.nearest(latent[0].float().permute(1, 2, 0).flatten(0, 1))
        grid = nearest.reshape(height, width).numpy()
        windows = sliding_window_view(grid, (_SIDE, _SIDE))
        return np.concatenate([paper_keys(row, self._order) for row in windows])


def _of_windows(maps: Sequence[Tensor]) -> Tensor:
    """Return all statistics float32 (S, windows) of an image's maps; the last has one position in 8 px."""
    image_px = STRIDE_PX * maps[-1].shape[2]
    return torch.cat([part for one in maps for part in _statistics(one, image_px)]).flatten(1)


def _statistics(one: Tensor, image_px: int) -> tuple[Tensor, Tensor]:
    """Return mean and deviation float32 (C, rows, columns) of a map (1, C, h, w) over each window."""
    factor = STRIDE_PX * one.shape[2] // image_px
    means, deviations = [], []
    for first in range(0, one.shape[1], _CHANNELS):
        mean, square = _slide(_blocks(one[:, first : first + _CHANNELS], factor))
        means.append(mean)
        deviations.append((square - mean * mean).clamp_min_(0).sqrt_())
    return torch.cat(means), torch.cat(deviations)


def _blocks(one: Tensor, factor: int) -> Tensor:
    """Average values and their squares over blocks of `factor` positions, (2, C, rows, columns)."""
    out = torch.empty((2, one.shape[1], one.shape[2] // factor, one.shape[3] // factor))
    for top in range(0, one.shape[2], _STRIP):
        strip = one[:, :, top : top + _STRIP].float()
        rows = slice(top // factor, (top + _STRIP) // factor)
        out[0][:, rows] = avg_pool2d(strip, factor)[0]
        out[1][:, rows] = avg_pool2d(strip * strip, factor)[0]
    return out


def _slide(blocks: Tensor) -> Tensor:
    """Average 16 x 16 blocks at every place, by sums of 2, 4, 8 and 16 neighbours along each axis."""
    for axis in (-1, -2):
        for step in (1, 2, 4, 8):
            length = blocks.shape[axis] - step
            blocks = blocks.narrow(axis, 0, length) + blocks.narrow(axis, step, length)
    return blocks / _SIDE**2


def border_effect(dense: DenseEncoder, image: NDArray[np.uint8], n: int = 32) -> float:
    """Return the mean bits between a window's barcode and that of the window encoded alone."""
    rows, columns = ((side - WINDOW_PX) // STRIDE_PX + 1 for side in image.shape[:2])
    rng = np.random.default_rng(0)
    row, column = rng.integers(rows, size=n), rng.integers(columns, size=n)
    windows = sliding_window_view(image, (WINDOW_PX, WINDOW_PX), (0, 1))[row * STRIDE_PX, column * STRIDE_PX]
    alone = dense.alone(windows.transpose(0, 2, 3, 1))
    together = dense.encode(image).barcodes[row * columns + column]
    return float(np.bitwise_count(alone ^ together).sum(1).mean())


def real(data: Path, cache: Path, fields: int | None = None) -> Codes:
    """Return the codes of fields and patches as they are, from the cache or made now.

    Parameters
    ----------
    data : Path
        Folder of bach and pcam.
    cache : Path
        Folder of the codes.
    fields : int, optional
        Take this number of fields, spread over all, and fewer patches.

    Returns
    -------
    Codes
        Codes of the fields' windows, then of the patches'.
    """
    names = _fields(data, fields)
    parts = [(names, "field"), (_patches(data, 1 if fields is None else 20), "patch")]
    return _cached(data, cache, "real" if fields is None else f"real-{fields}", parts)


def varied(data: Path, cache: Path) -> Codes:
    """Return the codes of moved and mirrored fields; with those of `real` they are ten million."""
    names = _fields(data, None)
    parts = [
        (names, "moved"), (names, "mirrored"),
        (names[::_FOURTH_VIEW_EVERY], "moved mirrored"),
    ]  # fmt: skip
    return _cached(data, cache, "varied", parts)


def field_of_real(n: int, fields: int | None = None) -> NDArray[np.int64]:
    """Return the field of each of `n` windows of `real`, (n,); patches have numbers from 1,000 on."""
    count = 100 if fields is None else fields
    number = np.arange(n) // _windows(_FIELD_PX)
    return np.where(number < count, number, 1000 + number)


def field_of_varied(n: int) -> NDArray[np.int64]:
    """Return the field of each of `n` windows of `varied`, (n,)."""
    moved, still = _windows(_FIELD_PX - 8), _windows(_FIELD_PX)
    every, some = np.arange(100), np.arange(0, 100, _FOURTH_VIEW_EVERY)
    fields = [np.repeat(every, moved), np.repeat(every, still), np.repeat(some, moved)]
    return np.concatenate(fields)[:n]


def _windows(field_px: int) -> int:
    """Return the number of windows in a field of this side."""
    return int((field_px - WINDOW_PX) // STRIDE_PX + 1) ** 2


def _fields(data: Path, count: int | None) -> list[Path]:
    names = sorted((data / "bach" / "fields").glob("*.jpg"))
    if not names:
        raise ParameterError(
            f"no fields at {data / 'bach' / 'fields'}; give --data, a folder with bach and pcam"
        )
    return names if count is None else names[:: max(1, len(names) // count)][:count]


def _patches(data: Path, sparser: int) -> list[Path]:
    return sorted(path for path in (data / "pcam" / "train").rglob("*") if path.is_file())[
        :: _PATCH_EVERY * sparser
    ]


def _cached(data: Path, cache: Path, name: str, parts: list[tuple[list[Path], str]]) -> Codes:
    folder = cache / f"codes-{_stamp()}"
    files = folder / f"{name}-barcodes.npy", folder / f"{name}-keys.npy"
    if not all(file.exists() for file in files):
        dense = DenseEncoder(_views(_fields(data, _CALIBRATION_FIELDS), "field"))
        folder.mkdir(parents=True, exist_ok=True)
        codes = [dense.encode(image) for paths, view in parts for image in _views(paths, view)]
        _save(files[0], np.concatenate([one.barcodes for one in codes]))
        _save(files[1], np.concatenate([one.keys for one in codes]))
    return Codes(*(np.load(file, mmap_mode="r") for file in files))


def _save(file: Path, array: NDArray[np.generic]) -> None:
    """Save an array whole or not at all, so that an interrupted run leaves no unfinished file."""
    part = file.with_suffix(".part.npy")
    np.save(part, array)
    part.replace(file)


def _views(paths: list[Path], view: str) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        picture = decode_picture(path).convert("RGB")
        if view == "patch":
            picture = picture.resize((_PATCH_PX, _PATCH_PX), Image.Resampling.BICUBIC)
        pixels = np.asarray(picture)
        if "mirrored" in view:
            pixels = pixels[:, ::-1]
        yield pixels[4:-4, 4:-4] if "moved" in view else pixels


def _stamp() -> str:
    """Hash what the cached codes depend on: the VQ-VAE up to its codebook, and the calibration if any."""
    model = shipped_model()
    wanted: tuple[str, ...] = ("encoder.", "quantizer.codebook", "pooled.order")
    if model.pooled.calibrated:
        wanted += ("pooled.mean", "pooled.std")
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(wanted)}
    return digest_of("dense codes", tensors)[:12]
