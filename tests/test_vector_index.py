"""The contract of `VectorIndex`, against exact search: growth, removal, files, refusals, threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sish.errors import (
    IndexCorruptError,
    IndexFormatError,
    IndexNotFoundError,
    ParameterError,
    ParameterTypeError,
    SishError,
    StoreError,
)
from sish.index import VectorIndex
from sish.index.vectors import index as vector_index

RERANKS = ["int8", "float16", "int3", None]
EVERYTHING = 10**9


def drawn(count: int, features: int = 24, seed: int = 0, clusters: int = 40) -> np.ndarray:
    """Return vectors of a mixture, whose lengths are not 1."""
    centres = np.random.default_rng(7).standard_normal((clusters, features))
    rng = np.random.default_rng(seed)
    fall = (1 + np.arange(features)) ** -0.5
    points = centres[rng.integers(clusters, size=count)] + 0.6 * rng.standard_normal((count, features))
    return (3 * points * fall + 0.5).astype(np.float32)


def exact(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return cosine distances (Q, N)."""
    left, right = (
        rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
        for rows in (queries, vectors)
    )
    return 1 - left @ right.T


def recall(found: np.ndarray, apart: np.ndarray, ids: np.ndarray) -> float:
    """Return the share of the nearest that were found."""
    nearest = ids[np.argsort(apart, axis=1)[:, : found.shape[1]]]
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(found, nearest, strict=True)]))


@pytest.fixture
def soon(monkeypatch):
    """Let an index learn from 200 vectors on."""
    monkeypatch.setattr(vector_index, "BUDGET", 200)


@pytest.mark.parametrize("rerank", RERANKS)
def test_few_vectors_are_compared_with_all(rerank):
    vectors, queries = drawn(300), drawn(7, seed=1)
    index = VectorIndex(rerank=rerank)
    index.add(vectors)
    ids, distances = index.search(queries, k=5)
    apart = exact(queries, vectors)
    assert ids.dtype == np.int64
    assert distances.dtype == np.float32
    assert recall(ids, apart, np.arange(300)) == 1
    assert np.abs(distances - np.sort(apart, axis=1)[:, :5]).max() < 1e-6


@pytest.mark.parametrize(
    ("rerank", "dims", "least", "error"),
    [
        ("int8", 24, 0.95, 0.02),
        ("int8", 20, 0.8, 0.1),
        ("float16", 256, 0.98, 2e-3),
        ("int4", 1, 0.95, 0.02),
        (None, 256, 0.55, 0.3),
    ],
)
@pytest.mark.parametrize("features", [24, 70])
def test_many_vectors_are_found_with_about_their_distance(soon, rerank, dims, least, error, features):
    vectors, queries = drawn(3000, features), drawn(40, features, seed=1)
    dims = dims if features == 24 or dims == 256 else features - 24 + dims
    index = VectorIndex(rerank=rerank, rerank_dims=dims)
    index.add(vectors)
    apart = exact(queries, vectors)
    ids, distances = index.search(queries, k=10, budget=EVERYTHING)
    assert recall(ids, apart, np.arange(3000)) > least
    assert np.abs(distances - np.take_along_axis(apart, ids, axis=1)).max() < error
    assert (np.diff(distances, axis=1) >= 0).all()
    near, _ = index.search(queries, k=10, budget=1000)
    assert recall(near, apart, np.arange(3000)) > least - 0.1


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 90)), st.tuples(st.just("remove"), st.floats(0, 1))
        ),
        min_size=1,
        max_size=12,
    ),
    rerank=st.sampled_from(RERANKS),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_changes_keeps_what_was_added_and_not_removed(steps, rerank, seed, tmp_path):
    rng, held = np.random.default_rng(seed), {}
    index = VectorIndex(n_bits=256, rerank=rerank, rerank_dims=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_index, "BUDGET", 60)
        for step, (what, size) in enumerate(steps):
            if what == "add":
                vectors = drawn(size, seed=1000 * seed + step)
                free = np.setdiff1d(rng.integers(-(2**60), 2**60, 3 * size + 3), list(held))
                ids = rng.permutation(free)[:size]
                index.add(vectors, ids)
                held |= dict(zip(ids.tolist(), vectors, strict=True))
            elif held:
                gone = rng.permutation(list(held))[: int(size * len(held))]
                index.remove(gone)
                for id_ in gone.tolist():
                    del held[id_]
            assert len(index) == len(held)
        index.save(tmp_path / "a.vectors")
        for it in (index, VectorIndex.load(tmp_path / "a.vectors")):
            assert len(it) == len(held)
            ids, distances = it.search(drawn(3, seed=5), k=len(held) + 2, budget=EVERYTHING)
            for row, far in zip(ids, distances, strict=True):
                assert sorted(row[row != -1].tolist()) == sorted(held)
                assert np.isinf(far[len(held) :]).all()
                assert (row[len(held) :] == -1).all()
            if held:
                own = np.array(list(held))
                found, _ = it.search(np.stack([held[id_] for id_ in own.tolist()]), k=1, budget=EVERYTHING)
                assert rerank is None or (found[:, 0] == own).mean() > 0.9


