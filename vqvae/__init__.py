"""Codes from pixels: the vector-quantised autoencoder, its training and its shipped weights.

========================  ==================================================================================
name                      what it is
========================  ==================================================================================
``load_encoder``          the shipped autoencoder, or one from a weights file or checkpoint
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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
