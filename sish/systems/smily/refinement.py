"""Refining a query in the space of embeddings (Cai et al., Human-centered tools, CHI 2019).

By example: results that are marked relevant move the query toward their mean. By concept: a direction learnt
from patches that show something and patches that do not; a slider moves the query along it. (By region, the
third way, is a crop of the query: `sish.systems.smily.regions.Smily.crop`.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sish.errors import LabelsError, ParameterError
from sish.systems.patch_features import unit

__all__ = ["Concept", "toward"]

Vectors = NDArray[np.float32]


def toward(vectors: Vectors, examples: ArrayLike, weight: float = 0.5) -> Vectors:
    """Vectors (N, F) of unit length moved toward the mean of examples (M, F), and made unit again.

    q' = unit((1 - w) q + w e) with e the unit mean of the examples (Rocchio's rule without its negative
    part): w = 0 changes nothing, at 1 only the examples count. ParameterError for another weight, or none.

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
    """Something that patches show or do not, as a direction among embeddings."""

    name: str
    """What it is called."""
    direction: Vectors
    """(F,), of unit length: patches that show it lie further along."""

    @classmethod
    def learn(cls, name: str, positive: ArrayLike, negative: ArrayLike, *, shrinkage: float = 0.1) -> Concept:
        """Fisher's linear discriminant of patches that show it (P, F) against those that do not (N, F).

            direction = unit( [ (1 - s) W + s tr(W) / F I ]^-1 (mean of positive - mean of negative) )

        with W the scatter within both, divided by P + N: the normal of the plane that separates them best,
        where the paper takes a linear classifier's. Shrinkage s in (0, 1] makes W invertible however few
        patches there are (with one patch each W is 0, and the direction is the difference).

        Raises LabelsError where one side has no patches, or both have the same mean.

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
        """Vectors (N, F) of unit length moved along it by `weight`, and made unit again.

        The slider runs from -1 (away from it) over 0 (no change) to 1 (as far as the query is long).

        >>> Concept("x", np.float32([0, 1])).applied(np.float32([[1, 0]]), -1.0).tolist()
        [[0.7071..., -0.7071...]]
        """
        if not -1 <= weight <= 1 or vectors.shape[1] != len(self.direction):
            raise ParameterError(
                f"concept {self.name!r}: got weight={weight} for {vectors.shape[1]} features; "
                f"want -1 to 1 and {len(self.direction)} features"
            )
        return unit(vectors + weight * self.direction)