@pytest.mark.parametrize("rerank", RERANKS)
def test_growth_by_small_adds_finds_as_much_as_one_add(soon, rerank):
    vectors, queries = drawn(4000), drawn(60, seed=1)
    apart = exact(queries, vectors)
    one, many = (VectorIndex(rerank=rerank, rerank_dims=24) for _ in range(2))
    one.add(vectors)
    for first in range(0, 4000, 130):
        many.add(vectors[first : first + 130])
    assert len(many) == 4000
    found = [recall(it.search(queries, budget=1000)[0], apart, np.arange(4000)) for it in (one, many)]
    assert found[1] > found[0] - 0.06


@pytest.mark.parametrize("rerank", RERANKS)
def test_removed_vectors_are_not_found_and_come_back(soon, rerank):
    vectors = drawn(1500)
    index = VectorIndex(rerank=rerank)
    index.add(vectors)
    ids, distances = index.search(vectors[:50], k=3)
    gone = np.unique(ids)
    index.remove(gone)
    assert gone[0] not in index
    assert not np.isin(index.search(vectors[:50], k=20)[0], gone).any()
    index.add(vectors[gone], gone)
    again = index.search(vectors[:50], k=3)
    assert np.array_equal(again[1], distances)
    assert (again[0] == ids).mean() > 0.9  # equally near ones come in another order
    index.remove(np.arange(1400))
    assert len(index) == 100
    assert (index.search(vectors[:5], k=200)[0] >= 0).sum(axis=1).tolist() == [100] * 5


def test_single_queries_and_batches_have_the_same_answers(soon):
    index, queries = VectorIndex(), drawn(30, seed=1)
    index.add(drawn(2000))
    ids, distances = index.search(queries)
    for row, query in enumerate(queries):
        one = index.search(query)
        assert np.array_equal(one[0][0], ids[row])
        assert np.array_equal(one[1][0], distances[row])
    strided = np.asfortranarray(queries.astype(float))
    assert np.array_equal(index.search(strided)[0], ids)


def test_running_numbers_go_on_behind_the_largest_id(tmp_path):
    index = VectorIndex()
    index.add(drawn(3))
    index.add(drawn(2), ids=[-5, 40])
    index.add(drawn(1))
    index.remove(41)
    index.save(tmp_path / "a")
    index = VectorIndex.load(tmp_path / "a")
    index.add(drawn(1))
    assert [id_ in index for id_ in (0, 2, 3, -5, 40, 41, 42, "a")] == [
        True, True, False, True, True, False, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 50, 1500])
@pytest.mark.parametrize("rerank", RERANKS)
def test_a_file_gives_the_same_answers_and_grows(soon, tmp_path, rerank, count):
    vectors, queries = drawn(1500), drawn(20, seed=1)
    index = VectorIndex(n_bits=512, rerank=rerank, rerank_dims=12, seed=3)
    index.add(vectors[:count])
    if count:
        index.remove([5, 17])
    index.save(tmp_path / "a.vectors")
    again = VectorIndex.load(tmp_path / "a.vectors")
    assert repr(again) == repr(index)
    for it in (index, again):
        it.add(drawn(40, seed=4), np.arange(2000, 2040))
    for left, right in zip(index.search(queries), again.search(queries), strict=True):
        assert np.array_equal(left, right)
    again.save(tmp_path / "a.vectors")  # over the file that is mapped
    assert len(VectorIndex.load(tmp_path / "a.vectors")) == len(index)
    assert [file.name for file in tmp_path.iterdir()] == ["a.vectors"]


