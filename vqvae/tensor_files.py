"""Files of tensors: read with checks, as anybody may have made them, and written in one piece.

A file can hold anything: sizes beyond any memory, NaN, endless JSON. So a network is first made without
memory, on torch's ``meta`` device. Its shapes are compared with those in the file; only then is it made.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sish.errors import OutputError, ParameterError, WeightsError, WeightsNotFoundError
from sish.outputs import write_output

KIND_KEY = "sish_kind"
"""Key of the kind of network in a checkpoint."""

_ENDINGS = (".safetensors",)
_Network = TypeVar("_Network", bound=nn.Module)


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


def read_stored(path: Path, kind: str, config_key: str, prefix: str) -> Stored:
    """Read a weights file (.safetensors) or a checkpoint (.ckpt) of one kind of network.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        The kind that is wanted, such as ``sish-vqvae-1``.
    config_key : str
        Key of the configuration in a checkpoint. One that names no kind is of the wanted kind if it has it.
    prefix : str
        Begins the names of the network's tensors in a checkpoint.

    Returns
    -------
    Stored
        Its contents.

    Raises
    ------
    WeightsNotFoundError
        If there is no file.
    WeightsError
        If the file is damaged, or of another kind.
    """
    if not path.is_file():
        raise WeightsNotFoundError(f"no weights file at {path}; give a .safetensors file or a .ckpt")
    config: object
    if path.suffix == ".ckpt":
        checkpoint = _read_checkpoint(path)
        _check_kind(path, checkpoint.get(KIND_KEY, kind if config_key in checkpoint else "none"), kind)
        config = checkpoint.get(config_key)
        tensors, training = _tensors_of(path, checkpoint, prefix)
    else:
        metadata, tensors = _read_safetensors(path)
        _check_kind(path, metadata.get("format", "none"), kind)
        config, training = (_read_json(path, metadata, name) for name in ("config", "training"))
    if not (isinstance(config, dict) and config):
        raise WeightsError(f"{path} does not say what its network is; export it again")
    return Stored(path, config, tensors, training)


def _check_kind(path: Path, found: object, wanted: str) -> None:
    if found != wanted:
        raise WeightsError(f"{path} holds weights of kind {found}, and {wanted} is wanted; give another file")


def check_same_network(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another configuration before its tensors fail to fit (WeightsError)."""
    different = sorted(name for name in ours if theirs.get(name) != ours[name])
    if different:
        raise WeightsError(
            f"the checkpoint is of another network: {', '.join(different)} differ;"
            " give the configuration that it was trained with"
        )


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata and the tensors of a safetensors file; WeightsError for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path} is not a weights file ({one_line(error)}); give one that `export` wrote"
        ) from error


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint of a training run, read without pickle; WeightsError for any other file."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen kinds for bytes that are no checkpoint
        raise WeightsError(
            f"{path} is not a readable checkpoint ({one_line(error)}); give one of `fit`"
        ) from error
    return checkpoint if isinstance(checkpoint, dict) else {}


def _tensors_of(
    path: Path, checkpoint: Mapping[str, Any], prefix: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors whose names begin with ``prefix``, without it, and the facts of the training."""
    try:
        tensors = {
            name.removeprefix(prefix): tensor
            for name, tensor in checkpoint["state_dict"].items()
            if name.startswith(prefix) and isinstance(tensor, Tensor)
        }
        return tensors, {"steps": int(checkpoint["global_step"]), "epochs": int(checkpoint["epoch"])}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path} lacks parts of a checkpoint ({error}); give one of `fit`") from error


def write_safetensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], *, inputs: Iterable[Path] = ()
) -> None:
    """Write a file, never over one of ``inputs`` or of another kind; OutputError if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = save(tensors, metadata)  # not save_file, which would make a file that only its owner can read
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"cannot write weights to {path}: {error}; give another --output", path=path
        ) from error
    write_output(path, data, inputs=inputs, replaces=_ENDINGS)


def _read_json(path: Path, metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return a JSON object from the metadata, empty if it is missing; WeightsError for anything else."""
    try:
        found = json.loads(metadata.get(name, "{}"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its {name} is not JSON ({one_line(error)}); export it again") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: its {name} is not a JSON object; export it again")
    return found


def fitting_config(path: Path, values: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with values of the types of their defaults; the caller checks the names.

    Parameters
    ----------
    path : Path
        The file that it is from, for the error.
    values : mapping
        The configuration, as JSON gives it.
    default : mapping
        The default configuration.

    Returns
    -------
    dict
        The values, with tuples instead of lists.

    Raises
    ------
    WeightsError
        If a value has another type than its default.
    """
    for name, value in values.items():
        if name in default and not _fits(value, default[name]):
            raise WeightsError(f"{path}: its {name} is {_short(value)}; export it again")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _fits(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(_fits(each, default[0]) for each in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, type(default)) and not isinstance(value, bool)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def skeleton(path: Path, make: Callable[[], _Network]) -> _Network:
    """Return the network that ``make`` makes, without its numbers; WeightsError if it cannot be made."""
    try:
        with torch.device("meta"):
            return make()
    except (ParameterError, RuntimeError, TypeError, OverflowError) as error:
        raise WeightsError(
            f"{path}: its configuration does not fit this release ({one_line(error)}); export it again"
        ) from error


def misfits(needed: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> list[str]:
    """Return the sorted names of tensors that one side lacks, or that differ in shape or are no floats."""
    wanted, found = _shapes(needed), _shapes(got)
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, bool]]:
    """Return the shape of each tensor, and whether it has floats."""
    return {name: (it.shape, it.is_floating_point()) for name, it in tensors.items()}


def of_another_architecture(path: Path, odd: Sequence[str]) -> WeightsError:
    """Return the error for a file in which the tensors of some names do not fit."""
    return WeightsError(
        f"{path} is of another architecture than its configuration says: {odd[0]} and {len(odd) - 1} more"
        " do not fit; export it again"
    )


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse NaN and infinity (WeightsError): all patches would be similar."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{path}: {name} has numbers that are not finite; export or train it again")


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class if there is none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
