"""Indexes that keep vectors: the nearest patches are ranked again by the angle between features."""

from __future__ import annotations

import json

import numpy as np
import pytest
from slide_rows import slide_row

import sish
from sish.errors import IndexCorruptError, IndexFormatError
from sish.header import IndexHeader
from sish.index.bags import Bags
from sish.index.projection import calibrated, project
from sish.index.store import Store, slide_snapshot
from sish.queries import Question
from sish.rerank import RERANKED, Rerank

WIDTH, SLIDES, ROWS = 96, 60, 100


@pytest.fixture(scope="module")
def vectors():
    """Vectors that lie near a plane of 20 dimensions, with a common part, as features of networks do."""
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(20, WIDTH))
    return (
        rng.normal(size=(SLIDES * ROWS, 20)) @ plane + 0.2 * rng.normal(size=(SLIDES * ROWS, WIDTH)) + 2
    ).astype(np.float32)


@pytest.fixture(scope="module")
def ids():
    return np.repeat([f"s{number:02}" for number in range(SLIDES)], ROWS)


@pytest.fixture(scope="module", params=["int8", "float16"])
def index(request, vectors, ids, tmp_path_factory):
    path = tmp_path_factory.mktemp("rerank") / f"{request.param}.sish"
    return sish.Index.from_vectors(path, vectors, ids, rerank=request.param, show_progress=False)


def found(index: sish.Index, query: np.ndarray, k: int) -> list[set[int]]:
    """The first k results of each query patch, as rows of the archive."""
    state, view = index.state_and_view()
    _, codes = Question(query).encoded(state, index.encoder)
    bags = view.searcher.bags(codes, None, index.params.with_changes({"threshold": 1024}))
    slides = np.array([int(row.slide_id[1:]) for row in view.searcher.slides])
    rows = slides[view.searcher.slide_of(bags.patch)] * ROWS + view.searcher.row_of(bags.patch)
    return [set(rows[begin : begin + k].tolist()) for begin in bags.offset[:-1]]


def exact(archive: np.ndarray, query: np.ndarray, k: int) -> list[set[int]]:
    """The k rows of the archive with the smallest angle to each query row, both centred on the archive."""
    centre = archive.mean(axis=0)
    one, other = archive - centre, query - centre
    cosine = (other / np.linalg.norm(other, axis=1)[:, None]) @ (one / np.linalg.norm(one, axis=1)[:, None]).T
    return [set(row.tolist()) for row in np.argsort(-cosine, axis=1)[:, :k]]


def recall(one: list[set[int]], other: list[set[int]]) -> float:
    return sum(len(a & b) for a, b in zip(one, other, strict=True)) / sum(map(len, other))


def test_more_of_the_nearest_features_are_found(index, vectors, ids, tmp_path):
    query = vectors[::150] + 0.3 * np.random.default_rng(1).normal(size=(40, WIDTH)).astype(np.float32)
    plain = sish.Index.from_vectors(tmp_path / "plain.sish", vectors, ids, show_progress=False)
    wanted = exact(vectors, query, 10)
    assert recall(found(plain, query, 10), wanted) < 0.85 < 0.95 < recall(found(index, query, 10), wanted)


def test_distances_are_the_angle_in_bits(index, vectors):
    query = vectors[:3] + np.float32(0.5)
    state, view = index.state_and_view()
    _, codes = Question(query).encoded(state, index.encoder)
    bags = view.searcher.bags(codes, None, index.params)
    known = index.encoder.calibration
    one = calibrated(query, centre=known.centre, spread=known.spread)
    slides = np.array([int(row.slide_id[1:]) for row in view.searcher.slides])
    for number in range(3):
        own = slice(bags.offset[number], min(bags.offset[number] + RERANKED, bags.offset[number + 1]))
        rows = slides[view.searcher.slide_of(bags.patch[own])] * ROWS + view.searcher.row_of(bags.patch[own])
        other = calibrated(vectors[rows], centre=known.centre, spread=known.spread)
        angle = np.degrees(np.arccos(np.clip(other @ one[number], -1, 1)))
        near = bags.hamming[own]
        assert np.abs(near * 180 / 1024 - angle).max() < 1.5
        assert (np.diff(near) >= 0).all()


