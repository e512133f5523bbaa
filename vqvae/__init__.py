"""Codes from pixels: the vector-quantised autoencoder, its training and its shipped weights.

========================  ==================================================================================
name                      what it is
========================  ==================================================================================
``load_encoder``          the shipped encoder, or one from a weights file or checkpoint
``Encoder``, ``Encoded``  a frozen network: patches to codes and features, and what it returns
``VQVAE``                 the network itself, ready for training: encoder, codebook, decoder, features
``VQVAEConfig``           what it is built from; ``PRESETS`` holds ``default`` and the published ``paper``
``VectorQuantizer``       the codebook as a layer; ``perplexity`` counts the codes in use
``calibrate``             measures the barcode's features on patches, before a network is searched with
``save_weights``          writes a network as safetensors, and returns its fingerprint
``to_unit``               pixels as the network reads them; ``from_unit`` is the inverse
``LiftingConv``           a convolution that knows quarter turns and mirrorings; ``GroupConv`` follows it
``jitter_stain``          patches in slightly other stains; ``Views`` also moves, turns and blurs them
``contrast_loss``         the loss that trains a texture network on two views of each patch
``TimmNetwork``           a network of timm as a source of features
========================  ==================================================================================

Each name is imported from its module when it is first used: ``import sish.vqvae`` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sish.vqvae.calibration import calibrate
    from sish.vqvae.contrast import contrast_loss
    from sish.vqvae.encoder import Encoded, Encoder
    from sish.vqvae.model import PRESETS, VQVAE, VQVAEConfig, from_unit, to_unit
    from sish.vqvae.p4m import GroupConv, LiftingConv
    from sish.vqvae.pretrained import load_encoder, save_weights
    from sish.vqvae.quantizer import VectorQuantizer, perplexity
    from sish.vqvae.stain import jitter_stain
    from sish.vqvae.timm_network import TimmNetwork
    from sish.vqvae.views import Views

__all__ = [
    "PRESETS",
    "VQVAE",
    "Encoded",
    "Encoder",
    "GroupConv",
    "LiftingConv",
    "TimmNetwork",
    "VQVAEConfig",
    "VectorQuantizer",
    "Views",
    "calibrate",
    "contrast_loss",
    "from_unit",
    "jitter_stain",
    "load_encoder",
    "perplexity",
    "save_weights",
    "to_unit",
]

_NAMES = {
    "calibration": ["calibrate"],
    "contrast": ["contrast_loss"],
    "encoder": ["Encoded", "Encoder"],
    "model": ["PRESETS", "VQVAE", "VQVAEConfig", "from_unit", "to_unit"],
    "p4m": ["GroupConv", "LiftingConv"],
    "pretrained": ["load_encoder", "save_weights"],
    "quantizer": ["VectorQuantizer", "perplexity"],
    "stain": ["jitter_stain"],
    "timm_network": ["TimmNetwork"],
    "views": ["Views"],
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for (PEP 562)."""
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
