"""The benchmark of float vectors: its mixtures, exact answers, choice of settings, and tables."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import vector_data as data
from benchmarks import vector_rivals, vectors
from benchmarks.vectors import Curve, Point, Row


@pytest.fixture(scope="module")
def small():
    return data.Mixture(dims=64)


def row(engine, us, size, **other):
    spread = None if us is None else (us, us - 1.0, us + 2.0)
    values = {"archive": "a", "at_once": 1, "target": 0.95, "ours": engine.startswith("sish")} | other
    return Row(
        engine=engine, setting="ef=16", recall=0.953, us=spread, bytes_per_vector=size, build_s=3.0, **values
    )


# ---- mixtures


def test_a_smaller_mixture_is_the_beginning_of_a_larger_one(small, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "BLOCK", 200)
    small.write(tmp_path / "few.npy", 250)
    data.Mixture(dims=64).write(tmp_path / "many.npy", 500)
    few, many = np.load(tmp_path / "few.npy"), np.load(tmp_path / "many.npy")
    assert few.shape == (250, 64) and many.dtype == np.float32
    assert np.array_equal(few, many[:250])
    assert np.abs(few[:50] - few[200:]).max() > 1  # blocks differ
    assert not (tmp_path / "few.part").exists()


def test_lengths_differ_and_have_a_common_mean(small):
    points = small.points(0, 6000)
    length = np.linalg.norm(points, axis=1)
    assert length.std() > 0.05 * length.mean()
    share = np.square(points.mean(axis=0)).sum() / np.square(length).mean()
    assert 0.1 < share < 0.5


def test_clusters_have_shares_like_one_over_n_and_variance_in_few_directions(small):
    clusters = small.clusters(0, 50_000)
    share = np.bincount(clusters, minlength=1000) / 50_000
    all_shares = (1 / np.arange(1, 1001)).sum()
    assert share[[0, 1, 3]] == pytest.approx(np.array([1, 1 / 2, 1 / 4]) / all_shares, rel=0.1)
    inside = small.points(0, 20_000)[small.clusters(0, 20_000) == 0]
    variance = np.linalg.eigvalsh(np.cov(inside.T))[::-1]
    assert 3 < variance[0] / variance[15] < 15  # 1 / (j + 3) falls by 4.75


def test_queries_are_not_in_the_archive(small):
    queries = small.queries(20)
    assert np.array_equal(queries, data.Mixture(dims=64).queries(20))
    assert np.abs(small.points(0, 500)[:, None] - queries).max(axis=2).min() > 1e-3


# ---- exact answers


def exact(points, queries):
    points, queries = points.astype(np.float64), queries.astype(np.float64)
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(points, axis=1)
    return 1 - queries @ points.T / lengths


def test_the_tenth_distance_is_that_of_numpy(small, monkeypatch):
    monkeypatch.setattr(data, "BLOCK", 64)
    points, queries = small.points(0, 325), small.queries(7)  # the last block has 5
    tenth = data.tenth_distances(points, queries)
    assert tenth == pytest.approx(np.sort(exact(points, queries))[:, 9], abs=1e-6)


def test_recall_counts_rows_once_and_ties_as_found(small):
    points = small.points(0, 300)
    points[299] = points[0] * 2  # another length, the same cosine
    queries = points[:2] * 3
    tenth = data.tenth_distances(points, queries)
    archive = data.Archive("a", points, queries, tenth)
    right = np.argsort(exact(points, queries), axis=1, kind="stable")[:, :10]
    assert data.hits(archive, right, slice(0, 2)) == 1
    twin = right.copy()
    twin[0, 0] = 299 if right[0, 0] == 0 else 0
    twice = len(np.unique(twin[0])) < 10
    assert data.hits(archive, twin, slice(0, 2)) == (0.95 if twice else 1)
    few = right.copy()
    few[1] = [*right[1, :4], right[1, 0], -1, -1, *np.argsort(exact(points, queries))[1, -3:]]
    assert data.hits(archive, few[1:], slice(1, 2)) == 0.4


def test_answers_are_kept(small, tmp_path, monkeypatch):
    points, queries = small.points(0, 100), small.queries(3)
    first = data.with_answers("a", points, queries, tmp_path / "mixture")
    monkeypatch.setattr(data, "tenth_distances", None)
    again = data.with_answers("a", points, queries, tmp_path / "mixture")
    assert np.array_equal(first.tenth, again.tenth)


def test_zeros_have_no_direction():
    assert np.array_equal(data.unit(np.array([[0, 0], [3, 4]], np.float32)), np.float32([[0, 0], [0.6, 0.8]]))


@pytest.mark.slow
def test_tissue_is_read_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for split, n in (("train", 14), ("valid", 4)):
        folder = tmp_path / "pcam" / split / "0"
        folder.mkdir(parents=True)
        for number in range(n):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
    cache = tmp_path / "cache"
    cache.mkdir()
    tissue, lite0 = data.tissue(tmp_path, cache)
    assert (tissue.vectors.shape, lite0.vectors.shape) == ((14, 1920), (14, 1536))
    assert len(tissue.queries) == len(lite0.tenth) == 4
    assert np.array_equal(tissue.vectors[:, :1536], lite0.vectors)
    monkeypatch.setattr(data, "_encoded", None)
    again = next(data.tissue(tmp_path, cache))
    assert np.array_equal(again.vectors, tissue.vectors)


# ---- choosing, and tables


def test_the_fastest_setting_that_reaches_the_recall_is_chosen():
    points = [
        Point((8,), 0.90, (10.0, 5.0)),
        Point((16,), 0.95, (40.0, 9.0)),
        Point((32,), 0.97, (30.0, 20.0)),
        Point((64,), 0.99, (90.0, 50.0)),
    ]
    assert vectors.fastest(points, 0.95, 0).setting == (32,)
    assert vectors.fastest(points, 0.95, 1).setting == (16,)
    assert vectors.fastest(points, 0.99, 0).setting == (64,)
    assert vectors.fastest(points, 0.995, 0) is None


class Scan(vector_rivals.Engine):
    """An exact index that forgets the neighbours of all but some queries."""

    name, library, knobs = "scan", "numpy", ("known",)

    def __init__(self):
        self.asked = []

    def settings(self):
        return [(1,), (4,)]

    def build(self, vectors):
        self.index = vectors

    def save(self, path):
        np.save(path.open("wb"), self.index)

    def load(self, path, dims):
        self.index = np.load(path)

    def search(self, queries, setting):
        self.asked.append((len(queries), setting))
        found = np.argsort(exact(self.index, queries), axis=1)[:, :10]
        found[np.arange(len(found)) % 4 >= setting[0]] = -1
        return found


def test_settings_are_chosen_on_the_first_half_and_reported_on_the_second(small, tmp_path):
    points, queries = small.points(0, 400), small.queries(40)
    archive = data.Archive("a", points, queries, data.tenth_distances(points, queries))
    engine = Scan()
    ((along, rows),) = vectors.measure(archive, [engine], tmp_path)
    assert [(point.setting, point.recall) for point in along.points] == [((1,), 0.25), ((4,), 1.0)]
    assert [(one.at_once, one.target) for one in rows] == [(1, 0.95), (1, 0.99), (50, 0.95), (50, 0.99)]
    assert all(one.setting == "known=4" and one.recall == 1 and not one.ours for one in rows)
    assert all(low <= middle <= most for middle, low, most in (one.us for one in rows))
    assert along.bytes_per_vector == (tmp_path / "a-scan").stat().st_size / 400 > 256
    assert engine.index is None
    built = json.loads((tmp_path / "a-scan.json").read_text())["build_s"]
    engine.build = None  # a second run reads the file
    ((again, _),) = vectors.measure(archive, [engine], tmp_path)
    assert again.build_s == built


def test_an_engine_that_misses_a_recall_says_how_near_it_came(small):
    points, queries = small.points(0, 50), small.queries(4)
    archive = data.Archive("a", points, queries, data.tenth_distances(points, queries))
    low = Curve(
        "a",
        "scan",
        False,
        ("known",),
        9.0,
        1.0,
        (Point((1,), 0.25, (1.0, 1.0)), Point((2,), 0.5, (2.0, 2.0))),
    )
    one = vectors.row(archive, Scan(), low, 0.95, 0)
    assert (one.us, one.setting, one.recall) == (None, "", 0.5)
    assert "never | (at most 0.500) |  | 9 | 1 |" in vectors.shown([one])


def test_table_of_rows():
    lines = vectors.shown([row("scan", 40.0, 1168.4)]).splitlines()
    assert lines[0] == "| archive | at once | target | engine | setting | recall | us | bytes | build, s |"
    assert lines[2] == "| a | 1 | 0.95 | scan | ef=16 | 0.953 | 40 (39 to 42) | 1168 | 3 |"


def test_a_line_tells_how_far_an_engine_goes():
    points = Point((1,), 0.5, (10.4, 1.0)), Point((2,), 0.9876, (99.0, 2.0))
    line = vectors.progress(Curve("a", "scan", False, ("known",), 9.2, 1.0, points))
    assert line == "  a, scan: 9 bytes, recall 0.500 to 0.988 in 10 to 99 us"


def test_ours_is_compared_with_the_fastest_rival_of_the_same_place():
    rows = [
        row("sish int8", 50.0, 500.0),
        row("slow", 400.0, 100.0),
        row("fast", 100.0, 2000.0),
        row("misses", None, 10.0),
        row("other place", 1.0, 1.0, at_once=50),
        row("sish int8", 60.0, 500.0, target=0.99),
        row("sish float16", None, 500.0),
    ]
    first, second = vectors.against(rows)
    assert first["fastest rival"] == "fast"
    assert (first["time ratio"], first["bytes ratio"]) == (2.0, 0.25)
    assert second["target"] == 0.99 and second["fastest rival"] is second["time ratio"] is None


# ---- engines


def test_eight_bits_use_all_values_of_each_vector():
    found = vector_rivals.eighths(np.array([[0.1, -0.2, 0.0], [30, 15, -7.5], [0, 0, 0]], np.float32))
    assert found.dtype == np.int8
    assert found.tolist() == [[64, -127, 0], [127, 64, -32], [0, 0, 0]]


@pytest.mark.slow
@pytest.mark.parametrize("engine", vector_rivals.rivals(), ids=lambda engine: engine.name)
def test_a_rival_answers_after_reading_its_file(engine, tmp_path):
    pytest.importorskip(engine.library, reason=f"{engine.library} is not installed")
    mixture = data.Mixture(dims=256)
    points, queries = mixture.points(0, 2000), mixture.queries(50)
    archive = data.Archive("a", points, queries, data.tenth_distances(points, queries))
    build_s, size = vector_rivals.ready(engine, points, tmp_path / "index")
    assert build_s > 0 and size > 256
    recall = [
        data.hits(archive, engine.search(engine.prepared(queries), setting), slice(None))
        for setting in (engine.settings()[0], engine.settings()[-1])
    ]
    assert recall[0] < recall[1] and recall[1] > 0.9
    one = engine.search(engine.prepared(queries)[:1], engine.settings()[-1])
    assert one.shape == (1, 10)


# ---- the command


def test_a_missing_library_and_missing_images_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(vector_rivals.Hnswlib, "library", "no_such_library")
    monkeypatch.setattr(vectors, "mixture", lambda *_: pytest.fail("no mixture was asked for"))
    arguments = ["--engines", "hnswlib", "--archives", "tissue", "--data", str(tmp_path)]
    assert vectors.main([*arguments, "--cache", str(tmp_path / "cache")]) == 0
    assert "no pcam/train" in capsys.readouterr().out
    given = vectors.argparse.Namespace(engines=["hnswlib"], quick=False)
    assert vectors.wanted(given) == []
    assert "no_such_library is not installed" in capsys.readouterr().out


@pytest.mark.slow
def test_quick_run_writes_all_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(vectors, "_QUICK_SIZES", (3000,))
    monkeypatch.setattr(vectors, "_QUICK_ENGINES", ("sish int8",))
    file = tmp_path / "vectors.json"
    assert vectors.main(["--quick", "--archives", "mixture", "--json", str(file)]) == 0
    told = json.loads(file.read_text())
    assert [one["archive"] for one in told["curves"]] == ["mixture 3,000"]
    assert len(told["rows"]) == 4
    assert all(one["us"] and one["recall"] > 0.93 for one in told["rows"] if one["target"] == 0.95)
    assert "| mixture 3,000 | 50 | 0.95 | sish int8 |" in (out := capsys.readouterr().out)
    assert "| engine | fastest rival | time ratio | bytes ratio |" in out
