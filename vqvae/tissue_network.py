"""The network of the default encoder, run by ONNX Runtime: torch is not imported.

It has three parts, which read the same patch (`sish.vqvae.tissue_weights` makes them): statistics of
EfficientNet-lite0, statistics of the autoencoder's first filters in all orientations, and the autoencoder's
codes.
"""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors.numpy import load

from sish.errors import ParameterError

STRIDE = 32
"""The sides of a patch are multiples of it."""

CODE_PX = 8
"""Side, in pixels, of the square that a code stands for."""

N_NETWORK, N_FILTERS, N_CODES = 1536, 256, 128
"""Numbers of the first two parts, and number of different codes."""

_MOST_THREADS = 8
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True)
class TissueParts:
    """What the network gives for N patches."""

    network: NDArray[np.float32]
    """float32 (N, 1536): means and deviations of the outputs of lite0's stages 2 to 7."""
    filters: NDArray[np.float32]
    """float32 (N, 256): whitened statistics of the autoencoder's first filters, of length 1."""
    codes: NDArray[np.uint8]
    """uint8 (N, H / 8, W / 8): the autoencoder's codes."""


class TissueNetwork:
    """The network, ready to be used by many threads at once.

    Patches go through one at a time, each by one thread: the result for a patch depends neither on the others
    nor on the number of threads.

    Parameters
    ----------
    device : str
        ``cpu`` or ``cuda``; the latter needs the package onnxruntime-gpu.
    threads : int, optional
        Patches at the same time. Default: ``OMP_NUM_THREADS`` if it is set, else one for each core, at most
        8.
    model : bytes, optional
        Another ONNX file that `sish.vqvae.tissue_weights` made. Default: the shipped one.

    Raises
    ------
    ParameterError
        If ONNX Runtime does not have the device.

    Examples
    --------
    >>> parts = TissueNetwork()(np.zeros((2, 64, 96, 3), np.uint8))
    >>> parts.network.shape, parts.filters.shape, parts.codes.shape
    ((2, 1536), (2, 256), (2, 8, 12))
    """

    def __init__(
        self, device: str = "cpu", threads: int | None = None, *, model: bytes | None = None
    ) -> None:
        """See the class."""
        model = _shipped("tissue.onnx") if model is None else model
        self.digest = hashlib.sha256(model).hexdigest()
        self.device = device
        self._session = _session(model, device)
        self._threads = threads or _usual_threads()

    def __call__(self, images: NDArray[np.uint8]) -> TissueParts:
        """Return the parts of patches uint8 (N, H, W, 3), H and W multiples of 32."""
        _check_images(images)
        count, height, width = images.shape[:3]
        found = TissueParts(
            np.empty((count, N_NETWORK), np.float32),
            np.empty((count, N_FILTERS), np.float32),
            np.empty((count, height // CODE_PX, width // CODE_PX), np.uint8),
        )

        def fill(row: int) -> None:
            patch = np.ascontiguousarray(images[row : row + 1])
            found.network[row], found.filters[row], found.codes[row] = (
                part[0] for part in self._session.run(None, {"images": patch})
            )

        for _ in self._each(fill, range(count)):
            pass
        return found

    def _each(self, work: Any, rows: range) -> Iterable[None]:
        """Do the work of each row, several at a time if there are several threads."""
        if self._threads == 1 or len(rows) < 2:
            return map(work, rows)
        return self._pool.map(work, rows)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="sish-network")


def _usual_threads() -> int:
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) else min(_MOST_THREADS, len(os.sched_getaffinity(0)))


def shipped_codebook() -> NDArray[np.float32]:
    """Return the codebook of the shipped autoencoder, float32 (128, 64)."""
    codebook: NDArray[np.float32] = load(_shipped("default.safetensors"))["quantizer.codebook"]
    return codebook


def _shipped(name: str) -> bytes:
    return resources.files("sish.vqvae").joinpath(f"weights/{name}").read_bytes()


def _session(model: bytes, device: str) -> Any:
    """Return a session that computes each patch by one thread."""
    wanted = {"cpu": _CPU, "cuda": _CUDA}.get(device.partition(":")[0])
    if wanted not in onnxruntime.get_available_providers():
        raise ParameterError(
            f"got device {device!r}, which ONNX Runtime does not have here; want cpu, or cuda with the "
            "package onnxruntime-gpu in place of onnxruntime"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    number = {} if wanted == _CPU else {"device_id": device.partition(":")[2] or "0"}
    return onnxruntime.InferenceSession(model, options, providers=[(wanted, number)])


def _check_images(images: NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ParameterError(f"wanted patches as uint8 (N, H, W, 3), got {images.dtype} {images.shape}")
    height, width = images.shape[1:3]
    if not height or not width or height % STRIDE or width % STRIDE:
        raise ParameterError(
            f"got patches of {width} x {height} px; want sides that are multiples of {STRIDE} px"
        )
