"""Both rankings: the published one against a plain transcription, the other against its definition."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish.errors import LabelsError, ParameterError
from sish.index.bags import Bags
from sish.ranking import SITE_WEIGHT, SlideLabels, rank_by_similarity, rank_by_uncertainty


def bags_of(*bags):
    """Bags from lists of (patch, distance)."""
    offset = np.cumsum([0, *map(len, bags)])
    flat = [result for bag in bags for result in bag]
    return Bags(
        offset, np.array([p for p, _ in flat], dtype=np.int64), np.array([d for _, d in flat], dtype=np.int32)
    )


def by_uncertainty(bags, slide, labels, **options):
    """The published ranking, given the slide of each patch number."""
    return rank_by_uncertainty(bags, np.asarray(slide)[bags.patch], labels, **options)


def by_similarity(bags, slide, **options):
    """The other ranking, given the slide of each patch number."""
    return rank_by_similarity(bags, np.asarray(slide)[bags.patch], **options)


def plain_ranking(bags, slide, labels, k):
    """As described, in plain Python: a list of (slide, distance, uncertainty, query patch)."""
    count = {label: labels.count(label) for label in labels}
    unit = 10 / sum(1 / n for n in count.values())
    summary = []
    for query_patch, bag in enumerate(bags):
        if not bag:
            continue
        votes = {}
        for place, (patch, _) in enumerate(bag, start=1):
            label = labels[slide[patch]]
            votes[label] = votes.get(label, 0) + unit / count[label] / place
        total = sum(votes.values())
        votes = {label: vote / total for label, vote in votes.items()}
        entropy = -sum(vote * math.log2(vote) for vote in votes.values())
        summary.append((query_patch, bag, votes, entropy, np.mean([distance for _, distance in bag[:5]])))
    lengths = [len(entry[1]) for entry in summary]
    if len(set(lengths)) > 3:
        low, high = np.percentile(lengths, 5), np.percentile(lengths, 95)
        summary = [entry for entry in summary if low < len(entry[1]) < high]
    if not summary:
        return []
    tau = np.mean([entry[4] for entry in summary])
    summary.sort(key=lambda entry: entry[3])
    summary = [entry for entry in summary if entry[4] <= tau]
    first, total = summary[:5], {}
    for _, _, votes, _, _ in first:
        for label, vote in votes.items():
            total[label] = total.get(label, 0) + vote
    removed = set()
    for prediction in sorted(total, key=total.get, reverse=True):
        against = {entry[0] for entry in first if max(entry[2], key=entry[2].get) != prediction}
        if len(against) < len(first):
            removed = against
            break
    seen, taken = set(), []
    for query_patch, bag, _, entropy, _ in summary:
        for patch, distance in bag:
            if (entropy == 0 or distance <= tau) and slide[patch] not in seen:
                seen.add(slide[patch])
                taken.append((slide[patch], distance, entropy, query_patch))
    taken.sort(key=lambda entry: (entry[2], entry[1]))
    return [entry for entry in taken if entry[3] not in removed][:k]


@st.composite
def databases(draw):
    """Slides of few labels, equal counts among them, and bags of all shapes: empty, equal, one label."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_slides, n_labels = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    names = draw(st.permutations(["", "ä b", "LUAD", "7"]))[:n_labels]
    labels = [names[i % n_labels] for i in range(n_slides)]
    slide = random.integers(0, n_slides, 40)
    longest = draw(st.sampled_from([1, 3, 12]))
    n_distances = draw(st.sampled_from([1, 4, 128]))
    bags = []
    for _ in range(draw(st.integers(0, 25))):
        length = random.integers(0, longest + 1) if draw(st.booleans()) else longest
        patches = random.choice(40, length, replace=False).tolist()
        distances = np.sort(random.integers(0, n_distances, length)).tolist()
        bags.append(list(zip(patches, distances, strict=True)))
    return bags, slide, labels


@given(database=databases(), k=st.integers(1, 10))
@settings(max_examples=400, deadline=None)
def test_uncertainty_ranking_agrees_with_the_description(database, k):
    bags, slide, labels = database
    got = by_uncertainty(bags_of(*bags), slide, labels, k=k)
    want = plain_ranking(bags, slide, labels, k)
    found = [(hit.slide, hit.hamming, hit.query_patch) for hit in got.slides]
    assert found == [(number, distance, query_patch) for number, distance, _, query_patch in want]
    assert [hit.uncertainty for hit in got.slides] == pytest.approx([entry[2] for entry in want], abs=1e-9)
    assert bool(got.reason) == (not got.slides)


