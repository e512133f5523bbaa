"""Encoders by name: the interface of an encoder, and the source of each kind.

=====================  ===================================================================================
name                   encoder
=====================  ===================================================================================
``tissue``             the default: a network of photographs beside our autoencoder (:mod:`sish.tissue`)
``vqvae``              our autoencoder alone, the default of older indexes; ``shipped`` is its old name
a path                 weights of your own: a ``.safetensors`` that export wrote, or a ``.ckpt``
``timm:NAME``          a network of timm: ``uni``, ``uni2-h``, ``virchow``, ``virchow2``, ``prov-gigapath``,
                       ``h-optimus-0``, ``h-optimus-1``, or any name that timm knows
``features:NAME``      features that were computed elsewhere (TRIDENT, CLAM); it encodes no pixels
``object:NAME``        an encoder that a program gave as an object, by its fingerprint
=====================  ===================================================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from sish.calibration import Calibration
from sish.errors import (
    MissingPackageError,
    ParameterError,
    ParameterTypeError,
    QueryError,
    WeightsNotFoundError,
)
from sish.index.barcode import Binarisation
from sish.index.projection import Part
from sish.nearest import nearest_to
from sish.vqvae.known_networks import KNOWN

if TYPE_CHECKING:
    from sish.vqvae.timm_network import TimmNetwork

TIMM = "timm:"
"""The beginning of the name of a network of timm."""

FEATURES = "features:"
"""The beginning of the name of features that were computed elsewhere."""

OBJECT = "object:"
"""The beginning of the name of an encoder that was given as an object; its fingerprint follows."""

TISSUE, VQVAE = "tissue", "vqvae"
"""Names of the encoders whose weights come with the release; the first is the default."""

OWN = (TISSUE, VQVAE)
"""Names that are neither a path nor begin with one of the prefixes."""

_EARLIER = {"shipped": VQVAE}

PREFIXES = (TIMM, FEATURES, OBJECT)
"""A name with one of these beginnings is not a path."""

UNCALIBRATED_THRESHOLD = 171
"""The threshold where nothing was measured: 171 of 1,024 bits are 30 degrees between features, a cosine of
0.87."""

_LARGEST_PATCH = 8192
_LONGEST_NAME = 200  # characters of a fingerprint or a licence


class Encoding(Protocol):
    """The numbers that an encoder returns for N patches."""

    @property
    def codes(self) -> NDArray[np.uint8] | None:
        """Grid of codes uint8 (N, h, w); None from an encoder without a codebook."""

    @property
    def features(self) -> NDArray[np.float32]:
        """Float32 (N, F); barcodes are made of them."""


class PatchEncoder(Protocol):
    """An encoder of patches, whoever trained it. Any object with these five members is one.

    It is given by name, or as an object, to :class:`sish.Index`, :class:`sish.encode.SlideEncoder` and every
    system. Its features become barcodes by their signs, about the mean of the archive's features.
    """

    @property
    def fingerprint(self) -> str:
        """Name of its weights: two encoders of one fingerprint return the same."""

    @property
    def patch_px(self) -> int:
        """Side of the patches that it is meant for, in pixels at `mpp`."""

    @property
    def mpp(self) -> float:
        """Micrometres per pixel that it is meant for."""

    @property
    def licence(self) -> str:
        """Licence of its weights, in short."""

    def encode(self, images: NDArray[np.uint8]) -> Encoding:
        """Encode patches uint8 (N, H, W, 3); the result for one does not depend on the others."""


class MeasuredEncoder(PatchEncoder, Protocol):
    """An encoder that also tells how its barcodes are made and compared, as those of :mod:`sish.vqvae` do.

    Every encoder is used through this interface: :func:`measured` completes one with the five members only.
    """

    @property
    def hamming_threshold(self) -> int:
        """Bits within which two patches count as similar, where no archive was measured."""

    @property
    def binarisation(self) -> Binarisation:
        """The rule by which its features become bits."""

    @property
    def n_features(self) -> int:
        """F, the number of features of a patch."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of its features that a projection scales one by one; none if they are one part."""

    @property
    def statistics(self) -> Calibration | None:
        """Its features on other tissue, for archives too small to be measured; None where there are none."""

    @property
    def codebook(self) -> NDArray[np.float32] | None:
        """Float32 (K, D), the vectors that its codes stand for; None where there are none."""

    @property
    def stride(self) -> int:
        """Sides of a patch are multiples of it."""

    @property
    def orientation_invariant(self) -> bool:
        """Whether a turned or mirrored patch has the same features."""

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of `encode` alone, float32 (N, F), bit by bit the same."""


_MEMBERS = ("fingerprint", "mpp", "patch_px", "licence", "encode")
_MEASURED = tuple(name for name in vars(MeasuredEncoder) if not name.startswith("_"))
_NEWER = {"parts", "statistics"}


@dataclass(frozen=True, slots=True)
class Features:
    """An encoding without codes: the features of N patches."""

    features: NDArray[np.float32]
    """Float32 (N, F)."""
    codes: None = None
    """There are none."""


class _Unmeasured:
    """The values of an encoder of which nothing was measured."""

    binarisation: Binarisation = "projection"
    hamming_threshold = UNCALIBRATED_THRESHOLD
    parts = ()
    statistics = None
    codebook = None
    stride = 1
    orientation_invariant = False

    def encode(self, images: NDArray[np.uint8]) -> Features:
        """Return an encoding without codes: there is no codebook to order them by."""
        return Features(self.features(images))

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features float32 (N, F) of patches uint8 (N, H, W, 3)."""
        raise NotImplementedError


