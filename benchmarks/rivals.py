"""Build the indexes that `benchmarks.scaling` compares: ours, the published key, and other libraries' ones.

Each index is built from the same barcodes and answers queries one at a time or 50 at once on one thread. Ours
and those of faiss also answer 50 at once on two threads. Its settings are the sweep along which it trades
time for recall. The other libraries are optional: without one, its rows are missing (`pip install -e
'.[bench]'` installs all).

- faiss-ivf: `IndexBinaryIVF`. Archives of a million patches have three: 1,024 lists, 4,096 lists, and 4,096
  lists found through an HNSW graph over the centroids (`hnsw`), so that a query is not compared with all of
  them. Smaller archives have one index of 64 or 1,024 lists. Larger ones have 4,096 lists, and the 65,536
  through an HNSW graph that faiss's guide advises between one and ten million
  (github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index: `IVF65536_HNSW32`). Their centroids
  are clustered in two levels, 256 groups and then lists in each group: the time of k-means grows with the
  square of the number of lists, and 65,536 at once take hours on one thread.
- faiss-hnsw: `IndexBinaryHNSW`, M of 16 and 32; like usearch up to a million patches.
- faiss-flat: `IndexBinaryFlat`, a scan.
- usearch: HNSW over bits, connectivity 16.
- hnswlib has no Hamming distance. Its bits are floats, whose squared Euclidean distance is the same number.
  It takes 4 KB a patch and runs up to 100,000 patches.

Building is timed in processor seconds of one thread. It is done once, so other load of the machine must not
count.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.dense_codes import Codes
from sish.index.bags import Bags, joined
from sish.index.guided.walk import guided_search
from sish.index.params import SearchParams
from sish.index.table import KeyTable
from sish.index.texture.cells import Cells
from sish.index.texture.tree import TextureTree

K = 10
_PATCHES_A_SLIDE = 1000
_BITS = 1024
_BUDGETS = (50, 100, 150, 200, 300, 400, 600, 800, 1000, 1500, 2000, 3000, 4000, 6000, 10_000, 20_000)
_PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128)
_EFFORTS = (10, 16, 24, 32, 48, 64, 96, 128, 256, 512)
_FIRST = 100
_FLOATS_UP_TO = 100_000
_GRAPHS_UP_TO = 1_000_000
_LISTS = (99_999, 64), (1_000_000, 1024), (10**9, 4096)  # (most patches, lists)
_MANY_LISTS = 500_000, 1_000_000  # between these numbers of patches also four times as many lists
_ADVISED_LISTS = 65_536  # for more patches than that
_GROUPS = 256  # in which they are clustered
BATCH = 50
"""Queries that are given at once: about the patches of a slide."""

Way = tuple[int, int]
"""Queries given at once, and threads."""
_WAYS: tuple[Way, ...] = (1, 1), (BATCH, 1)
_THREADED: tuple[Way, ...] = (*_WAYS, (BATCH, 2))

Search = Callable[[NDArray[np.uint8], int, int], Bags | NDArray[Any]]
"""From queries uint8 (Q, 128), a setting and a number of threads to the distances of the K nearest patches
found for each query: bags, or an array of any shape with Q K values."""


@dataclass(frozen=True, slots=True)
class Contender:
    """An index that was built."""

    index: str
    """Its name in the rows."""
    params: str
    """How it was built."""
    build_s: float
    """Processor seconds from barcodes in memory to the first answer, on one thread."""
    bytes_per_patch: float
    """Bytes that it keeps, the barcodes included."""
    setting: str
    """Name of its setting."""
    settings: tuple[int, ...]
    """Values of the setting, from fast to exact."""
    search: Search
    """Answers queries."""
    ways: tuple[Way, ...] = _WAYS
    """How queries may be given to it."""


def distances(found: Bags | NDArray[Any], queries: int) -> list[NDArray[Any]]:
    """Return the distances of the K nearest that were found for each query."""
    if isinstance(found, Bags):
        return [part[:K] for part in np.split(found.hamming, found.offset[1:-1])]
    return list(found.reshape(queries, -1)[:, :K])


def missing() -> list[str]:
    """Return the other libraries that are not installed."""
    return [name for name in ("faiss", "usearch", "hnswlib") if _module(name) is None]


def contenders(codes: Codes, quick: bool) -> list[Contender]:
    """Build all indexes that suit an archive of this size, and print each when it is ready."""
    built = []
    for one in _built(codes, quick):
        print(f"  {one.index} {one.params}: built in {one.build_s:.1f} s", flush=True)
        built.append(one)
    return built


def _built(codes: Codes, quick: bool) -> Iterator[Contender]:
    n = len(codes.barcodes)
    _sish(codes.barcodes[:_FIRST])  # compiles, or loads, what numba compiles
    ours = _sish(codes.barcodes)
    yield from (ours, _paper(codes), _exhaustive(ours, n))
    if (faiss := _module("faiss")) is not None:
        faiss.omp_set_num_threads(1)
        yield from _faiss(faiss, codes.barcodes, quick)
    if (usearch := _module("usearch.index")) is not None and n <= _GRAPHS_UP_TO and not quick:
        yield _usearch(usearch, codes.barcodes)
    if (hnswlib := _module("hnswlib")) is not None and n <= (_FLOATS_UP_TO // 10 if quick else _FLOATS_UP_TO):
        yield _hnswlib(hnswlib, codes.barcodes)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def slides_of(n: int) -> NDArray[np.int32]:
    """Return the slide numbers of n patches, a thousand for each slide."""
    return np.arange(n, dtype=np.int32) // np.int32(_PATCHES_A_SLIDE)


def _sish(barcodes: NDArray[np.uint8]) -> Contender:
    start = time.process_time()
    tree = TextureTree.learn(barcodes)
    table = KeyTable.build(tree.keys(barcodes), barcodes, slides_of(len(barcodes)))
    cells = Cells.of(tree, [table])
    seconds = time.process_time() - start
    parts: list[NDArray[Any]] = [
        table.keys,
        table.barcodes,
        table.slide,
        table.row,
        cells.totals,
        *cells.directories,
    ]
    parts += [tree.top_blocks, tree.node_blocks, tree.leaf_blocks]
    size = sum(part.nbytes for part in parts) / len(barcodes)
    settings = tuple(budget for budget in _BUDGETS if budget < len(barcodes))
    return Contender(
        "sish", f"{' x '.join(map(str, tree.shape))} leaves", seconds, size, "budget", settings,
        _CellSearch(cells), _THREADED,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _CellSearch:
    """Our search; the benchmark uses its cells for more than searching."""

    cells: Cells
    helper: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def __call__(self, queries: NDArray[np.uint8], budget: int, threads: int) -> Bags:
        if threads == 1:
            return self.cells.search(queries, k=K, budget=budget)
        half = len(queries) // 2
        first = self.helper.submit(self.cells.search, queries[:half], k=K, budget=budget)
        second = self.cells.search(queries[half:], k=K, budget=budget)
        return joined([first.result(), second])


def _exhaustive(ours: Contender, n: int) -> Contender:
    return Contender("sish-exhaustive", "scan", 0.0, 128.0, "budget", (n,), ours.search)


def _paper(codes: Codes) -> Contender:
    start = time.process_time()
    table = KeyTable.build(codes.keys, codes.barcodes, slides_of(len(codes.keys)))
    seconds = time.process_time() - start
    params = SearchParams(threshold=_BITS)
    size = sum(a.nbytes for a in (table.keys, table.barcodes, table.slide, table.row)) / len(table)
    return Contender(
        "sish-paper", "published key and budget", seconds, size, "keys", (15_000,), _KeySearch(table, params)
    )


class _KeySearch:
    """The published search; a query's key is looked up by its barcode, which is not timed."""

    def __init__(self, table: KeyTable, params: SearchParams) -> None:
        self.table, self.params = table, params
        self.keys: dict[bytes, int] = {}

    def know(self, codes: Codes) -> None:
        for barcode, key in zip(codes.barcodes, codes.keys, strict=True):
            self.keys[barcode.tobytes()] = int(key)

    def __call__(self, queries: NDArray[np.uint8], *_: int) -> Bags:
        keys = [self.keys[query.tobytes()] for query in queries]
        return guided_search(self.table, keys, queries, params=self.params)


