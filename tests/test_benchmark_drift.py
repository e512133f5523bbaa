"""The program that measures what an archive loses by an old calibration."""

from types import SimpleNamespace

import numpy as np

from benchmarks import drift
from sish.index.projection import Part


def archive(seed=0, shift=0.0):
    """Two classes in four groups, told apart by ten features beside a common part."""
    rng = np.random.default_rng(seed)
    label = np.repeat(["a", "b"], 80)
    group = np.array([f"{name}{number % 4}" for number, name in enumerate(label)])
    features = rng.normal(size=(160, 40)).astype(np.float32)
    features[:, :10] += np.where(label == "a", 2.0, -2.0)[:, None]
    return drift.Tiles((features + shift).astype(np.float32), label, group)


def encoder():
    model = SimpleNamespace(
        binarisation="projection", hamming_threshold=99, parts=(Part(40, standardised=True),), statistics=None
    )
    return SimpleNamespace(model=model)


def test_an_archive_that_is_far_from_what_was_measured_loses():
    tiles = archive(shift=300.0)
    part = {"elsewhere": archive(seed=1)}
    far, own = drift.rows_of(encoder(), "toy", tiles, np.ones(160, bool), part)
    assert own.right > 0.95 and far.right < own.right - 0.1
    assert far.interval[0] > 0 and far.difference > 0.1 and own.difference == 0
    assert "elsewhere" in drift.table([far, own])


def test_a_tile_of_the_same_group_does_not_count():
    tiles = archive()
    tiles.group[:80], tiles.group[80:] = "one", "other"  # nobody of the own class is left
    assert not drift.answers(
        encoder(), tiles, drift.Calibration.learn(tiles.features, encoder().model.parts)
    ).any()