class ForeignEncoder(_Unmeasured):
    """An encoder with the five members only, and a check of everything that it returns.

    Parameters
    ----------
    encoder : PatchEncoder
        The encoder.

    Raises
    ------
    ParameterTypeError
        If a member is missing or of the wrong type.
    ParameterError
        If one is out of range.
    """

    def __init__(self, encoder: PatchEncoder) -> None:
        """See the class."""
        check_members(encoder)
        self._encoder = encoder
        self.fingerprint, self.licence = encoder.fingerprint, encoder.licence
        self.patch_px, self.mpp = int(encoder.patch_px), float(encoder.mpp)
        self._length: int | None = None  # of its features, once it is known

    @cached_property
    def n_features(self) -> int:
        """F, the number of features of a patch, counted on a white one."""
        white = np.full((1, self.patch_px, self.patch_px, 3), 255, np.uint8)
        return int(self.features(white).shape[1])

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features float32 (N, F) of patches uint8 (N, H, W, 3).

        Parameters
        ----------
        images : uint8 (N, H, W, 3)
            Patches.

        Returns
        -------
        float32 (N, F)
            Their features.

        Raises
        ------
        ParameterError
            If the encoder returned something else, or features of another length than before.
        """
        if not len(images):
            return np.empty((0, self.n_features), np.float32)
        encoded = self._encoder.encode(images)
        try:
            found = np.asarray(encoded.features)
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:  # torch: it requires grad, ...
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ParameterError(
                f"got {type(encoded).__name__} from encode of {self.fingerprint} ({reason}); want an object "
                "with features, a float32 array"
            ) from error
        shape = len(images), self._length or max(found.shape[-1:], default=0)
        if found.shape != shape or not shape[1] or found.dtype.kind != "f":
            raise ParameterError(
                f"got features {found.dtype} {found.shape} of {len(images)} patches from encoder "
                f"{self.fingerprint}; want float32 ({len(images)}, {self._length or 'F'})"
            )
        with np.errstate(over="ignore"):
            found = found.astype(np.float32, copy=False)
        if not np.isfinite(found).all():
            raise ParameterError(f"got NaN or infinity in features of {self.fingerprint}; want numbers")
        self._length = shape[1]
        return found


def check_members(encoder: PatchEncoder) -> None:
    """Refuse what is no encoder (ParameterTypeError), or has values out of range (ParameterError)."""
    missing = [name for name in _MEMBERS if not hasattr(encoder, name)]
    if missing or isinstance(encoder, type) or not callable(encoder.encode):
        kind = encoder if isinstance(encoder, type) else type(encoder)
        raise ParameterTypeError(
            f"got an encoder ({kind.__name__}) without {', '.join(missing) or 'an instance that encodes'}; "
            f"want a name, or an object with {', '.join(_MEMBERS[:-1])} and encode(images)"
        )
    for name in ("fingerprint", "licence"):
        value = getattr(encoder, name)
        if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or not value.isprintable():
            raise ParameterTypeError(f"got {name} {short(value)} of an encoder; want a text of one line")
    if not _is_number(encoder.patch_px, Integral) or not 1 <= encoder.patch_px <= _LARGEST_PATCH:
        raise ParameterError(
            f"got patch_px {short(encoder.patch_px)} of an encoder; want whole pixels, up to {_LARGEST_PATCH}"
        )
    if not _is_number(encoder.mpp, Real) or not 0 < encoder.mpp < math.inf:
        raise ParameterError(f"got mpp {short(encoder.mpp)} of an encoder; want um per pixel above 0")


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def current_name(name: str) -> str:
    """Return the name of an encoder, which may be one of earlier releases, as this release calls it."""
    return _EARLIER.get(name, name)


def name_of(encoder: str | PatchEncoder) -> str:
    """Return the name by which a recipe knows an encoder: its own, or ``object:`` and its fingerprint."""
    if isinstance(encoder, str):
        return current_name(encoder)
    check_members(encoder)
    return f"{OBJECT}{encoder.fingerprint}"


def measured(encoder: PatchEncoder) -> MeasuredEncoder:
    """Return an encoder with all members that sish uses; one with the five members only is completed."""
    missing = {name for name in _MEASURED if not hasattr(encoder, name)}
    if missing and missing <= _NEWER:  # completed, it would make other barcodes than it made before
        raise ParameterTypeError(
            f"got an encoder ({type(encoder).__name__}) as older releases wanted it, without "
            f"{' and '.join(sorted(missing))}; give it parts = () and statistics = None"
        )
    return ForeignEncoder(encoder) if missing else cast(MeasuredEncoder, encoder)


class TimmEncoder(_Unmeasured):
    """A network of timm as an encoder.

    Patches go through one at a time on a CPU, where a batch would save nothing, and 32 at a time elsewhere.
    The last batch is filled up, so the network always sees the same shape. The features of a patch then do
    not depend on the number of patches beside it.

    Parameters
    ----------
    network : TimmNetwork
        The network that makes the features.
    batch : int, optional
        Patches at a time. Default: as above.
    """

    def __init__(self, network: TimmNetwork, batch: int | None = None) -> None:
        """Take a network that is ready to be used; see the class for the arguments."""
        self._network = network
        self._batch = batch or (1 if network.device.type == "cpu" else 32)
        self.fingerprint = f"timm-{network.name}-{network.fingerprint[:12]}"
        self.patch_px, self.mpp = network.px, network.mpp
        self.n_features, self.licence = network.n_features, network.licence

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features float32 (N, F) of patches uint8 (N, H, W, 3); ParameterError for anything else."""
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