def test_a_slide_finds_itself_and_the_id_and_the_vectors_have_one_answer(index, vectors, ids):
    by_id = index.search("s07", k=4)
    assert by_id[0].slide_id == "s07" and by_id[0].score == 1.0
    assert by_id.hits == index.search(vectors[ids == "s07"], k=4).hits
    assert all(pair.hamming == 0 for pair in by_id[0].patches)


def test_answers_stay_when_the_index_is_compacted_converted_and_opened_again(index, vectors):
    before = index.search(vectors[:50], k=5).hits
    index.compact()
    again = sish.Index.open(index.path, verify=True)
    assert again.search(vectors[:50], k=5).hits == before and sish.verify(index.path) == []
    assert again.encoder.rerank.coder.kind in ("int8", "float16")


def test_slides_that_are_removed_or_added_are(vectors, ids, tmp_path):
    index = sish.Index.from_vectors(tmp_path / "a.sish", vectors, ids, rerank="int8", show_progress=False)
    index.remove("s07")
    assert "s07" not in {hit.slide_id for hit in index.search(vectors[ids == "s07"], k=5)}
    index.add_vectors(vectors[ids == "s07"], ["again"] * ROWS, show_progress=False)
    assert index.search(vectors[ids == "s07"], k=1)[0].slide_id == "again"
    assert sish.Index.create(tmp_path / "b.sish", like=index).encoder.rerank is not None


def test_slides_of_pixels_keep_vectors_too(synthetic_slides, tmp_path):
    plain = sish.Index.create(tmp_path / "plain.sish")
    index = sish.Index.create(tmp_path / "a.sish", rerank="int8")
    for each in (plain, index):
        each.add(synthetic_slides, show_progress=False)
    assert (index.snapshot().barcodes == plain.snapshot().barcodes).all()
    patches = index.info().patches
    assert index.snapshot().vectors.shape == (patches, index.encoder.model.n_features + 8)
    path = index.slides[0].path
    assert index.search(path, k=3).hits == index.search(index.slides[0].slide_id, k=3).hits
    assert index.recalibrate(show_progress=False).slides == 0  # the same features are measured
    assert index.search(path, k=1)[0].score == 1.0


def test_what_cannot_keep_vectors_is_refused(tmp_path, vectors, ids):
    with pytest.raises(sish.ParameterError, match="rerank='float8'"):
        sish.Index.create(tmp_path / "a.sish", rerank="float8")
    with pytest.raises(sish.ParameterError, match="not of angles"):
        sish.Index.create(tmp_path / "a.sish", encoder="vqvae", rerank="int8")
    with pytest.raises(sish.ParameterError, match="beside recipe="):
        sish.Index.create(tmp_path / "a.sish", like=tmp_path, rerank="int8")
    assert not (tmp_path / "a.sish").exists()


def test_a_damaged_array_of_vectors_is_found(vectors, ids, tmp_path):
    index = sish.Index.from_vectors(tmp_path / "a.sish", vectors, ids, rerank="int8", show_progress=False)
    index.compact()
    (file,) = (tmp_path / "a.sish" / "segments").glob("*/vectors/c.0.0")
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    assert "vectors" in sish.verify(index.path)[0]
    with pytest.raises(IndexCorruptError, match="vectors"):
        sish.Index.open(index.path, verify=True).search("s01")
    file.write_bytes(data[:-1])
    assert sish.Index.open(index.path).damage


