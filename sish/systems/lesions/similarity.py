"""Search photographs of skin lesions by features, texture and shape (Mehta).

The scores are in `sish.systems.lesions.measures`.

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

_MASK_PX: SizePx = (128, 96)  # given masks are compared at this size; predicted ones at their network's
_NAMES = {"euclidean": "features", "cosine": "features", "style": "style", "dice": "mask"}


@dataclass(frozen=True, slots=True)
class LesionDescription:
    """The description of one photograph; fields that were not asked for are None."""

    features: NDArray[np.float32] | None
    """float32 (F,): features; those of an ensemble one after another."""
    style: NDArray[np.float32] | None
    """float32 (G,): weighted Gram matrices of all layers, see `gram_vector`."""
    mask: NDArray[np.bool_] | None
    """bool (h, w): true inside the lesion."""


class LesionDescriber:
    """Describes photographs: by networks for features and texture, and by given or predicted masks.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    >>> for name in "a":
    ...     Image.fromarray(rng.integers(0, 200, (24, 32, 3), np.uint8)).save(folder / f"{name}.png")
    >>> found = LesionDescriber().describe(Item("a", folder / "a.png"), ["euclidean"])
    >>> found.features.shape, found.mask is None
    ((1024,), True)
    """

    def __init__(
        self,
        encoders: Sequence[LayeredEncoder] | None = None,
        *,
        masks: MaskPredictor | None = None,
        size_px: SizePx = (192, 144),
    ) -> None:
        """Choose the networks and the source of masks.

        Parameters
        ----------
        encoders : sequence of LayeredEncoder, optional
            One network or an ensemble. The Gram matrices of an ensemble are averaged layer by layer, its
            features are joined (Mehta, section 3.3). Default: the shipped autoencoder.
        masks : MaskPredictor, optional
            Predicts the masks of photographs without one.
        size_px : (int, int)
            Width and height that photographs are resized to for the encoders.

        Raises
        ------
        ParameterError
            If the ensemble is empty.
        """
        if encoders is not None and not encoders:
            raise ParameterError("got an ensemble of no encoders; give one at least, or None for vqvae")
        self._given = encoders
        self._masks = masks
        self._size_px = size_px

    @cached_property
    def _encoders(self) -> Sequence[LayeredEncoder]:
        return [EncoderLayers()] if self._given is None else list(self._given)

    def describe(self, item: Item, parts: Collection[Part]) -> LesionDescription:
        """Describe a photograph.

        Parameters
        ----------
        item : Item
            A photograph. With "dice" it needs a mask (MissingMaskError), unless there is a predictor.
        parts : collection of Part
            The scores that the description is for.

        Returns
        -------
        LesionDescription
            What these scores need.
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
    """Return the Gram vectors of all layers one after another, each averaged over the ensemble."""
    shapes = [{name: layer.shape[0] for name, layer in one.maps.items()} for one in seen]
    if any(shape != shapes[0] for shape in shapes):
        raise ParameterError(
            f"the encoders of an ensemble have layers {shapes}; give encoders with the same ones"
        )
    vectors = [np.mean([gram_vector(one.maps[name]) for one in seen], axis=0) for name in shapes[0]]
    return np.concatenate(vectors).astype(np.float32)


class LesionSimilarity(System[LesionDescription]):
    """Search by one of Mehta's ten measures; O(N) for N photographs.

    The largest distances are those of items that the query may find, so scores of different answers cannot be
    compared. Only measures with Dice (``dice``, ``i1_ed``, ``i1_cd``, ``i1_ecd``, ``i1_sd``) need masks.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    >>> for name in "abc":
    ...     Image.fromarray(rng.integers(0, 200, (24, 32, 3), np.uint8)).save(folder / f"{name}.png")
    >>> items = [Item(name, folder / f"{name}.png") for name in "abc"]
    >>> hits = LesionSimilarity("euclidean").fit(items).search(Item("copy", items[1].path), k=2)
    >>> hits[0].item_id, hits[0].score
    ('b', 1.0)
    """

    def __init__(self, measure: Measure = "style", describer: LesionDescriber | None = None) -> None:
        """Choose one of `MEASURES`; the default describer is ``vqvae`` with given masks."""
        if measure not in MEASURES:
            raise ParameterError(f"got measure {measure!r}; want one of {', '.join(MEASURES)}")
        self.measure: Measure = measure
        self.name = f"lesions, {measure}"
        self._parts = PARTS[measure]
        self._describer = describer or LesionDescriber()
        self._database: dict[str, NDArray[np.float32] | NDArray[np.bool_]] = {}

    def describe(self, item: Item) -> LesionDescription:
        """Return what the measure needs of a photograph."""
        return self._describer.describe(item, self._parts)

    def build(self, descriptions: Sequence[LesionDescription]) -> None:
        """Keep what the measure needs; ParameterError if a description lacks it."""
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
        """Return the measure of the query with each photograph."""
        return Scores(i1_score([self._part(part, description, allowed) for part in self._parts]))

    def _part(self, part: Part, description: LesionDescription, allowed: Allowed) -> NDArray[np.float64]:
        name = _NAMES[part]
        query = getattr(description, name)
        if query is None:
            raise ParameterError(f"{self.name} needs the {name} of the query; describe it with that")
        return _SCORES[part](query, self._database[name], allowed)

    def nbytes(self) -> int:
        """Return the bytes of the features, Gram vectors and masks that the measure needs."""
        return sum(rows.nbytes for rows in self._database.values())


_SCORES: dict[Part, Callable[..., NDArray[np.float64]]] = {
    "euclidean": euclidean_scores,
    "cosine": lambda query, database, _: cosine_scores(query, database),
    "style": style_scores,
    "dice": lambda query, database, _: dice_scores(query, database),
}
