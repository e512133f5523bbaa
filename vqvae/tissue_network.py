"""The three networks of the default encoder, run by ONNX Runtime: torch is not imported.

They read the same patch (`sish.vqvae.tissue_weights` makes their files): EfficientNet-lite0, a network of
photographs; the first filters of our autoencoder in all orientations; and the autoencoder's codes.

Turning or mirroring a patch does not change what they give, up to rounding. The filters' statistics are made
so (`sish.vqvae.oriented`). The two others see *views*: the patch is turned and mirrored into all eight
orientations, and its top left quarter is a view each time. Another orientation of the patch has the same
views in another order. Together they show each pixel twice.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from sish.errors import MissingPackageError, ParameterError
from sish.slides.orientations import ORIENTATIONS, oriented
from sish.slides.reading import default_workers
from sish.vqvae.stages import KEPT_CHANNELS, STRIDE

try:
    import onnxruntime
except ImportError as error:
    raise MissingPackageError(
        f"the encoder tissue needs ONNX Runtime ({error}): pip install onnxruntime, or onnxruntime-gpu for "
        "--device cuda"
    ) from error

CODE_PX = 8
"""Side, in pixels, of the square that a code stands for."""

N_NETWORK, N_FILTERS, N_CODES = 2 * sum(KEPT_CHANNELS), 256, 128
"""Numbers of lite0 and of the filters, and number of different codes."""

NETWORKS = ("lite0", "filters", "codes")
"""Names of the networks and of their files."""

_STRIP = 4  # codes are counted in a strip of each view, a fourth of its width, at the patch's middle line
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TissueParts:
    """What the networks give for N patches."""

    network: NDArray[np.float32]
    """float32 (N, 1536): means and deviations of the outputs of lite0's stages 2 to 7."""
    filters: NDArray[np.float32]
    """float32 (N, 256): whitened statistics of the autoencoder's first filters, of length 1."""
    codes: NDArray[np.float32]
    """float32 (N, 128): share of each of the autoencoder's codes."""


