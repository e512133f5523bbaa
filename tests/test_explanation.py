"""Why a slide is where it is in an answer: shares, exact matches, histogram, bag and words."""

import math
from dataclasses import replace

import numpy as np
import pytest

import sish
from sish.errors import QueryError, UnknownSlideError
from sish.explanation_words import Facts, ordinal, words_of

BITS = 1024


def archive(folder, *, slides=40, patches=12, rerank=None, seed=0, labels=True, **options):
    """An index of vectors that lie about six centres; slides have two of the centres each."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, 40))
    own = np.repeat(np.arange(slides), patches)
    kind = (own + rng.integers(0, 2, len(own)) * (own % 3)) % 6
    vectors = (centres[kind] + 0.7 * rng.normal(size=(len(own), 40))).astype(np.float32)
    names = [f"s{number:03}" for number in range(slides)]
    told = {name: f"kind {number % 6}" for number, name in enumerate(names)} if labels else None
    return sish.Index.from_vectors(
        folder, vectors, np.array(names)[own], labels=told, rerank=rerank, show_progress=False,
        patients={name: f"p{number // 2}" for number, name in enumerate(names)},
        l0_xy=rng.integers(0, 9999, (len(own), 2)), mpp=0.5, patch_l0_px=512, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return archive(tmp_path_factory.mktemp("why") / "a.sish")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """An archive with a tree, where a search looks at a part of the patches."""
    return archive(tmp_path_factory.mktemp("why") / "large.sish", slides=400, patches=14)


def bits_between(asked: np.ndarray, others: np.ndarray) -> np.ndarray:
    """By the book: the differing bits of every pair, (queries, others)."""
    one, two = np.unpackbits(asked, axis=1), np.unpackbits(others, axis=1)
    return (one[:, None] != two[None]).sum(axis=2)


@pytest.mark.parametrize("ranking", ["similarity", "uncertainty"])
@pytest.mark.parametrize("search", [{}, {"threshold": 150}, {"threshold": 30}])
def test_shares_sum_to_the_score_of_every_hit(index, ranking, search):
    for slide_id in ("s000", "s013"):
        answer = index.search(slide_id, k=25, ranking=ranking, search=search)
        assert len(answer) == 25
        for hit in answer:
            why = index.explain(answer, hit.slide_id)
            assert why.rank == hit.rank and why.slide_id == hit.slide_id
            assert why.score == pytest.approx(hit.score, abs=1e-12)
            assert sum(patch.share for patch in why.patches) == pytest.approx(hit.score, abs=1e-9)
            assert sum(patch.weight for patch in why.patches) == pytest.approx(1.0)
            for patch in why.patches:
                assert patch.share == pytest.approx(patch.weight * patch.closeness)
            assert 3 <= len(why.words) <= 6


@pytest.mark.parametrize("rerank", ["int8", "float16"])
def test_shares_sum_to_the_score_where_vectors_rank_again(tmp_path, rerank):
    index = archive(tmp_path / "v.sish", rerank=rerank)
    answer = index.search("s005", k=10)
    for hit in answer:
        why = index.explain(answer, hit.slide_id)
        assert sum(patch.share for patch in why.patches) == pytest.approx(hit.score, abs=1e-9)
    own = index.explain(answer, "s005")
    assert [patch.hamming for patch in own.patches] == [0] * 12


@pytest.mark.parametrize("budget", [60, 400, 4000])
def test_shares_sum_to_the_score_where_the_search_missed_matches(large, budget):
    answer = large.search("s017", k=30, ranking="similarity", search={"budget": budget})
    missed = 0
    for hit in answer:
        why = large.explain(answer, hit.slide_id)
        assert sum(patch.share for patch in why.patches) == pytest.approx(hit.score, abs=1e-9)
        assert all(patch.counted is None or patch.counted >= patch.hamming for patch in why.patches)
        reach = max(why.threshold, answer.asked.params.reach)
        lacking = sum(patch.counted is None and patch.hamming <= reach for patch in why.patches)
        assert any("counts no match" in word for word in why.words) == (lacking > 0)
        missed += lacking
    assert (missed > 0) == (budget == 60)


def test_matches_are_the_nearest_of_all_patches(index):
    answer = index.search("s002", k=5)
    asked, others = index.patches("s002"), index.patches("s031")
    bits = bits_between(asked.barcodes, others.barcodes)
    why = index.explain(answer, "s031")
    assert [patch.hamming for patch in why.patches] == bits.min(axis=1).tolist()
    assert [patch.row for patch in why.patches] == bits.argmin(axis=1).tolist()
    assert [patch.query_row for patch in why.patches] == list(range(12))
    for patch in why.patches:
        assert patch.query_xy == tuple(asked.l0_xy[patch.query_row])
        assert patch.xy == tuple(others.l0_xy[patch.row])


def test_weights_and_counts_follow_the_formula(index):
    answer = index.search("s002", k=5, ranking="similarity", search={"threshold": 200, "reach": 0})
    asked = index.patches("s002").barcodes
    per_slide = {
        row.slide_id: bits_between(asked, index.patches(row.slide_id).barcodes).min(axis=1)
        for row in index.slides
    }
    near = np.array([bits <= 200 for bits in per_slide.values()])
    weights = np.log1p(near.any(axis=1).sum() / np.maximum(near.sum(axis=0), 1))
    for slide_id in ("s002", answer[3].slide_id, "s039"):
        why = index.explain(answer, slide_id)
        assert [patch.found_in for patch in why.patches] == near.sum(axis=0).tolist()
        assert [patch.weight for patch in why.patches] == pytest.approx((weights / weights.sum()).tolist())
        own = per_slide[slide_id]
        counted = [int(bits) if bits <= 200 else None for bits in own]
        assert [patch.counted for patch in why.patches] == counted
        closeness = np.where(own <= 200, 1 - 2 * own / BITS, 0)
        assert why.score == pytest.approx((weights * closeness).sum() / weights.sum())


def test_the_histogram_counts_this_slide_and_all_others(index):
    answer = index.search("s002", k=5)
    asked = index.patches("s002").barcodes
    why = index.explain(answer, "s007")
    others = np.concatenate(
        [
            bits_between(asked, index.patches(row.slide_id).barcodes).min(axis=1)
            for row in index.slides
            if row.slide_id != "s007"
        ]
    )
    edges = why.histogram.edges
    assert edges[0] == 0 and edges[-1] >= BITS // 2 and set(np.diff(edges)) == {16}
    assert list(why.histogram.archive) == np.histogram(others, edges)[0].tolist()
    own = [patch.hamming for patch in why.patches]
    assert (
        list(why.histogram.slide) == np.histogram(own, edges)[0].tolist() and sum(why.histogram.slide) == 12
    )


def test_a_ranking_by_uncertainty_shows_the_bag_that_placed_a_slide(index):
    answer = index.search("s002", k=10, ranking="uncertainty")
    seen = 0
    for hit in answer:
        why = index.explain(answer, hit.slide_id)
        if hit.placed:
            weights = [weight for _, weight in why.bag.labels]
            assert sum(weights) == pytest.approx(1.0) and weights == sorted(weights, reverse=True)
            assert why.bag.uncertainty == pytest.approx(hit.uncertainty)
            entropy = -sum(weight * math.log2(weight) for weight in weights)
            assert entropy == pytest.approx(hit.uncertainty, abs=1e-12)
            assert why.bag.query_row == hit.patches[0].query_row
            assert f"because of patch {why.bag.query_row + 1} of the query" in why.words[2]
            assert why.bag.labels[0][0] in why.words[2]
            seen += 1
        else:
            assert why.bag is None and "only fills the list" in why.words[2]
    assert seen


def test_what_only_fills_the_list_says_so(index):
    answer = index.search("s002", k=40, ranking="similarity", search={"threshold": 20, "reach": 0})
    fill = next(hit for hit in answer if not hit.placed)
    assert fill.below_threshold
    assert "only fills the list" in index.explain(answer, fill.slide_id).words[2]
    assert "not similar" in index.explain(answer, fill.slide_id).words[2]


def test_a_slide_that_is_no_hit_is_told_its_place_in_a_longer_answer(index):
    for ranking in ("similarity", "uncertainty"):
        long = index.search("s002", k=40, ranking=ranking)
        short = index.search("s002", k=2, ranking=ranking)
        for hit in list(long)[2:]:
            why = index.explain(short, hit.slide_id)
            assert why.rank is None and why.bag is None
            if hit.placed:
                assert f"in a longer one it would be the {ordinal(hit.rank)}." in why.words[2]
                assert why.score == pytest.approx(hit.score)


def test_what_was_left_out_is_told_why(index):
    answer = index.search("s002", k=3, exclude_patient=True, patient="p1", where={"label": "kind 2"})
    assert "not meet the condition on label" in index.explain(answer, "s004").words[2]
    why = index.explain(answer, "s003")
    assert "the query's own patient, p1" in why.words[2] and why.score == 0
    assert min(patch.hamming for patch in why.patches) > 0
    narrow = index.search("s002", k=3, ranking="similarity", search={"threshold": 5, "reach": 0})
    lacks = index.explain(narrow, "s037")
    assert "within 5 bits of one of the query" in lacks.words[2] and "counted no match" in lacks.words[1]


def test_the_state_that_is_current_is_told(tmp_path):
    index = archive(tmp_path / "a.sish", slides=12)
    answer = index.search("s002", k=3, ranking="similarity")
    before = index.explain(answer, "s002")
    assert "changed" not in " ".join(before.words)
    index.remove([answer[1].slide_id])
    gone, third = answer[1].slide_id, answer[2].slide_id
    with pytest.raises(UnknownSlideError, match=gone):
        index.explain(answer, gone)
    why = index.explain(answer, third)
    assert (
        why.rank == 3 and "changed after this search" in why.words[-1] and "would be the 2nd" in why.words[-1]
    )


def test_answers_of_others_and_unknown_slides_are_refused(index, large):
    answer = index.search("s002")
    with pytest.raises(QueryError, match="not of"):
        large.explain(answer, "s002")
    with pytest.raises(QueryError, match="not of"):
        index.explain(replace(answer, asked=None), "s002")
    with pytest.raises(UnknownSlideError, match="nobody"):
        index.explain(answer, "nobody")


def test_plain_values_have_the_names_of_the_contract(index):
    why = index.explain(index.search("s002", ranking="uncertainty"), "s002")
    plain = why.to_dict()
    assert set(plain) == {
        "slide_id", "score", "threshold", "n_bits", "rank", "patches", "histogram", "bag", "words"
    }  # fmt: skip
    assert set(plain["patches"][0]) >= {
        "query_row", "query_xy", "row", "xy", "hamming", "closeness", "weight", "share"
    }  # fmt: skip
    assert set(plain["histogram"]) == {"edges", "slide", "archive"}
    assert set(plain["bag"]) == {"query_row", "labels", "uncertainty"}
    assert plain["patches"][0]["xy"] == list(why.patches[0].xy) and isinstance(plain["words"], list)


def test_real_slides_and_a_query_from_a_file(built_index):
    index = sish.Index.open(built_index)
    answer = index.search(index.slides[0].path, k=8)
    for hit in answer:
        why = index.explain(answer, hit.slide_id)
        assert sum(patch.share for patch in why.patches) == pytest.approx(hit.score, abs=1e-9)
        assert why.rank == hit.rank
    assert index.explain(answer, index.slides[0].slide_id).words[0].startswith("8 of 8 patches")


def test_a_slide_without_tissue_is_told(tmp_path):
    from PIL import Image

    Image.new("RGB", (600, 600), "white").save(tmp_path / "white.png")
    noise = np.random.default_rng(0).integers(60, 200, (600, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "grey.png")
    index = sish.Index.create(tmp_path / "a.sish")
    index.add([tmp_path / "grey.png", tmp_path / "white.png"], mpp=1.0, show_progress=False)
    why = index.explain(index.search("grey"), "white")
    assert why.patches == () and why.words == ("It is not in the list because no tissue was found in it.",)


FACTS = Facts(
    ranking="similarity", rank=2, k=5, is_placed=True, now=2, later="", left_out="", is_changed=False,
    score=0.5, threshold=389, reach=389, n_bits=1024, hamming=(100, 400), counted=(100, None),
    shares=(0.5, 0.0), n_slides=7, bag=None,
)  # fmt: skip


def test_words_are_plain_sentences():
    assert words_of(FACTS) == (
        "1 of 2 patches of the query has a match here within 389 bits, the threshold; the nearest is "
        "100 bits away (0 is equal, 512 is unrelated).",
        "Its score is 0.500 (1 is equal, 0 unrelated); half of it comes from 1 patch of the query. Patches "
        "that few slides match count more.",
        "It is placed 2nd by its score, of 7 slides that the search found.",
    )
    one = replace(FACTS, hamming=(400,), counted=(None,), shares=(0.0,), score=0.0, rank=None, now=None)
    assert words_of(one)[0].startswith("The query's only patch has no match here within 389 bits")
    far = replace(FACTS, hamming=(390, 391), counted=(390, 391), ranking="uncertainty", rank=None, now=None)
    assert words_of(far)[1].endswith("It counts matches beyond the threshold, too.")
    assert (
        words_of(far)[2]
        == "It is not in the list: none of its patches is within 389 bits of one of the query."
    )
    gone = replace(FACTS, now=None, is_changed=True)
    assert "would not find it among 5" in words_of(gone)[2] and "would not be found" in words_of(gone)[3]


@pytest.mark.parametrize(("number", "told"), [(1, "1st"), (22, "22nd"), (103, "103rd"), (11, "11th")])
def test_ordinals(number, told):
    assert ordinal(number) == told
