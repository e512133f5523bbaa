"""The model of `benchmarks.cluster`: what it must give where that can be computed, and its measured costs."""

import json
from itertools import chain, repeat

import numpy as np
import pytest

from benchmarks.cluster import SHARDS_A_WORKER, main
from benchmarks.cluster_model import Costs, Task, Trouble, batches_of, never, simulate
from benchmarks.cluster_run import _kept

COSTS = Costs(slide_s=(1.0,), commit_s=0.5, start_s=10.0, listed_s=0.01, merge_s=0.1)
CALM = Trouble(crashes_an_hour=0, slow=0, failing=0)


def test_slides_are_committed_after_two_seconds_of_work():
    assert batches_of([1.5, 0.4, 0.2, 3.0, 0.1], 0.5) == pytest.approx([2.6, 3.5, 0.6])
    assert batches_of([], 0.5) == []


def test_a_crash_costs_the_work_since_the_commit_and_a_start():
    task = Task(10.0, chain([13.5], never()))  # a start, a batch of 2.5, and a second of the next
    task.run([2.5, 2.5])
    assert (task.ran_s, task.lost_s, task.starting_s, task.crashes) == (26.0, 1.0, 20.0, 1)


def test_a_crash_while_it_starts_costs_that():
    task = Task(10.0, chain([4.0, 5.0], never()))
    task.run([2.5])
    assert (task.ran_s, task.lost_s, task.starting_s, task.crashes) == (21.5, 9.0, 10.0, 2)


def test_one_worker_without_trouble_takes_the_sum_of_all_costs():
    done = simulate(COSTS, CALM, slides=200, workers=1, shards=1)
    assert done.hours * 3600 == pytest.approx(10 + 200 * 0.01 + 200 + 100 * 0.5 + 200 * 0.1)
    assert (done.crashes, done.lost_hours) == (0, 0)
    assert done.efficiency == pytest.approx(250 / 262)


def test_workers_wait_for_the_largest_shard():
    done = simulate(COSTS, CALM, slides=1000, workers=10, shards=10, seed=1)
    sizes = np.random.default_rng(1)
    sizes.random(10)
    largest = sizes.multinomial(1000, [0.1] * 10).max()
    assert done.encode_hours * 3600 == pytest.approx(10 + 10 + largest + 0.5 * np.ceil(largest / 2))


def test_more_shards_than_workers_make_up_for_slow_workers():
    trouble = Trouble(crashes_an_hour=0, slow=0.1, failing=0)
    costs = Costs((60.0,), 0.1, 3.0, 1e-4, 0.01)
    one, four = (simulate(costs, trouble, slides=10_000, workers=50, shards=50 * n) for n in (1, 4))
    assert four.encode_hours < 0.75 * one.encode_hours and four.efficiency > one.efficiency


def test_crashes_come_as_often_as_was_said():
    trouble = Trouble(crashes_an_hour=2, wait_s=60, slow=0, failing=0)
    costs = Costs((30.0,), 0.1, 3.0, 1e-4, 0.01)
    done = simulate(costs, trouble, slides=20_000, workers=20, shards=20)
    ran = done.work_hours + done.start_hours + done.lost_hours
    assert done.crashes == pytest.approx(2 * ran, rel=0.1)
    assert done.lost_hours * 3600 == pytest.approx(done.crashes * 15, rel=0.2)  # half a slide each
    assert simulate(costs, trouble, slides=20_000, workers=20, shards=20) == done


def test_slides_that_fail_are_wasted_and_not_merged():
    trouble = Trouble(crashes_an_hour=0, slow=0, failing=0.5)
    done = simulate(COSTS, trouble, slides=2000, workers=1, shards=1)
    assert done.failing_hours * 3600 == pytest.approx(1000, rel=0.1)
    assert done.merge_hours * 3600 == pytest.approx(100)


def test_slides_that_the_model_keeps():
    slides = list(repeat(1.0, 6))  # a start of 10, then 2.5 for two slides
    assert [_kept(COSTS, slides, seconds) for seconds in (5, 12.4, 12.6, 15.1, 99)] == [0, 0, 2, 4, 6]


@pytest.mark.slow
def test_the_benchmark_measures_compares_and_simulates(tmp_path, capsys):
    words = ["--quick", "--simulate", "--data", str(tmp_path / "none"), "--slides", "1000"]
    assert main([*words, "--workers", "1", "10", "--json", str(tmp_path / "out.json")]) == 0
    out = capsys.readouterr().out
    assert "painted slides instead" in out and "1000 slides of" in out
    told = json.loads((tmp_path / "out.json").read_text())
    assert len(told["costs"]["slide_s"]) == 12
    assert [it["kills"] for it in told["checks"]] == [1, 0]
    assert sum(it["slides"] for it in told["checks"]) == 12
    assert [(it["workers"], it["shards"]) for it in told["simulated"]] == [
        (workers, workers * shards) for workers in (1, 10) for shards in SHARDS_A_WORKER
    ]
