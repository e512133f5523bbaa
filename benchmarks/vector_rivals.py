"""Build and search the other libraries' indexes that `benchmarks.vectors` compares.

Each takes float vectors and finds neighbours by cosine, on one thread. All get vectors of length 1: inner
products and Euclidean distances then give the order of cosines. Giving a query that length is not timed. The
size is that of the saved file, and the building time is processor time.

- hnsw-sq8: faiss `IndexHNSWSQ`, a graph over vectors of 8 bits a number.
- ivf-pq: faiss inverted lists with product codes of 64 bytes of 256 principal components, scanned by tables
  in registers (`PQ128x4fs`). The first of them, `refine` times ten, are compared again by 8 bits a number
  (`Refine(SQ8)`).
- ivf-pq-256, ivf-pq-f16: the same, compared again by 8 bits of the 256 components, or by 16 of all numbers.
- ivf-rabitq: faiss inverted lists with a bit a number, fast scan (`RaBitQfs`), refined by 8 bits a number.
- usearch f16, usearch i8: graphs over 16 or 8 bits a number. The 8 bits are a vector's numbers divided by the
  largest, times 127: usearch's own conversion would use few of the 256 values.
- hnswlib: a graph over the floats.

Graphs have M = 16 and are built with an effort of 100. There are about four times as many inverted lists as
the square root of the number of vectors, as faiss advises; a graph over their centroids finds them.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.vector_data import Floats, K, unit, unit_blocks

BUILDERS = 2
"""Threads that build."""
_LINKS, _BUILD_EFFORT = 16, 100
_EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_PROBES = (2, 4, 8, 16, 32, 64, 128, 256)
_REFINES = (2, 4, 8, 16, 32, 64, 128)
_TRAINED, _LEAST_TRAINED = 40, 20_000  # vectors for each list, and at least
_COMPONENTS, _CODE = 256, 128
_ADDED = 50_000  # vectors at once

Setting = tuple[int, ...]
"""Values of the knobs."""


class Engine(ABC):
    """An index of float vectors, of ours or of another library."""

    name: str
    """Its name in the rows."""
    library: str
    """The module that it needs."""
    knobs: tuple[str, ...] = ("ef",)
    """Names of what trades time for recall."""
    index: Any = None
    """The index, once built or loaded."""

    def settings(self) -> list[Setting]:
        """Return the values of the knobs that are tried."""
        return [(effort,) for effort in _EFFORTS]

    def prepared(self, queries: Floats) -> NDArray[Any]:
        """Return queries as the library takes them."""
        return unit(queries)

    @abstractmethod
    def build(self, vectors: Floats) -> None:
        """Build the index."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the index to a file."""

    @abstractmethod
    def load(self, path: Path, dims: int) -> None:
        """Read the index from a file."""

    @abstractmethod
    def search(self, queries: NDArray[Any], setting: Setting) -> NDArray[np.int64]:
        """Return the rows of the K nearest vectors, (Q, K)."""


class _Faiss(Engine):
    library = "faiss"

    @property
    def _faiss(self) -> Any:
        return importlib.import_module("faiss")

    def _add(self, vectors: Floats) -> None:
        self._faiss.omp_set_num_threads(BUILDERS)
        for block in unit_blocks(vectors, _ADDED):
            self.index.add(block)
        self._faiss.omp_set_num_threads(1)

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        self._faiss.write_index(self.index, str(path))

    def load(self, path: Path, dims: int) -> None:
        """Read the index from a file."""
        self._faiss.omp_set_num_threads(1)
        self.index = self._faiss.read_index(str(path))


class FaissHnsw(_Faiss):
    """A graph over vectors of 8 bits a number."""

    name = "faiss hnsw-sq8"

    def build(self, vectors: Floats) -> None:
        """Build the index."""
        faiss = self._faiss
        self.index = faiss.IndexHNSWSQ(
            vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, _LINKS, faiss.METRIC_INNER_PRODUCT
        )
        self.index.hnsw.efConstruction = _BUILD_EFFORT
        self.index.train(_sample(vectors, _LEAST_TRAINED))
        self._add(vectors)

    def search(self, queries: NDArray[Any], setting: Setting) -> NDArray[np.int64]:
        """Return the rows of the K nearest vectors, (Q, K)."""
        (self.index.hnsw.efSearch,) = setting
        return np.asarray(self.index.search(queries, K)[1])