def _faiss(faiss: Any, barcodes: NDArray[np.uint8], quick: bool) -> Iterator[Contender]:
    n = len(barcodes)
    yield _faiss_flat(faiss, barcodes)
    lists = next(lists for most, lists in _LISTS if n <= most)
    ivf, seconds = _faiss_train(faiss, barcodes, lists)
    yield _faiss_ivf(faiss, ivf, seconds, barcodes, "")
    if n > _MANY_LISTS[1]:
        centroids, seconds = _grouped_centroids(faiss, barcodes)
        yield _faiss_hnsw_ivf(faiss, centroids, seconds, barcodes)
    if _MANY_LISTS[0] <= n <= _MANY_LISTS[1] and not quick:
        ivf, seconds = _faiss_train(faiss, barcodes, 4 * lists)
        yield _faiss_ivf(faiss, ivf, seconds, barcodes, "")
        yield _faiss_hnsw_ivf(faiss, _centroids(faiss, ivf), seconds, barcodes)
    if n <= _GRAPHS_UP_TO and not quick:
        for links in (16, 32) if n < 1_000_000 else (16,):
            yield _faiss_hnsw(faiss, barcodes, links)


def _centroids(faiss: Any, ivf: Any) -> NDArray[np.uint8]:
    flat = faiss.downcast_IndexBinary(ivf.quantizer)
    return np.asarray(faiss.vector_to_array(flat.xb)).reshape(ivf.nlist, _BITS // 8)


def _grouped_centroids(
    faiss: Any, barcodes: NDArray[np.uint8], lists: int = _ADVISED_LISTS, groups: int = _GROUPS
) -> tuple[NDArray[np.uint8], float]:
    """Return about `lists` centroids, clustered in each of some groups, and the seconds it took."""
    start = time.process_time()
    coarse, _ = _faiss_train(faiss, barcodes, groups)
    some = np.random.default_rng(1).permutation(len(barcodes))[: 40 * lists]
    group = coarse.quantizer.search(np.ascontiguousarray(barcodes[some]), 1)[1].ravel()
    parts = []
    for number in range(groups):
        own = np.ascontiguousarray(barcodes[some[group == number]])
        share = round(lists * len(own) / len(some))
        if share:
            parts.append(_centroids(faiss, _faiss_train(faiss, own, share)[0]))
    return np.concatenate(parts), time.process_time() - start


def _faiss_hnsw_ivf(
    faiss: Any, centroids: NDArray[np.uint8], trained: float, barcodes: NDArray[np.uint8]
) -> Contender:
    """Return inverted lists that are found through a graph over their centroids."""
    start = time.process_time()
    graph = faiss.IndexBinaryHNSW(_BITS, 32)
    graph.add(centroids)
    graph.hnsw.efSearch = 64
    found = faiss.IndexBinaryIVF(graph, _BITS, len(centroids))
    found.is_trained = True
    return _faiss_ivf(faiss, found, trained + time.process_time() - start, barcodes, " hnsw")


def _faiss_train(faiss: Any, barcodes: NDArray[np.uint8], lists: int) -> tuple[Any, float]:
    """Train an IVF index on forty patches a list, as faiss recommends; return it and the seconds it took."""
    start = time.process_time()
    quantizer = faiss.IndexBinaryFlat(_BITS)
    ivf = faiss.IndexBinaryIVF(quantizer, _BITS, lists)
    ivf.own_fields = False
    ivf.kept = quantizer  # or Python drops it
    some = np.random.default_rng(0).permutation(len(barcodes))[: 40 * lists]
    ivf.train(np.ascontiguousarray(barcodes[some]))
    return ivf, time.process_time() - start


def _faiss_ivf(faiss: Any, ivf: Any, trained: float, barcodes: NDArray[np.uint8], how: str) -> Contender:
    start = time.process_time()
    ivf.add(barcodes)
    seconds = trained + time.process_time() - start

    def search(queries: NDArray[np.uint8], probes: int, threads: int) -> NDArray[Any]:
        faiss.omp_set_num_threads(threads)
        ivf.nprobe = probes
        return np.asarray(ivf.search(queries, K)[0])

    probes = tuple(p for p in _PROBES if p <= ivf.nlist)
    size = 128 + 8 + ivf.nlist * 128 / len(barcodes)  # codes, ids and centroids
    params = f"lists={ivf.nlist}{how}"
    return Contender("faiss-ivf", params, seconds, size, "nprobe", probes, search, _THREADED)


def _faiss_flat(faiss: Any, barcodes: NDArray[np.uint8]) -> Contender:
    start = time.process_time()
    flat = faiss.IndexBinaryFlat(_BITS)
    flat.add(barcodes)
    seconds = time.process_time() - start

    def search(queries: NDArray[np.uint8], _: int, threads: int) -> NDArray[Any]:
        faiss.omp_set_num_threads(threads)
        return np.asarray(flat.search(queries, K)[0])

    return Contender("faiss-flat", "scan", seconds, 128.0, "all", (len(barcodes),), search, _THREADED)


def _faiss_hnsw(faiss: Any, barcodes: NDArray[np.uint8], links: int) -> Contender:
    start = time.process_time()
    graph = faiss.IndexBinaryHNSW(_BITS, links)
    graph.add(barcodes)
    seconds = time.process_time() - start

    def search(queries: NDArray[np.uint8], effort: int, threads: int) -> NDArray[Any]:
        faiss.omp_set_num_threads(threads)
        graph.hnsw.efSearch = effort
        return np.asarray(graph.search(queries, K)[0])

    size = 128 + 4 * graph.hnsw.neighbors.size() / len(barcodes) + 8
    return Contender("faiss-hnsw", f"M={links}", seconds, size, "efSearch", _EFFORTS, search, _THREADED)


def _usearch(usearch: Any, barcodes: NDArray[np.uint8]) -> Contender:
    start = time.process_time()
    index = usearch.Index(ndim=_BITS, metric="hamming", dtype="b1", connectivity=16)
    index.add(np.arange(len(barcodes)), barcodes, threads=1)
    seconds = time.process_time() - start

    def search(queries: NDArray[np.uint8], effort: int, _: int) -> NDArray[Any]:
        index.expansion_search = effort
        asked = queries[0] if len(queries) == 1 else queries
        return np.asarray(index.search(asked, K, threads=1).distances)

    size = index.memory_usage / len(barcodes)
    return Contender("usearch", "connectivity=16", seconds, size, "expansion", _EFFORTS, search)


def _hnswlib(hnswlib: Any, barcodes: NDArray[np.uint8]) -> Contender:
    start = time.process_time()
    index = hnswlib.Index(space="l2", dim=_BITS)
    index.init_index(max_elements=len(barcodes), M=16, ef_construction=100)
    index.set_num_threads(1)
    for rows in np.array_split(barcodes, max(1, len(barcodes) // 10_000)):
        index.add_items(np.unpackbits(rows, axis=1).astype(np.float32), num_threads=1)
    seconds = time.process_time() - start

    def search(queries: NDArray[np.uint8], effort: int, _: int) -> NDArray[Any]:
        index.set_ef(effort)
        return np.asarray(index.knn_query(np.unpackbits(queries, axis=1), K, num_threads=1)[1])

    size = index.index_file_size() / len(barcodes)
    return Contender("hnswlib", "M=16 on floats", seconds, size, "ef", _EFFORTS, search)
