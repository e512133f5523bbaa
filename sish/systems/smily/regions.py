"""SMILY: search for any region of any slide (Hegde et al., npj Digit Med 2019).

The database has an embedding of every tissue patch of every slide, at several magnifications. A query is a
region of a slide. Its patch is embedded in all eight orientations, and the score of a patch of the database
is that of the best orientation. Hits at one place of a slide are merged. A query can be refined by region, by
example and by concept (Cai et al., CHI 2019; `sish.systems.smily.refinement`).

>>> import numpy as np
>>> from sish.demo.synthetic import write_slides
>>> import tempfile
>>> from pathlib import Path
>>> folder = Path(tempfile.mkdtemp())
>>> _ = write_slides(folder, n_slides=2)
>>> items = [Item(path.stem, path) for path in sorted(folder.glob("*.tif"))]
>>> smily = Smily(mpps=(4.0,)).fit(items)
>>> query = smily.region(items[0], (1000, 1000, 2000, 2000))
>>> found = smily.search_region(query, k=3)
>>> sorted({hit.item_id for hit in found}) == [items[1].item_id]       # never the query's own slide
True
>>> refined = smily.like(query, found.hits[:1])                             # more like the first hit
>>> smily.search_region(refined, k=1)[0].score >= found[0].score
True
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sish.encoders import PatchEncoder
from sish.errors import EncoderMismatchError, ParameterError, QueryError
from sish.index.params import BUDGET
from sish.results import HitList
from sish.slides.mosaic import read_patch
from sish.slides.orientations import ORIENTATIONS, oriented
from sish.slides.region import Region, clip
from sish.systems.base import Allowed, ItemHit, OnError, Scores, System, check_item_ids, short_note
from sish.systems.item import Item
from sish.systems.items import open_item
from sish.systems.patch_features import PatchBatch, PatchDescriber, Tiles, WholePicture, unit
from sish.systems.smily.embeddings import ComparedPatches, EmbeddingTable
from sish.systems.smily.folder import SmilyHeader, locked, read_folder, write_folder
from sish.systems.smily.refinement import Concept, toward

MPPS = (0.25, 0.5, 1.0, 2.0)
"""The paper's magnifications 40x, 20x, 10x and 5x as micrometres per pixel."""

QUERY_PATCHES = 9
"""The most patches of a query that is a whole image or slide."""

