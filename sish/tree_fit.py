"""Whether a tree still fits its archive: it is learnt again where it does not, however many patches came.

A search finds what is near, and fast, while each patch lies near its leaf and shares it with few others. Both
are measured on a sample (`sish.thresholds.sample_of`) when the tree is learnt, and again whenever the archive
has grown by a quarter. The tree is learnt again if a mean patch

- lies 1.25 times as far from its leaf: the archive drifts, or textures came that the tree does not know. A
  fourfold archive of the same textures reaches 1.2;
- shares its leaf with 3.5 times as many: the archive has grown, or became dense somewhere.

So there is at most one tree in a quarter of growth. The cost of adding a patch does not depend on the number
of patches, even if every measurement leads to a new tree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sish.archives import archive_of
from sish.index.store import State
from sish.index.store.manifest import JSON
from sish.index.texture.tree import TextureTree
from sish.thresholds import sample_of

FACT = "tree"
"""The name of the measurement among the facts that the store keeps."""

_FARTHER, _FULLER = 1.25, 3.5
_GROWTH = 1.25


@dataclass(frozen=True, slots=True)
class TreeFit:
    """How well a tree fitted its archive when it was learnt, and when that was looked at last."""

    bits: float
    """Mean distance of a patch to its leaf."""
    together: float
    """Mean number of patches in a patch's leaf, itself among them."""
    checked: int
    """Patches of the archive at the last measurement."""

    @classmethod
    def on(cls, state: State, tree: TextureTree) -> TreeFit:
        """Measure on the patches of a state, whose keys `tree` made."""
        return cls.of(state, tree, archive_of(state, tree).patches_of)

    @classmethod
    def of(
        cls,
        state: State,
        tree: TextureTree,
        patches_of: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    ) -> TreeFit:
        """Measure on the patches of a state; `patches_of` counts the patches of keys that `tree` makes."""
        barcodes = sample_of(state)[1]
        keys = tree.keys(barcodes)
        leaves = tree.leaves.reshape(-1, tree.barcode_bytes)[keys]
        bits = np.bitwise_count(barcodes ^ leaves).sum(1).mean()
        return cls(float(bits), float(patches_of(keys).mean()), state.n_patches)

    @classmethod
    def kept_with(cls, facts: Mapping[str, JSON]) -> TreeFit | None:
        """Return the measurement among a store's facts; None if there is none, or one of another kind."""
        fact = facts.get(FACT)
        try:
            found = cls(**fact) if isinstance(fact, Mapping) else None  # type: ignore[arg-type]
        except TypeError:
            return None
        values = () if found is None else (found.bits, found.together, found.checked)
        return found if all(isinstance(it, int | float) and it >= 0 for it in values) else None

    @property
    def due(self) -> int:
        """The number of patches beyond which it is measured again."""
        return int(_GROWTH * self.checked)

    def still_holds(self, now: TreeFit) -> bool:
        """Return whether a later measurement of the same tree is about as good."""
        return now.bits < _FARTHER * max(1.0, self.bits) and now.together < _FULLER * self.together

    def checked_at(self, now: TreeFit) -> TreeFit:
        """Return this measurement, looked at again at the time of another."""
        return replace(self, checked=now.checked)

    def fact(self) -> dict[str, JSON]:
        """Return what the store keeps."""
        return {FACT: asdict(self)}