class FeaturesElsewhere(_Unmeasured):
    """A stand-in for an encoder that is not here: its features came in files."""

    patch_px, mpp = 256, 0.5
    licence = "as its authors say"

    def __init__(self, name: str) -> None:
        """Take ``ENCODER/DIMS``: the encoder's name and the number of its features."""
        encoder, _, dims = name.rpartition("/")
        if not encoder or not dims.isdecimal() or not int(dims):
            raise ParameterError(
                f"got {FEATURES}{name}; want {FEATURES}ENCODER/DIMS, as in features:uni/1024"
            )
        self.n_features = int(dims)
        self.fingerprint = f"features-{encoder}-{dims}"

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Refuse patches (QueryError): there is no network to encode them with."""
        raise QueryError(
            f"the index holds {self.fingerprint}, computed elsewhere, and cannot encode pixels: "
            "give the query's own feature file (.h5), or the id of an indexed slide"
        )


class ObjectElsewhere(_Unmeasured):
    """A stand-in for an encoder object that was given when the index was made, and is not given now."""

    patch_px, mpp, n_features = 256, 0.5, 1
    licence = "as its authors say"

    def __init__(self, fingerprint: str) -> None:
        """Take the fingerprint of the encoder that is missing."""
        self.fingerprint = fingerprint

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Refuse patches (QueryError): there is no network to encode them with."""
        raise QueryError(NOT_GIVEN.format(self.fingerprint))


NOT_GIVEN = (
    "it was made with the encoder {} that a program gave, and cannot encode pixels without it: "
    "open it with sish.Index.open(path, encoder=...), or give the id of an indexed slide"
)


def load(
    name: str, *, network_weights: str = "", device: str = "cpu", threads: int | None = None
) -> MeasuredEncoder:
    """Return the encoder of a name; see the module for the names.

    Parameters
    ----------
    name : str
        The name.
    network_weights : str
        File of the weights of a timm network, also of the DenseNet121 beside a VQ-VAE of the architecture
        ``paper``. Empty: from the model hub.
    device : str
        Where it runs, as torch names it.
    threads : int, optional
        Threads of the encoder ``tissue``. The others have torch's own.

    Returns
    -------
    MeasuredEncoder
        The encoder, with its weights loaded.

    Raises
    ------
    WeightsError
        If it cannot be loaded.
    ParameterError
        If the device is none.
    """
    if name.startswith(FEATURES):
        return FeaturesElsewhere(name.removeprefix(FEATURES))
    if name.startswith(OBJECT):
        return ObjectElsewhere(name.removeprefix(OBJECT))
    name = current_name(name)
    if name == TISSUE:
        from sish.tissue import TissueEncoder

        return TissueEncoder(device, threads)
    _check_device(device)
    file = Path(network_weights) if network_weights else None
    if name.startswith(TIMM):
        from sish.vqvae.timm_network import TimmNetwork

        return TimmEncoder(TimmNetwork(name.removeprefix(TIMM), file, device=device))
    from sish.vqvae.pretrained import load_encoder

    if name != VQVAE:
        _check_there(Path(name))
    return load_encoder(None if name == VQVAE else Path(name), features=file, device=device)


def _check_there(file: Path) -> None:
    """Refuse a missing file (WeightsNotFoundError); name the nearest encoders, and files beside it."""
    if file.exists():
        return
    beside = (path.name for path in file.parent.glob("*") if path.suffix in (".safetensors", ".ckpt"))
    known = chain(OWN, (f"{TIMM}{name}" for name in KNOWN), beside)
    raise WeightsNotFoundError(
        f"no weights file at {file}{nearest_to(file.name, known)}; "
        "give a .safetensors or .ckpt, tissue, vqvae, or timm:NAME",
        path=file,
    )


def _check_device(device: str) -> None:
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(
            f"the encoder needs torch ({error}): pip install torch; the encoder {TISSUE} does without it"
        ) from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises each of them
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ParameterError(
            f"got device {device!r} ({reason}); want one that torch has, as cpu or cuda"
        ) from error