@given(database=databases(), k=st.integers(1, 10))
@settings(max_examples=100, deadline=None)
def test_every_ranked_slide_shows_the_matches_that_made_it(database, k):
    bags, slide, labels = database
    for ranking in (
        by_uncertainty(bags_of(*bags), slide, labels, k=k),
        by_similarity(bags_of(*bags), slide, k=k, n_bits=256),
    ):
        assert [hit.rank for hit in ranking.slides] == list(range(1, len(ranking.slides) + 1))
        scores = [hit.score for hit in ranking.slides]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        for hit in ranking.slides:
            assert (hit.matches[0].hamming, hit.matches[0].query_patch) == (hit.hamming, hit.query_patch)
            assert 1 <= len(hit.matches) <= 5
            for match in hit.matches:
                assert slide[match.patch] == hit.slide
                assert (match.patch, match.hamming) in bags[match.query_patch]
            assert len({match.query_patch for match in hit.matches}) == len(hit.matches)
            rest = [match.hamming for match in hit.matches[1:]]
            assert rest == sorted(rest)


def test_class_weights_by_hand():
    # n = 9, 8, 7: 1/9 + 1/8 + 1/7 = 0.378968..., 10 / 0.378968 / 9 = 2.931937...
    labels = SlideLabels.of(["a"] * 9 + ["b"] * 8 + ["c"] * 7)
    assert labels.names == ("a", "b", "c")
    assert labels.weight.tolist() == pytest.approx([2.931937172774869, 3.298429319371728, 3.769633507853403])
    assert SlideLabels.of(["a", "b"], SITE_WEIGHT).weight.tolist() == [15.0, 15.0]
    assert SlideLabels.of(["only"] * 4).weight.tolist() == [10.0]


def test_a_bag_of_two_labels_by_hand():
    # slides a a b b, all weights 5; bag a, b: votes 1 and 1/2, so 2/3 and 1/3: 0.9183 bits
    ranking = by_uncertainty(bags_of([(0, 10), (2, 10)]), [0, 1, 2, 3], ["a", "a", "b", "b"])
    assert [(hit.slide, hit.query_patch) for hit in ranking.slides] == [(0, 0), (2, 0)]
    assert ranking.slides[0].uncertainty == pytest.approx(0.9182958340544896)
    assert ranking.slides[0].score == pytest.approx(2**-0.9182958340544896)


def test_bags_at_the_percentiles_of_length_are_left_out():
    bags = [[(patch, 10) for patch in range(length)] for length in (1, 2, 3, 4)]
    ranking = by_uncertainty(bags_of(*bags), list(range(4)), ["a"] * 4)
    # lengths 2 and 3 stay; both are certain, so slides 0 and 1 come from the former and 2 from the latter
    assert [(hit.slide, hit.query_patch) for hit in ranking.slides] == [(0, 1), (1, 1), (2, 2)]


def test_three_lengths_are_not_cleaned():
    bags = [[(patch, 10) for patch in range(length)] for length in (1, 2, 3)]
    assert by_uncertainty(bags_of(*bags), list(range(4)), ["a"] * 4).slides[0].query_patch == 0


def test_where_cleaning_leaves_nothing_the_answer_is_empty_and_says_why():
    # a hundred bags of one length, and one each of three others: the percentiles are that length
    bags = [[(0, 10)]] * 2 + [[(patch, 10) for patch in range(4)]] * 100
    bags += [[(patch, 10) for patch in range(length)] for length in (2, 3)]
    ranking = by_uncertainty(bags_of(*bags), list(range(4)), ["a"] * 4)
    assert ranking.slides == ()
    assert "cleaning" in ranking.reason
    assert plain_ranking(bags, list(range(4)), ["a"] * 4, 5) == []


def test_bags_farther_than_the_mean_go():
    ranking = by_uncertainty(bags_of([(0, 10)], [(1, 30)], [(2, 20)]), [0, 1, 2], ["a"] * 3)
    assert [hit.slide for hit in ranking.slides] == [0, 2]


def test_an_uncertain_bag_gives_only_results_within_tau_and_a_certain_one_all():
    # the mean of the first five is tau itself: 20
    mixed = [(0, 10), (1, 30)]
    assert [hit.slide for hit in by_uncertainty(bags_of(mixed), [0, 1], ["a", "b"]).slides] == [0]
    assert [hit.slide for hit in by_uncertainty(bags_of(mixed), [0, 1], ["a", "a"]).slides] == [0, 1]


def test_a_first_bag_against_the_prediction_is_removed_and_keeps_what_it_took():
    # b is certain once, a twice; slide 3 (label b) was first taken from the removed bag and is gone
    bags = [[(3, 10)], [(0, 10)], [(1, 10)]]
    ranking = by_uncertainty(bags_of(*bags), [0, 1, 2, 3], ["a", "a", "b", "b"])
    assert [hit.slide for hit in ranking.slides] == [0, 1]


def test_the_prediction_is_the_strongest_label_of_one_bag_at_least():
    # x has 1/3 of each bag, in sum more than any other, but is nowhere the strongest: a is the prediction
    bags = [[(0, 10), (3, 10)], [(1, 10), (3, 10)], [(2, 10), (3, 10)]]
    ranking = by_uncertainty(bags_of(*bags, [(0, 11), (3, 11)]), [0, 1, 2, 3], ["a", "b", "c", "x"])
    assert [hit.slide for hit in ranking.slides] == [0, 3]
    assert {hit.query_patch for hit in ranking.slides} == {0}


