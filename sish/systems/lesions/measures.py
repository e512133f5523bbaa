"""Ten scores of the similarity of two photographs of skin lesions, each in [0, 1], higher is more alike.

Mehta, *Exploring content based image retrieval for highly imbalanced melanoma data using style transfer,
semantic image segmentation and ensemble learning*, section 2. Four scores compare one thing each: features
(Euclidean, cosine), texture (style) or the shape of the lesion (Dice). Six *I1 scores* are harmonic means of
two or three of these; they are high only if all of them are.

A distance becomes a score by the largest distance in the searched database (equations 2 and 7), so scores of
different searches cannot be compared. Each function says what the source leaves open and what we chose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.index.barcode import hamming

Floats = NDArray[np.floating[Any]]

Part = Literal["euclidean", "cosine", "style", "dice"]
"""The scores that compare one thing."""

Measure = Literal[
    "euclidean", "cosine", "style", "dice", "i1_ed", "i1_cd", "i1_ecd", "i1_se", "i1_sc", "i1_sd"
]
"""All scores; the letters after i1 name the parts."""

MEASURES: tuple[Measure, ...] = get_args(Measure)
"""Their names, in the order of the paper."""

PARTS: dict[Measure, tuple[Part, ...]] = {
    "euclidean": ("euclidean",),
    "cosine": ("cosine",),
    "style": ("style",),
    "dice": ("dice",),
    "i1_ed": ("euclidean", "dice"),
    "i1_cd": ("cosine", "dice"),
    "i1_ecd": ("euclidean", "cosine", "dice"),
    "i1_se": ("style", "euclidean"),
    "i1_sc": ("style", "cosine"),
    "i1_sd": ("style", "dice"),
}
"""The parts of each score, whose harmonic mean it is (equations 9 to 14)."""


def euclidean_scores(
    query: Floats, database: Floats, searched: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return 1 - ED / ED_max, with ED the Euclidean distance of features (equations 1 and 2).

    Parameters
    ----------
    query : float (F,)
        Features of the query.
    database : float (N, F)
        Features of the database.
    searched : bool (N,), optional
        Rows that the query may find, at least one: ED_max is the largest of their distances, and the scores
        of other rows have no meaning. Default: all.

    Returns
    -------
    float64 (N,)
        0 for the farthest image, 1 for one with the query's features. If all distances are 0, all are 1.

    Examples
    --------
    >>> euclidean_scores(np.array([0.0, 0.0]), np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])).tolist()
    [0.0, 0.6, 1.0]
    """
    _check_rows(query, database)
    gaps = database.astype(np.float64) - query
    return _as_scores(np.sqrt(_squares(gaps)), searched)


def cosine_scores(query: Floats, database: Floats) -> NDArray[np.float64]:
    """Return (CS + 1) / 2, with CS the cosine of features (equations 3 and 4).

    Parameters
    ----------
    query : float (F,)
        Features of the query.
    database : float (N, F)
        Features of the database.

    Returns
    -------
    float64 (N,)
        0.5 for a vector of zeros, whose cosine counts as 0.

    Examples
    --------
    >>> cosine_scores(np.array([1.0, 0.0]), np.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])).tolist()
    [1.0, 0.5, 0.0]
    """
    _check_rows(query, database)
    rows, row = database.astype(np.float64), query.astype(np.float64)
    norms = np.sqrt(_squares(rows)) * np.linalg.norm(row)
    cosines = np.divide(rows @ row, norms, out=np.zeros(len(rows)), where=norms > 0)
    scores: NDArray[np.float64] = (np.clip(cosines, -1, 1) + 1) / 2
    return scores


def gram_vector(feature_map: Floats) -> NDArray[np.float32]:
    """Return the weighted Gram matrix of one layer's map as a vector.

    The Gram matrix (C, C) holds the products of every pair of channels, summed over positions. Equation 6
    does not give its weight beta; here it is 1 / (C h w), so that layers of different size count alike.

    Parameters
    ----------
    feature_map : float (C, h, w)
        The map of one layer.

    Returns
    -------
    float32 (C (C + 1) / 2,)
        The upper triangle, since the matrix is symmetric. Entries off the diagonal are multiplied by the root
        of 2, so that squared distances of vectors equal those of whole matrices.

    Raises
    ------
    ParameterError
        If the map has another number of dimensions, or is empty.

    Examples
    --------
    Two channels over two positions, [1, 2] and [0, 1]: the matrix is [[5, 2], [2, 1]] / 4.

    >>> [round(float(number), 4) for number in gram_vector(np.array([[[1.0, 2.0]], [[0.0, 1.0]]]))]
    [1.25, 0.7071, 0.25]
    """
    if feature_map.ndim != 3 or not feature_map.size:
        raise ParameterError(f"a feature map has shape {feature_map.shape}; give (channels, height, width)")
    channels = feature_map.shape[0]
    flat = feature_map.reshape(channels, -1).astype(np.float32)
    gram = flat @ flat.T / flat.size
    row, column = np.triu_indices(channels)
    return (gram[row, column] * np.where(row == column, 1, np.sqrt(2))).astype(np.float32)


