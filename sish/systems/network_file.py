"""Networks of the systems on disk: safetensors with their configuration and a fingerprint, never pickle.

The same for every kind of network; a *kind*, such as ``sish-codes-1``, says which one a file holds and in
what version. Checkpoints of a training run are read with ``weights_only=True``.
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

__all__ = [
    "CONFIG_KEY",
    "KIND_KEY",
    "MOST_PX",
    "Stored",
    "filled",
    "fingerprint_of",
    "read_stored",
    "write_stored",
]

KIND_KEY = "sish_kind"
"""Where a checkpoint says what kind of network it holds."""
CONFIG_KEY = "sish_config"
"""Where it keeps the network's configuration, as plain values."""
MOST_PX = 4_096
"""The largest side of the pictures that a network reads: a file that asks for more is none of ours."""
_PREFIX = "network."  # of the network's tensors in a checkpoint of a module that trains it


@dataclass(frozen=True, slots=True)
class Stored:
    """A network as it lies on disk."""

    path: Path
    """Where it was read from."""
    config: dict[str, Any]
    """Its configuration, plain values."""
    tensors: dict[str, Tensor]
    """Its numbers, by name."""
    training: dict[str, Any]
    """Facts of its training."""


def fingerprint_of(network: nn.Module, config: Mapping[str, Any]) -> str:
    """Name of a network's numbers, like ``xray-1a2b3c4d5e6f``: its name and a sha256 over the rest."""
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
    """Write a network as safetensors; gives back its fingerprint. WeightsError where that fails.

    ``inputs`` are files that must not be replaced.
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
    """Read a weights file (.safetensors) or a checkpoint (.ckpt) of one kind; WeightsError for any other."""
    check_there(path)
    stored = _read_checkpoint(path, kind) if path.suffix == ".ckpt" else _read_safetensors(path, kind)
    if not stored.config:
        raise WeightsError(f"{path} does not say what its network is; export it again")
    return stored


def filled(make: Callable[[], _Network], stored: Stored) -> _Network:
    """The network that ``make`` makes of the stored configuration, with the stored numbers in it.

    WeightsError if they misfit, or are none; nothing as large as the configuration says is made before.
    """
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
