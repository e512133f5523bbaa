"""Measure how well images of the same label are found: by our search, an exhaustive one, and baselines.

A data set is a folder with a `labels.csv` (`benchmarks.datasets`). Methods:

sish            codes and search of `sish.Index`, end to end; images of several patches are ranked as
                `Index.search` does by default, single patches by Hamming distance
sish-similarity the same ranked without labels, for images of several patches
sish-paper-key  the same search along the published key
features        the encoder's numbers before they become bits, averaged over an image: cosine
code-histogram  counts of the encoder's codes over an image: Hellinger
colour-histogram, local-binary-patterns, random    baselines that know nothing of tissue

With `--within site` a query finds only images of its own site. `python -m benchmarks.compare` compares two
runs of the same queries. An image that cannot be read or shows no tissue counts as a miss (`failed`).

`tree` compares a bounded number of patches, `exhaustive` all. Every patch is encoded once in a run, whatever
the methods. `build_s` counts that time for each method (with codes, if the method uses them). A query's own
group is never found.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.baselines import (
    Vectors,
    colour_histogram,
    local_binary_patterns,
    nearest_images,
    picture,
    roots,
    unit,
)
from benchmarks.datasets import Dataset, load_dataset
from benchmarks.row_tables import group_table, missed_lines, write_tables
from benchmarks.rows import SHARED_K, K, Run, row_of, table, write_rows
from benchmarks.watched import Look, Memory, Watched
from sish.encode import SlideCodes
from sish.encoders import FEATURES, TIMM
from sish.errors import ParameterError, SishError
from sish.filters import exactly
from sish.index.vector_coder import VectorKind
from sish.queries import stored_codes
from sish.recipe import Keys, Recipe
from sish.results import Hit, Query
from sish.slide_index import Index
from sish.slides.files import absolute
from sish.slides.slide import open_slide
from sish.systems.item import Item
from sish.view import RankingName

METHODS = (
    "sish",
    "sish-similarity",
    "sish-paper-key",
    "features",
    "code-histogram",
    "colour-histogram",
    "local-binary-patterns",
    "random",
)
QUICK = (600, 100)
"""Images and queries of a quick run."""


@dataclass(frozen=True, slots=True)
class Archive:
    """The index of the database, and the codes of the queries."""

    index: Index
    """The index."""
    queries: dict[str, SlideCodes]
    """Codes of the queries with tissue, by id."""
    build_s: float
    """Seconds to build the index."""

    @property
    def bytes_per_item(self) -> float:
        """Return the bytes of the index for a slide."""
        info = self.index.info()
        return info.bytes / max(1, info.slides)

    @property
    def single_patches(self) -> bool:
        """Return whether no image has more than one patch."""
        return all(row.n_patches <= 1 for row in self.index.slides)


class Bench:
    """The methods on one data set."""

    def __init__(
        self,
        dataset: Dataset,
        methods: Sequence[str],
        recipe: Recipe,
        mpp: float | None,
        folder: Path,
        rerank: VectorKind | None = None,
    ) -> None:
        """Take the methods to run; `mpp` is the scale of images without one (None: the recipe's)."""
        self.rerank = rerank
        self.dataset, self.methods, self.recipe, self.folder = dataset, methods, recipe, folder
        self.mpp = recipe.mpp if mpp is None else mpp
        self.k = max(SHARED_K) if dataset.multi_label else K
        self._memory: Memory | None = None
        self._looks: dict[str, Look] = {}
        self._archives: dict[Keys, Archive] = {}
        self._items = {item.item_id: item for item in dataset.items}
        self._place = {item_id: place for place, item_id in enumerate(self._items)}

    def runs(self, method: str) -> Iterator[Run]:
        """Yield the answers of a method, a run for each kind of search."""
        needs_codes = {"sish-paper-key", "code-histogram"}
        if self.recipe.weights.startswith((TIMM, FEATURES)):  # these have no codes
            if method in needs_codes:
                return
        elif needs_codes & set(self.methods):
            self.archive("paper")  # first, as it asks for codes and features at once
        if method == "sish":
            yield from self._searched(method, "similarity" if self._single else "auto")
        elif method == "sish-similarity":
            if not self._single:
                yield from self._searched(method, "similarity")
        elif method == "sish-paper-key":
            yield self._paper_key()
        elif method in ("features", "code-histogram"):
            yield from self._by_codes(method)
        else:
            yield self._by_picture(method)

    @property
    def _single(self) -> bool:
        return self.archive("texture").single_patches or self.dataset.multi_label

    # ---- the library's own search

    def _searched(self, method: str, ranking: RankingName) -> Iterator[Run]:
        """Search along texture keys, then compare with everything."""
        archive = self.archive("texture")
        everything = {"budget": max(1, archive.index.info().patches)}
        for kind, search in (("tree", None), ("exhaustive", everything)):
            yield self._run(method, kind, archive, ranking, search)

    def _paper_key(self) -> Run:
        """Search along the published key."""
        return self._run(
            "sish-paper-key", "tree", self.archive("paper"), "similarity" if self._single else "auto"
        )

    def _run(
        self,
        method: str,
        kind: str,
        archive: Archive,
        ranking: RankingName,
        search: Mapping[str, int] | None = None,
    ) -> Run:
        view = archive.index.view()
        found: list[list[str]] = []
        placed: list[int] = []
        spent: list[float] = []
        own_site = self.dataset.within_site
        for number, item in enumerate([self.dataset.queries[0], *self.dataset.queries]):
            codes = archive.queries.get(item.item_id)
            hits: tuple[Hit, ...] = ()
            start = time.perf_counter()
            if codes is not None:
                query = _query(item, codes)
                where = {"site": exactly(item.site)} if own_site else None
                hits = view.search(
                    query, codes, k=self.k, ranking=ranking, exclude_patient=True, where=where, search=search
                ).hits
            if number:  # the first one is there to warm up
                spent.append(1000 * (time.perf_counter() - start))
                found.append([hit.slide_id for hit in hits])
                placed.append(sum(hit.placed and not hit.below_threshold for hit in hits))
        return Run(
            method,
            kind,
            found,
            spent,
            archive.build_s,
            archive.bytes_per_item,
            placed=placed if ranking == "auto" else None,
            failed={item.item_id for item in self.dataset.queries if item.item_id not in archive.queries},
            extra=self._extra(archive),
        )

    def _extra(self, archive: Archive) -> dict[str, Any]:
        """Return the further columns of an archive."""
        return {
            "patches": archive.index.info().patches,
            "no_tissue": sum(row.n_patches == 0 for row in archive.index.slides),
            "patch_px": self.recipe.patch_px,
            "mpp": self.recipe.mpp,
            "encoder": archive.index.fingerprint,
            "rerank": archive.index.rerank,
        }

    def archive(self, keys: Keys) -> Archive:
        """Return the index by one kind of keys, which is made once."""
        if keys not in self._archives:
            self._archives[keys] = self._indexed(replace(self.recipe, keys=keys))
        return self._archives[keys]

    def _indexed(self, recipe: Recipe) -> Archive:
        """Index the database as a user does, and encode the queries."""
        paths = [item.path for item in self.dataset.database]
        index = Index.create(
            self.folder / f"{recipe.keys}.sish",
            recipe=recipe,
            measure=paths,
            mpp=self.mpp,
            rerank=self.rerank if recipe.keys == "texture" else None,
        )
        encoder = index.encoder = Watched.of(index.encoder, self._memory, self._looks)
        memory = self._memory = encoder.memory
        start, counted, spent = time.perf_counter(), memory.seconds, memory.spent
        report = index.add(
            paths, labels=self._labels_file(self.dataset.database), mpp=self.mpp, show_progress=False
        )
        wall = time.perf_counter() - start
        for failed in report.failed:
            print(f"left out: {failed.path}: {failed.reason}", file=sys.stderr)
        build_s = wall - (memory.spent - spent) + memory.seconds - counted
        return Archive(index, self._query_codes(index), build_s)

    def _labels_file(self, items: Sequence[Item]) -> Path:
        """Write the labels file of images: ids, labels, and groups as patients."""
        file = self.folder / "labels.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(["path", "slide_id", "label", "patient", "mpp", "override_mpp", "site"])
            for item in items:
                who = (item.path.absolute(), item.item_id, item.label, item.group or item.item_id)
                row = [*who, item.mpp, item.override_mpp, item.site]
                writer.writerow(["" if value is None else str(value) for value in row])
        return file

    def _query_codes(self, index: Index) -> dict[str, SlideCodes]:
        """Return the codes of the queries; those of images in the index are the stored ones."""
        snapshot = index.snapshot()
        number = {row.slide_id: number for number, row in enumerate(snapshot.slides)}
        known = [item.item_id for item in self.dataset.queries if item.item_id in number]
        stored = dict(zip(known, stored_codes(snapshot, [number[name] for name in known]), strict=True))
        new = [item for item in self.dataset.queries if item.item_id not in number]
        found = stored | {item.item_id: self._encoded(index, item) for item in new}
        return {name: codes for name, codes in found.items() if len(codes)}

    def _encoded(self, index: Index, item: Item) -> SlideCodes:
        given = item.mpp or self.mpp
        with open_slide(absolute(item.path), mpp=given, override_mpp=item.override_mpp) as slide:
            return index.encoder.encode(index.encoder.prepare(slide))

    # ---- one vector an image

    def _by_codes(self, method: str) -> Iterator[Run]:
        """Compare by features or codes of an image's patches, before they become bits."""
        archive = self.archive("texture")
        looks = [self._looks.get(str(absolute(item.path))) for item in self._items.values()]
        some = next((look for look in looks if look is not None), None)
        if some is None or (method == "code-histogram" and some.codes is None):
            return
        nothing = Look(
            np.zeros_like(some.features), None if some.codes is None else np.zeros_like(some.codes)
        )
        seen = [look or nothing for look in looks]
        if method == "features":
            vectors = unit(np.stack([look.features for look in seen]))
        else:
            vectors = roots([np.asarray(look.codes) for look in seen])
        asked = {item.item_id for item in self.dataset.queries}
        unseen = {name for name, look in zip(self._items, looks, strict=True) if look is None} & asked
        yield self._compared(method, vectors, archive.build_s, self._extra(archive), unseen)

    def _by_picture(self, method: str) -> Run:
        """Compare by the image as a whole."""
        start = time.perf_counter()
        random = np.random.default_rng(0)
        describe: dict[str, Callable[[Item], NDArray[np.float64]]] = {
            "colour-histogram": lambda item: colour_histogram(picture(item)),
            "local-binary-patterns": lambda item: local_binary_patterns(picture(item)),
            "random": lambda item: random.random(16),
        }
        vectors = roots([describe[method](item) for item in self._items.values()])
        return self._compared(method, vectors, time.perf_counter() - start, {})

    def _compared(
        self,
        method: str,
        vectors: Vectors,
        build_s: float,
        extra: dict[str, Any],
        failed: Set[str] = frozenset(),
    ) -> Run:
        found, spent = nearest_images(self.dataset, lambda item: self._place[item.item_id], vectors, self.k)
        for place, query in enumerate(self.dataset.queries):
            if query.item_id in failed:  # its vector says nothing, so what is nearest to it is chance
                found[place] = []
        size = float(vectors[0].nbytes)
        return Run(method, "exhaustive", found, spent, build_s, size, failed=failed, extra=extra)


def _query(item: Item, codes: SlideCodes) -> Query:
    """Make the query that an index takes; its patient is the image's group."""
    return Query(item.item_id, str(item.path), item.group or item.item_id, 1.0, None, len(codes), 0.0)


def measure(
    dataset: Dataset,
    methods: Sequence[str] = METHODS,
    *,
    recipe: Recipe | None = None,
    mpp: float | None = None,
    rerank: VectorKind | None = None,
) -> list[dict[str, Any]]:
    """Measure some methods on a data set.

    Parameters
    ----------
    dataset : Dataset
        Queries and database.
    methods : sequence of str
        Some of `METHODS`.
    recipe : Recipe, optional
        The encoder, and how images are read; `Recipe()` if None.
    mpp : float, optional
        Micrometres per pixel of images without a scale; the recipe's if None.
    rerank : {"int8", "float16"}, optional
        How the index keeps features to rank the nearest patches again; not with the published key.

    Returns
    -------
    list of dict
        The rows of `row_of`.

    Raises
    ------
    ParameterError
        If a method is unknown.
    """
    odd = sorted(set(methods) - set(METHODS))
    if odd:
        raise ParameterError(f"got method {odd[0]!r}; want some of {', '.join(METHODS)}")
    with tempfile.TemporaryDirectory(prefix="sish-retrieval-") as folder:
        bench = Bench(dataset, methods, recipe or Recipe(), mpp, Path(folder), rerank)
        return [row_of(dataset, run) for method in methods for run in bench.runs(method)]


def differences(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say for each method searched both ways what the tree loses against comparing with everything."""
    out: list[str] = []
    for tree in (row for row in rows if row["search"] == "tree"):
        other = [row for row in rows if row["method"] == tree["method"] and row["search"] == "exhaustive"]
        if other:
            name = "mmv5" if tree["mmv5"] is not None else "avg5"
            out.append(
                f"{tree['method']}: {name} by tree {tree[name] - other[0][name]:+.4f} against exhaustive, "
                f"in {tree['query_ms_median']:.2f} ms against {other[0]['query_ms_median']:.2f} ms a query"
            )
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("dataset", type=Path, help="folder with a labels.csv")
    parser.add_argument("--json", type=Path, help="write the rows here, with the answer to each query")
    parser.add_argument("--out", type=Path, help="folder for rows and tables as JSON and CSV, and a picture")
    parser.add_argument(
        "--quick", action="store_true", help="at most {} images and {} queries".format(*QUICK)
    )
    parser.add_argument(
        "--mpp", type=float, help="um per pixel of images that do not tell theirs (default: the recipe's)"
    )
    parser.add_argument("--within", choices=["site"], help="find only images of the query's own site")
    parser.add_argument("--override-mpp", type=float, help="um per pixel of all images, whatever they tell")
    parser.add_argument(
        "--methods", nargs="+", default=METHODS, metavar="METHOD", help=f"some of {', '.join(METHODS)}"
    )
    parser.add_argument("--weights", default=Recipe().weights, help="the encoder: see sish.encoders")
    parser.add_argument(
        "--read-mpp", type=float, help="um per pixel that patches are read at (default: the encoder's)"
    )
    parser.add_argument(
        "--rerank", choices=["int8", "float16"], help="let the index keep features, and rank patches again"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        recipe = Recipe.of(options.weights)
        if options.read_mpp is not None:
            recipe = replace(recipe, mpp=options.read_mpp)
        dataset = load_dataset(options.dataset, mpp=options.mpp, override_mpp=options.override_mpp)
        if options.within:
            dataset = dataset.of_own_site()
        if options.quick:
            dataset = dataset.sample(QUICK[0], queries=QUICK[1])
        rows = measure(dataset, options.methods, recipe=recipe.check(), rerank=options.rerank)
        if options.json:
            write_rows(options.json, rows)
        if options.out:
            write_tables(options.out, rows)
    except SishError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    print("", *differences(rows), sep="\n")
    parts = (group_table(rows, "label"), group_table(rows, "site"), "\n".join(missed_lines(rows)))
    print("", "\n\n".join(part for part in parts if part), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