class TissueNetwork:
    """The networks, ready to be used by many threads at once.

    Patches go through one at a time, each by one thread: the result for a patch depends neither on the others
    nor on the number of threads.

    Parameters
    ----------
    device : str
        ``cpu`` or ``cuda``; the latter needs the package onnxruntime-gpu.
    threads : int, optional
        Patches at the same time. Default: ``OMP_NUM_THREADS`` if it is set, else one for each core, at most
        8.
    models : mapping of str to bytes, optional
        ONNX files that `sish.vqvae.tissue_weights` made, by `NETWORKS`. Default: the shipped ones.

    Raises
    ------
    ParameterError
        If ONNX Runtime does not have the device.

    Examples
    --------
    >>> network, patches = TissueNetwork(), np.zeros((2, 64, 96, 3), np.uint8)
    >>> parts = network(patches)
    >>> parts.network.shape, parts.filters.shape, parts.codes.shape, network.codes(patches).shape
    ((2, 1536), (2, 256), (2, 128), (2, 8, 12))
    """

    def __init__(
        self,
        device: str = "cpu",
        threads: int | None = None,
        *,
        models: dict[str, bytes] | None = None,
    ) -> None:
        """See the class."""
        files = models or {name: shipped(f"{name}.onnx") for name in NETWORKS}
        self.digest = hashlib.sha256(b"".join(files[name] for name in NETWORKS)).hexdigest()
        self.device = device
        self._lite0, self._filters, self._codes = (_session(files[name], device) for name in NETWORKS)
        self._threads = threads or _usual_threads()
        self._given = threads, models

    def __reduce__(self) -> tuple[Any, ...]:
        """Let other processes make it again: sessions of ONNX Runtime cannot be pickled."""
        threads, models = self._given
        return partial(TissueNetwork, models=models), (self.device, threads)

    def __call__(self, images: Pixels) -> TissueParts:
        """Return the parts of patches uint8 (N, H, W, 3), H and W multiples of 32."""
        _check_images(images)
        found = TissueParts(
            np.empty((len(images), N_NETWORK), np.float32),
            np.empty((len(images), N_FILTERS), np.float32),
            np.empty((len(images), N_CODES), np.float32),
        )

        def fill(row: int) -> None:
            batches = list(_views(images[row]))
            found.network[row] = _pooled([_run(self._lite0, batch) for batch in batches])
            found.filters[row] = _run(self._filters, images[row : row + 1])[0]
            found.codes[row] = _shares([_run(self._codes, _inner(batch)) for batch in batches])

        self._each(fill, len(images))
        return found

    def codes(self, images: Pixels) -> Pixels:
        """Return the codes, uint8 (N, H / 8, W / 8), of patches uint8 (N, H, W, 3) as they lie."""
        _check_images(images)
        count, height, width = images.shape[:3]
        found = np.empty((count, height // CODE_PX, width // CODE_PX), np.uint8)

        def fill(row: int) -> None:
            found[row] = _run(self._codes, images[row : row + 1])[0]

        self._each(fill, count)
        return found

    def _each(self, work: Callable[[int], None], count: int) -> None:
        """Do the work of each row, several at a time if there are several threads."""
        several = self._threads > 1 and count > 1
        if not several:
            for row in range(count):
                work(row)
            return
        # a pool that outlives the call would have no threads in a forked process, and hang there
        with ThreadPoolExecutor(self._threads, thread_name_prefix="sish-network") as pool:
            for _ in pool.map(work, range(count)):
                pass


def shipped_codebook() -> NDArray[np.float32]:
    """Return the codebook of the shipped autoencoder, float32 (128, 64)."""
    codebook: NDArray[np.float32] = load(shipped("default.safetensors"))["quantizer.codebook"]
    return codebook


def shipped(name: str) -> bytes:
    """Return a file of the shipped weights."""
    return resources.files("sish.vqvae").joinpath(f"weights/{name}").read_bytes()


def _views(patch: Pixels) -> Iterator[Pixels]:
    """Yield the top left quarters of a patch (H, W, 3) in all orientations, a batch for each shape."""
    turned = [oriented(patch, number) for number in range(ORIENTATIONS)]
    quarters = [it[: _half(it.shape[0]), : _half(it.shape[1])] for it in turned]
    for shape in dict.fromkeys(quarter.shape for quarter in quarters):
        yield np.stack([quarter for quarter in quarters if quarter.shape == shape])


def _half(side_px: int) -> int:
    """Return half of a side, or a little more where the network could not read it."""
    return -(-side_px // (2 * STRIDE)) * STRIDE


def _inner(views: Pixels) -> Pixels:
    """Return the strip of each view (N, h, w, 3) that lies next to the patch's middle line."""
    return views[:, :, -(views.shape[2] // _STRIP) :]


def _pooled(batches: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return means and deviations over views together, (1536,), of those of each view (N, 1536)."""
    rows = np.concatenate(batches).astype(np.float64)
    pooled, end = np.empty(rows.shape[1]), 0
    for channels in KEPT_CHANNELS:
        begin, middle, end = end, end + channels, end + 2 * channels
        means, deviations = rows[:, begin:middle], rows[:, middle:end]
        pooled[begin:middle] = means.mean(0)
        pooled[middle:end] = np.sqrt((deviations**2 + (means - means.mean(0)) ** 2).mean(0))
    return pooled


def _shares(grids: list[Pixels]) -> NDArray[np.float64]:
    """Return the share of each code in grids of codes, (128,)."""
    codes = np.concatenate([grid.ravel() for grid in grids])
    return np.bincount(codes, minlength=N_CODES) / len(codes)


def _run(session: Any, images: Pixels) -> Any:
    return session.run(None, {"images": np.ascontiguousarray(images)})[0]


def _usual_threads() -> int:
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) else default_workers()


def _session(model: bytes, device: str) -> Any:
    """Return a session that computes each patch by one thread."""
    wanted = {"cpu": _CPU, "cuda": _CUDA}.get(device.partition(":")[0])
    if wanted not in onnxruntime.get_available_providers():
        raise _no_device(device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    number = {} if wanted == _CPU else {"device_id": device.partition(":")[2] or "0"}
    session = onnxruntime.InferenceSession(model, options, providers=[(wanted, number)])
    if wanted not in session.get_providers():  # without the GPU's libraries it falls back to the CPU
        raise _no_device(device)
    return session


def _no_device(device: str) -> ParameterError:
    return ParameterError(
        f"got device {device!r}, which ONNX Runtime does not have here; want cpu, or cuda with the "
        "package onnxruntime-gpu in place of onnxruntime, and its libraries of CUDA"
    )


def _check_images(images: Pixels) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ParameterError(f"wanted patches as uint8 (N, H, W, 3), got {images.dtype} {images.shape}")
    height, width = images.shape[1:3]
    if not height or not width or height % STRIDE or width % STRIDE:
        raise ParameterError(
            f"got patches of {width} x {height} px; want sides that are multiples of {STRIDE} px"
        )