def style_scores(
    query: Floats, database: Floats, searched: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Return 1 - LS / LS_max, with LS the style loss (equations 6 and 7).

    LS is the squared distance of Gram vectors, summed over layers.

    Parameters
    ----------
    query : float (G,)
        Gram vectors of the query, all layers joined.
    database : float (N, G)
        Gram vectors of the database.
    searched : bool (N,), optional
        As of :func:`euclidean_scores`.

    Returns
    -------
    float64 (N,)
        0 for the image of the largest loss. If all losses are 0, all are 1.

    Examples
    --------
    >>> style_scores(np.array([0.0, 0.0]), np.array([[3.0, 4.0], [0.0, 2.0]])).tolist()
    [0.0, 0.84]
    """
    _check_rows(query, database)
    losses = np.empty(len(database))
    for number, row in enumerate(database):  # row by row, so that the difference stays in the cache
        gap = row - query
        losses[number] = gap @ gap
    return _as_scores(losses, searched)


def dice_scores(query: NDArray[np.bool_], database: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return 2 |X and Y| / (|X| + |Y|) of masks (equation 8).

    Parameters
    ----------
    query : bool (h, w)
        Mask of the query.
    database : bool (N, h, w)
        Masks of the database.

    Returns
    -------
    float64 (N,)
        0 if either mask is empty, or both: an empty mask has no shape.

    Raises
    ------
    ParameterError
        If the masks have different sizes.

    Examples
    --------
    >>> a = np.array([[True, True, False]])
    >>> dice_scores(a, np.array([[[True, True, False]], [[False, True, True]], [[False] * 3]])).tolist()
    [1.0, 0.5, 0.0]
    """
    if query.ndim != 2 or database.shape[1:] != query.shape:
        raise ParameterError(
            f"masks have shapes {query.shape} and {database.shape}; give (h, w) and (N, h, w) of one size"
        )
    mask, masks = np.packbits(query.ravel()), np.packbits(database.reshape(len(database), -1), axis=1)
    pixels = hamming(masks, np.zeros_like(mask)).astype(np.int64) + np.count_nonzero(query)
    both = (pixels - hamming(masks, mask)) / 2  # |X| + |Y| = 2 |X and Y| + |X xor Y|
    scores: NDArray[np.float64] = np.divide(2 * both, pixels, out=np.zeros(len(database)), where=pixels > 0)
    return scores


def i1_score(parts: Sequence[Floats]) -> NDArray[np.float64]:
    """Return the harmonic mean of scores, n / (1/a + 1/b + ...) (equations 9 to 14).

    Parameters
    ----------
    parts : sequence of float (N,)
        Scores, at least one.

    Returns
    -------
    float64 (N,)
        0 if any part is 0, the limit.

    Raises
    ------
    ParameterError
        If there are no parts.

    Examples
    --------
    Of 0.5 and 1: 2 / (2 + 1); of 0.5, 1 and 0.25: 3 / (2 + 1 + 4).

    >>> i1_score([np.array([0.5, 0.0]), np.array([1.0, 1.0])]).round(4).tolist()
    [0.6667, 0.0]
    >>> i1_score([np.array([0.5]), np.array([1.0]), np.array([0.25])]).round(4).tolist()
    [0.4286]
    """
    if not parts:
        raise ParameterError("got no scores to combine; give one at least")
    rows = np.stack([np.asarray(part, np.float64) for part in parts])
    zero = (rows == 0).any(0)
    with np.errstate(divide="ignore", over="ignore"):  # 1 / 0 is inf, and n / inf is the 0 that is wanted
        inverse = (1 / rows).sum(0)
    return np.where(zero, 0.0, len(rows) / inverse)


def _as_scores(distances: NDArray[np.float64], searched: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Return 1 - distance / largest distance of those searched; 1 if that is 0."""
    largest = float((distances if searched is None else distances[searched]).max())
    scores: NDArray[np.float64] = 1 - distances / largest if largest > 0 else np.ones(len(distances))
    return scores


def _squares(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared lengths of rows (N, F), without a copy of them."""
    return np.asarray(np.einsum("nf,nf->n", rows, rows), np.float64)


def _check_rows(query: Floats, database: Floats) -> None:
    if query.ndim != 1 or database.ndim != 2 or database.shape[1:] != query.shape or not len(database):
        raise ParameterError(
            f"features have shapes {query.shape} and {database.shape}; give (F,) and (N, F) with N >= 1"
        )
