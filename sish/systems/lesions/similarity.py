"""Photographs of skin lesions, compared by features, texture and shape (Mehta; see `lesion_measures`).

>>> from sish.systems.lesions.similarity import LesionSimilarity
>>> LesionSimilarity("i1_sd").name
'lesions, i1_sd'
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError
from sish.systems.base import Allowed, Scores, System
from sish.systems.item import Item
from sish.systems.lesions.layers import Activations, EncoderLayers, LayeredEncoder
from sish.systems.lesions.measures import (
    MEASURES,
    PARTS,
    Measure,
    Part,
    cosine_scores,
    dice_scores,
    euclidean_scores,
    gram_vector,
    i1_score,
    style_scores,
)
from sish.systems.small_pictures import SizePx, read_given_mask, read_picture

if TYPE_CHECKING:
    from sish.systems.lesions.mask_predictor import MaskPredictor

__all__ = ["LesionDescriber", "LesionDescription", "LesionSimilarity"]

_MASK_PX: SizePx = (128, 96)  # given masks are compared at this size; predicted ones at their network's
_NAMES = {"euclidean": "features", "cosine": "features", "style": "style", "dice": "mask"}


@dataclass(frozen=True, slots=True)
class LesionDescription:
    """What is known of one photograph; None for what was not asked for."""

    features: NDArray[np.float32] | None
    """float32 (F,): features, those of an ensemble one after the other."""
    style: NDArray[np.float32] | None
    """float32 (G,): weighted Gram matrices of all layers, see `gram_vector`."""
    mask: NDArray[np.bool_] | None
    """bool (h, w): inside the lesion."""


class LesionDescriber:
    """Makes descriptions: networks for features and texture, and masks that are given or predicted."""

    def __init__(
        self,
        encoders: Sequence[LayeredEncoder] | None = None,
        *,
        masks: MaskPredictor | None = None,
        size_px: SizePx = (192, 144),
    ) -> None:
        """How photographs are described.

        Parameters
        ----------
        encoders : sequence of LayeredEncoder, optional
            One network or an ensemble, whose Gram matrices are averaged layer by layer and whose features
            are joined (Mehta, section 3.3). None: the shipped encoder.
        masks : MaskPredictor, optional
            Draws the mask of a photograph that comes without one.
        size_px : (int, int)
            Width and height that photographs are resized to for the encoders.
        """
        if encoders is not None and not encoders:
            raise ParameterError(
                "got an ensemble of no encoders; give one at least, or None for the shipped one"
            )
        self._given = encoders
        self._masks = masks
        self._size_px = size_px

    @cached_property
    def _encoders(self) -> Sequence[LayeredEncoder]:
        return [EncoderLayers()] if self._given is None else list(self._given)

    def describe(self, item: Item, parts: Collection[Part]) -> LesionDescription:
        """What these parts need of a photograph.

        SlideOpenError where it does not open, MissingMaskError where Dice is asked for and there is neither
        a mask nor a predictor.
        """
        mask = self._mask(item) if "dice" in parts else None
        features = style = None
        if {"euclidean", "cosine", "style"} & set(parts):
            picture = read_picture(item.path, self._size_px)
            seen = [encoder.activations(picture) for encoder in self._encoders]
            if {"euclidean", "cosine"} & set(parts):
                features = np.concatenate([one.features for one in seen]).astype(np.float32)
            if "style" in parts:
                style = _joined_style(seen)
        return LesionDescription(features, style, mask)

    def _mask(self, item: Item) -> NDArray[np.bool_]:
        size_px = _MASK_PX if self._masks is None else self._masks.size_px
        if item.mask is None and self._masks is not None:
            mask: NDArray[np.bool_] = self._masks.masks(read_picture(item.path, size_px)[None])[0]
            return mask
        return read_given_mask(item, size_px)


def _joined_style(seen: Sequence[Activations]) -> NDArray[np.float32]:
    """The Gram vectors of all layers one after the other, each averaged over the ensemble."""
    shapes = [{name: layer.shape[0] for name, layer in one.maps.items()} for one in seen]
    if any(shape != shapes[0] for shape in shapes):
        raise ParameterError(
            f"the encoders of an ensemble have layers {shapes}; give encoders with the same ones"
        )
    vectors = [np.mean([gram_vector(one.maps[name]) for one in seen], axis=0) for name in shapes[0]]
    return np.concatenate(vectors).astype(np.float32)


class LesionSimilarity(System[LesionDescription]):
    """Search by one of Mehta's ten measures; the query's own lesion is left out.

    The largest distances are taken over what the query may find, so a score means something within its own
    answer only. Only measures with Dice (``dice``, ``i1_ed``, ``i1_cd``, ``i1_ecd``, ``i1_sd``) need masks.
    """

    def __init__(self, measure: Measure = "style", describer: LesionDescriber | None = None) -> None:
        """``measure`` is one of `MEASURES`; ``describer`` None is the shipped encoder and given masks."""
        if measure not in MEASURES:
            raise ParameterError(f"got measure {measure!r}; want one of {', '.join(MEASURES)}")
        self.measure: Measure = measure
        self.name = f"lesions, {measure}"
        self._parts = PARTS[measure]
        self._describer = describer or LesionDescriber()
        self._database: dict[str, NDArray[np.float32] | NDArray[np.bool_]] = {}

    def describe(self, item: Item) -> LesionDescription:
        """What the measure needs of a photograph."""
        return self._describer.describe(item, self._parts)

    def build(self, descriptions: Sequence[LesionDescription]) -> None:
        """Keep what the measure needs; ParameterError where a description lacks it."""
        self._database = {}
        for name in sorted({_NAMES[part] for part in self._parts}):
            rows = [getattr(description, name) for description in descriptions]
            if any(row is None for row in rows):
                raise ParameterError(
                    f"{self.name} needs the {name} of every description; describe them with it"
                )
            if rows:
                self._database[name] = np.stack(rows)

    def score(self, description: LesionDescription, allowed: Allowed, k: int) -> Scores:
        """The measure of the query with each photograph."""
        return Scores(i1_score([self._part(part, description, allowed) for part in self._parts]))

    def _part(self, part: Part, description: LesionDescription, allowed: Allowed) -> NDArray[np.float64]:
        name = _NAMES[part]
        query = getattr(description, name)
        if query is None:
            raise ParameterError(f"{self.name} needs the {name} of the query; describe it with that")
        return _SCORES[part](query, self._database[name], allowed)

    def nbytes(self) -> int:
        """Bytes of features, Gram vectors and masks, as the measure needs them (a mask's pixel is a byte)."""
        return sum(rows.nbytes for rows in self._database.values())


_SCORES: dict[Part, Callable[..., NDArray[np.float64]]] = {
    "euclidean": euclidean_scores,
    "cosine": lambda query, database, _: cosine_scores(query, database),
    "style": style_scores,
    "dice": lambda query, database, _: dice_scores(query, database),
}
