"""Several arrays in one file that is mapped into memory, in the layout of safetensors.

The file begins with the length of its header, 8 bytes, little-endian. The header is a JSON object that gives
the dtype, the shape and the place of each array; spaces fill it up, so that the arrays begin at a multiple of
64 bytes. Any reader of safetensors opens such a file. The package of that name copies arrays into memory, so
these few lines are our own.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_ALIGNED = 64  # bytes of a cache line
_LENGTH = 8  # bytes that hold the length of the header
_DTYPES = {name: np.dtype(code) for name, code in (("F64", "<f8"), ("I64", "<i8"), ("U64", "<u8"))} | {
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "F16": np.dtype("<f2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
"""The dtypes in use by their names in the format, widest first, as the arrays follow each other."""
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def pack(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the bytes of a file that holds these arrays.

    Parameters
    ----------
    arrays : mapping of str to array
        Their dtypes are float64, int64, uint64, float32, int32, float16, int8 or uint8.

    Returns
    -------
    bytes
        The same for the same arrays in any order.

    Examples
    --------
    >>> unpack(np.frombuffer(pack({"a": np.arange(3)}), np.uint8))["a"].tolist()
    [0, 1, 2]
    """
    return b"".join(packed(arrays))


def packed(arrays: Mapping[str, npt.NDArray[Any]]) -> Iterator[bytes | memoryview]:
    """Yield the bytes that `pack` returns, in pieces, so that large arrays are not copied.

    Parameters
    ----------
    arrays : mapping of str to array
        As for `pack`.

    Yields
    ------
    bytes or memoryview
        The header, then one array after another.
    """
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header, parts, end = {}, [], 0
    for name in order:
        data = np.ascontiguousarray(arrays[name])
        header[name] = {
            "dtype": _NAMES[arrays[name].dtype],
            "shape": list(arrays[name].shape),
            "data_offsets": [end, end + data.nbytes],
        }
        parts.append(data)
        end += data.nbytes
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-(_LENGTH + len(text)) % _ALIGNED)
    yield len(text).to_bytes(_LENGTH, "little") + text
    for part in parts:
        yield part.reshape(-1).view(np.uint8).data


def unpack(data: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file as views of its bytes; nothing is read but the header.

    Parameters
    ----------
    data : uint8 (N,)
        All bytes of the file.

    Returns
    -------
    dict of str to array
        The arrays.

    Raises
    ------
    ValueError
        If it is no such file, or an array leads out of it.
    """
    begin = _LENGTH + int.from_bytes(data[:_LENGTH].tobytes(), "little")
    if not _LENGTH <= begin <= len(data):
        raise ValueError(f"a header of {begin - _LENGTH} bytes")
    try:
        header = json.loads(data[_LENGTH:begin].tobytes())
        return {name: _array(data[begin:], entry) for name, entry in header.items()}
    except (TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"a header that makes no sense ({str(error)[:80]!r})") from None


def _array(data: npt.NDArray[np.uint8], entry: Mapping[str, Any]) -> npt.NDArray[Any]:
    """Return one array; ValueError if it leads out of `data`."""
    dtype, (begin, end) = _DTYPES[entry["dtype"]], entry["data_offsets"]
    shape = tuple(entry["shape"])
    numbers = (begin, end, *shape)
    if not all(type(number) is int and number >= 0 for number in numbers) or end > len(data):
        raise ValueError(f"an array at {begin} to {end}")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of {end - begin} bytes for {dtype} {shape}"[:200])
    return data[begin:end].view(dtype).reshape(shape)
