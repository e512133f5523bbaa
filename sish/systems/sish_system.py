"""SISH as one of the systems: the keys, tree, search and ranking of :class:`sish.Index`, in memory.

It stands here to be compared with the other systems. For an archive on disk use :class:`sish.Index`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from sish.barcoder import Barcoder
from sish.encode import SlideCodes
from sish.encoders import TISSUE, PatchEncoder
from sish.errors import ParameterError
from sish.index.params import SearchParams
from sish.index.store.slide_row import SlideRow
from sish.index.store.snapshot import ARRAYS, merge, slide_snapshot
from sish.recipe import Keys
from sish.results import Query
from sish.searchers import TextureSearcher, searcher_in_memory
from sish.systems.base import Allowed, Scores, System
from sish.systems.item import Item
from sish.systems.patch_features import PatchDescriber, PatchFeatures, describer_for, sample_of
from sish.view import View


class Sish(System[PatchFeatures]):
    """SISH (Chen et al., Nat Biomed Eng 2022) with either key and either ranking.

    ``uncertainty`` needs a label for every item. A search raises QueryError if an item has none.

    Parameters
    ----------
    keys : {"texture", "paper"}
        The order of patches: by the leaves of a texture tree, or by the paper's key.
    ranking : {"similarity", "uncertainty"}
        Label-free, or as published.
    describer : PatchDescriber, optional
        Which patches are read, and the encoder. Default: a mosaic, and the encoder of :class:`sish.Index`.
    encoder : str or PatchEncoder, optional
        The encoder of a mosaic of patches of its own size and scale, in place of a describer.
    search : SearchParams, optional
        Budget and threshold. Default: the budget of :class:`sish.Index` and the encoder's threshold.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sish.systems import Item
    >>> folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    >>> for name in "abc":
    ...     Image.fromarray(rng.integers(0, 200, (128, 128, 3), np.uint8)).save(folder / f"{name}.png")
    >>> items = [Item(name, folder / f"{name}.png", mpp=1.0) for name in "abc"]
    >>> hits = Sish().fit(items).search(Item("copy", items[1].path, mpp=1.0), k=2)
    >>> hits[0].item_id, round(hits[0].score, 3)
    ('b', 1.0)
    """

    def __init__(
        self,
        *,
        keys: Keys = "texture",
        ranking: Literal["similarity", "uncertainty"] = "similarity",
        describer: PatchDescriber | None = None,
        encoder: str | PatchEncoder | None = None,
        search: SearchParams | None = None,
    ) -> None:
        """See the class."""
        if keys not in ("texture", "paper") or ranking not in ("similarity", "uncertainty"):
            raise ParameterError(
                f"got keys={keys!r}, ranking={ranking!r}; want texture or paper, similarity or uncertainty"
            )
        self.name = f"sish {keys} {ranking}"
        self._keys, self._ranking = keys, ranking
        own = TISSUE if describer is None and encoder is None else encoder
        self._describer = describer_for(describer, own, keys=keys == "paper")
        self._params = search

    def describe(self, item: Item) -> PatchFeatures:
        """Return features and keys of the mosaic's patches.

        Parameters
        ----------
        item : Item
            A slide or image.

        Returns
        -------
        PatchFeatures
            Its patches.

        Raises
        ------
        ParameterError
            If the paper's keys are wanted and the describer makes none.
        """
        found = self._describer.describe(item)
        if self._keys == "paper" and len(found.keys) < len(found):
            raise ParameterError(
                f"{item.path}: got patches without the paper's keys; want an encoder with a codebook, and "
                "PatchDescriber(..., keys=True)"
            )
        return found

    def build(self, descriptions: Sequence[PatchFeatures]) -> None:
        """Put all patches in the order of their keys; learn the tree of texture keys if there are enough."""
        self._nbytes = 0
        if not descriptions:
            return
        self._barcoder = Barcoder.measured_on(sample_of(self.items, descriptions), self._describer.encoder)
        params = self._params or SearchParams(threshold=self._barcoder.threshold, visit_query_key=True)
        rows = map(_row, range(len(self)), self.items, descriptions)
        codes = map(self._codes, descriptions)
        patches = merge(
            [slide_snapshot(row, it.keys, it.barcodes, it.l0_xy) for row, it in zip(rows, codes, strict=True)]
        )
        searcher = searcher_in_memory(patches, self._keys, params)
        self._view = View.of(searcher)
        self._nbytes = sum(getattr(patches, name).nbytes for name in ARRAYS)
        if isinstance(searcher, TextureSearcher):
            self._nbytes += sum(array.nbytes for array in searcher.archive.cells.tree.to_arrays().values())

    def _codes(self, found: PatchFeatures) -> SlideCodes:
        keys = found.keys if self._keys == "paper" else np.zeros(len(found), np.int64)
        return SlideCodes(keys[:, None], self._barcoder.barcodes(found.features), found.l0_xy)

    def score(self, description: PatchFeatures, allowed: Allowed, k: int) -> Scores:
        """Return the hits of the index in its order; scores that rise down the list are cut off."""
        codes = self._codes(description)
        query = Query("query", None, "", 1.0, None, len(codes), 0.0)
        hits = self._view.search(query, codes, k=k, ranking=self._ranking, mask=allowed)
        return Scores(
            np.minimum.accumulate(np.array([hit.score for hit in hits])),
            np.array([int(hit.slide_id) for hit in hits], np.int64),
            looked_at=min(int(np.count_nonzero(allowed)), self._view.searcher.params.budget * len(codes)),
            placed=np.array([hit.placed and not hit.below_threshold for hit in hits], bool),
        )

    def nbytes(self) -> int:
        """Return the bytes of keys, barcodes, coordinates and the tree."""
        return self._nbytes


def _row(place: int, item: Item, found: PatchFeatures) -> SlideRow:
    """Return an item as a slide of an index; slides of equal score are in order of the id, its place here."""
    return SlideRow(
        slide_id=f"{place:09d}",
        path=str(item.path),
        n_patches=len(found),
        patch_l0_px=float(found.l0_px[0]),
        mpp=1.0,
        mpp_source="given",
        width=0,
        height=0,
        label=item.label or None,
        patient="",
        site=None,
    )
