"""The benchmark of hard archives, on small ones: every row is there, and recall is counted as it says."""

import json

import numpy as np
import pytest

from benchmarks import hard_archives as hard


@pytest.fixture
def codes():
    return np.random.default_rng(0).integers(0, 256, (120, 128), np.uint8)


def test_a_patch_counts_if_it_is_no_farther_than_the_tenth_true_neighbour():
    truth = np.tile(np.arange(1, 11), (2, 1))
    queries = np.zeros((2, 128), np.uint8)

    def answer(asked):
        return [np.array([1, 2, 10, 10, 11, 30]), np.full(20, 3)][: len(asked)]

    recall, us = hard.measured(answer, queries, truth)
    assert recall == (4 + 10) / 20 and us >= 0


@pytest.mark.parametrize("name", hard.KINDS)
def test_archives_are_the_same_for_a_seed_and_of_the_size_that_is_asked_for(name, codes):
    kind = hard.KINDS[name]
    one, again = (kind.make(codes, 330, np.random.default_rng(3)) for _ in range(2))
    assert one.shape == (330, 128) and np.array_equal(one, again)


def test_shares_of_clusters_are_as_told(codes):
    patches = hard.zipf(codes, 4000, np.random.default_rng(0))
    nearest = np.bitwise_count(patches[:, None] ^ codes).sum(-1).argmin(1)
    assert np.mean(nearest == 0) == pytest.approx(1 / np.sum(np.arange(1.0, 121) ** -1.5), abs=0.03)
    copies = hard.duplicates(codes, 4000, np.random.default_rng(0))
    exact = (np.bitwise_count(copies[:, None] ^ codes).sum(-1) == 0).any(1)
    assert np.mean(exact) == pytest.approx(0.5, abs=0.03)


@pytest.mark.slow
def test_every_row_is_there(codes, tmp_path, monkeypatch):
    monkeypatch.setattr(hard, "crops", lambda *_: (codes, np.zeros(120)))
    monkeypatch.setattr(hard, "_QUICK_PATCHES", 6000)
    names = ["reference", "three-codes", "alien"]
    assert hard.main(["--quick", "--json", str(tmp_path / "rows.json"), "--archives", *names]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert set(rows[0]) == {"archive", "index", "patches", "budget", "default", "recall_at_10", "us"}
    mine = {row["archive"]: row for row in rows if row["default"]}
    assert list(mine) == names and {row["index"] for row in mine.values()} == {"sish"}
    assert all(row["recall_at_10"] >= 0.95 and row["budget"] == 4000 for row in mine.values())
    assert {row["index"].split("-")[0] for row in rows} <= {"sish", "faiss"}
