"""Weights on disk: safetensors files with all that is needed to use them, and a fingerprint.

Nothing is unpickled: safetensors holds numbers only, and checkpoints are read with ``weights_only=True``.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from sish.errors import ParameterError, WeightsError, about_its_path
from sish.vqvae.encoder import Encoder, FeatureNetwork, HammingScale
from sish.vqvae.features import N_FEATURES, PERCENTILES
from sish.vqvae.fingerprint import digest_of
from sish.vqvae.model import CONFIG_KEY, VQVAE, FeatureSource, VQVAEConfig
from sish.vqvae.tensor_files import (
    Stored,
    check_finite,
    fitting_config,
    misfits,
    of_another_architecture,
    read_stored,
    skeleton,
    write_safetensors,
)
from sish.vqvae.timm_network import DENSENET121, TimmNetwork

_FORMAT = "sish-vqvae-1"
_PUBLISHED_THRESHOLD = 128
_THRESHOLD_PERCENTILE = 1.0
# used only in training: neither exported nor part of the fingerprint
_TRAINING_ONLY = ("quantizer.ema_counts", "quantizer.ema_sums", "quantizer.batches")


def _inference_tensors(model: VQVAE) -> dict[str, Tensor]:
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name not in _TRAINING_ONLY
    }


def fingerprint_of(model: VQVAE, network: FeatureNetwork | None = None) -> str:
    """Return the name of a network's weights, such as ``default-1a2b3c4d5e6f``.

    Two files with the same numbers have the same fingerprint, however they are laid out.

    Parameters
    ----------
    model : VQVAE
        Its configuration and tensors count; facts about its training do not.
    network : FeatureNetwork, optional
        The network that makes the features, if ``model`` does not. Its ``fingerprint`` counts, if it has one.

    Returns
    -------
    str
        The architecture's name and 12 digits of a sha256.
    """
    header = {"config": model.config.as_dict(), "network": getattr(network, "fingerprint", "")}
    digest = digest_of(json.dumps(header, sort_keys=True), _inference_tensors(model))
    return f"{model.config.name}-{digest[:12]}"


def save_weights(
    model: VQVAE, path: Path, *, training: dict[str, Any] | None = None, inputs: Iterable[Path] = ()
) -> str:
    """Write a network as safetensors.

    Parameters
    ----------
    model : VQVAE
        A network whose features were calibrated; WeightsError for another.
    path : Path
        The file, ``.safetensors``; OutputError if it cannot be written.
    training : dict, optional
        Facts about the training to keep in the file, as plain values.
    inputs : iterable of Path
        Files that must not be replaced.

    Returns
    -------
    str
        The fingerprint.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "mine.safetensors"
    >>> save_weights(shipped_model(), path) == load_encoder(path).fingerprint == load_encoder().fingerprint
    True
    """
    facts = json.dumps(training or {}, sort_keys=True)
    hamming = hamming_scale(model)
    fingerprint = fingerprint_of(model)
    metadata = {
        "format": _FORMAT,
        "config": json.dumps(model.config.as_dict(), sort_keys=True),
        "hamming": json.dumps(
            {"threshold": hamming.threshold, "percentiles": hamming.percentiles, "obtained": hamming.obtained}
        ),
        "fingerprint": fingerprint,
        "training": facts,
    }
    write_safetensors(path, _inference_tensors(model), metadata, inputs=inputs)
    return fingerprint


def hamming_scale(model: VQVAE) -> HammingScale:
    """Return the distances that calibration measured; for DenseNet121, the published threshold."""
    if model.config.features == "densenet121":
        return HammingScale(_PUBLISHED_THRESHOLD, (), "published for DenseNet121 features (SISH, Methods)")
    if not model.head.calibrated:
        raise WeightsError(
            "the barcode's features were never measured on training patches;"
            " run `python -m sish.vqvae export --checkpoint ... --output ... --data.folder TRAINING_IMAGES`"
        )
    table = tuple(zip(PERCENTILES, map(float, model.head.distances.tolist()), strict=True))
    return HammingScale(
        int(dict(table)[_THRESHOLD_PERCENTILE]),
        table,
        f"the distance that {_THRESHOLD_PERCENTILE:g} % of random pairs of different training patches stay"
        f" within, measured on {int(model.head.patches)} patches",
    )


@about_its_path
def load_encoder(
    path: str | Path | None = None, *, features: str | Path | None = None, device: str = "cpu"
) -> Encoder:
    """Load a frozen encoder. WeightsError for a file that cannot be used.

    Parameters
    ----------
    path : str or Path, optional
        A weights file (.safetensors) or a checkpoint (.ckpt). Default: the shipped weights.
    features : str or Path, optional
        A file of DenseNet121 weights, for a network whose barcode is made of them. Default: from the model
        hub.
    device : str
        Where the encoder runs, as torch names it.

    Returns
    -------
    Encoder
        Ready to encode patches.

    Examples
    --------
    >>> load_encoder().stride
    8
    """
    model = shipped_model() if path is None else read_model(Path(path))[0]
    network: FeatureNetwork | None = None
    if model.config.features == "densenet121":
        network = TimmNetwork(DENSENET121, None if features is None else Path(features), device=device)
    hamming = hamming_scale(model)
    return Encoder(model.to(device), fingerprint_of(model, network), hamming, network)


def shipped_model() -> VQVAE:
    """Return the network whose weights come with this release."""
    shipped = resources.files("sish.vqvae").joinpath("weights/default.safetensors")
    with resources.as_file(shipped) as file:
        return read_model(file)[0]


@about_its_path
def read_model(path: Path, features: FeatureSource | None = None) -> tuple[VQVAE, dict[str, Any]]:
    """Read a network from a weights file or a checkpoint. WeightsError for a file that cannot be used.

    Parameters
    ----------
    path : Path
        The file, .safetensors or .ckpt.
    features : FeatureSource, optional
        Read only the autoencoder, and make the barcode of these features. They are still to be calibrated,
        except ``pooled`` if the file has their statistics.

    Returns
    -------
    VQVAE
        The network, in evaluation mode.
    dict
        Facts about its training.
    """
    stored = read_stored(path, _FORMAT, CONFIG_KEY, "vqvae.")
    config, tensors = _config(stored), stored.tensors
    config = config if features is None else replace(config, features=features)
    empty = skeleton(path, partial(VQVAE, config))
    if features is None:
        wanted = empty.state_dict()
    else:
        wanted = empty.autoencoder()
        tensors = {name: it for name, it in tensors.items() if name in wanted}
    needed = {name: it for name, it in wanted.items() if name in tensors or name not in _TRAINING_ONLY}
    _check_fit(path, empty, misfits(needed, tensors))
    model = VQVAE(config)
    model.load_state_dict(tensors, strict=False)
    _check_numbers(path, model)
    return model.eval(), stored.training


def _check_numbers(path: Path, model: VQVAE) -> None:
    """Refuse numbers that training cannot make (WeightsError); distances are NaN before calibration."""
    state = model.state_dict()
    check_finite(path, {name: it for name, it in state.items() if not name.endswith("distances")})
    order, distances = model.pooled.order, model.head.distances
    if not bool(((order >= 0) & (order < 2 * sum(model.config.map_channels))).all()):
        raise WeightsError(f"{path}: pooled.order names channels that there are not; export it again")
    if model.head.calibrated and not bool(((distances >= 0) & (distances <= N_FEATURES)).all()):
        raise WeightsError(f"{path}: its distances are not 0 to {N_FEATURES} bits; export it again")


def _check_fit(path: Path, model: VQVAE, odd: list[str]) -> None:
    """Refuse tensors that do not fit (WeightsError), with a hint if only those of the barcode do not."""
    if odd and not model.autoencoder().keys() & set(odd):
        raise WeightsError(
            f"{path} has a barcode of another release ({odd[0]} does not fit); its autoencoder is whole:"
            f" `python -m sish.vqvae export --checkpoint {path} --features oriented --data.folder IMAGES"
            " --output NEW` makes one of this release"
        )
    if odd:
        raise of_another_architecture(path, odd)


def _config(stored: Stored) -> VQVAEConfig:
    try:
        return VQVAEConfig.from_dict(fitting_config(stored.path, stored.config, vars(VQVAEConfig())))
    except ParameterError as error:
        raise WeightsError(f"{stored.path}: {error}; export it again") from error