class FaissLists(_Faiss):
    """Inverted lists of short codes, with what they find compared again."""

    knobs = ("nprobe", "refine")

    def __init__(self, name: str, codes: str, refine: str = "SQ8", components: int = 0) -> None:
        """Take faiss's names of codes and refining, and the components that refining uses, 0 for all."""
        self.name, self._codes, self._refine, self._components = name, codes, refine, components

    def settings(self) -> list[Setting]:
        """Return the values of the knobs that are tried."""
        return list(product(_PROBES, _REFINES))

    def build(self, vectors: Floats) -> None:
        """Build the index."""
        faiss, dims = self._faiss, vectors.shape[1]
        faiss.omp_set_num_threads(BUILDERS)
        lists = 2 ** round(math.log2(4 * math.sqrt(len(vectors))))
        before, codes = self._codes.format(dims=dims).split(",")
        text = f"{before},IVF{lists}_HNSW32,{codes}"
        if self._components:
            base = faiss.index_factory(dims, text, faiss.METRIC_L2)
            self.index = self._refined_inside(base)
        else:
            self.index = faiss.index_factory(dims, f"{text},Refine({self._refine})", faiss.METRIC_L2)
        self._parts()[1].cp.niter = 10
        self.index.train(_sample(vectors, max(_LEAST_TRAINED, _TRAINED * lists)))
        self._add(vectors)

    def _refined_inside(self, base: Any) -> Any:
        """Return the index with the refining after the transformation, so that it uses its components."""
        faiss = self._faiss
        inner = faiss.downcast_index(base.index)
        quantizer = faiss.ScalarQuantizer.QT_8bit
        exact = faiss.IndexScalarQuantizer(self._components, quantizer, faiss.METRIC_L2)
        refined = faiss.IndexRefine(inner, exact)
        found = faiss.IndexPreTransform(faiss.downcast_VectorTransform(base.chain.at(0)), refined)
        found.referenced_objects.append(base)  # or Python drops what is inside
        return found

    def _parts(self) -> tuple[Any, Any]:
        """Return the refining index and the inverted lists."""
        faiss = self._faiss
        outer = faiss.downcast_index(self.index)
        if isinstance(outer, faiss.IndexPreTransform):
            outer = faiss.downcast_index(outer.index)
        return outer, faiss.downcast_index(faiss.extract_index_ivf(outer.base_index))

    def search(self, queries: NDArray[Any], setting: Setting) -> NDArray[np.int64]:
        """Return the rows of the K nearest vectors, (Q, K)."""
        faiss = self._faiss
        refine, lists = self._parts()
        lists.nprobe, refine.k_factor = setting
        faiss.downcast_index(lists.quantizer).hnsw.efSearch = max(32, 2 * setting[0])
        return np.asarray(self.index.search(queries, K)[1])


class Usearch(Engine):
    """usearch's graph."""

    library = "usearch"

    def __init__(self, dtype: str) -> None:
        """Take usearch's name of the type of its numbers."""
        self.name, self._dtype = f"usearch {dtype}", dtype

    def _empty(self, dims: int) -> Any:
        return importlib.import_module("usearch.index").Index(
            ndim=dims, metric="cos", dtype=self._dtype, connectivity=_LINKS, expansion_add=_BUILD_EFFORT
        )

    def prepared(self, queries: Floats) -> NDArray[Any]:
        """Return queries as the library takes them."""
        return eighths(queries) if self._dtype == "i8" else unit(queries)

    def build(self, vectors: Floats) -> None:
        """Build the index."""
        self.index = self._empty(vectors.shape[1])
        first = 0
        for block in unit_blocks(vectors, _ADDED):
            self.index.add(np.arange(first, first + len(block)), self.prepared(block), threads=BUILDERS)
            first += len(block)

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        self.index.save(str(path))

    def load(self, path: Path, dims: int) -> None:
        """Read the index from a file."""
        self.index = self._empty(dims)
        self.index.load(str(path))

    def search(self, queries: NDArray[Any], setting: Setting) -> NDArray[np.int64]:
        """Return the rows of the K nearest vectors, (Q, K)."""
        (self.index.expansion_search,) = setting
        asked = queries[0] if len(queries) == 1 else queries
        return np.asarray(self.index.search(asked, K, threads=1).keys).astype(np.int64).reshape(-1, K)