@pytest.mark.parametrize("count", [40, 600])
def test_a_damaged_file_is_refused_or_answers(soon, tmp_path, count):
    index, path = VectorIndex(rerank_dims=8), tmp_path / "a.vectors"
    index.add(drawn(count))
    index.save(path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in [0, 5, 64, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(StoreError):
            VectorIndex.load(path)
    header = int.from_bytes(data[:8], "little")
    for place in rng.integers(8, 8 + header, 60).tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            VectorIndex.load(path).search(drawn(2, seed=1))
        except SishError:
            continue
    for _ in range(40):
        place = int(rng.integers(8 + header, len(data)))
        path.write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        try:
            VectorIndex.load(path).search(drawn(2, seed=1))
        except SishError:
            continue


def test_files_of_others_are_refused(tmp_path):
    with pytest.raises(IndexNotFoundError, match="does not exist"):
        VectorIndex.load(tmp_path / "none")
    with pytest.raises(IndexFormatError):
        VectorIndex.load(tmp_path)
    (tmp_path / "text").write_text("hello, this is not an index at all" * 9)
    with pytest.raises(IndexCorruptError):
        VectorIndex.load(tmp_path / "text")
    with pytest.raises(StoreError, match="cannot write"):
        VectorIndex().save(tmp_path / "no" / "folder")


@pytest.mark.parametrize("count", [20, 400])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda it: it.add(np.ones((2, 25))), ParameterError),
        (lambda it: it.add(np.ones(24)), ParameterError),
        (lambda it: it.add([[np.nan] * 24]), ParameterError),
        (lambda it: it.add([[1.0] * 23 + [np.inf]]), ParameterError),
        (lambda it: it.add(np.zeros((1, 24))), ParameterError),
        (lambda it: it.add(np.full((1, 24), 1e300)), ParameterError),
        (lambda it: it.add(np.full((1, 24), "a")), ParameterTypeError),
        (lambda it: it.add(drawn(2), [1]), ParameterError),
        (lambda it: it.add(drawn(2), [700, 700]), ParameterError),
        (lambda it: it.add(drawn(2), [700, 3]), ParameterError),
        (lambda it: it.add(drawn(1), [0.5]), ParameterTypeError),
        (lambda it: it.add(drawn(1), np.array([2**63], np.uint64)), ParameterError),
        (lambda it: it.remove([3, 12345]), ParameterError),
        (lambda it: it.remove(["a"]), ParameterTypeError),
        (lambda it: it.search(np.ones((1, 25))), ParameterError),
        (lambda it: it.search(np.zeros((1, 24))), ParameterError),
        (lambda it: it.search([[np.nan] * 24]), ParameterError),
        (lambda it: it.search(drawn(1), k=0), ParameterError),
        (lambda it: it.search(drawn(1), k=2.5), ParameterError),
        (lambda it: it.search(drawn(1), budget=0), ParameterError),
        (lambda it: it.search(drawn(1), shortlist=0), ParameterError),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_lost(soon, count, change, error):
    index = VectorIndex()
    index.add(drawn(count))
    before = index.search(drawn(4, seed=1))
    with pytest.raises(error):
        change(index)
    assert len(index) == count
    for left, right in zip(before, index.search(drawn(4, seed=1)), strict=True):
        assert np.array_equal(left, right)


@pytest.mark.parametrize(
    "wrong",
    [{"n_bits": 1000}, {"n_bits": 32}, {"rerank": "int5"}, {"rerank_dims": 0}, {"seed": -1}, {"n_bits": "a"}],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ParameterError):
        VectorIndex(**wrong)


def test_an_empty_index_has_no_neighbours():
    index = VectorIndex()
    index.add(np.empty((0, 8)))
    ids, distances = index.search(np.ones((2, 8)), k=3)
    assert ids.tolist() == [[-1] * 3] * 2
    assert np.isinf(distances).all()
    assert len(index) == 0
    assert 0 not in index
    with pytest.raises(ParameterError, match="not in the index"):
        index.remove([0])


def test_threads_search_while_one_adds_and_removes(soon):
    index, queries = VectorIndex(rerank_dims=16), drawn(20, seed=1)
    index.add(drawn(600))
    lone = index.search(queries)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: index.search(queries), range(20)))
        assert all(np.array_equal(lone[0], ids) and np.array_equal(lone[1], far) for ids, far in answers)
        busy = [pool.submit(index.search, queries) for _ in range(30)]
        for step in range(10):
            index.add(drawn(60, seed=10 + step), np.arange(1000 + 60 * step, 1060 + 60 * step))
            index.remove(np.arange(20 * step, 20 * step + 20))
        for future in busy:
            assert (future.result()[0] >= 0).all()
    assert len(index) == 600 + 600 - 200


