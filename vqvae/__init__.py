"""Codes from pixels: the vector-quantised autoencoder, its training and its shipped weights.

``load_encoder()`` is all that a search needs; it is imported from torch on first use only, so that
``import sish.vqvae`` stays light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sish.vqvae.encoder import Encoded, Encoder
    from sish.vqvae.pretrained import load_encoder, save_weights

__all__ = ["Encoded", "Encoder", "load_encoder", "save_weights"]

_HOMES = {
    "Encoded": "sish.vqvae.encoder",
    "Encoder": "sish.vqvae.encoder",
    "load_encoder": "sish.vqvae.pretrained",
    "save_weights": "sish.vqvae.pretrained",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
