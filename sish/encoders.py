"""Encoders by name: what is asked of one, and where each kind comes from.

=====================  ===================================================================================
name                   encoder
=====================  ===================================================================================
``shipped``            the weights of this release
a path                 weights of your own: a ``.safetensors`` that export wrote, or a ``.ckpt``
``timm:NAME``          a network of timm: ``uni``, ``uni2-h``, ``virchow``, ``virchow2``, ``prov-gigapath``,
                       ``h-optimus-0``, ``h-optimus-1``, or any name that timm knows
``features:NAME``      features that were computed elsewhere (TRIDENT, CLAM); it encodes no pixels
=====================  ===================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError, QueryError, WeightsNotFoundError
from sish.index.barcode import Binarisation
from sish.nearest import nearest_to
from sish.vqvae.known_networks import KNOWN

if TYPE_CHECKING:
    from sish.vqvae.timm_network import TimmNetwork

__all__ = ["FEATURES", "TIMM", "Encoding", "FeaturesElsewhere", "PatchEncoder", "TimmEncoder", "load"]

TIMM = "timm:"
"""What the name of a network of timm begins with."""

FEATURES = "features:"
"""What the name of features computed elsewhere begins with."""

UNCALIBRATED_THRESHOLD = 171
"""Bits of 1,024 that stand for 30 degrees between features (a cosine of 0.87): where nothing was measured."""


class Encoding(Protocol):
    """What an encoder makes of N patches."""

    @property
    def codes(self) -> NDArray[np.uint8] | None:
        """Grid of codes uint8 (N, h, w); None from an encoder without a codebook."""
        ...

    @property
    def features(self) -> NDArray[np.float32]:
        """Float32 (N, F): what barcodes are made of."""
        ...


class PatchEncoder(Protocol):
    """What sish asks of an encoder, whoever trained it."""

    @property
    def fingerprint(self) -> str:
        """Name of its weights: two encoders with one fingerprint give the same."""
        ...

    @property
    def patch_px(self) -> int:
        """Side of the patches that it is meant for, in pixels at `mpp`."""
        ...

    @property
    def mpp(self) -> float:
        """Micrometres per pixel that it is meant for."""
        ...

    @property
    def hamming_threshold(self) -> int:
        """Bits within which two patches count as similar, where no archive was measured."""
        ...

    @property
    def binarisation(self) -> Binarisation:
        """How its features become bits."""
        ...

    @property
    def n_features(self) -> int:
        """Numbers a patch."""
        ...

    @property
    def codebook(self) -> NDArray[np.float32] | None:
        """Float32 (K, D), what its codes stand for; None where there are none."""
        ...

    @property
    def licence(self) -> str:
        """Licence of its weights, in short."""
        ...

    def encode(self, images: NDArray[np.uint8]) -> Encoding:
        """Patches uint8 (N, H, W, 3); what comes out for one does not depend on the others."""
        ...

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The features of `encode` alone, float32 (N, F), bit by bit the same."""
        ...


@dataclass(frozen=True, slots=True)
class Features:
    """An encoding without codes."""

    features: NDArray[np.float32]
    """Float32 (N, F)."""
    codes: None = None
    """There are none."""


