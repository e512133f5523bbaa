"""Digests of tensors: the same numbers have the same digest, in whatever file they are stored."""

import hashlib
from collections.abc import Mapping

from torch import Tensor


def digest_of(header: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a header and of each tensor's name, dtype, shape and numbers.

    Parameters
    ----------
    header : str
        Text that counts, too, such as a configuration.
    tensors : mapping of str to Tensor
        The tensors by name, in any order.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
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
