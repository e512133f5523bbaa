"""Mehta's measures: worked examples by hand, and the properties that define them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sish.errors import ParameterError
from sish.systems.lesions.measures import (
    MEASURES,
    PARTS,
    cosine_scores,
    dice_scores,
    euclidean_scores,
    gram_vector,
    i1_score,
    style_scores,
)

NUMBERS = st.floats(-100, 100, width=32)
ROWS = arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.just(4)), elements=NUMBERS)
ROW = arrays.arrays(np.float32, 4, elements=NUMBERS)
SHARES = st.just(0.0) | st.floats(1e-6, 1)


def test_every_measure_of_the_paper_has_its_parts():
    assert len(MEASURES) == 10 and set(PARTS) == set(MEASURES)
    assert PARTS["i1_ecd"] == ("euclidean", "cosine", "dice")
    letters = {"e": "euclidean", "c": "cosine", "s": "style", "d": "dice"}
    for measure, parts in PARTS.items():
        named = {letters[letter] for letter in measure.removeprefix("i1_")} if "i1_" in measure else {measure}
        # "i1_ed" and its like name the distance too: its d is Dice
        assert set(parts) == named


def test_the_farthest_is_of_those_searched_only():
    rows = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 1.0]])
    searched = np.array([False, True, True])
    assert euclidean_scores(np.zeros(2), rows, searched)[1:].tolist() == [0.0, 0.5]
    assert style_scores(np.zeros(2), rows, searched)[1:].tolist() == [0.0, 0.75]


def test_a_database_all_alike_scores_one():
    rows = np.ones((3, 2))
    assert euclidean_scores(np.ones(2), rows).tolist() == [1.0] * 3
    assert style_scores(np.ones(2), rows).tolist() == [1.0] * 3


@settings(max_examples=30, deadline=None)
@given(ROW, ROWS)
def test_distances_as_scores_keep_the_order_and_the_range(query, rows):
    distances = np.sqrt(((rows.astype(np.float64) - query) ** 2).sum(1))
    for scores in (euclidean_scores(query, rows), style_scores(query, rows)):
        assert ((scores >= 0) & (scores <= 1)).all()
        order = np.argsort(distances, kind="stable")
        assert (np.diff(scores[order]) <= 1e-6).all()
        assert scores[order[-1]] == (0 if distances.max() > 0 else 1) or distances.max() < 1e-6


@settings(max_examples=30, deadline=None)
@given(ROW, ROWS)
def test_cosine_is_that_of_the_angle(query, rows):
    scores = cosine_scores(query, rows)
    for score, row in zip(scores, rows.astype(np.float64), strict=True):
        norms = math.hypot(*query.astype(float)) * math.hypot(*row)
        cosine = float(row @ query) / norms if norms else 0.0
        assert score == pytest.approx((cosine + 1) / 2, abs=1e-6)
    assert np.allclose(scores, cosine_scores(3 * query, rows), atol=1e-6)


def test_a_gram_matrix_by_hand():
    # channels a = [1, 2, 0, 1], b = [0, 1, 1, 3]: aa = 6, ab = 5, bb = 11, each over 2 channels x 4 positions
    maps = np.array([[[1.0, 2.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 3.0]]])
    assert gram_vector(maps).tolist() == pytest.approx([6 / 8, 5 / 8 * math.sqrt(2), 11 / 8])


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.float32, (2, 3, 2, 5), elements=st.floats(-5, 5, width=32)))
def test_gram_vectors_keep_the_distance_of_whole_matrices(maps):
    whole = [(m.reshape(3, -1) @ m.reshape(3, -1).T / m.size).astype(np.float64) for m in maps]
    vectors = [gram_vector(m).astype(np.float64) for m in maps]
    difference = ((whole[0] - whole[1]) ** 2).sum()
    assert ((vectors[0] - vectors[1]) ** 2).sum() == pytest.approx(difference, abs=1e-3)


def test_style_does_not_know_where_things_are():
    maps = np.random.default_rng(0).normal(size=(3, 4, 6))
    moved = np.random.default_rng(1).permutation(maps.reshape(3, -1), axis=1).reshape(3, 4, 6)
    assert np.allclose(gram_vector(maps), gram_vector(moved), atol=1e-6)


def test_a_loss_over_layers_is_their_sum_by_hand():
    # layer one differs by (1, 2), layer two by (2): 1 + 4 + 4 = 9, and 0.5 ** 2 in the second image
    query = np.zeros(3)
    scores = style_scores(query, np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.5]]))
    assert scores.tolist() == pytest.approx([0, 1 - 0.25 / 9])


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(bool, (4, 3, 3)))
def test_dice_is_symmetric_and_one_with_itself(masks):
    for mask in masks:
        scores = dice_scores(mask, masks)
        for other, score in zip(masks, scores, strict=True):
            both, pixels = int((mask & other).sum()), int(mask.sum() + other.sum())
            assert score == (2 * both / pixels if pixels else 0)
            assert score == dice_scores(other, mask[None])[0]
        if mask.any():
            assert dice_scores(mask, mask[None])[0] == 1


def test_an_empty_mask_is_like_no_other():
    empty, full = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    assert dice_scores(empty, np.stack([empty, full])).tolist() == [0.0, 0.0]


@settings(max_examples=30, deadline=None)
@given(st.lists(SHARES, min_size=1, max_size=3))
def test_i1_is_the_harmonic_mean(parts):
    score = float(i1_score([np.array([part]) for part in parts])[0])
    if min(parts) == 0:
        assert score == 0
    else:
        assert score == pytest.approx(len(parts) / math.fsum(1 / part for part in parts))
        assert min(parts) * (1 - 1e-9) <= score <= np.mean(parts) * (1 + 1e-9)


def test_i1_by_hand():
    # ED: ES 0.8 and DC 0.4: 2 / (1.25 + 2.5); ECD with CS 0.5 as well: 3 / (1.25 + 2 + 2.5)
    es, dc, cs = (np.array([value]) for value in (0.8, 0.4, 0.5))
    assert i1_score([es, dc])[0] == pytest.approx(2 / 3.75)
    assert i1_score([es, cs, dc])[0] == pytest.approx(3 / 5.75)
    assert i1_score([np.array([0.0, 1.0]), np.array([0.9, 1.0])]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: euclidean_scores(np.zeros(3), np.zeros((2, 4))),
        lambda: cosine_scores(np.zeros(3), np.zeros((0, 3))),
        lambda: style_scores(np.zeros((1, 3)), np.zeros((2, 3))),
        lambda: dice_scores(np.zeros((2, 2), bool), np.zeros((1, 3, 2), bool)),
        lambda: gram_vector(np.zeros((3, 4))),
        lambda: i1_score([]),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(ParameterError, match="give"):
        call()
