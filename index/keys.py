"""The paper's keys: an integer for a patch's grid of codes (Chen et al. 2022, Methods).

Codes are first renumbered, so that near numbers mean near codewords. Then the grid is averaged down three
times, and the sums at the three sizes are packed into one integer, the coarsest in front.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import ParameterError
from sish.index.compiled import compiled

Pooling = Literal["integer", "exact"]
"""How the mean of four codes is taken: truncated to an integer at each level, or exactly."""

_SCALES = (1, 10**6, 10**11)  # weights of the sums after one, two and three poolings
_SIDE = 2 ** len(_SCALES)  # a grid side must be a multiple of this


def paper_keys(codes: ArrayLike, order: ArrayLike, pooling: Pooling = "integer") -> NDArray[np.int64]:
    """Return the keys of code grids, O(N H W).

    The renumbered grid is averaged over 2 x 2 blocks three times. With S1, S2, S3 the sums of the three
    results, key = floor(S1 + 1e6 S2 + 1e11 S3). All arithmetic is in integers: at 8e14 floats would round.

    Parameters
    ----------
    codes : int (N, H, W)
        H and W multiples of 8.
    order : int (K,)
        The new number of each code, as `order_codebook` returns it.
    pooling : {"integer", "exact"}
        "exact" is the paper's text. "integer" is what its authors run: they average integer tensors, so
        that each mean is truncated.

    Returns
    -------
    int64 (N,)
        A key for each grid.

    Raises
    ------
    ParameterError
        If codes and order do not fit each other, or there is no such pooling.

    Notes
    -----
    Exact means depend on the plain sum S0 of the grid alone, as the blocks tile it: S1 = S0 / 4,
    S2 = S0 / 16, S3 = S0 / 64, and

        key = floor(S0 / 4 + 1e6 S0 / 16 + 1e11 S0 / 64) = floor(100_004_000_016 S0 / 64).

    So two patches with the same mean code share a key, whatever their texture. "integer" differs from this
    only by rounding.

    Examples
    --------
    An 8 x 8 grid of 3s with a single 5 has S0 = 194. The block with the 5 has means 3.5 (truncated to 3),
    then 3.125 and 3.03125, so S1 = 48.5 (48), S2 = 12.125 (12), S3 = 3.03125 (3).

    >>> grid = np.full((1, 8, 8), 3)
    >>> grid[0, 0, 0] = 5
    >>> paper_keys(grid, np.arange(8), "exact").tolist(), 194 * 100_004_000_016 // 64
    ([303137125048], 303137125048)
    >>> paper_keys(grid, np.arange(8), "integer").tolist()
    [300012000048]
    """
    if pooling not in get_args(Pooling):
        raise ParameterError(f"pooling is {pooling!r}; give one of {get_args(Pooling)}")
    grid = _renumbered(np.asarray(codes), np.asarray(order))
    # in exact pooling the grid holds sums, 4 ** level times the means; the division is done once, at the end
    total = np.zeros(len(grid), dtype=np.int64)
    for level, scale in enumerate(_SCALES, start=1):
        grid = grid.reshape(len(grid), grid.shape[1] // 2, 2, grid.shape[2] // 2, 2).sum(axis=(2, 4))
        if pooling == "integer":
            grid //= 4
            total += scale * grid.sum(axis=(1, 2))
        else:
            total += scale * 4 ** (len(_SCALES) - level) * grid.sum(axis=(1, 2))
    return total if pooling == "integer" else total // 4 ** len(_SCALES)


def _renumbered(codes: NDArray[np.integer], order: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the grids with each code replaced by its new number; ParameterError where they do not fit."""
    if codes.ndim != 3 or codes.dtype.kind not in "iu" or codes.shape[1] % _SIDE or codes.shape[2] % _SIDE:
        raise ParameterError(
            f"codes are {codes.dtype} {codes.shape}; give integers (N, H, W), H and W multiples of {_SIDE}"
        )
    if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ParameterError(
            f"order of shape {order.shape} is not a permutation; give order_codebook's result"
        )
    if codes.size and (codes.min() < 0 or codes.max() >= len(order)):
        raise ParameterError(f"codes run to {codes.max()} and order has {len(order)}; both need one codebook")
    largest = int(sum(s * 4 ** (3 - i) for i, s in enumerate(_SCALES, start=1)))
    if largest * codes.shape[1] * codes.shape[2] * len(order) >= 2**63:
        raise ParameterError(f"grids of {codes.shape[1:]} overflow a 64-bit key; give smaller patches")
    return np.asarray(order.astype(np.int64)[codes])


