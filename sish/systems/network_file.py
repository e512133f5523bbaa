"""Read and write the networks of the systems: safetensors with configuration and fingerprint, never pickle.

Every kind of network has the same file format. A *kind*, such as ``sish-codes-1``, says which network a file
holds and its version. Checkpoints of a training run are read with ``weights_only=True``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from sish.errors import WeightsError
from sish.vqvae.fingerprint import digest_of
from sish.vqvae.tensor_files import (
    check_finite,
    check_there,
    misfits,
    of_another_architecture,
    read_checkpoint,
    read_json,
    read_safetensors,
    skeleton,
    tensors_of,
    write_safetensors,
)

KIND_KEY = "sish_kind"
"""Key of a checkpoint's kind of network."""
CONFIG_KEY = "sish_config"
"""Key of the network's configuration, as plain values."""
MOST_PX = 4_096
"""The largest side of the pictures that a network may read; a file that asks for more is refused."""
_PREFIX = "network."  # begins the names of the network's tensors in a checkpoint of its training


@dataclass(frozen=True, slots=True)
class Stored:
    """The contents of a network's file."""

    path: Path
    """The file."""
    config: dict[str, Any]
    """The network's configuration, plain values."""
    tensors: dict[str, Tensor]
    """Its weights by name."""
    training: dict[str, Any]
    """Facts of its training."""


def fingerprint_of(network: nn.Module, config: Mapping[str, Any]) -> str:
    """Return the fingerprint of a network's weights, such as ``xray-1a2b3c4d5e6f``: name and SHA-256."""
    digest = digest_of(json.dumps(dict(config), sort_keys=True), network.state_dict())
    return f"{config['name']}-{digest[:12]}"


_Network = TypeVar("_Network", bound=nn.Module)


def write_stored(
    path: Path,
    kind: str,
    network: nn.Module,
    config: Mapping[str, Any],
    training: Mapping[str, Any],
    inputs: Iterable[Path] = (),
) -> str:
    """Write a network as safetensors.

    Parameters
    ----------
    path : Path
        The file to write.
    kind : str
        Kind of the network, such as ``sish-codes-1``.
    network : Module
        The network.
    config : mapping of str to object
        Its configuration, plain values, with a ``name``.
    training : mapping of str to object
        Facts of its training, plain values.
    inputs : iterable of Path
        Files that must not be replaced.

    Returns
    -------
    str
        The fingerprint.
    """
    fingerprint = fingerprint_of(network, config)
    metadata = {
        "format": kind,
        "config": json.dumps(dict(config), sort_keys=True),
        "fingerprint": fingerprint,
        "training": json.dumps(dict(training), sort_keys=True),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_safetensors(path, tensors, metadata, inputs=inputs)
    return fingerprint


def read_stored(path: Path, kind: str) -> Stored:
    """Read a weights file (.safetensors) or a checkpoint (.ckpt) of one kind.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        Kind of network that is wanted.

    Returns
    -------
    Stored
        Its contents.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or of another kind.
    """
    check_there(path)
    stored = _read_checkpoint(path, kind) if path.suffix == ".ckpt" else _read_safetensors(path, kind)
    if not stored.config:
        raise WeightsError(f"{path} does not say what its network is; export it again")
    return stored


def filled(make: Callable[[], _Network], stored: Stored) -> _Network:
    """Build the network of the stored configuration by ``make``, with the stored weights (WeightsError)."""
    # first compared with a network without memory: a damaged file cannot ask for a huge one
    if odd := misfits(skeleton(stored.path, make).state_dict(), stored.tensors):
        raise of_another_architecture(stored.path, odd)
    check_finite(stored.path, stored.tensors)
    network = make()
    network.load_state_dict(stored.tensors)
    return network


def _read_safetensors(path: Path, kind: str) -> Stored:
    metadata, tensors = read_safetensors(path)
    _check_kind(path, metadata.get("format", "none"), kind)
    return Stored(path, read_json(path, metadata, "config"), tensors, read_json(path, metadata, "training"))


def _read_checkpoint(path: Path, kind: str) -> Stored:
    checkpoint = read_checkpoint(path)
    _check_kind(path, checkpoint.get(KIND_KEY, "none"), kind)
    config = checkpoint.get(CONFIG_KEY)
    return Stored(path, config if isinstance(config, dict) else {}, *tensors_of(path, checkpoint, _PREFIX))


def _check_kind(path: Path, found: object, wanted: str) -> None:
    if found != wanted:
        raise WeightsError(f"{path} holds weights of kind {found}, and {wanted} is wanted; give another file")