class TimmEncoder:
    """A network of timm as an encoder.

    Patches go through one at a time on a CPU, where a batch would save nothing, and 32 at a time elsewhere.
    The last batch is filled up: the network always sees the same shape, so that what comes out for a patch
    does not depend on how many came with it.

    Parameters
    ----------
    network : TimmNetwork
        What makes the features.
    batch : int, optional
        Patches at a time. Default: as above.
    """

    binarisation: Binarisation = "projection"
    hamming_threshold = UNCALIBRATED_THRESHOLD
    codebook = None

    def __init__(self, network: TimmNetwork, batch: int | None = None) -> None:
        """Take a network that is ready to be used; see the class for the arguments."""
        self._network = network
        self._batch = batch or (1 if network.device.type == "cpu" else 32)
        self.fingerprint = f"timm-{network.name}-{network.fingerprint[:12]}"
        self.patch_px, self.mpp = network.px, network.mpp
        self.n_features, self.licence = network.n_features, network.licence

    def encode(self, images: NDArray[np.uint8]) -> Features:
        """An encoding without codes."""
        return Features(self.features(images))

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features float32 (N, F) of patches uint8 (N, H, W, 3); ParameterError for anything else."""
        import torch

        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ParameterError(f"wanted patches as uint8 (N, H, W, 3), got {images.dtype} {images.shape}")
        found = np.empty((len(images), self.n_features), np.float32)
        for start in range(0, len(images), self._batch):
            part = images[start : start + self._batch]
            pixels = np.zeros((self._batch, *images.shape[1:]), np.uint8)
            pixels[: len(part)] = part
            features = self._network(torch.from_numpy(pixels).to(self._network.device))
            found[start : start + len(part)] = features[: len(part)].cpu().numpy()
        return found


class FeaturesElsewhere:
    """Stands for an encoder that is not here: its features came in files."""

    binarisation: Binarisation = "projection"
    hamming_threshold = UNCALIBRATED_THRESHOLD
    codebook = None
    patch_px, mpp = 256, 0.5
    licence = "as its authors say"

    def __init__(self, name: str) -> None:
        """The encoder ``ENCODER/DIMS``: its name, and how long its features are."""
        encoder, _, dims = name.rpartition("/")
        if not encoder or not dims.isdecimal() or not int(dims):
            raise ParameterError(
                f"got {FEATURES}{name}; want {FEATURES}ENCODER/DIMS, as in features:uni/1024"
            )
        self.n_features = int(dims)
        self.fingerprint = f"features-{encoder}-{dims}"

    def encode(self, images: NDArray[np.uint8]) -> Features:
        """As `features`."""
        return Features(self.features(images))

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Refused (QueryError): there is nothing to encode with."""
        if not len(images):
            return np.empty((0, self.n_features), np.float32)
        raise QueryError(
            f"the index holds {self.fingerprint}, computed elsewhere, and cannot encode pixels: "
            "give the query's own feature file (.h5), or the id of an indexed slide"
        )


def load(name: str, *, network_weights: str = "", device: str = "cpu") -> PatchEncoder:
    """The encoder of a name; see the module for the names.

    Parameters
    ----------
    name : str
        Which.
    network_weights : str
        File of the weights of a timm network, also of the DenseNet121 beside a VQ-VAE of the architecture
        ``paper``. Empty: from the model hub.
    device : str
        Where it runs, as torch names it.

    Raises
    ------
    WeightsError
        If it cannot be loaded.
    ParameterError
        If the device is none.
    """
    if name.startswith(FEATURES):
        return FeaturesElsewhere(name.removeprefix(FEATURES))
    _check_device(device)
    file = Path(network_weights) if network_weights else None
    if name.startswith(TIMM):
        from sish.vqvae.timm_network import TimmNetwork

        return TimmEncoder(TimmNetwork(name.removeprefix(TIMM), file, device=device))
    from sish.vqvae.pretrained import load_encoder

    if name != "shipped":
        _check_there(Path(name))
    return load_encoder(None if name == "shipped" else Path(name), features=file, device=device)


def _check_there(file: Path) -> None:
    """WeightsError for a file that is missing, with the nearest names of encoders and of files beside it."""
    if file.exists():
        return
    beside = (path.name for path in file.parent.glob("*") if path.suffix in (".safetensors", ".ckpt"))
    known = chain(["shipped"], (f"{TIMM}{name}" for name in KNOWN), beside)
    raise WeightsNotFoundError(
        f"no weights file at {file}{nearest_to(file.name, known)}; "
        "give a .safetensors or .ckpt, shipped, or timm:NAME",
        path=file,
    )


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises each of them
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ParameterError(
            f"got device {device!r} ({reason}); want one that torch has, as cpu or cuda"
        ) from error
