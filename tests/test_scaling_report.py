"""Reading times off sweeps, by hand; how queries are given to an index."""

import numpy as np
import pytest

from benchmarks import rivals, scaling
from benchmarks.dense_codes import Codes
from benchmarks.scaling_report import Row, best_time, plot, setting_at, summary, time_at


def row(setting, recall, time, index="sish", built="a", n=1000, queries="near", batch=1, threads=1):
    return Row(
        index=index, params=f"{built} x={setting}", n=n, threads=threads, recall_at_10=recall,
        query_us_median=time, query_us_p95=2 * time, build_s=1.0, bytes_per_patch=136.0, queries=queries,
        n_queries=10, built=built, setting=setting, batch=batch,
    )  # fmt: skip


SWEEP = [row(4, 1.0, 40.0), row(1, 0.5, 10.0), row(2, 0.9, 20.0)]


def test_a_time_is_read_between_the_settings_around_it():
    assert time_at(SWEEP, 0.9) == 20.0
    assert abs(time_at(SWEEP, 0.95) - 30.0) < 1e-9
    assert time_at(SWEEP, 0.2) == 10.0
    assert time_at(SWEEP[1:], 0.95) is None


def test_a_setting_is_read_in_the_same_way():
    assert setting_at(SWEEP, 0.9) == 2.0 and abs(setting_at(SWEEP, 0.95) - 3.0) < 1e-9


def test_the_best_way_to_build_counts():
    rows = [*SWEEP, row(1, 0.96, 25.0, built="b")]
    assert best_time(rows, "sish", 0.95) == (25.0, "b")
    assert best_time(rows, "faiss-ivf", 0.95) is None


def test_the_table_compares_with_the_best_other(tmp_path):
    rows = [
        row(setting, recall, time * n / 1000, index, n=n, queries=queries)
        for n in (1000, 2000)
        for queries in ("near", "unseen")
        for index, slower in (("sish", 1), ("faiss-ivf", 2), ("sish-paper", 5))
        for setting, recall, time in ((1, 0.5, 10.0 * slower), (2, 0.99, 20.0 * slower))
    ]
    text = summary(rows, ["a note"])
    assert "0.95: 0.50 of faiss-ivf a; " in text and text.endswith("a note")
    assert "built in 1/1.0 of the time" in text
    assert "near                                     2           2\n" in text  # the budget
    plot(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_batches_and_threads_have_tables_of_their_own(tmp_path):
    rows = [
        row(setting, recall, time / batch, n=n, batch=batch, threads=threads)
        for n in (1000, 2000)
        for batch, threads in ((1, 1), (50, 1), (50, 2))
        for setting, recall, time in ((1, 0.95, 100.0), (2, 1.0, 200.0))
    ]
    tables = summary(rows, []).split("\n\n")
    assert tables[0].startswith("Kernels in memory") and "benchmarks.archive" in tables[0]
    heads = [table.split(":")[0] for table in tables if table.startswith("1,000 patches, near")]
    assert [head.split(", ")[-1] for head in heads] == [
        "one at a time on one thread", "50 at once on one thread", "50 at once on 2 threads",
    ]  # fmt: skip
    assert "near     sish                        100.0       100.0" in tables[-2], (
        "growth is of single queries"
    )
    plot(rows, tmp_path / "plot.png")


@pytest.mark.slow
def test_a_query_has_one_answer_alone_and_in_a_batch_on_any_threads():
    rng = np.random.default_rng(0)
    barcodes = np.repeat(rng.integers(0, 256, (40, 128), np.uint8), 50, axis=0)
    barcodes ^= np.bitwise_and.reduce(rng.integers(0, 256, (4, *barcodes.shape), np.uint8))
    codes = Codes(barcodes, np.arange(len(barcodes)))
    asked = Codes(barcodes[::20].copy(), codes.keys[::20])
    tenth = scaling.tenth_distance(barcodes, asked.barcodes)
    built = rivals.contenders(codes, quick=True)
    next(one for one in built if one.index == "sish-paper").search.know(asked)
    rows = scaling._measured(built, scaling.Questions("near", asked, tenth), len(barcodes))
    ways = {(row.batch, row.threads) for row in rows if row.index == "sish"}
    assert ways == {(1, 1), (rivals.BATCH, 1), (rivals.BATCH, 2)}
    recalls = {}
    for one in rows:
        recalls.setdefault((one.index, one.params), set()).add(one.recall_at_10)
    assert all(len(found) == 1 for key, found in recalls.items() if key[0].startswith("sish"))
    assert all(1 >= one.recall_at_10 > 0 and one.n_queries == 100 for one in rows if one.index == "sish")


def test_lists_are_clustered_in_groups():
    faiss = pytest.importorskip("faiss")
    barcodes = np.random.default_rng(0).integers(0, 256, (3000, 128), np.uint8)
    centroids, seconds = rivals._grouped_centroids(faiss, barcodes, lists=60, groups=4)
    assert centroids.shape[1] == 128 and 50 <= len(centroids) <= 70 and seconds > 0
    lists = rivals._faiss_hnsw_ivf(faiss, centroids, seconds, barcodes)
    (near,) = rivals.distances(lists.search(barcodes[:1], 32, 1), 1)
    assert lists.params == f"lists={len(centroids)} hnsw" and near[0] == 0
