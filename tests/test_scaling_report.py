"""Reading times off sweeps, by hand."""

from benchmarks.scaling_report import Row, best_time, plot, setting_at, summary, time_at


def row(setting, recall, time, index="sish", built="a", n=1000, queries="near"):
    return Row(
        index=index, params=f"{built} x={setting}", n=n, threads=1, recall_at_10=recall, query_us_median=time,
        query_us_p95=2 * time, build_s=1.0, bytes_per_patch=136.0, queries=queries, n_queries=10, built=built,
        setting=setting,
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
    assert "near                                     2           2\n" in text  # patches compared with
    plot(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