def test_one_vote_each_goes_to_the_label_first_seen():
    ranking = by_uncertainty(bags_of([(1, 10)], [(0, 10)]), [0, 1], ["a", "b"])
    assert [hit.slide for hit in ranking.slides] == [1]


@pytest.mark.parametrize("bags", [[], [[]], [[], [], []]])
def test_no_results_are_an_empty_answer_with_a_reason(bags):
    for ranking in (by_uncertainty(bags_of(*bags), [0], ["a"]), by_similarity(bags_of(*bags), [0])):
        assert ranking.slides == ()
        assert "threshold" in ranking.reason


def test_counting_labels_once_or_each_time_is_the_same():
    bags, labels = bags_of([(0, 10), (1, 12)], [(1, 9)]), ["a", "b"]
    assert by_uncertainty(bags, [0, 1], labels) == by_uncertainty(bags, [0, 1], SlideLabels.of(labels))


def plain_similarity(bags, slide, n_bits):
    """Score of each slide from the definition."""
    nearest = [{} for _ in bags]
    for best, bag in zip(nearest, bags, strict=True):
        for patch, distance in bag:
            best[slide[patch]] = min(distance, best.get(slide[patch], n_bits))
    slides = {number for best in nearest for number in best}
    weights = [math.log(1 + len(slides) / max(1, len(best))) for best in nearest]
    return {
        number: sum(
            weight * max(0, 1 - 2 * best[number] / n_bits)
            for weight, best in zip(weights, nearest, strict=True)
            if number in best
        )
        / sum(weights)
        for number in slides
    }


@given(database=databases())
@settings(max_examples=150, deadline=None)
def test_similarity_agrees_with_its_definition(database):
    bags, slide, _ = database
    want = plain_similarity(bags, slide, 256)
    got = by_similarity(bags_of(*bags), slide, k=100, n_bits=256).slides
    assert {hit.slide: hit.score for hit in got} == pytest.approx(want)
    assert all(a.score > b.score or (a.score == b.score and a.slide < b.slide) for a, b in pairwise(got))
    assert all(hit.uncertainty is None for hit in got)


@given(database=databases(), own=st.integers(8, 9))
@settings(max_examples=100, deadline=None)
def test_a_slide_that_every_patch_finds_at_distance_zero_scores_exactly_one_and_is_first(database, own):
    bags, slide, _ = database
    bags = [[(40 + place, 0), *bag] for place, bag in enumerate(bags)]
    slide = np.concatenate([slide, np.full(len(bags), own)])
    got = by_similarity(bags_of(*bags), slide, k=100, n_bits=256).slides
    if bags:
        best = [hit for hit in got if hit.slide == own]
        assert [hit.score for hit in best] == [1.0]
        assert all(hit.score < 1.0 or hit.hamming == 0 for hit in got)
        assert got[0].score == 1.0


def test_tissue_that_every_slide_holds_counts_less():
    everywhere, rare = [(0, 0), (1, 0), (2, 0)], [(3, 0)]
    ranking = by_similarity(bags_of(everywhere, rare), [0, 1, 2, 2])
    weights = [math.log(2), math.log(4)]
    assert [hit.slide for hit in ranking.slides] == [2, 0, 1]
    assert ranking.slides[1].score == pytest.approx(weights[0] / sum(weights))


def test_many_matches_of_one_query_patch_count_once():
    ranking = by_similarity(bags_of([(0, 4), (1, 5), (2, 5), (3, 5)], [(4, 4)]), [0, 1, 1, 1, 0])
    assert [hit.slide for hit in ranking.slides] == [0, 1]
    assert len(ranking.slides[1].matches) == 1


def test_what_does_not_fit_is_refused():
    bags = bags_of([(0, 1)])
    with pytest.raises(ParameterError, match="k is 0"):
        by_uncertainty(bags, [0], ["a"], k=0)
    with pytest.raises(ParameterError, match="k is 0"):
        by_similarity(bags, [0], k=0)
    with pytest.raises(LabelsError, match="slide number 3"):
        by_uncertainty(bags, [3], ["a"])
    with pytest.raises(ParameterError, match="weight_scale"):
        SlideLabels.of(["a"], 0)


@pytest.mark.parametrize("slide", [[0], [0, 1, 2], [0, -1], [[0, 1]]])
@pytest.mark.parametrize("rank", [lambda *it: rank_by_uncertainty(*it, ["a"] * 3), rank_by_similarity])
def test_slide_numbers_are_one_a_result(rank, slide):
    with pytest.raises(ParameterError, match="give a number from 0 for each result"):
        rank(bags_of([(0, 3), (1, 4)]), slide)