def test_longer_shortlists_and_budgets_find_more(soon):
    vectors, queries = drawn(4000, 70), drawn(60, 70, seed=1)
    index = VectorIndex(rerank_dims=70)
    index.add(vectors)
    apart = exact(queries, vectors)
    found = [
        recall(index.search(queries, budget=budget, shortlist=shortlist)[0], apart, np.arange(4000))
        for budget, shortlist in ((100, 20), (800, 20), (800, 200), (EVERYTHING, 4000))
    ]
    assert found == sorted(found)
    assert found[-1] > 0.97


def test_more_bits_find_more_of_the_nearest_in_more_bytes(soon, tmp_path):
    vectors, queries = drawn(3000, 300, clusters=300), drawn(50, 300, seed=1, clusters=300)
    apart = exact(queries, vectors)
    found, sizes, errors = [], [], []
    for rerank in ("int3", "int4", "int6"):
        index = VectorIndex(rerank=rerank)
        index.add(vectors)
        ids, distances = index.search(queries, budget=EVERYTHING)
        found.append(recall(ids, apart, np.arange(3000)))
        errors.append(np.abs(distances - np.take_along_axis(apart, ids, axis=1)).mean())
        index.save(tmp_path / rerank)
        sizes.append((tmp_path / rerank).stat().st_size)
    assert found == sorted(found)
    assert found[0] > 0.85
    assert found[2] > 0.97
    assert errors == sorted(errors, reverse=True)
    assert sizes[1] - sizes[0] == 3000 * 64  # a bit for each of 512 numbers
    assert sizes[2] - sizes[1] == 3000 * 128


def test_cells_hold_the_neighbours_of_a_query(soon):
    vectors, queries = drawn(4000, 70, clusters=300), drawn(80, 70, seed=1, clusters=300)
    index = VectorIndex(rerank="float16")
    index.add(vectors)
    ids, _ = index.search(queries, budget=200, shortlist=200)
    assert recall(ids, exact(queries, vectors), np.arange(4000)) > 0.7


@pytest.mark.slow
def test_recall_of_a_mixture_does_not_fall_below_its_floor():
    vectors, queries = drawn(30_000, 128, clusters=300), drawn(100, 128, seed=1, clusters=300)
    index = VectorIndex(rerank_dims=128)
    index.add(vectors)
    found, _ = index.search(queries)
    assert recall(found, exact(queries, vectors), np.arange(30_000)) > 0.9


def test_what_numpy_cannot_read_and_numbers_beyond_all_are_refused_or_cut():
    torch = pytest.importorskip("torch")
    index = VectorIndex(rerank=None)
    for odd in (torch.ones(3, 4, requires_grad=True), torch.ones(3, 4, dtype=torch.bfloat16), [[1, 2], [3]]):
        with pytest.raises(ParameterError, match="vectors are no array"):
            index.add(odd)
    with pytest.raises(ParameterError, match="ids are no array"):
        index.add(np.eye(3), ids=[[1], [2, 3]])
    with pytest.raises(ParameterError, match="k is True"):
        index.search(np.eye(3), k=True)
    with pytest.raises(ParameterError, match="rerank is"):
        VectorIndex(rerank=np.zeros(3))
    index.add(np.random.default_rng(0).normal(size=(4_500, 16)))
    assert 2**70 not in index and -(2**70) not in index and 4_499 in index
    wanted = index.search(np.ones(16), k=3, budget=4_500, shortlist=4_500)
    found = index.search(np.ones(16), k=3, budget=2**63, shortlist=10**9)
    assert (found[0] == wanted[0]).all() and (found[1] == wanted[1]).all()
