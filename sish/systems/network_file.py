"""Read and write the networks of the systems: safetensors with configuration and fingerprint, never pickle.

Every kind of network has the same file format. A *kind*, such as ``sish-codes-1``, says which network a file
holds and its version. Checkpoints of a training run are read with ``weights_only=True``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from sish.vqvae import tensor_files
from sish.vqvae.fingerprint import digest_of
from sish.vqvae.tensor_files import (
    Stored,
    check_finite,
    misfits,
    of_another_architecture,
    skeleton,
    write_safetensors,
)

CONFIG_KEY = "sish_config"
"""Key of the network's configuration, as plain values."""
MOST_PX = 4_096
"""The largest side of the pictures that a network may read; a file that asks for more is refused."""
_PREFIX = "network."  # begins the names of the network's tensors in a checkpoint of its training


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
    """Read a file of one kind of network, as :func:`sish.vqvae.tensor_files.read_stored` does."""
    return tensor_files.read_stored(path, kind, CONFIG_KEY, _PREFIX)


def filled(make: Callable[[], _Network], stored: Stored) -> _Network:
    """Build the network of the stored configuration by ``make``, with the stored weights (WeightsError)."""
    # first compared with a network without memory: a damaged file cannot ask for a huge one
    if odd := misfits(skeleton(stored.path, make).state_dict(), stored.tensors):
        raise of_another_architecture(stored.path, odd)
    check_finite(stored.path, stored.tensors)
    network = make()
    network.load_state_dict(stored.tensors)
    return network