def order_codebook(codebook: ArrayLike) -> NDArray[np.int64]:
    """Return a new number for each codeword, so that near numbers mean near codewords.

    The numbers follow a short open path through all codewords. Three paths are tried: the order
    along the first principal component, and the greedy paths from its first and last codeword. Each is
    improved by reversing (2-opt) and moving (or-opt) stretches until neither shortens it. The shortest is
    taken, and starts at its end of the smaller norm. The result is deterministic; a pass takes O(K ** 2). The
    paper names no method for its ordered codebook.

    Parameters
    ----------
    codebook : float (K, D)
        Finite, K of at least 1.

    Returns
    -------
    int64 (K,)
        A permutation of 0 to K - 1.

    Raises
    ------
    ParameterError
        If the codebook is of another shape, or not finite.

    Examples
    --------
    >>> order_codebook([[0.0], [9.0], [1.0], [5.0]]).tolist()
    [0, 3, 1, 2]
    """
    words = np.asarray(codebook, dtype=np.float64)
    if words.ndim != 2 or not len(words) or not np.isfinite(words).all():
        raise ParameterError(f"codebook has shape {words.shape}; give finite numbers (K, D) with K >= 1")
    apart = np.stack([np.linalg.norm(words - word, axis=1) for word in words])
    along = np.argsort(_first_component(words), kind="stable")
    starts = [along, _greedy_path(apart, along[0]), _greedy_path(apart, along[-1])]
    for path in starts:
        _improve(apart, path)
    best = min(starts, key=lambda path: float(_length(apart, path)))
    if np.linalg.norm(words[best[0]]) > np.linalg.norm(words[best[-1]]):
        best = best[::-1]
    order = np.empty(len(words), dtype=np.int64)
    order[best] = np.arange(len(words))
    return order


def _first_component(words: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return coordinates (K,) along the first principal component."""
    centred = words - words.mean(axis=0)
    component = np.linalg.svd(centred, full_matrices=False)[2][0]
    return np.asarray(centred @ component)


def _length(apart: NDArray[np.float64], path: NDArray[np.int64]) -> float:
    return float(apart[path[:-1], path[1:]].sum())


def _greedy_path(apart: NDArray[np.float64], start: np.int64) -> NDArray[np.int64]:
    """Return the path from `start` that always goes on to the nearest codeword left."""
    left = np.ones(len(apart), dtype=bool)
    path = [start]
    left[start] = False
    while left.any():
        path.append(np.argmin(np.where(left, apart[path[-1]], np.inf)))
        left[path[-1]] = False
    return np.array(path, dtype=np.int64)


@compiled
def _improve(apart: NDArray[np.float64], path: NDArray[np.int64]) -> None:
    """Shorten an open path in place until no reversal and no move of a stretch shortens it."""
    shorter = True
    while shorter:
        shorter = _reverse_stretches(apart, path) or _move_stretches(apart, path)


@compiled
def _step(apart: NDArray[np.float64], path: NDArray[np.int64], i: int, j: int) -> float:
    """Return the distance between places `i` and `j`; 0 beyond the path's ends."""
    if i < 0 or j >= path.size:
        return 0.0
    return float(apart[path[i], path[j]])


_GAIN = 1e-9  # of the whole distance matrix's mean: a smaller gain is rounding


@compiled
def _reverse_stretches(apart: NDArray[np.float64], path: NDArray[np.int64]) -> bool:
    """Make one pass of 2-opt; return whether it changed anything."""
    least, changed = _GAIN * apart.mean(), False
    for i in range(path.size - 1):
        for j in range(i + 1, path.size):
            now = _step(apart, path, i - 1, i) + _step(apart, path, j, j + 1)
            then = _step(apart, path, i - 1, j) + _step(apart, path, i, j + 1)
            if now - then > least:
                path[i : j + 1] = path[i : j + 1][::-1].copy()
                changed = True
    return changed


@compiled
def _move_stretches(apart: NDArray[np.float64], path: NDArray[np.int64]) -> bool:
    """Move a stretch of one to three codewords to where it fits better; return whether one was moved."""
    least = _GAIN * apart.mean()
    for size in range(1, min(4, path.size)):
        for i in range(path.size - size + 1):
            stretch, rest = path[i : i + size].copy(), np.concatenate((path[:i], path[i + size :]))
            gap = _step(apart, rest, i - 1, i) if 0 < i < rest.size else 0.0
            now = _step(apart, path, i - 1, i) + _step(apart, path, i + size - 1, i + size) - gap
            for j in range(rest.size + 1):
                gap = _step(apart, rest, j - 1, j) if 0 < j < rest.size else 0.0
                then = -gap
                if j > 0:
                    then += apart[rest[j - 1], stretch[0]]
                if j < rest.size:
                    then += apart[stretch[-1], rest[j]]
                if now - then > least:
                    path[:] = np.concatenate((rest[:j], stretch, rest[j:]))
                    return True
    return False
