"""Small archives of random codes, without slides and encoders: `random_slides`, `store_of`, `view_of`."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from slide_rows import slide_row

from sish.encode import SlideCodes
from sish.index.params import SearchParams
from sish.index.store import SlideRow, Store, slide_snapshot
from sish.index.texture.archive import rekeyed
from sish.index.texture.tree import TextureTree
from sish.queries import indexed_query
from sish.searchers import searcher_of
from sish.view import View

BITS = 64
THRESHOLD = 20
KINDS = ("texture", "texture with a tree", "paper")


@dataclass(frozen=True)
class CodedSlide:
    """A slide as an encoder gives it: its patches in the order in which they were read."""

    row: SlideRow
    codes: SlideCodes

    @property
    def query(self):
        """The slide as a query, as its file would be one."""
        return indexed_query(self.row, self.codes)


def random_slides(seed: int, count: int = 9, patches: int = 8) -> list[CodedSlide]:
    """Slides that share textures, keys and distances, so that ties are everywhere; ids are not in order."""
    rng = np.random.default_rng(seed)
    textures = rng.integers(0, 256, (4, BITS // 8), dtype=np.uint8)
    textures[1] = textures[0] ^ np.uint8([255, 255, 0, 0, 0, 0, 0, 0])
    out = []
    for number in rng.permutation(count).tolist():
        n = int(rng.integers(1, patches + 1))
        barcodes = textures[rng.integers(0, 4, n)].copy()
        barcodes[:, 7] ^= np.uint8(1) << rng.integers(0, 3, n).astype(np.uint8)
        keys = rng.integers(0, 5, (n, 1)) * 10**11
        l0_xy = rng.permutation(100)[: 2 * n].reshape(n, 2)
        told = {"label": "abc"[number % 3], "patient": f"p{number // 2}"}
        row = slide_row(f"s{number}", n, patch_l0_px=512.0, mpp=0.5, **told)
        out.append(CodedSlide(row, SlideCodes(keys, barcodes, l0_xy)))
    return out


def store_of(folder: Path, slides: list[CodedSlide], kind: str, commits: int = 2) -> Store:
    """A store of slides, added in some commits; keys are those of `kind`."""
    store = Store.create(folder, {})
    parts = [
        slide_snapshot(it.row, it.codes.keys * (kind == "paper"), it.codes.barcodes, it.codes.l0_xy)
        for it in slides
    ]
    for part in np.array_split(np.arange(len(parts)), commits):
        if kind == "texture with a tree" and store.tree is not None:
            store.append_many(
                [rekeyed(parts[number], TextureTree.from_arrays(store.tree)) for number in part]
            )
            continue
        store.append_many([parts[number] for number in part])
        if kind == "texture with a tree":
            tree = TextureTree.learn(np.concatenate([it.codes.barcodes for it in slides]), branching=(2, 2))
            store.rekey(tree.to_arrays(), lambda patches, tree=tree: rekeyed(patches, tree))
    return store


def view_of(store: Store, kind: str, **params) -> View:
    """A view of it with the threshold of these archives."""
    own = replace(SearchParams(threshold=THRESHOLD, visit_query_key=True), **params)
    return View.of(searcher_of(store, "paper" if kind == "paper" else "texture", own))
