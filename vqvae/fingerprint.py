"""A name for numbers: the same tensors have the same one, however and wherever they are stored."""

import hashlib
from collections.abc import Mapping

from torch import Tensor

__all__ = ["digest_of"]


def digest_of(header: str, tensors: Mapping[str, Tensor]) -> str:
    """sha256, as hexadecimal digits, of ``header`` and of each tensor's name, dtype, shape and numbers.

    The order of the mapping does not matter.

    >>> import torch
    >>> a, b = torch.zeros(2), torch.ones(3)
    >>> digest_of("x", {"a": a, "b": b}) == digest_of("x", {"b": b, "a": a})
    True
    """
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
