"""Networks of the systems on disk: safetensors with their configuration and a fingerprint, never pickle.

The same for every kind of network; a *kind*, such as ``sish-codes-1``, says which one a file holds and in
what version. Checkpoints of a training run are read with ``weights_only=True``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sish.errors import WeightsError
from sish.vqvae.fingerprint import digest_of

__all__ = ["CONFIG_KEY", "KIND_KEY", "Stored", "fill", "fingerprint_of", "read_stored", "write_stored"]

KIND_KEY = "sish_kind"
"""Where a checkpoint says what kind of network it holds."""
CONFIG_KEY = "sish_config"
"""Where it keeps the network's configuration, as plain values."""
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


def write_stored(
    path: Path, kind: str, network: nn.Module, config: Mapping[str, Any], training: Mapping[str, Any]
) -> str:
    """Write a network as safetensors; gives back its fingerprint. WeightsError where that fails."""
    fingerprint = fingerprint_of(network, config)
    metadata = {
        "format": kind,
        "config": json.dumps(dict(config), sort_keys=True),
        "fingerprint": fingerprint,
        "training": json.dumps(dict(training), sort_keys=True),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(save(tensors, metadata))
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write weights to {path}: {error}; give another --output") from error
    return fingerprint


def read_stored(path: Path, kind: str) -> Stored:
    """Read a weights file (.safetensors) or a checkpoint (.ckpt) of one kind; WeightsError for any other."""
    if not path.is_file():
        raise WeightsError(f"no weights file at {path}; give a .safetensors file or a .ckpt")
    stored = _read_checkpoint(path, kind) if path.suffix == ".ckpt" else _read_safetensors(path, kind)
    if not stored.config:
        raise WeightsError(f"{path} does not say what its network is; export it again")
    return stored


def fill(network: nn.Module, stored: Stored) -> None:
    """Put stored numbers into a network made from the stored configuration; WeightsError if they misfit."""
    needed = {name: tensor.shape for name, tensor in network.state_dict().items()}
    got = {name: tensor.shape for name, tensor in stored.tensors.items()}
    if needed != got:
        odd = sorted(name for name in needed.keys() | got.keys() if needed.get(name) != got.get(name))
        raise WeightsError(
            f"{stored.path} is of another architecture than its configuration says: {odd[0]} and"
            f" {len(odd) - 1} more do not fit; export it again"
        )
    network.load_state_dict(stored.tensors)


def _read_safetensors(path: Path, kind: str) -> Stored:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_kind(path, metadata.get("format", "none"), kind)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        config = json.loads(metadata["config"])
        return Stored(path, config, tensors, json.loads(metadata.get("training", "{}")))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is not a weights file ({error}); give one that `export` wrote") from error


def _read_checkpoint(path: Path, kind: str) -> Stored:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen kinds for bytes that are no checkpoint
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} is not a readable checkpoint ({reason}); give one of `fit`") from error
    found = checkpoint.get(KIND_KEY, "none") if isinstance(checkpoint, dict) else "none"
    _check_kind(path, found, kind)
    tensors = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(_PREFIX)
    }
    facts = {"steps": int(checkpoint["global_step"]), "epochs": int(checkpoint["epoch"])}
    return Stored(path, checkpoint[CONFIG_KEY], tensors, facts)


def _check_kind(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise WeightsError(f"{path} holds weights of kind {found}, and {wanted} is wanted; give another file")
