"""What is measured on an archive: mean, deviation and threshold, alone or beside shipped ones."""

from dataclasses import replace

import numpy as np
import pytest

from sish.barcoder import Barcoder
from sish.calibration import ENOUGH, Calibration
from sish.encoders import measured
from sish.errors import IndexFormatError, ParameterError, ParameterTypeError
from sish.index.barcode import barcodes_of
from sish.index.projection import Part
from tests.plain_encoder import PlainEncoder

PARTS = (Part(30, standardised=True), Part(10, weight=0.5))


def features(count=60, width=40, seed=0, mean=5):
    rng = np.random.default_rng(seed)
    return (rng.normal(mean, 1, (count, width)) * np.arange(1, width + 1)).astype(np.float32)


def test_only_standardised_parts_are_divided_by_their_deviations():
    given = features()
    found = Calibration.learn(given, PARTS)
    np.testing.assert_allclose(found.spread[:30], given[:, :30].std(axis=0), rtol=1e-5)
    assert (found.spread[30:] == 1).all()
    assert Calibration.learn(given).spread is None and Calibration.learn(given, (Part(40),)).spread is None


def test_a_constant_feature_divides_by_one():
    given = features()
    given[:, 3] = 0.1
    assert Calibration.learn(given, PARTS).spread[3] == 1


@pytest.mark.parametrize("count", [1, 2, 123, ENOUGH - 2])
def test_few_patches_are_mixed_with_shipped_ones_by_count(count):
    """The same as measuring both together, the shipped ones as often as the archive's lack."""
    own, others = features(count, seed=1, mean=3), features(ENOUGH - count, seed=2)
    prior = Calibration.learn(others, PARTS)
    mixed = Calibration.learn(own, PARTS, prior)
    both = Calibration.learn(np.concatenate([own, others]), PARTS)
    np.testing.assert_allclose(mixed.centre, both.centre, rtol=1e-5)
    np.testing.assert_allclose(mixed.spread, both.spread, rtol=1e-4)
    assert (mixed.patches, mixed.shipped) == (count, ENOUGH - count)


def test_thresholds_are_mixed_by_count_too():
    own = features(100)
    prior = replace(Calibration.learn(features(seed=2), PARTS), threshold=9)
    mixed = Calibration.learn(own, PARTS, prior)
    alone = barcodes_of(own, "projection", centre=mixed.centre, spread=mixed.spread, parts=PARTS)
    unmixed = Barcoder("projection", 0, mixed.centre, mixed.spread, PARTS)
    assert np.array_equal(unmixed.barcodes(own), alone)
    higher = Calibration.learn(own, PARTS, replace(prior, threshold=19))
    assert higher.threshold - mixed.threshold == 8  # 400 of 500 are shipped
    assert Calibration.learn(own[:1], PARTS, prior).threshold == 9


def test_nothing_is_mixed_with_enough_patches():
    own, prior = features(ENOUGH), Calibration.learn(features(mean=70), PARTS)
    found, alone = Calibration.learn(own, PARTS, prior), Calibration.learn(own, PARTS)
    assert found.to_json() == alone.to_json() and found.shipped == 0


def test_nothing_can_be_learnt_of_nothing():
    with pytest.raises(ParameterError, match=r"got 0 patches .* want at least 1"):
        Calibration.learn(features(0), PARTS, Calibration.learn(features()))


def test_the_newer_fields_come_back_and_are_left_out_at_their_defaults():
    plain = Calibration.learn(features())
    assert set(plain.to_json()) == {"centre", "threshold", "patches"}
    mixed = Calibration.learn(features(), PARTS, plain)
    back = Calibration.from_json(mixed.to_json())
    assert back.spread.tobytes() == mixed.spread.tobytes() and back.centre.tobytes() == mixed.centre.tobytes()
    assert (back.patches, back.shipped, back.threshold) == (mixed.patches, mixed.shipped, mixed.threshold)


def test_the_fingerprint_is_that_of_before_and_tells_deviations_apart():
    centre = np.arange(4, dtype=np.float32)
    assert Calibration(centre, 3, 9).fingerprint == "4c9c4f"
    ones, twos = (Calibration(centre, 3, 9, np.full(4, n, np.float32)).fingerprint for n in (1, 2))
    assert len({ones, twos, "4c9c4f"}) == 3


@pytest.mark.parametrize(
    "changes",
    [{"spread": None}, {"spread": "AACAPw=="}, {"shipped": -1}, {"shipped": "9"}, {"colour": 1}],
)
def test_odd_newer_fields_are_refused(changes):
    stored = {**Calibration.learn(features(), PARTS).to_json(), **changes}
    with pytest.raises(IndexFormatError, match="calibration is not one"):
        Calibration.from_json(stored)


def test_deviations_are_above_zero():
    found = Calibration.learn(features(), PARTS)
    with pytest.raises(IndexFormatError, match="above 0"):
        Calibration.from_json(replace(found, spread=found.spread * 0).to_json())


class Parted(PlainEncoder):
    """A `PlainEncoder` of two parts, whose features are measured."""

    fingerprint, binarisation = "parted", "projection"
    parts = (Part(48, standardised=True), Part(16, weight=0.5))


def test_an_encoder_without_an_archive_uses_what_it_ships():
    given = features(20, 64)
    encoder = Parted()
    encoder.statistics = Calibration.learn(features(width=64, seed=3), Parted.parts)
    bare = Barcoder.of(encoder)
    assert bare.centre is encoder.statistics.centre and bare.threshold == encoder.statistics.threshold
    own = Barcoder.measured_on(given, encoder)
    assert own.parts == Parted.parts and not np.array_equal(own.centre, bare.centre)
    assert not np.array_equal(own.barcodes(given), bare.barcodes(given))
    assert Barcoder.measured_on(given[:0], encoder).centre is encoder.statistics.centre


def test_an_encoder_of_the_older_interface_is_refused_and_not_taken_for_a_foreign_one():
    class Older(PlainEncoder):
        def __getattribute__(self, name):
            if name in ("parts", "statistics"):
                raise AttributeError(name)
            return super().__getattribute__(name)

    with pytest.raises(ParameterTypeError, match="give it parts = "):
        measured(Older())