def test_a_store_keeps_vectors_of_one_width(tmp_path):

    def slide(name: str, width: int | None):
        row = slide_row(name, 3)
        vectors = None if width is None else np.arange(3 * width, dtype=np.uint8).reshape(3, width)
        return slide_snapshot(row, np.array([[2], [1], [0]]), np.zeros((3, 8), np.uint8), None, vectors)

    with Store.create(tmp_path / "a", {}) as store:
        store.append_many([slide("a", 4)])
        for other in (None, 5):
            with pytest.raises(sish.ParameterError, match=f"{other or 0} bytes of a vector a patch"):
                store.append_many([slide("b", other)])
        store.append_many([slide("b", 4)])
        kept = store.snapshot()
        assert kept.vectors.tolist() == [[8, 9, 10, 11]] * 2 + [[4, 5, 6, 7]] * 2 + [[0, 1, 2, 3]] * 2
        assert store.verify() == []
    with Store.create(tmp_path / "b", {}) as store:
        store.append_many([slide("a", None)])
        with pytest.raises(sish.ParameterError, match="4 bytes of a vector"):
            store.append_many([slide("b", 4)])


def test_the_header_tells_the_rule_and_odd_ones_are_refused(index):
    plain = json.loads(json.dumps(index._header.to_json()))
    back = IndexHeader.from_json(plain).rerank.coder
    own = index.encoder.rerank.coder
    assert (back.mean == own.mean).all() and (back.spread == own.spread).all() and back.kind == own.kind
    for odd in (
        5,
        {},
        {"mean": 5},
        {"mean": "?"},
        {"mean": "AACAfw=="},
        {"mean": "AAAA"},
        {"spread": "AAAAAA=="},
    ):
        with pytest.raises(IndexFormatError, match="its rerank is"):
            IndexHeader.from_json({**plain, "rerank": odd})


def test_only_the_nearest_are_ranked_again():
    rng = np.random.default_rng(3)
    stored = rng.normal(size=(400, 16)).astype(np.float32)
    rule = Rerank.of("float16", 16).measured_on(stored)
    hamming = np.sort(rng.integers(1, 64, 400)).astype(np.int32)
    bags = Bags(np.array([0, 0, 400]), np.arange(400), hamming)
    rows = rule.encode(stored)

    def vectors_of(patches):
        return patches, [rows[:150], rows[150:]]

    again = rule.bags(bags, rows[:2], vectors_of, n_bits=64, threshold=64)
    assert sorted(again.patch.tolist()) == list(range(400)) and (np.diff(again.hamming) >= 0).all()
    far = {int(patch): int(bits) for patch, bits in zip(again.patch, again.hamming, strict=True)}
    assert all(far[patch] == hamming[patch] for patch in range(RERANKED, 400))
    unit = stored / np.linalg.norm(stored, axis=1)[:, None]
    angle = np.arccos(np.clip(unit @ unit[1], -1, 1)) * 64 / np.pi
    assert all(abs(far[patch] - angle[patch]) < 1 for patch in range(RERANKED))
    cut = rule.bags(bags, rows[:2], vectors_of, n_bits=64, threshold=30)
    near = [(patch, bits) for patch, bits in zip(again.patch, again.hamming, strict=True) if bits <= 30]
    assert list(zip(cut.patch, cut.hamming, strict=True)) == near and cut.offset.tolist() == [0, 0, len(near)]


def test_calibrated_features_have_the_cosines_of_their_projections():
    features = np.random.default_rng(4).normal(size=(20, 64)) + 3
    centre = features.mean(axis=0).astype(np.float32)
    one, other = calibrated(features, centre=centre), project(features, centre=centre)
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-5)


def test_the_vectors_of_a_slide_are_given_back(index, vectors, ids):
    patches, known = index.patches("s07"), index.encoder.calibration
    wanted = calibrated(vectors[ids == "s07"], centre=known.centre, spread=known.spread)
    np.testing.assert_allclose(patches.vectors, wanted, atol=0.02)
    assert len(patches.to_pandas()["vector"][3]) == WIDTH
