"""Refine a query in the space of embeddings (Cai et al., Human-centered tools, CHI 2019).

By example, results that are marked relevant move the query toward their mean. By concept, a slider moves the
query along a direction that was learnt from patches that show something and patches that do not. The third
way, by region, is a crop of the query: `sish.systems.smily.regions.Smily.crop`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import LabelsError, ParameterError
from sish.systems.patch_features import unit

Vectors = NDArray[np.float32]


def toward(vectors: Vectors, examples: ArrayLike, weight: float = 0.5) -> Vectors:
    """Move vectors toward the mean of examples: Rocchio's rule without its negative part.

    q' = unit((1 - w) q + w e), where e is the unit mean of the examples.

    Parameters
    ----------
    vectors : float32 (N, F)
        The query, of unit length.
    examples : float (M, F)
        Embeddings of relevant patches, at least one.
    weight : float
        w in [0, 1]: 0 changes nothing, at 1 only the examples count.

    Returns
    -------
    float32 (N, F)
        Of unit length.

    Raises
    ------
    ParameterError
        If the weight is out of range, or the examples do not fit.

    Examples
    --------
    >>> toward(np.float32([[1, 0]]), [[0, 2], [0, 4]], 0.5).tolist()
    [[0.7071..., 0.7071...]]
    """
    rows = np.atleast_2d(np.asarray(examples, np.float32))
    if not 0 <= weight <= 1 or not rows.size or rows.shape[1] != vectors.shape[1]:
        raise ParameterError(
            f"got weight={weight} and examples {rows.shape}; want a weight in [0, 1] and one example "
            f"at least, of {vectors.shape[1]} features"
        )
    mean = unit(unit(rows).mean(axis=0, keepdims=True))
    return unit((1 - weight) * vectors + weight * mean)


@dataclass(frozen=True, slots=True)
class Concept:
    """A direction among embeddings: patches that show something lie further along it than others."""

    name: str
    """Its name."""
    direction: Vectors
    """(F,), of unit length."""

    @classmethod
    def learn(cls, name: str, positive: ArrayLike, negative: ArrayLike, *, shrinkage: float = 0.1) -> Concept:
        """Learn a concept from patches, by Fisher's linear discriminant with shrinkage.

            direction = unit( [ (1 - s) W + s tr(W) / F I ]^-1 (mean of positive - mean of negative) )

        W is the scatter within both sides, divided by P + N. The direction is the normal of the plane that
        separates the sides best; the paper takes that of a linear classifier. Shrinkage makes W invertible
        however few patches there are. With one patch on each side W is 0: the direction is the difference.

        Parameters
        ----------
        name : str
            Its name.
        positive : float (P, F)
            Embeddings of patches that show it.
        negative : float (N, F)
            Embeddings of patches that do not.
        shrinkage : float
            s in (0, 1].

        Returns
        -------
        Concept
            The direction.

        Raises
        ------
        LabelsError
            If one side has no patches, or both have the same mean.
        ParameterError
            If the shrinkage is out of range, or the sides have different numbers of features.

        Examples
        --------
        >>> Concept.learn("x", [[2.0, 0.0]], [[0.0, 0.0]]).direction.tolist()
        [1.0, 0.0]
        """
        shows, lacks = (np.atleast_2d(np.asarray(side, np.float64)) for side in (positive, negative))
        if not shows.size or not lacks.size:
            raise LabelsError(f"concept {name!r}: got {len(shows)} patches with it and {len(lacks)} without; "
                              "want one of each at least")  # fmt: skip
        if not 0 < shrinkage <= 1 or shows.shape[1] != lacks.shape[1]:
            raise ParameterError(
                f"concept {name!r}: got shrinkage={shrinkage}, {shows.shape} and {lacks.shape} patches; "
                "want a share in (0, 1] and as many features on both sides"
            )
        apart = shows.mean(axis=0) - lacks.mean(axis=0)
        if not apart.any():
            raise LabelsError(
                f"concept {name!r}: patches with it and without are alike on average; give others"
            )
        within = np.concatenate([side - side.mean(axis=0) for side in (shows, lacks)])
        scatter = within.T @ within / len(within)
        size = np.trace(scatter) / len(apart)
        if size > 0:
            blend = (1 - shrinkage) * scatter
            blend[np.diag_indices_from(blend)] += shrinkage * size
            apart = np.linalg.solve(blend, apart)
        return cls(name, unit(apart[None])[0])

    def applied(self, vectors: Vectors, weight: float) -> Vectors:
        """Move vectors along the concept.

        Parameters
        ----------
        vectors : float32 (N, F)
            The query, of unit length.
        weight : float
            From -1 (away from the concept) over 0 (no change) to 1 (by the length of the query).

        Returns
        -------
        float32 (N, F)
            Of unit length.

        Raises
        ------
        ParameterError
            If the weight is out of range, or the vectors have another number of features.

        Examples
        --------
        >>> Concept("x", np.float32([0, 1])).applied(np.float32([[1, 0]]), -1.0).tolist()
        [[0.7071..., -0.7071...]]
        """
        if not -1 <= weight <= 1 or vectors.shape[1] != len(self.direction):
            raise ParameterError(
                f"concept {self.name!r}: got weight={weight} for {vectors.shape[1]} features; "
                f"want -1 to 1 and {len(self.direction)} features"
            )
        return unit(vectors + weight * self.direction)