class Hnswlib(Engine):
    """hnswlib's graph over floats."""

    name, library = "hnswlib", "hnswlib"

    def build(self, vectors: Floats) -> None:
        """Build the index."""
        self.index = importlib.import_module("hnswlib").Index(space="ip", dim=vectors.shape[1])
        self.index.init_index(max_elements=len(vectors), M=_LINKS, ef_construction=_BUILD_EFFORT)
        for block in unit_blocks(vectors, _ADDED):
            self.index.add_items(block, num_threads=BUILDERS)

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        self.index.save_index(str(path))

    def load(self, path: Path, dims: int) -> None:
        """Read the index from a file."""
        self.index = importlib.import_module("hnswlib").Index(space="ip", dim=dims)
        self.index.load_index(str(path))

    def search(self, queries: NDArray[Any], setting: Setting) -> NDArray[np.int64]:
        """Return the rows of the K nearest vectors, (Q, K)."""
        self.index.set_ef(setting[0])
        return np.asarray(self.index.knn_query(queries, K, num_threads=1)[0]).astype(np.int64)


def rivals() -> list[Engine]:
    """Return every index of another library, whether or not the library is installed."""
    return [
        FaissHnsw(),
        FaissLists("faiss ivf-pq", f"PCAR{_COMPONENTS},PQ{_CODE}x4fs"),
        FaissLists("faiss ivf-pq-256", f"PCAR{_COMPONENTS},PQ{_CODE}x4fs", components=_COMPONENTS),
        FaissLists("faiss ivf-pq-f16", f"PCAR{_COMPONENTS},PQ{_CODE}x4fs", "SQfp16"),
        FaissLists("faiss ivf-rabitq", "RR{dims},RaBitQfs"),
        Usearch("f16"),
        Usearch("i8"),
        Hnswlib(),
    ]


def missing(engines: Sequence[Engine]) -> list[str]:
    """Return the libraries that are not installed."""
    return sorted({engine.library for engine in engines if importlib.util.find_spec(engine.library) is None})


def ready(engine: Engine, vectors: Floats, path: Path) -> tuple[float, float]:
    """Load an index from its file, or build and save it first.

    Parameters
    ----------
    engine : Engine
        The index.
    vectors : ndarray
        Its vectors, float32 (N, D).
    path : Path
        Its file; beside it a JSON file tells how long building took.

    Returns
    -------
    build_s, bytes_per_vector : float
        Processor seconds of building, and the size of the file divided by N.
    """
    told = path.with_name(path.name + ".json")
    if not told.exists():
        start, begun = time.process_time(), time.perf_counter()
        engine.build(vectors)
        seconds = {"build_s": time.process_time() - start, "wall_s": time.perf_counter() - begun}
        engine.save(path)
        told.write_text(json.dumps(seconds))
        engine.index = None
    engine.load(path, vectors.shape[1])
    files = path.rglob("*") if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files if file.is_file())
    return json.loads(told.read_text())["build_s"], size / len(vectors)


def eighths(vectors: Floats) -> NDArray[np.int8]:
    """Return vectors as int8, each divided by its largest number, times 127."""
    most = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.asarray(np.rint(127 * (vectors / most)), np.int8)


def _sample(vectors: Floats, n: int) -> Floats:
    """Return n of the vectors, or all, drawn at random, with length 1."""
    rows = np.sort(np.random.default_rng(0).permutation(len(vectors))[:n])
    return unit(vectors[rows])