MERGE = 1.5
"""Hits of one item are merged if their centres are less than this many patch sides apart: a patch and its
eight neighbours."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SmilyPatches:
    """M patches of an item."""

    vectors: Vectors
    """(M, O, F), of unit length. O is 1 for the database and 8 for queries, one for each orientation; 1 also
    for queries if the encoder is ``orientation_invariant``."""
    l0_xy: NDArray[np.int64]
    """(M, 2): top left corners in level-0 pixels."""
    l0_px: NDArray[np.float32]
    """(M,): sides in level-0 pixels."""
    mpp: NDArray[np.float32]
    """(M,): scales in um per pixel; 0 for whole pictures."""

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.vectors)


@dataclass(frozen=True, slots=True)
class RegionQuery:
    """A region to search for.

    >>> query = RegionQuery(Item("a", Path("a.png")), (0, 0, 64, 64), np.ones((8, 4), np.float32), 1.0)
    >>> query.to_dict()["region"], query.vectors.shape
    ([0, 0, 64, 64], (8, 4))
    """

    item: Item
    """Its slide or image."""
    region: Region
    """The region: x, y, width, height in level-0 pixels."""
    vectors: Vectors
    """(O, F): the embedding of its patch in each orientation."""
    mpp: float
    """Scale of the search, um per pixel; 0 for whole pictures."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: those of the item, ``region``, and ``mpp`` of the search."""
        return self.item.to_dict() | {"region": list(self.region), "mpp": self.mpp}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionHit(ItemHit):
    """A place that a region search found; its score is the cosine similarity in the best orientation.

    >>> place = {"l0_xy": (512, 0), "l0_px": 256.0, "orientation": 3, "merged": 0, "patch": 7}
    >>> hit = RegionHit(1, Item("a", Path("a.png")), 0.9, **place)
    >>> hit.item_id, hit.l0_xy, hit.orientation
    ('a', (512, 0), 3)
    """

    l0_xy: tuple[int, int]
    """Top left corner of the patch, level-0 pixels."""
    l0_px: float
    """Its side in level-0 pixels."""
    orientation: int
    """Number of the query's best orientation (`sish.slides.orientations`)."""
    merged: int
    """Number of other hits at this place that were merged before the list was full."""
    patch: int
    """Number of the patch in the database, among those of its scale."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return ItemHit.to_dict(self) | {
            "l0_xy": list(self.l0_xy),
            "l0_px": self.l0_px,
            "orientation": self.orientation,
            "merged": self.merged,
        }


RegionResults = HitList[RegionQuery, RegionHit]
"""The answer to a search for a region."""


class Smily(System[SmilyPatches]):
    """Search for regions in all patches of all items.

    `search_region` takes a region. `search`, as of every system, takes a whole item: it is read at the finest
    scale at which it has at most nine patches, and the score of another item is the mean, over these patches,
    of the best match there. An exact search is O(P) for P patches of the database; one by the tree compares
    `budget` patches for each orientation, however many there are.

    Parameters
    ----------
    mpps : tuple of float
        Scales of the patches, um per pixel; a slide leaves out those that its pixels cannot show. None embeds
        every item as one patch in its own pixels, for small pictures.
    size_px : int
        Side of a patch in pixels at its scale.
    search : {"exact", "tree"}
        Compare with every patch, or with `budget` patches for each orientation that the texture tree finds.
    encoder : str or PatchEncoder, optional
        What makes embeddings. Default: ``vqvae`` (:mod:`sish.encoders`).
    budget : int
        Number of patches that the tree compares with a query patch, for each orientation.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> from sish.systems import Item
    >>> folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
    >>> for name in "abc":
    ...     Image.fromarray(rng.integers(0, 200, (128, 128, 3), np.uint8)).save(folder / f"{name}.png")
    >>> items = [Item(name, folder / f"{name}.png", mpp=1.0) for name in "abc"]
    >>> hits = Smily((1.0,), size_px=64).fit(items).search(Item("copy", items[1].path, mpp=1.0), k=2)
    >>> hits[0].item_id, round(hits[0].score, 3)
    ('b', 1.0)
    >>> smily = Smily((1.0,), size_px=64).fit(items)
    >>> found = smily.search_region(smily.region(items[2], (0, 0, 64, 64)), k=1)
    >>> found.query.region, found[0].item_id in "ab", found[0].l0_px
    ((0, 0, 64, 64), True, 64.0)
    """

    def __init__(
        self,
        mpps: tuple[float, ...] | None = MPPS,
        *,
        size_px: int = 256,
        search: Literal["exact", "tree"] = "exact",
        encoder: str | PatchEncoder | None = None,
        budget: int = BUDGET,
    ) -> None:
        """See the class."""
        if search not in ("exact", "tree") or budget < 1:
            raise ParameterError(
                f"got search={search!r}, budget={budget}; want 'exact' or 'tree', and 1 at least"
            )
        self.name = f"smily {search}"
        self._looks = WholePicture() if mpps is None else Tiles(size_px, tuple(mpps), mosaic=False)
        self._describer = PatchDescriber(self._looks, encoder)
        self._search, self._budget = search, budget
        self._tables: dict[float, EmbeddingTable] = {}  # by scale

    # ---- the database

    def describe(self, item: Item) -> SmilyPatches:
        """Return the embeddings of all tissue patches at all scales, in one orientation."""
        found = self._describer.describe(item)
        return SmilyPatches(unit(found.features)[:, None], found.l0_xy, found.l0_px, found.mpp)

    def build(self, descriptions: Sequence[SmilyPatches]) -> None:
        """Make a table of the patches of each scale."""
        scales = sorted({float(mpp) for found in descriptions for mpp in found.mpp})
        self._set_tables({mpp: _table(descriptions, mpp) for mpp in scales})

    def _set_tables(self, tables: dict[float, EmbeddingTable]) -> None:
        self._tables = tables
        if self._search == "tree":
            for table in tables.values():
                table.index()

    def add(
        self,
        items: Iterable[Item],
        descriptions: Sequence[SmilyPatches] | None = None,
        *,
        on_error: OnError = "raise",
    ) -> Self:
        """Add items to the database.

        Parameters
        ----------
        items : iterable of Item
            New items; their ids are not in the database.
        descriptions : sequence of SmilyPatches, optional
            What `describe` returned for each item. By default, every item is described now.
        on_error : {"raise", "skip"}
            What to do with an item that cannot be described.

        Returns
        -------
        Smily
            This system.
        """
        new = tuple(items)
        check_item_ids((*self.items, *new), self.name)
        if descriptions is None:
            done, found = self.describe_all(new, on_error)
        else:
            done, found = new, list(descriptions)
        first, old = len(self), self._tables
        self.set_items((*self.items, *done))
        self.build(found)
        added = {
            mpp: replace(table, item=table.item + np.int32(first)) for mpp, table in self._tables.items()
        }
        together = {mpp: [part[mpp] for part in (old, added) if mpp in part] for mpp in {*old, *added}}
        self._set_tables({mpp: EmbeddingTable.joined(together[mpp]) for mpp in sorted(together)})
        return self

    def nbytes(self) -> int:
        """Return the bytes of embeddings, item numbers, corners and sides, and of the tree's barcodes."""
        return sum(table.nbytes for table in self._tables.values())

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the database to a folder, in place of an older one; `open` reads it.

        StoreError if it cannot be written or holds something else, IndexLockedError if someone else writes.
        """
        with locked(Path(folder)):
            self.write(Path(folder))

    def write(self, folder: Path) -> None:
        """Do as `save`, for a caller that holds the folder's lock."""
        header = SmilyHeader(*self.recipe, self.items)
        write_folder(folder, header, self._tables)

    @property
    def recipe(self) -> tuple[str, tuple[float, ...] | None, int]:
        """Encoder, scales and patch side, on which embeddings depend."""
        looks = self._looks
        mpps, size_px = (looks.mpps, looks.size_px) if isinstance(looks, Tiles) else (None, 0)
        return self._fingerprint, mpps, size_px

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        encoder: str | PatchEncoder | None = None,
        search: Literal["exact", "tree"] = "exact",
    ) -> Smily:
        """Open the database of a folder that `save` wrote; embeddings stay on disk, mapped.

        Parameters
        ----------
        folder : path-like
            The database's folder.
        encoder : str or PatchEncoder, optional
            The encoder that it was made with. Default: ``vqvae``.
        search : {"exact", "tree"}
            As of the class.

        Returns
        -------
        Smily
            The system with its database.

        Raises
        ------
        IndexNotFoundError
            If there is no database.
        IndexFormatError
            If it is damaged, or of another format.
        EncoderMismatchError
            If it was made with another encoder.
        """
        header, tables = read_folder(Path(folder))
        smily = cls(header.mpps, size_px=header.size_px or 256, search=search, encoder=encoder)
        if smily._fingerprint != header.encoder:
            raise EncoderMismatchError(
                f"{folder} was made with encoder {header.encoder} and would be searched with "
                f"{smily._fingerprint}: give the one it was made with, or make it anew"
            )
        smily.set_items(header.items)
        smily._set_tables(tables)
        return smily

    @property
    def _fingerprint(self) -> str:
        return self._describer.encoder.fingerprint

    # ---- a whole item as the query

    def describe_query(self, item: Item) -> SmilyPatches:
        """Return the embeddings of at most nine patches, each in all orientations.

        Parameters
        ----------
        item : Item
            A slide or image.

        Returns
        -------
        SmilyPatches
            Its patches at one scale.

        Raises
        ------
        QueryError
            If there is no tissue in it.
        """
        if isinstance(self._looks, Tiles):
            looks = list(self._looks.read_few(item, QUERY_PATCHES, self._describer.step_px))
        else:
            looks = list(self._looks.read(item, step_px=self._describer.step_px))
        if not looks:
            raise QueryError(f"{item.path}: got no tissue in it; want some to search for")
        vectors = np.concatenate([self._in_all_orientations(look) for look in looks])
        l0_xy = np.concatenate([look.l0_xy for look in looks])
        same = np.ones(len(vectors), np.float32)
        return SmilyPatches(vectors, l0_xy, looks[0].l0_px * same, looks[0].mpp * same)

    def _in_all_orientations(self, look: PatchBatch) -> Vectors:
        """Return embeddings (N, O, F) of unit length: O is 1 if the encoder is ``orientation_invariant``."""
        same = self._describer.encoder.orientation_invariant
        turned = [oriented(look.pixels, number) for number in range(1 if same else ORIENTATIONS)]
        return np.stack([unit(self._describer.features(pixels)) for pixels in turned], axis=1)

    def score(self, description: SmilyPatches, allowed: Allowed, k: int) -> Scores:
        """Return the mean, over the query's patches, of the best match in each item."""
        table = self._tables.get(float(description.mpp[0]))
        if table is None:
            return Scores(np.full(len(self), -np.inf))
        if self._search == "exact":
            return Scores(table.best_of_items(description.vectors, len(self)).mean(axis=0))
        best = np.full((len(description), len(self)), -np.inf, np.float32)
        for row, found in zip(
            best, table.tree_candidates(description.vectors, allowed, self._budget), strict=True
        ):
            np.maximum.at(row, table.item[found.row], found.cosine)
        looked_at = min(
            int(np.count_nonzero(allowed)), self._budget * description.vectors.shape[1] * len(description)
        )
        return Scores(_mean_of_found(best), looked_at=looked_at)

    # ---- a region as the query

    def region(self, item: Item, region: Region) -> RegionQuery:
        """Make a query of a region of an item.

        It is read as one patch around the region's centre, at the scale whose patch is nearest to it in size.

        Parameters
        ----------
        item : Item
            A slide or image; it need not be in the database.
        region : (int, int, int, int)
            x, y, width, height in level-0 pixels.

        Returns
        -------
        RegionQuery
            The query, for `search_region` and refinement.

        Raises
        ------
        QueryError
            If there is no database yet.
        ParameterError
            If the region is outside the slide.
        """
        if not self._tables:
            raise QueryError(f"{self.name}: got a query before there is a database; call fit(items) first")
        if isinstance(self._looks, WholePicture):
            (look,) = self._looks.read(item, region, self._describer.step_px)
            return RegionQuery(item, region, self._in_all_orientations(look)[0], 0.0)
        size_px = self._looks.size_px
        with open_item(item) as slide:
            x, y, width, height = clip(slide, region)
            wanted = max(width, height) * slide.mpp / size_px
            mpp = min(self._tables, key=lambda each: abs(np.log(each / wanted)))
            l0_px = size_px * mpp / slide.mpp
            corner = x + (width - l0_px) / 2, y + (height - l0_px) / 2
            pixels = read_patch(slide, corner, size_px, mpp)[None]
            look = PatchBatch(pixels, np.zeros((1, 2), np.int64), l0_px, mpp)
        return RegionQuery(item, region, self._in_all_orientations(look)[0], mpp)

    def search_region(self, query: RegionQuery, k: int = 10) -> RegionResults:
        """Find the places most similar to a region, each place once, without those of the query's own group.

        Parameters
        ----------
        query : RegionQuery
            From `region`, or refined.
        k : int
            How many places are wanted.

        Returns
        -------
        HitList of RegionHit
            At most `k`, best first; equal scores are in the order of the database.

        Raises
        ------
        ParameterError
            If `k` is below 1.
        """
        if k < 1:
            raise ParameterError(f"got k={k}; want a whole number of at least 1")
        table, allowed = self._tables.get(query.mpp), self.allowed(query.item)
        if table is None or not allowed.any():
            return HitList(query, self.name, (), short_note(0, k))
        if self._search == "exact":
            found = table.all_candidates(query.vectors)
        else:
            (found,) = table.tree_candidates(query.vectors[None], allowed, self._budget)
        keep = allowed[table.item[found.row]]
        found = ComparedPatches(found.row[keep], found.cosine[keep], found.orientation[keep])
        hits = self._merged(query.mpp, found, k)
        return HitList(query, self.name, hits, short_note(len(hits), k))

    def _merged(self, mpp: float, found: ComparedPatches, k: int) -> tuple[RegionHit, ...]:
        """Return the first `k` places; a hit near a better one of the same item is merged with it."""
        table = self._tables[mpp]
        hits: list[RegionHit] = []
        centres: dict[int, list[tuple[int, NDArray[np.float64]]]] = {}
        for place in np.argsort(-found.cosine, kind="stable"):
            row = int(found.row[place])
            item, side = int(table.item[row]), float(table.l0_px[row])
            centre = table.l0_xy[row] + side / 2
            taken = centres.setdefault(item, [])
            near = next((n for n, other in taken if np.linalg.norm(centre - other) < MERGE * side), None)
            if near is not None:
                hits[near] = replace(hits[near], merged=hits[near].merged + 1)
                continue
            if len(hits) == k:
                break
            taken.append((len(hits), centre))
            x, y = table.l0_xy[row].tolist()
            hits.append(
                RegionHit(
                    rank=len(hits) + 1,
                    item=self.items[item],
                    score=float(found.cosine[place]),
                    l0_xy=(x, y),
                    l0_px=side,
                    orientation=int(found.orientation[place]),
                    merged=0,
                    patch=row,
                )
            )
        return tuple(hits)

    # ---- refinement

    def crop(self, query: RegionQuery, region: Region) -> RegionQuery:
        """Refine by region: make a query of a part of another's region.

        Parameters
        ----------
        query : RegionQuery
            The query to refine.
        region : (int, int, int, int)
            x, y, width, height in level-0 pixels, inside the query's region.

        Returns
        -------
        RegionQuery
            The refined query.

        Raises
        ------
        ParameterError
            If the box is not inside the query's region.
        """
        x, y, width, height = query.region
        left, top, wide, high = region
        inside = left >= x and top >= y and left + wide <= x + width and top + high <= y + height
        if not inside or min(wide, high) < 1:
            raise ParameterError(f"got a crop {region} of the region {query.region}; want a box inside it")
        return self.region(query.item, region)

    def like(self, query: RegionQuery, hits: Iterable[RegionHit], weight: float = 0.5) -> RegionQuery:
        """Refine by example: move the query toward the mean of hits that were marked relevant."""
        rows = [hit.patch for hit in hits]
        return replace(query, vectors=toward(query.vectors, self._tables[query.mpp].vectors[rows], weight))

    def along(self, query: RegionQuery, concept: Concept, weight: float) -> RegionQuery:
        """Refine by concept: move the query along a learnt direction by a weight from -1 to 1."""
        return replace(query, vectors=concept.applied(query.vectors, weight))

    def concept(self, name: str, positive: Iterable[RegionQuery], negative: Iterable[RegionQuery]) -> Concept:
        """Learn a concept from regions that show it and regions that do not."""
        shows, lacks = ([query.vectors[0] for query in side] for side in (positive, negative))
        return Concept.learn(name, shows, lacks)


def _table(descriptions: Sequence[SmilyPatches], mpp: float) -> EmbeddingTable:
    """Return the table of the patches of all items at one scale."""
    own = [found.mpp == np.float32(mpp) for found in descriptions]
    item = np.repeat(np.arange(len(own), dtype=np.int32), [np.count_nonzero(part) for part in own])
    vectors, l0_xy, l0_px = (
        np.concatenate([getattr(found, name)[part] for found, part in zip(descriptions, own, strict=True)])
        for name in ("vectors", "l0_xy", "l0_px")
    )
    return EmbeddingTable(vectors[:, 0], item, l0_xy, l0_px)


def _mean_of_found(best: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over the query's patches of the best match (M, N) in each item, (N,)."""
    # a patch without a candidate in an item takes its worst candidate anywhere: none in the item was better
    seen = np.isfinite(best)
    worst = np.where(seen, best, np.inf).min(axis=1, keepdims=True)
    filled = np.where(seen, best, np.where(np.isfinite(worst), worst, 0))
    return np.where(seen.any(axis=0), filled.mean(axis=0), -np.inf).astype(np.float32)
