"""Slides from arrays: Index.from_vectors, add_vectors, and vectors as a query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sish
from sish.cli import main
from sish.errors import EncoderMismatchError, LabelsError
from sish.evaluation import evaluate
from sish.report import write_report
from sish.vectors import slides_of

SLIDES, ROWS, WIDTH = 12, 30, 48


@pytest.fixture(scope="module")
def archive():
    """Vectors of 12 slides of 4 diagnoses, in mixed order, with the slide of each row."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(4, WIDTH)) * 2 + 5
    ids = np.repeat([f"s{number:02}" for number in range(SLIDES)], ROWS)
    kind = np.repeat(np.arange(SLIDES) % 4, ROWS)
    vectors = (centre[kind] + rng.normal(size=(len(ids), WIDTH))).astype(np.float32)
    order = rng.permutation(len(ids))
    return vectors[order], ids[order]


@pytest.fixture(scope="module")
def labels():
    return {f"s{number:02}": "abcd"[number % 4] for number in range(SLIDES)}


@pytest.fixture
def index(archive, labels, tmp_path):
    return sish.Index.from_vectors(
        tmp_path / "a.sish", *archive, labels=labels, feature_encoder="uni", show_progress=False
    )


def places(ids: np.ndarray) -> np.ndarray:
    """A grid of 256 px for the rows of each slide, in the order of its rows."""
    number = np.zeros(len(ids), np.int64)
    for name in np.unique(ids):
        number[ids == name] = np.arange(np.count_nonzero(ids == name))
    return np.stack([number % 6, number // 6], axis=1) * 256


def test_all_rows_are_kept_in_their_order(archive, index):
    vectors, ids = archive
    assert [row.slide_id for row in index.slides] == list(dict.fromkeys(ids.tolist()))
    assert {row.n_patches for row in index.slides} == {ROWS}
    assert index.recipe.weights == f"features:uni/{WIDTH}"
    own = index.encoder.barcodes(vectors)
    for row in index.slides:
        asked = index.search(row.slide_id, k=1)
        pairs = asked[0].patches
        assert all(pair.query_row == pair.row and pair.hamming == 0 for pair in pairs)
        found = own[ids == row.slide_id]
        state = index.snapshot()
        number = [other.slide_id for other in state.slides].index(row.slide_id)
        assert (state.barcodes[state.rows_of(np.array([number]))] == found).all()


def test_the_id_and_the_vectors_of_a_slide_have_one_answer(archive, index):
    vectors, ids = archive
    by_id = index.search("s03", k=6)
    by_vectors = index.search(vectors[ids == "s03"], k=6)
    assert by_id.hits == by_vectors.hits and by_id.ranking == by_vectors.ranking == "uncertainty"
    assert {hit.label for hit in by_id.hits[:3]} == {"d"}
    query = by_vectors.query
    assert (query.path, query.mpp, query.patch_l0_px, query.patient) == (None, None, None, "")
    pair = by_id[0].patches[0]
    assert pair.xy is None and pair.query_xy is None
    assert by_id[0].mpp is None and by_id[0].path == ""
    assert by_id.to_dict()["results"][0]["patches"][0]["xy"] is None


def test_patients_filters_and_evaluation_work_as_for_slides(archive, labels, tmp_path):
    vectors, ids = archive
    patients = {name: f"p{int(name[1:]) // 2}" for name in labels}
    sites = {name: "lung" if int(name[1:]) < 6 else "breast" for name in labels}
    index = sish.Index.from_vectors(
        tmp_path / "a.sish", vectors, ids, labels=labels, patients=patients, sites=sites, show_progress=False
    )
    hits = index.search("s00", k=12, exclude_patient=True)
    assert {"s00", "s01"}.isdisjoint(hit.slide_id for hit in hits) and len(hits) == 10
    lung = index.search(vectors[ids == "s00"], k=12, where={"site": "lung"})
    assert {hit.slide_id for hit in lung} == {f"s0{number}" for number in range(6)}
    mine = index.search(vectors[ids == "s00"], k=12, patient="p0", exclude_patient=True)
    assert [hit.slide_id for hit in mine] == [hit.slide_id for hit in hits]
    assert evaluate(index).to_dict()["mmv1"] == 1.0


def test_a_report_has_no_pictures_and_says_why(index, archive, tmp_path):
    page = write_report([index.search("s00"), index.search(archive[0][:5])], tmp_path / "r.html", index=index)
    text = Path(page).read_text()
    assert "given as pixels in memory or as vectors" in text and "data:image" not in text
    assert "um/px" not in text and "s04" in text


def test_places_are_kept_and_their_grid_tells_the_side_of_a_patch(archive, labels, tmp_path):
    vectors, ids = archive
    index = sish.Index.from_vectors(
        tmp_path / "a.sish", vectors, ids, l0_xy=places(ids), mpp={"s00": 0.25}, show_progress=False
    )
    row = next(row for row in index.slides if row.slide_id == "s00")
    assert (row.patch_l0_px, row.mpp, row.width, row.height) == (256.0, 0.25, 6 * 256, 5 * 256)
    hit = index.search("s00", k=1)[0]
    assert all(pair.xy == (pair.row % 6 * 256, pair.row // 6 * 256) == pair.query_xy for pair in hit.patches)
    assert (hit.mpp, hit.patch_l0_px) == (0.25, 256.0) and index.search("s01", k=1)[0].mpp is None


def test_a_mosaic_keeps_what_the_files_of_features_keep(archive, tmp_path):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(900, WIDTH)).astype(np.float32)
    xy = np.stack(np.divmod(np.arange(900), 30), axis=1) * 512
    both = {}
    for mosaic in (False, True):
        both[mosaic] = sish.Index.from_vectors(
            tmp_path / f"{mosaic}.sish", vectors, ["a"] * 900, l0_xy=xy, mosaic=mosaic, show_progress=False
        )
    assert both[False].slides[0].n_patches == 900 and 9 < both[True].slides[0].n_patches < 300
    assert set(map(tuple, both[True].snapshot().l0_xy.tolist())) <= set(map(tuple, xy.tolist()))


def test_an_archive_grows_and_knows_its_slides_again(archive, labels, index):
    vectors, ids = archive
    again = index.add_vectors(vectors, ids, show_progress=False)
    assert again.summary() == f"0 added, {SLIDES} already there"
    mixed = np.concatenate([vectors[:40], vectors[ids == "s00"] + 1])
    report = index.add_vectors(mixed, ["new"] * 40 + ["s00"] * ROWS, labels={"new": "a"}, show_progress=False)
    assert report.added == ["new"] and "other vectors" in report.failed[0].reason
    assert report.failed[0].path == "s00"
    with pytest.raises(sish.SlideError, match="other vectors"):
        index.add_vectors(mixed[40:], ["s00"] * ROWS, on_error="raise", show_progress=False)
    assert index.add_vectors(mixed[40:], ["s00"] * ROWS, replace=True, show_progress=False).replaced == [
        "s00"
    ]
    row = next(row for row in index.slides if row.slide_id == "s00")
    assert row.label == "a", "the earlier label stays"
    assert index.search(mixed[40:], k=1)[0].slide_id == "s00"


def test_labels_of_pandas(archive, labels, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "label": pandas.Categorical([labels[name] for name in labels]),
            "age": [41.5, None, *range(40, 50)],
            "site": [None, "lung", *[pandas.NA] * 10],
        },
        index=list(labels),
    )
    index = sish.Index.from_vectors(tmp_path / "a.sish", *archive, labels=frame, show_progress=False)
    rows = {row.slide_id: row for row in index.slides}
    assert {name: row.label for name, row in rows.items()} == labels
    assert rows["s00"].metadata == {"age": "41.5"} and rows["s01"].metadata == {}
    assert (rows["s00"].site, rows["s01"].site, rows["s02"].site) == (None, "lung", None)
    named = frame.rename_axis("anything").reset_index(names="slide_id").sample(frac=1, random_state=0)
    again = sish.Index.from_vectors(tmp_path / "b.sish", *archive, labels=named, show_progress=False)
    assert again.slides == index.slides
    series = sish.Index.from_vectors(
        tmp_path / "c.sish", *archive, labels=frame["label"], patients=frame["age"], show_progress=False
    )
    assert {row.slide_id: row.patient for row in series.slides}["s01"] == "s01"
    with pytest.raises(LabelsError, match="more than once"):
        slides_of(*archive, labels=pandas.concat([frame, frame]))


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"vectors": np.ones((3, 5))}, EncoderMismatchError, "vectors of 5 numbers"),
        ({"vectors": np.full((3, WIDTH), np.nan)}, sish.ParameterError, "first in row 0"),
        ({"vectors": np.full((3, WIDTH), 1e300)}, sish.ParameterError, "infinity"),
        ({"vectors": np.ones(WIDTH)}, sish.ParameterError, r"\(N, F\)"),
        ({"vectors": [["a"] * WIDTH] * 3}, sish.ParameterError, "want float"),
        ({"vectors": [[1], [1, 2], [3]]}, sish.ParameterError, "no array"),
        ({"slide_ids": ["a", None, "b"]}, sish.ParameterError, "row 1 has the slide id None"),
        ({"slide_ids": ["a", "", "b"]}, sish.ParameterError, "row 1"),
        ({"slide_ids": ["a", "b"]}, sish.ParameterError, r"shape \(2,\) for 3 vectors"),
        ({"slide_ids": [0.5, 1, 2]}, sish.ParameterError, "want text or a whole number"),
        ({"labels": {"q": 1}}, LabelsError, "none of the slides"),
        ({"labels": ["x", "y", "z"]}, sish.ParameterError, r"labels as list.*dict\(zip"),
        ({"mosaic": True}, sish.ParameterError, "without l0_xy"),
        ({"l0_xy": [[0, 0], [0, 9]]}, sish.ParameterError, r"want int \(3, 2\)"),
        ({"l0_xy": [[0, 0], [0, -9], [1, 1]]}, sish.ParameterError, "no slide has"),
        ({"l0_xy": [[0, 0], [0, 0.5], [1, 1]]}, sish.ParameterError, "whole level-0 pixels"),
        ({"l0_xy": [[0, 0], [7, 9], [3, 1]]}, sish.ParameterError, "no neighbours"),
        ({"l0_xy": np.zeros((3, 2)), "patch_l0_px": 0}, sish.ParameterError, "patch_l0_px=0"),
        ({"mpp": 0.0}, sish.ParameterError, "mpp=0.0"),
        ({"mpp": {"a": True}}, sish.ParameterError, "mpp=True"),
        ({"on_error": "ignore"}, sish.ParameterError, "'skip' or 'raise'"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(index, change, error, told):
    wanted = {"vectors": np.ones((3, WIDTH)), "slide_ids": ["a", "a", "a"], "show_progress": False}
    with pytest.raises(error, match=told):
        index.add_vectors(**{**wanted, **change})
    assert len(index) == SLIDES and "a" not in index


def test_queries_that_cannot_be_answered(index, archive, built_index):
    vectors, _ = archive
    with pytest.raises(EncoderMismatchError, match="vectors of 7"):
        index.search(vectors[:, :7])
    with pytest.raises(sish.QueryError, match="at least one row"):
        index.search(vectors[:0])
    with pytest.raises(sish.QueryError, match="give patient="):
        index.search(vectors[:3], exclude_patient=True)
    with pytest.raises(sish.QueryError, match="have no places"):
        index.search(vectors[:3], region=(0, 0, 1, 1))
    with pytest.raises(sish.QueryError, match="given as vectors"):
        index.search("s00", region=(0, 0, 1, 1))
    with pytest.raises(sish.ParameterError, match="row 2"):
        index.search(np.where(np.arange(5)[:, None] == 2, np.nan, vectors[:5]))
    with pytest.raises(sish.QueryError, match="cannot encode pixels"):
        index.search(np.zeros((300, 300, 3), np.uint8), mpp=1.0)
    with pytest.raises(EncoderMismatchError, match="give vectors of"):
        sish.Index.open(built_index).search(vectors[:3])


def test_from_vectors_makes_nothing_of_what_it_refuses(tmp_path, archive):
    vectors, ids = archive
    for change in ({"vectors": vectors[:1], "slide_ids": ids[:1]}, {"feature_encoder": ""}, {"mosaic": True}):
        with pytest.raises(sish.ParameterError):
            sish.Index.from_vectors(tmp_path / "a.sish", **{"vectors": vectors, "slide_ids": ids, **change})
    assert not (tmp_path / "a.sish").exists()


def test_a_tensor_is_a_query_and_an_archive(index, archive, tmp_path):
    torch = pytest.importorskip("torch")
    vectors, ids = archive
    tensor = torch.from_numpy(vectors)
    assert index.search(tensor[:30], k=3).hits == index.search(vectors[:30], k=3).hits
    made = sish.Index.from_vectors(tmp_path / "t.sish", tensor, list(ids), show_progress=False)
    assert (made.snapshot().barcodes == index.snapshot().barcodes).all()


def test_an_archive_with_a_tree_answers_by_id_and_by_vectors(tmp_path):
    rng = np.random.default_rng(2)
    centre = rng.normal(size=(300, WIDTH))
    vectors = (centre[rng.integers(300, size=6000)] + 0.3 * rng.normal(size=(6000, WIDTH))).astype(np.float32)
    ids = np.array([f"s{number // 60:03}" for number in range(6000)])
    index = sish.Index.from_vectors(tmp_path / "a.sish", vectors, ids, show_progress=False)
    assert index.info().patches == 6000 and index.search("s042", k=5).hits[0].score == 1.0
    assert index.search("s042", k=5).hits == index.search(vectors[ids == "s042"], k=5).hits


def told(vectors, ids, **given):
    """What slides_of makes of labels: label and metadata by slide."""
    slides, _ = slides_of(vectors, ids, **given)
    return {it.slide_id: (it.labels.label, dict(it.labels.metadata)) for it in slides if it.labels}


def test_missing_and_whole_numbers_of_pandas_are_read_as_a_labels_file_has_them():
    pandas = pytest.importorskip("pandas")
    vectors, ids = np.eye(3), ["a", "b", "c"]
    series = pandas.Series(["x", pandas.NA, "y"], index=ids, dtype="string")
    assert {name: label for name, (label, _) in told(vectors, ids, labels=series).items()} == {
        "a": "x",
        "c": "y",
    }
    frame = pandas.DataFrame(
        {
            "label": pandas.array([1, None, 2], dtype="Int64"),
            "age": [50, None, 61.5],
            "day": pandas.to_datetime(["2020-01-02", None, None]),
        },
        index=ids,
    )
    assert told(vectors, ids, labels=frame) == {
        "a": ("1", {"age": "50", "day": "2020-01-02 00:00:00"}),
        "c": ("2", {"age": "61.5"}),
    }


def test_scales_are_told_by_any_mapping_or_by_the_table_of_labels():
    pandas = pytest.importorskip("pandas")
    vectors, ids = np.eye(2), [7, 8]
    frame = pandas.DataFrame({"slide_id": ["7", "8"], "mpp": ["0.5", None], "label": ["x", "y"]})
    for way in ({"mpp": {7: 0.5}}, {"mpp": pandas.Series([0.5], index=[7])}, {"labels": frame}):
        slides, _ = slides_of(vectors, ids, **way)
        assert [it.mpp for it in slides] == [0.5, 0.0]
    assert told(vectors, ids, labels=frame) == {"7": ("x", {}), "8": ("y", {})}
    with pytest.raises(sish.ParameterError, match="mpp names '9', and none of the slides, such as 7"):
        slides_of(vectors, ids, mpp={9: 0.5})


@pytest.mark.parametrize(
    ("make", "error", "wanted"),
    [
        (lambda pd: {"labels": {"a": np.zeros(2)}}, LabelsError, "slide 'a' has ndarray as its label"),
        (lambda pd: {"labels": {"a": b"x"}}, LabelsError, "slide 'a' has bytes"),
        (lambda pd: {"labels": {1: "x", "1": "y"}}, LabelsError, "slide '1' more than once"),
        (lambda pd: {"labels": pd.Series(["x", "y"], index=["a", "a"])}, LabelsError, "'a' more than once"),
        (
            lambda pd: {"patients": pd.DataFrame({"p": ["x"]}, index=["a"])},
            sish.ParameterError,
            "patients as DataFrame",
        ),
        (
            lambda pd: {"labels": pd.DataFrame([["x", "y"]], index=["a"], columns=["label", "label"])},
            LabelsError,
            "the column 'label' more than once",
        ),
        (
            lambda pd: {"labels": pd.DataFrame({"mpp": ["x"]}, index=["a"])},
            LabelsError,
            "a scale that is no number",
        ),
        (
            lambda pd: {"slide_ids": np.array(["a\0", "a"], object)},
            sish.ParameterError,
            "row 0 has the slide id",
        ),
    ],
)
def test_labels_that_cannot_be_read_are_refused(make, error, wanted):
    given = make(pytest.importorskip("pandas"))
    with pytest.raises(error, match=wanted):
        slides_of(np.eye(2), **{"slide_ids": ["a", "b"], **given})


def test_a_query_of_another_shape_is_told_what_is_wanted(index, archive):
    vectors, _ = archive
    with pytest.raises(sish.ParameterError, match=r"shape \(48,\); want \(N, F\)"):
        index.search(vectors[0])
    assert index.search(vectors[:3].tolist(), k=2).hits == index.search(vectors[:3], k=2).hits
    torch = pytest.importorskip("torch")
    with pytest.raises(sish.ParameterError, match="detach"):
        index.search(torch.ones(2, WIDTH, requires_grad=True))


def test_a_dropped_segment_is_added_again_by_its_table(archive, labels, tmp_path, capsys):
    pandas = pytest.importorskip("pandas")
    vectors, ids = archive
    told = {"l0_xy": places(ids), "show_progress": False}
    index = sish.Index.from_vectors(tmp_path / "a.sish", vectors, ids, labels=labels, mpp=0.5, **told)
    before = index.slides
    (damaged,) = index.path.glob("segments/*/barcodes/c.*")
    damaged.write_bytes(b"")
    assert main(["index", "repair", "--drop", "--index", str(index.path)]) == 0
    printed = capsys.readouterr().out
    assert "add again: s01: given as vectors" in printed and "labels= of Index.add_vectors" in printed
    (table,) = index.path.glob("damaged/*/add_again.csv")
    index.add_vectors(vectors, ids, labels=pandas.read_csv(table), **told)
    assert index.slides == before


def test_a_file_with_the_id_of_vectors_is_told_so(index, archive, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "features_uni" / "s01.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["features"] = archive[0][0]
    (failed,) = index.add_features(path, show_progress=False).failed
    assert "its slide id 's01' is that of a slide given as vectors" in failed.reason


def test_whole_numbers_are_ids_everywhere(archive, tmp_path):
    vectors, ids = archive
    numbers = np.char.lstrip(ids, "s").astype(int)
    index = sish.Index.from_vectors(tmp_path / "a.sish", vectors, numbers, show_progress=False)
    assert index.search(3, k=2).hits == index.search(np.int64(3), k=2).hits == index.search("3", k=2).hits
    assert len(index.patches(3)) == ROWS
    hits = index.search(vectors[numbers == 3], k=SLIDES, exclude_patient=True, patient=3).hits
    assert {hit.slide_id for hit in hits} == {str(number) for number in set(numbers.tolist()) - {3}}
    assert index.remove([3, np.int64(4)]) == 2 and index.remove(5) == 1
    for call in (index.search, index.patches, index.remove):
        with pytest.raises(sish.ParameterError, match="the slide id True; want text or a whole number"):
            call(True)


def test_an_index_of_pixels_takes_vectors_once_it_is_measured(built_index, tmp_path):
    index = sish.Index.create(tmp_path / "new.sish")
    vectors = np.random.default_rng(0).normal(size=(ROWS, index.encoder.model.n_features))
    with pytest.raises(sish.QueryError, match="was not measured: add slides first"):
        index.add_vectors(vectors, ["v"] * ROWS, show_progress=False)
    assert len(index) == 0
    measured = sish.Index.create(tmp_path / "like.sish", like=built_index)
    measured.add_vectors(vectors, ["v"] * ROWS, show_progress=False)
    assert measured.search(vectors, k=1)[0].slide_id == "v"
    with pytest.raises(sish.SlideError, match=r"v \(was given as vectors\)"):
        measured.recalibrate(show_progress=False)


def test_the_papers_keys_are_not_made_of_vectors(archive, tmp_path):
    index = sish.Index.create(tmp_path / "paper.sish", recipe=sish.Recipe(weights="vqvae", keys="paper"))
    vectors = np.ones((ROWS, index.encoder.model.n_features))
    for call in (index.search, lambda it: index.add_vectors(it, ["v"] * ROWS, show_progress=False)):
        with pytest.raises(sish.QueryError, match="the paper's keys, which are made of pixels"):
            call(vectors)


def test_an_id_of_vectors_may_be_the_name_of_a_file(archive, tmp_path, monkeypatch):
    vectors, ids = archive
    index = sish.Index.from_vectors(
        tmp_path / "a.sish", vectors, np.char.add(ids, ".svs"), show_progress=False
    )
    (tmp_path / "s03.svs").write_bytes(b"the slide that the vectors are of")
    monkeypatch.chdir(tmp_path)
    assert index.search("s03.svs", k=1)[0].slide_id == "s03.svs"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(["a", "b", "ü", "d e", 7]), min_size=1, max_size=30))
def test_rows_are_sorted_by_slide_as_plain_python_does(ids):
    vectors = np.arange(2.0 * len(ids)).reshape(-1, 2)
    slides, notes = slides_of(vectors, ids, labels={ids[0]: "x", "other": "y"})
    wanted: dict[str, list[int]] = {}
    for row, name in enumerate(ids):
        wanted.setdefault(str(name), []).append(row)
    assert [slide.slide_id for slide in slides] == list(wanted)
    for slide in slides:
        assert (slide.vectors == vectors[wanted[slide.slide_id]]).all()
        assert (slide.labels.label if slide.labels else None) == (
            "x" if slide.slide_id == str(ids[0]) else None
        )
    assert "other" in notes[0]
