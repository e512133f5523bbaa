"""The projection of features of any length: angles stay, company does not matter, signs tell neighbours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish.errors import ParameterError
from sish.index.barcode import barcodes_of, hamming
from sish.index.projection import BITS, Part, project


def some(count, width, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


@pytest.mark.parametrize("width", [1, 3, 192, 1000, 1024])
def test_short_features_keep_every_angle(width):
    features = some(20, width) + 3
    centre = some(1, width, seed=1)[0]
    found = project(features, centre=centre)
    assert found.shape == (20, BITS) and found.dtype == np.float32
    np.testing.assert_allclose(found @ found.T, cosines(features - centre), atol=1e-5)


@pytest.mark.parametrize("width", [1025, 1536, 2560])
def test_long_features_keep_angles_nearly(width):
    features = some(30, width)
    features[1] = features[0] + 0.5 * features[2]
    found = project(features, centre=np.zeros(width, np.float32))
    assert np.abs(found @ found.T - cosines(features)).max() < 0.15


@given(seed=st.integers(0, 2**32), width=st.integers(2, 70), count=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_company_does_not_matter_to_the_bit(seed, width, count):
    features = some(count, width, seed)
    together = project(features, bits=64)
    alone = np.concatenate([project(row[None], bits=64) for row in features])
    assert together.tobytes() == alone.tobytes()
    assert together[::-1].tobytes() == project(features[::-1], bits=64).tobytes()


def test_without_a_centre_each_vector_is_centred_on_its_own_mean():
    features = some(4, 16)
    np.testing.assert_allclose(project(features + 7, bits=64), project(features, bits=64), atol=1e-5)


def test_no_features_have_no_projections():
    assert project(np.empty((0, 5)), bits=64).shape == (0, 64)


def test_a_vector_without_direction_is_nothing():
    assert not project(np.full((1, 8), 3.0), bits=8).any()


def test_signs_tell_the_angle():
    """Two vectors at 60 degrees differ in a third of the bits."""
    first, other = np.linalg.qr(some(2, 300).T)[0].T
    pair = np.stack([first, 0.5 * first + 0.75**0.5 * other])
    left, right = barcodes_of(pair, "projection", centre=np.zeros(300, np.float32))
    assert abs(hamming(left[None], right)[0] / BITS - 1 / 3) < 0.05


def test_a_common_part_hides_neighbours_until_it_is_taken_off():
    """What the centre is for: 200 vectors that share a long part; who is nearest, by sign and by cosine."""
    own = some(200, 256)
    own[100:] = own[:100] + 0.6 * some(100, 256, seed=2)  # pairs of near ones
    features = own + 300 * np.abs(some(1, 256, seed=3))

    def share_found(centre):
        bits = np.unpackbits(barcodes_of(features, "projection", centre=centre), axis=1).astype(np.float32)
        distance = bits.sum(1)[:, None] + bits.sum(1) - 2 * bits @ bits.T
        np.fill_diagonal(distance, np.inf)
        return np.mean(distance.argmin(1) == (np.arange(200) + 100) % 200)

    assert share_found(features.mean(0)) > 0.95 > 0.6 > share_found(None)


@pytest.mark.parametrize(
    ("features", "centre", "match"),
    [
        (np.zeros(8), None, "shape"),
        (np.zeros((2, 0)), None, "shape"),
        ([[np.nan] * 8], None, "NaN"),
        (np.zeros((2, 8)), np.zeros(4, np.float32), "8 long"),
    ],
)
def test_what_cannot_be_projected_is_refused(features, centre, match):
    with pytest.raises(ParameterError, match=match):
        project(features, centre=centre)


PARTS = (Part(5, standardised=True), Part(3, weight=0.5), Part(1))


def test_each_part_has_its_own_length():
    features, centre, spread = some(6, 9) * 40, some(1, 9, seed=1)[0], np.arange(1, 10, dtype=np.float32)
    scaled = (features - centre) / spread
    by_hand = np.concatenate(
        [
            scaled[:, :5] / np.linalg.norm(scaled[:, :5], axis=1, keepdims=True),
            0.5 * scaled[:, 5:8] / np.linalg.norm(scaled[:, 5:8], axis=1, keepdims=True),
            np.sign(scaled[:, 8:]),
        ],
        axis=1,
    )
    found = project(features, centre=centre, spread=spread, parts=PARTS)
    np.testing.assert_allclose(found @ found.T, cosines(by_hand), atol=1e-5)


def test_one_part_is_what_features_without_parts_are():
    features, centre = some(8, 100), some(1, 100, seed=1)[0]
    for middle in (None, centre):
        plain = project(features, centre=middle)
        assert project(features, centre=middle, parts=[Part(100)]).tobytes() == plain.tobytes()
        ones = np.ones(100, np.float32)
        assert project(features, centre=middle, spread=ones).tobytes() == plain.tobytes()


def test_a_part_of_zeros_stays_so_and_the_others_are_seen():
    features = some(3, 9)
    features[:, :5] = 7
    found = project(features, parts=PARTS)
    assert found.any(axis=1).all() and np.isfinite(found).all()
    features[:, 5:] = 7
    assert not project(features, parts=PARTS).any()


@given(seed=st.integers(0, 2**32), count=st.integers(1, 9), widths=st.lists(st.integers(1, 40), min_size=1))
@settings(max_examples=30, deadline=None)
def test_company_does_not_matter_to_parts_either(seed, count, widths):
    parts = [Part(width, weight=1 + width / 7) for width in widths]
    features = some(count, sum(widths), seed)
    told = {"centre": some(1, sum(widths), seed + 1)[0], "parts": parts, "bits": 64}
    told["spread"] = np.abs(some(1, sum(widths), seed + 2)[0]) + 0.1
    alone = np.concatenate([project(row[None], **told) for row in features])
    assert project(features, **told).tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"parts": PARTS}, "their parts 9; give parts that add up"),
        ({"spread": np.ones(4, np.float32)}, "8 long and their spread"),
    ],
)
def test_parts_and_spreads_of_another_length_are_refused(told, match):
    with pytest.raises(ParameterError, match=match):
        project(np.zeros((2, 8)), **told)
