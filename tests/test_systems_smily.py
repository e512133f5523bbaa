"""SMILY: the contract, orientations, merging, refinement and the tree, by hand and against plain scans."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from plain_encoder import OnceDescriber, PlainEncoder
from system_contract import SystemContract

from sish.errors import (
    EncoderMismatchError,
    IndexFormatError,
    IndexNotFoundError,
    LabelsError,
    MissingMppError,
    ParameterError,
    QueryError,
    StoreError,
)
from sish.slides.orientations import ORIENTATIONS, oriented
from sish.systems.item import Item
from sish.systems.patch_features import Tiles, unit
from sish.systems.smily.embeddings import EmbeddingTable
from sish.systems.smily.refinement import Concept, toward
from sish.systems.smily.regions import RegionQuery, Smily, SmilyPatches, _mean_of_found
from sish.vqvae.encoder import Encoder, HammingScale
from sish.vqvae.model import VQVAE, VQVAEConfig, to_unit

SCALES = (1.0, 2.0)


TILES = OnceDescriber(Tiles(64, SCALES, mosaic=False))


def small_smily(search="exact"):
    smily = Smily(SCALES, size_px=64, search=search, encoder=PlainEncoder())
    smily._describer = TILES
    return smily


class TestSmily(SystemContract):
    needs_mpp = True

    def make(self):
        return small_smily()


class TestSmilyByTree(SystemContract):
    needs_mpp = True

    def make(self):
        return small_smily("tree")


class TestSmilyOfWholePictures(SystemContract):
    def make(self):
        return Smily(None, encoder=PlainEncoder())


# ---- orientations


def test_the_eight_orientations_are_all_there_are():
    patch = np.random.default_rng(0).integers(0, 255, (2, 4, 6, 3), dtype=np.uint8)
    turned = [oriented(patch, number) for number in range(ORIENTATIONS)]
    assert [each.shape[1:3] for each in turned] == [(4, 6), (6, 4)] * 4
    assert len({each.tobytes() for each in turned}) == 8
    for first in range(8):  # any two in a row make one of the eight: they are a group
        for second in range(8):
            assert oriented(turned[first], second).tobytes() in {each.tobytes() for each in turned}


@pytest.mark.parametrize("number", range(ORIENTATIONS))
def test_a_turned_picture_finds_itself(number, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (1, 64, 64, 3), dtype=np.uint8)
    pixels[:, ::2] //= 3  # stripes: the encoder tells a quarter turn
    Image.fromarray(pixels[0]).save(tmp_path / "straight.png")
    Image.fromarray(oriented(pixels, number)[0]).save(tmp_path / "turned.png")
    other = np.random.default_rng(2).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(other).save(tmp_path / "other.png")
    items = [Item(name, tmp_path / f"{name}.png") for name in ("other", "straight")]
    found = Smily(None, encoder=PlainEncoder()).fit(items).search(Item("q", tmp_path / "turned.png"), 2)
    assert found[0].item_id == "straight" and found[0].score == pytest.approx(1, abs=1e-6)
    assert found[1].score < 0.999


def test_an_encoder_that_knows_no_orientation_is_asked_once(pictures):
    calls = []

    class Invariant(PlainEncoder):
        orientation_invariant = True

        def encode(self, images):
            calls.append(len(images))
            turned = [super(Invariant, self).encode(oriented(images, number)) for number in range(8)]
            return replace(turned[0], features=np.mean([each.features for each in turned], axis=0))

    smily = Smily(None, encoder=Invariant()).fit(pictures[:4])
    calls.clear()
    found = smily.search(replace(pictures[2], item_id="q"), 1)
    assert calls == [1] and found[0].item_id == pictures[2].item_id


@pytest.mark.parametrize("features", ["oriented", "texture", "pooled"])
def test_an_encoder_says_whether_it_knows_orientations(features):
    torch.manual_seed(0)
    model = VQVAE(VQVAEConfig(features=features))
    encoder = Encoder(model, "test", HammingScale(1, (), ""))
    assert encoder.orientation_invariant == (features != "pooled")
    if encoder.orientation_invariant:  # and it is true of what its features are made of
        patch = np.random.default_rng(0).integers(0, 255, (1, 64, 96, 3), dtype=np.uint8)
        images = [to_unit(torch.from_numpy(oriented(patch, number))) for number in range(ORIENTATIONS)]
        with torch.inference_mode():
            raw = torch.cat([model.eval().raw_features(image) for image in images])
        torch.testing.assert_close(raw, raw[:1].expand_as(raw), rtol=1e-4, atol=1e-5)


# ---- the table


def table_of(vectors, item, xy=None, side=10.0):
    rows = unit(np.asarray(vectors, np.float32))
    corners = np.zeros((len(rows), 2), np.int64) if xy is None else np.asarray(xy)
    return EmbeddingTable(rows, np.asarray(item, np.int32), corners, np.full(len(rows), side, np.float32))


def test_the_best_orientation_of_the_best_patch_by_hand():
    table = table_of([[1, 0], [0, 1], [3, 4]], [0, 0, 2])
    query = np.float32([[[1, 0], [0.6, 0.8]], [[0, 1], [0, -1]]])  # two patches in two orientations
    best = table.best_of_items(query, 3)
    # item 0: max(1, 0 | 0.6, 0.8) = 1, and max(0, 1 | 0, -1) = 1; item 2: max(0.6, 1) = 1 and 0.8
    assert best[:, 0].tolist() == [1, 1] and best[:, 2] == pytest.approx([1, 0.8])
    assert np.isneginf(best[:, 1]).all()
    found = table.all_candidates(query[0])
    assert found.cosine == pytest.approx([1, 0.8, 1]) and found.orientation.tolist() == [0, 1, 1]


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_blocks_change_nothing(seed):
    rng = np.random.default_rng(seed)
    table = table_of(rng.normal(size=(40, 6)), np.sort(rng.integers(0, 7, 40)))
    query = unit(rng.normal(size=(3, 8, 6)))
    want = table.best_of_items(query, 8), table.all_candidates(query[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sish.systems.smily.embeddings._BLOCK", 7)
        got = table.best_of_items(query, 8), table.all_candidates(query[0])
    np.testing.assert_allclose(got[0], want[0], atol=1e-6)
    np.testing.assert_allclose(got[1].cosine, want[1].cosine, atol=1e-6)
    for item in range(8):  # and the plain scan
        own = table.vectors[table.item == item]
        plain = np.einsum("mof,pf->mop", query, own).max(axis=(1, 2), initial=-np.inf)
        np.testing.assert_allclose(want[0][:, item], plain, atol=1e-6)


def test_the_tree_finds_what_the_scan_finds():
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(60, 32))
    vectors = (centres[:, None] + 0.3 * rng.normal(size=(60, 50, 32))).reshape(-1, 32)
    table = table_of(vectors, np.arange(len(vectors)))
    query = unit(centres[:20, None] + 0.3 * rng.normal(size=(20, 8, 32)))
    allowed = np.ones(len(vectors), bool)
    allowed[:100] = False
    hits = []
    for one, found in zip(query, table.tree_candidates(query, allowed, budget=300), strict=True):
        assert allowed[table.item[found.row]].all()  # what is not allowed takes no place
        every = table.all_candidates(one)
        exact = [row for row in np.argsort(-every.cosine, kind="stable") if allowed[row]][:10]
        tree = found.row[np.argsort(-found.cosine, kind="stable")][:10]
        np.testing.assert_allclose(found.cosine, every.cosine[found.row], atol=1e-6)
        hits.append(len(set(exact) & set(tree.tolist())) / 10)
    assert np.mean(hits) > 0.8  # of 3,000 patches 300 were looked at in each orientation
    (everything,) = table.tree_candidates(query[:1], allowed, budget=10**6)
    best = everything.row[everything.cosine.argmax()]
    every = table.all_candidates(query[0])
    assert best == np.flatnonzero(allowed)[every.cosine[allowed].argmax()]


def test_both_searches_agree_where_the_budget_is_everything(pictures):
    exact, tree = small_smily().fit(pictures), small_smily("tree").fit(pictures)
    for query in pictures[::4]:
        want, got = exact.search(query, 3), tree.search(query, 3)
        assert [hit.item_id for hit in got] == [hit.item_id for hit in want]
    assert tree.nbytes() > exact.nbytes()


# ---- regions


def fitted_by_hand(vectors, item, xy):
    smily = Smily(None, encoder=PlainEncoder())
    smily.set_items([Item(name, __file__) for name in ("a", "b")])
    smily._set_tables({0.0: table_of(vectors, item, xy)})
    return smily


def region_query(vector):
    return RegionQuery(Item("q", __file__), (0, 0, 10, 10), unit(np.float32([vector] * 8)), 0.0)


def test_hits_at_one_place_are_merged_by_hand():
    # item a: a patch at (0, 0), its neighbour (10, 10), one two sides away; item b: one at (0, 0)
    smily = fitted_by_hand(
        [[5, 1], [5, 2], [5, 3], [5, 4]], [0, 0, 0, 1], [[0, 0], [10, 10], [20, 20], [0, 0]]
    )
    found = smily.search_region(region_query([1, 0]), k=3)
    # (10, 10) is 14.1 < 15 from the best and joins it; (20, 20) is 28.3 away, so it stays
    assert [(hit.item_id, hit.l0_xy, hit.merged) for hit in found] == [
        ("a", (0, 0), 1), ("a", (20, 20), 0), ("b", (0, 0), 0)
    ]  # fmt: skip
    assert [hit.rank for hit in found] == [1, 2, 3]
    assert found[0].score == pytest.approx(5 / np.sqrt(26))
    assert [hit.patch for hit in smily.search_region(region_query([1, 0]), k=1)] == [0]
    with pytest.raises(ParameterError, match="k=0"):
        smily.search_region(region_query([1, 0]), k=0)


def test_a_region_is_read_at_the_scale_of_its_size(pictures):
    smily = small_smily().fit(pictures)
    assert smily.region(pictures[0], (10, 10, 70, 60)).mpp == 1.0
    assert smily.region(pictures[0], (0, 0, 120, 130)).mpp == 2.0
    assert smily.region(pictures[0], (200, 200, 500, 20)).mpp == 1.0  # what lies on the picture: 56 x 20
    for outside in ((900, 0, 10, 10), (0, 0, 0, 10)):
        with pytest.raises(ParameterError, match="region"):
            smily.region(pictures[0], outside)
    with pytest.raises(MissingMppError):
        smily.region(replace(pictures[0], mpp=None), (0, 0, 64, 64))


def test_a_region_finds_its_own_place_and_never_its_own_slide(pictures):
    smily = small_smily().fit(pictures)
    stranger = replace(pictures[2], item_id="stranger", group="")
    best = smily.search_region(smily.region(stranger, (64, 128, 64, 64)), k=4)[0]
    assert (best.item_id, best.l0_xy, best.l0_px) == (pictures[2].item_id, (64, 128), 64.0)
    assert best.score == pytest.approx(1, abs=1e-6) and best.orientation == 0
    own = smily.search_region(smily.region(pictures[0], (64, 128, 64, 64)), k=50)
    assert not {hit.item_id for hit in own} & {"pink0", "pink1"}  # one group
    assert len({(hit.item_id, hit.l0_xy) for hit in own}) == len(own)
    by_tree = small_smily("tree").fit(pictures)
    assert by_tree.search_region(by_tree.region(stranger, (64, 128, 64, 64)), k=1)[0].l0_xy == (64, 128)


def test_a_region_before_there_is_a_database(pictures):
    with pytest.raises(QueryError, match="fit"):
        small_smily().region(pictures[0], (0, 0, 64, 64))
    assert small_smily().fit(pictures[:2]).search(pictures[0]).note  # nothing but its own group
    smily = small_smily().fit(pictures[:2])
    nothing = smily.search_region(smily.region(pictures[0], (0, 0, 64, 64)))
    assert not len(nothing) and nothing.note == "0 of 10 wanted: no more could be found"


# ---- refinement


def test_toward_examples_by_hand():
    query = np.float32([[1, 0], [0, -1]])
    assert toward(query, [[0, 3]], 0.0).tolist() == query.tolist()
    assert toward(query, [[0, 3], [0, 1]], 1.0).tolist() == [[0, 1], [0, 1]]
    moved = toward(query, [[0, 3]], 0.2)  # (0.8, 0.2) and (0, -0.6), of unit length
    assert moved == pytest.approx(np.array([[0.8, 0.2] / np.sqrt(0.68), [0, -1]]))
    for weight, examples in ((1.1, [[0, 1]]), (-0.1, [[0, 1]]), (0.5, np.zeros((0, 2))), (0.5, [[1, 2, 3]])):
        with pytest.raises(ParameterError, match="weight"):
            toward(query, examples, weight)


def test_a_concept_by_hand():
    # with: (2, 0), (2, 4); without: (0, 0), (0, 4). Means differ by (2, 0); scatter within is diag(0, 4)
    concept = Concept.learn("c", [[2, 0], [2, 4]], [[0, 0], [0, 4]], shrinkage=0.5)
    # blend = 0.5 diag(0, 4) + 0.5 * (4 / 2) I = diag(1, 3): direction (2, 0), unit (1, 0)
    assert concept.direction.tolist() == [1, 0]
    # with one more feature of little use: scatter diag(1, 0), apart (2, 1), blend diag(0.75, 0.25)
    tilted = Concept.learn("t", [[3, 1], [1, 1]], [[1, 0], [-1, 0]], shrinkage=0.5)
    assert tilted.direction == pytest.approx(np.array([2 / 0.75, 1 / 0.25]) / np.hypot(2 / 0.75, 4))
    query = np.float32([[0, 1]])
    assert concept.applied(query, 0.0).tolist() == [[0, 1]]
    assert concept.applied(query, 0.75) == pytest.approx(np.array([[0.6, 0.8]]))
    assert concept.applied(query, -0.75) == pytest.approx(np.array([[-0.6, 0.8]]))


def test_a_concept_that_cannot_be_learnt_is_refused():
    for shows, lacks in (([[1.0, 0]], np.zeros((0, 2))), ([[1.0, 0]], [[1.0, 0]])):
        with pytest.raises(LabelsError, match="concept 'c'"):
            Concept.learn("c", shows, lacks)
    for weight in (1.5, -2):
        with pytest.raises(ParameterError, match="weight"):
            Concept.learn("c", [[1.0, 0]], [[0.0, 0]]).applied(np.float32([[1, 0]]), weight)
    with pytest.raises(ParameterError, match="shrinkage"):
        Concept.learn("c", [[1.0, 0]], [[0.0, 0]], shrinkage=0)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_a_concept_parts_what_it_was_learnt_from(seed, n_shows, n_lacks):
    rng = np.random.default_rng(seed)
    shows, lacks = rng.normal(size=(n_shows, 6)) + 1, rng.normal(size=(n_lacks, 6)) - 1
    direction = Concept.learn("c", shows, lacks).direction
    assert (shows @ direction).mean() > (lacks @ direction).mean()
    assert np.linalg.norm(direction) == pytest.approx(1)


def test_refinement_moves_the_answer(pictures):
    smily = small_smily().fit(pictures)
    query = smily.region(pictures[0], (60, 60, 128, 128))
    shown = smily.search_region(query, k=6)
    other = next(hit for hit in shown if not hit.item_id.startswith(shown[0].item_id[:4]))
    liked = smily.search_region(smily.like(query, [other], 1.0), k=1)[0]
    assert (liked.item_id, liked.l0_xy) == (other.item_id, other.l0_xy)
    violet = smily.concept(
        "violet",
        [smily.region(item, (60, 60, 128, 128)) for item in pictures[4:7]],
        [smily.region(item, (60, 60, 128, 128)) for item in (*pictures[:3], *pictures[8:11])],
    )
    names = [hit.item_id for hit in smily.search_region(smily.along(query, violet, 1.0), k=3)]
    assert all(name.startswith("violet") for name in names)
    part = smily.crop(query, (70, 70, 64, 64))
    assert part.mpp == 1.0 and part.region == (70, 70, 64, 64)
    for outside in ((0, 0, 64, 64), (70, 70, 300, 10), (70, 70, 0, 10)):
        with pytest.raises(ParameterError, match="inside"):
            smily.crop(query, outside)


# ---- folders


def test_a_saved_database_answers_alike_and_grows(pictures, tmp_path):
    smily = small_smily().fit(pictures)
    part = small_smily().fit(pictures[:5])
    part.save(tmp_path / "regions.smily")
    opened = Smily.open(tmp_path / "regions.smily", encoder=PlainEncoder())
    assert opened.search(pictures[7], 4) == part.search(pictures[7], 4)
    opened.add(pictures[5:]).save(tmp_path / "regions.smily")
    again = Smily.open(tmp_path / "regions.smily", encoder=PlainEncoder())
    query = again.region(pictures[8], (60, 60, 128, 128))
    assert again.search_region(query, 9).hits == smily.search_region(query, 9).hits
    assert again.search(pictures[3], 9) == smily.search(pictures[3], 9)
    with pytest.raises(ParameterError, match="pink0"):
        again.add(pictures[:1])
    whole = Smily(None, encoder=PlainEncoder()).fit(pictures)
    whole.save(tmp_path / "whole.smily")
    same = Smily.open(tmp_path / "whole.smily", encoder=PlainEncoder(), search="tree")
    assert [hit.item_id for hit in same.search(pictures[3], 3)] == [
        hit.item_id for hit in whole.search(pictures[3], 3)
    ]
    small_smily().fit([]).save(tmp_path / "empty.smily")
    assert len(Smily.open(tmp_path / "empty.smily", encoder=PlainEncoder())) == 0


def test_folders_that_are_none_are_refused(pictures, tmp_path):
    folder = tmp_path / "regions.smily"
    with pytest.raises(IndexNotFoundError, match="sish smily build"):
        Smily.open(folder)
    small_smily().fit(pictures[:2]).save(folder)

    class Other(PlainEncoder):
        fingerprint = "other"

    with pytest.raises(EncoderMismatchError, match="other"):
        Smily.open(folder, encoder=Other())
    next(folder.glob("scale-0.item.*.npy")).write_bytes(b"short")
    with pytest.raises(IndexFormatError, match="anew"):
        Smily.open(folder, encoder=PlainEncoder())
    header = json.loads((folder / "smily.json").read_text())
    (folder / "smily.json").write_text(json.dumps(header | {"format": "smily-9"}))
    with pytest.raises(IndexFormatError, match="smily-9"):
        Smily.open(folder, encoder=PlainEncoder())
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.doc").write_text("mine")
    with pytest.raises(StoreError, match="something else"):
        small_smily().fit(pictures[:2]).save(taken)
    assert (taken / "thesis.doc").read_text() == "mine"


# ---- a whole item as the query


def test_a_whole_item_is_asked_by_a_few_of_its_patches(pictures):
    # 256 px at 1 um/px are 16 tiles of 64 px at 1 um/px and 4 at 2; 9 at most are read
    (coarse,) = Tiles(64, SCALES, mosaic=False).read_few(pictures[0], 9)
    assert (coarse.mpp, len(coarse.pixels)) == (2.0, 4)
    (fine,) = Tiles(64, SCALES, mosaic=False).read_few(pictures[0], 16)
    assert (fine.mpp, len(fine.pixels)) == (1.0, 16)
    (some,) = Tiles(64, (1.0,), mosaic=False).read_few(pictures[0], 9)  # too many at every scale
    assert (some.mpp, len(some.pixels)) == (1.0, 9)
    assert some.l0_xy[[0, -1]].tolist() == [[0, 0], [192, 192]]  # spread over all of it
    query = small_smily().fit(pictures[:4]).describe_query(pictures[0])
    assert query.vectors.shape == (4, ORIENTATIONS, 64)


def test_the_score_of_an_item_is_the_mean_over_the_query_s_patches():
    smily = fitted_by_hand([[1, 0], [0, 1], [3, 4]], [0, 0, 1], np.zeros((3, 2), int))
    asked = SmilyPatches(
        np.float32([[[1, 0]], [[0.6, 0.8]]]), np.zeros((2, 2), np.int64), np.ones(2), np.zeros(2)
    )
    # item a: 1 and 0.8; item b: 0.6 and 1
    assert smily.score(asked, np.ones(2, bool), 2).value == pytest.approx([0.9, 0.8])


def test_where_the_tree_saw_nothing_the_worst_it_saw_stands_in():
    inf = np.inf
    best = np.float32([[0.9, -inf, 0.5, -inf], [0.4, 0.8, -inf, -inf], [-inf, -inf, -inf, -inf]])
    # the first patch's worst is 0.5, the second's 0.4; the third saw nothing anywhere: 0 for all
    want = [(0.9 + 0.4 + 0) / 3, (0.5 + 0.8 + 0) / 3, (0.5 + 0.4 + 0) / 3, -inf]
    assert _mean_of_found(best) == pytest.approx(want)


def test_options_that_are_none_are_refused():
    for options in ({"search": "fast"}, {"budget": 0}, {"size_px": 0}):
        with pytest.raises(ParameterError, match="got"):
            Smily((1.0,), **options)
