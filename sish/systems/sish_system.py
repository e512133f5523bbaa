"""SISH as one of the systems: the machinery of :class:`sish.Index`, on a database for as long as it is used.

For an archive that stays on disk use :class:`sish.Index`; this sets it beside the other systems.
Descriptions go into a store in a temporary folder, as ingest would put them there; keys, tree, search and
ranking are those of the index.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from sish.encode import SlideCodes
from sish.errors import ParameterError
from sish.index.params import SearchParams
from sish.index.store import Store
from sish.index.store.snapshot import SlideRow, Snapshot, slide_snapshot
from sish.recipe import Keys
from sish.results import Query
from sish.searchers import TextureKeys, searcher_of
from sish.systems.base import Allowed, Scores, System
from sish.systems.item import Item
from sish.systems.patch_features import PatchDescriber, PatchFeatures, Tiles
from sish.view import View

__all__ = ["Sish"]


class Sish(System[PatchFeatures]):
    """SISH (Chen et al., Nat Biomed Eng 2022) with either key and either ranking.

    ``uncertainty`` needs a label for every item, and raises QueryError in a search where one has none.

    Parameters
    ----------
    keys : {"texture", "paper"}
        What orders patches: the texture tree, or the paper's key.
    ranking : {"similarity", "uncertainty"}
        Label-free, or as published.
    describer : PatchDescriber, optional
        What is looked at, and by what encoder. Default: a mosaic at 1 um/px and the shipped encoder.
    search : SearchParams, optional
        Budget and threshold. Default: the budget of :class:`sish.Index` and the encoder's threshold.
    """

    def __init__(
        self,
        *,
        keys: Keys = "texture",
        ranking: Literal["similarity", "uncertainty"] = "similarity",
        describer: PatchDescriber | None = None,
        search: SearchParams | None = None,
    ) -> None:
        """See the class."""
        if keys not in ("texture", "paper") or ranking not in ("similarity", "uncertainty"):
            raise ParameterError(
                f"got keys={keys!r}, ranking={ranking!r}; want texture or paper, similarity or uncertainty"
            )
        self.name = f"sish {keys} {ranking}"
        self._keys, self._ranking = keys, ranking
        self._describer = describer or PatchDescriber(Tiles(), keys=keys == "paper")
        self._params = search

    def describe(self, item: Item) -> PatchFeatures:
        """Features and keys of the mosaic's patches."""
        found = self._describer.describe(item)
        if self._keys == "paper" and len(found.keys) < len(found):
            raise ParameterError(
                f"{item.path}: got patches without the paper's keys; want an encoder with a codebook, and "
                "PatchDescriber(..., keys=True)"
            )
        return found

    def build(self, descriptions: Sequence[PatchFeatures]) -> None:
        """Put everything into a store, as ingest does, and open a view of it."""
        threshold = getattr(self._describer.encoder, "hamming_threshold", 0)
        params = self._params or SearchParams(threshold=threshold, visit_query_key=True)
        self._budget = params.budget
        self._folder = tempfile.TemporaryDirectory(prefix="sish-")  # goes with this object
        with Store.create(self._folder.name, {}) as store:
            texture = TextureKeys(store, seed=0) if self._keys == "texture" else None
            described = zip(self.items, descriptions, strict=True)
            store.append_many([self._rows(place, *pair) for place, pair in enumerate(described)])
            if texture is not None:
                texture.grow(sum(map(len, descriptions)))  # enough of them learn a tree, and get its keys
        reader = Store.open(self._folder.name)
        self._bytes = reader.info().bytes
        self._view = View.of(searcher_of(reader, self._keys, params))
        self._of_patient = Counter(map(_patient, self.items))
        self._place = {_slide_id(place, item): place for place, item in enumerate(self.items)}

    def _rows(self, place: int, item: Item, found: PatchFeatures) -> Snapshot:
        """An item's patches as the store takes them."""
        codes = self._codes(found)
        row = _row(_slide_id(place, item), item, found)
        return slide_snapshot(row, codes.keys, codes.barcodes, codes.l0_xy)

    def _codes(self, found: PatchFeatures) -> SlideCodes:
        keys = found.keys if self._keys == "paper" else np.zeros(len(found), np.int64)
        return SlideCodes(keys[:, None], found.barcodes, found.l0_xy)

    def score(self, description: PatchFeatures, allowed: Allowed, k: int) -> Scores:
        """The hits of the index, in its order: what a score rises down its list is cut off."""
        codes = self._codes(description)
        patient = self._patient_of(~allowed)
        query = Query("query", None, patient or "", 1.0, None, len(codes), 0.0)
        wanted = k if patient else k + int(np.count_nonzero(~allowed))
        hits = self._view.search(query, codes, k=wanted, ranking=self._ranking, exclude_patient=bool(patient))
        return Scores(
            np.minimum.accumulate(np.array([hit.score for hit in hits])),
            np.array([self._place[hit.slide_id] for hit in hits], np.int64),
            looked_at=min(int(np.count_nonzero(allowed)), self._budget * len(codes)),
            placed=np.array([hit.placed and not hit.below_threshold for hit in hits], bool),
        )

    def _patient_of(self, shut_out: Allowed) -> str:
        """The patient whose items, all of them and no others, may not be found; empty where there is none."""
        patients = {_patient(self.items[place]) for place in np.flatnonzero(shut_out)}
        if len(patients) != 1:
            return ""
        (patient,) = patients
        return patient if self._of_patient[patient] == np.count_nonzero(shut_out) else ""

    def nbytes(self) -> int:
        """The store's files: keys, barcodes, coordinates, the tree, and what is known of the items."""
        return self._bytes


def _patient(item: Item) -> str:
    """Whose an item is; one without a group is its own."""
    return f"group {item.group}" if item.group else f"item {item.item_id}"


def _slide_id(place: int, item: Item) -> str:
    """An item's name in the store, which orders slides of equal score by it: as the database does."""
    return f"{place:09d} {item.item_id}"


def _row(slide_id: str, item: Item, found: PatchFeatures) -> SlideRow:
    """An item as the store keeps it; what a slide's file would tell is not asked for, and not used."""
    return SlideRow(
        slide_id=slide_id,
        path=str(item.path),
        n_patches=len(found),
        patch_l0_px=float(found.l0_px[0]),
        mpp=1.0,
        mpp_source="given",
        width=0,
        height=0,
        label=item.label or None,
        patient=_patient(item),
        site=None,
    )
