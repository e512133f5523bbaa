"""Leave-one-patient-out: the right ones are left out, and the figures are those of the answers."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

import sish
from sish.cli import main
from sish.confusion import confusion_of, confusion_png
from sish.view import View


def test_every_labelled_slide_is_a_query_and_never_finds_its_own_patient(built_index, monkeypatch):
    index = sish.Index.open(built_index)
    answers = []
    search = View.search

    def recorded(self, query, codes, **options):
        answers.append(search(self, query, codes, **options))
        return answers[-1]

    monkeypatch.setattr(View, "search", recorded)
    found = sish.evaluate(index, ranking="similarity")
    assert [answer.query.slide_id for answer in answers] == [row.slide_id for row in index.slides]
    assert all(answer.query.patient not in {hit.patient for hit in answer} for answer in answers)
    right = [
        any(hit.label == row.label for hit in list(answer)[:5])
        for answer, row in zip(answers, index.slides, strict=True)
    ]
    assert found.metrics.queries == 8
    assert found.metrics.hit_5 == pytest.approx(sum(right) / len(right))
    assert found.query_ms_median <= found.query_ms_p95


def test_stored_codes_answer_as_the_slide_itself_does(built_index):
    index = sish.Index.open(built_index)
    from sish.evaluation import _queries

    view = index.view()
    for (query, _, codes), row in zip(list(_queries(index.snapshot()))[:3], index.slides, strict=False):
        again = index.search(row.path, k=5, exclude_patient=True)
        assert view.search(query, codes, k=5, exclude_patient=True).hits == again.hits


def test_an_index_without_labels_cannot_be_evaluated(tmp_path, synthetic_slides):
    index = sish.Index.create(tmp_path / "archive.sish")
    index.add(next(synthetic_slides.glob("*.tif*")), show_progress=False)
    with pytest.raises(sish.QueryError, match="labelled slides of at least two patients"):
        sish.evaluate(index)


@pytest.fixture
def relabelled(own_index, tmp_path):
    """Eight slides: class a has sites x, x, y; b has x, x, y, y, the last two of one patient; one is rare."""
    names = [row.slide_id for row in own_index.slides]
    lines = ["slide_id,label,site,patient"]
    for name, label, site, patient in zip(names, [*"aaabbbb", "rare"], "xxyxxyyy", "01234557", strict=True):
        lines.append(f"{name},{label},{site},p{patient}")
    own_index.relabel(_file(tmp_path, lines))
    return own_index


def _file(folder, lines):
    path = folder / "new_labels.csv"
    path.write_text("\n".join(lines))
    return path


def test_classes_and_sites_have_a_row_each(relabelled):
    found = sish.evaluate(relabelled, ranking="similarity")
    assert [(row["label"], row["queries"], row["findable"]) for row in found.by_label] == [
        ("a", 3, 3), ("b", 4, 4), ("rare", 1, 0)
    ]  # fmt: skip
    assert [(row["site"], row["queries"]) for row in found.by_site] == [("x", 4), ("y", 4)]
    assert [one.relevant for one in found.answers] == [2, 2, 2, 3, 3, 2, 2, 0]
    for rows, column in ((found.by_label, "label"), (found.by_site, "site")):
        for row in rows:
            own = [one for one in found.answers if getattr(one, column) == row[column]]
            assert row["mv1"] == pytest.approx(np.mean([one.found[:1] == (one.label,) for one in own]))
            assert row["hit5"] == pytest.approx(np.mean([one.label in one.found[:5] for one in own]))
            assert row["mv5_low"] <= row["mv5"] <= row["mv5_high"]
    for name, column in (("mmv1", "mv1"), ("mmv3", "mv3"), ("mmv5", "mv5"), ("macro_f1_5", "f1_5")):
        assert found.to_dict()[name] == pytest.approx(np.mean([row[column] for row in found.by_label]))
    assert found.never_found == [row["label"] for row in found.by_label if not row["hit5"]]
    assert found.never_majority == [row["label"] for row in found.by_label if row["hit5"] and not row["mv5"]]
    lines = list(found.lines())
    (line,) = [line for line in lines if line.startswith("never among the first 5")]
    assert line.endswith("rare (nothing to find)")
    assert any(line.split()[:4] == ["rare", "1", "0", "0"] for line in lines)


def test_within_its_site_a_query_finds_no_other_site(relabelled, monkeypatch):
    answers = []
    search = View.search

    def recorded(self, query, codes, **options):
        answers.append(search(self, query, codes, **options))
        return answers[-1]

    monkeypatch.setattr(View, "search", recorded)
    found = sish.evaluate(relabelled, ranking="similarity", within="site")
    site = {row.slide_id: row.site for row in relabelled.slides}
    count = {name: [row.site for row in relabelled.slides].count(site[name]) for name in site}
    for answer in answers:
        own = answer.query.slide_id
        assert {site[hit.slide_id] for hit in answer} == {site[own]}
        assert len(answer) == count[own] - (2 if answer.query.patient == "p5" else 1)
    assert [one.relevant for one in found.answers] == [1, 1, 0, 1, 1, 0, 0, 0]
    assert [row["findable"] for row in found.by_label] == [2, 2, 0]
    assert found.to_dict()["within"] == "site"


def test_within_needs_sites_and_says_what_to_do(own_index, tmp_path, synthetic_slides):
    bare = sish.Index.create(tmp_path / "bare.sish")
    lines = ["path,label", *(f"{path},a" for path in sorted(synthetic_slides.glob("*.tif"))[:2])]
    bare.add(synthetic_slides.glob("*-01.tif"), labels=_file(tmp_path, lines), show_progress=False)
    with pytest.raises(sish.QueryError, match=r"2 of 2 labelled slides have no site \(.*sish index label"):
        sish.evaluate(bare, within="site")
    with pytest.raises(sish.ParameterError, match="got within='label'; want 'site'"):
        sish.evaluate(own_index, within="label")


def test_slides_that_failed_count_as_misses(own_index, tmp_path):
    whole = sish.evaluate(own_index, ranking="similarity")
    Image.new("RGB", (700, 700), (245, 245, 245)).save(tmp_path / "blank.png")
    rows = [f"{row.slide_id},{row.label},{row.patient}" for row in own_index.slides]
    lost = [f"blank,{own_index.slides[0].label},new", "never-read,unheard of,other", "no-label,,third"]
    labels = _file(tmp_path, ["slide_id,label,patient", *rows, *lost])
    own_index.add(tmp_path / "blank.png", labels=labels, mpp=1.0, show_progress=False)
    found = sish.evaluate(own_index, ranking="similarity", labels=labels)
    assert found.failed == ["blank", "never-read"]
    assert [one.failed for one in found.answers[-2:]] == ["no tissue", "not in the index"]
    assert found.metrics.queries == whole.metrics.queries + 2
    assert found.metrics.hit_5 == pytest.approx(whole.metrics.hit_5 * 8 / 10)
    assert sish.evaluate(own_index, ranking="similarity").failed == ["blank"]
    assert found.never_found[-1] == "unheard of" and found.by_label[-1]["failed"] == 1


def test_files_hold_what_the_evaluation_says(relabelled, tmp_path, capsys):
    out = tmp_path / "out" / "deep"
    words = ["evaluate", "--index", str(relabelled.path), "--ranking", "similarity", "--within", "site"]
    assert main([*words, "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((out / "evaluation.json").read_text())
    times = {"query_ms_median", "query_ms_p95"}
    found = sish.evaluate(relabelled, ranking="similarity", within="site")
    assert {k: v for k, v in found.to_dict().items() if k not in times} == {
        k: v for k, v in written.items() if k not in times
    }
    assert written == printed and written["bytes_per_slide"] == relabelled.info().bytes / 8
    for name, rows in (
        ("by_label", found.by_label), ("by_site", found.by_site), ("by_query", found.by_query)
    ):  # fmt: skip
        with (out / f"{name}.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        assert [{k: str(v) for k, v in row.items()} for row in rows] == table
    with Image.open(out / "confusion.png") as picture:
        assert min(picture.size) > 300
    assert main([*words, "--out", str(out)]) == 0
    assert "label  queries  failed" in capsys.readouterr().out
    assert main([*words, "--out", str(relabelled.path / "out")]) == 1
    assert "lies inside the index" in capsys.readouterr().err


def test_the_confusion_counts_every_query(relabelled):
    found = sish.evaluate(relabelled, ranking="similarity")
    votes = [row["mv5"] for row in found.by_query]
    rows, columns, counts = confusion_of([one.label for one in found.answers], votes)
    assert rows == ["a", "b", "rare"] and counts.sum(axis=1).tolist() == [3, 4, 1]
    shares = [row["mv5"] for row in found.by_label]
    assert (counts[:, :3].diagonal() / counts.sum(axis=1)).tolist() == pytest.approx(shares)
    assert columns[:3] == rows
    with pytest.raises(sish.QueryError, match="no answers to draw"):
        confusion_png([], [])


@pytest.mark.filterwarnings("error")
def test_names_in_the_picture_are_no_formulas():
    labels = ["$\\foo$", "two\nlines\t", "5 $ and 6 $"]
    assert confusion_png(labels, labels, title="of $\\bar$").startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_picture_of_many_classes_stays_small():
    """A cell of one size took 4 GB for 150 classes, and no memory was enough for a thousand."""
    labels = [f"{number:03}" for number in range(300)]
    with Image.open(io.BytesIO(confusion_png(labels, labels))) as picture:
        assert max(picture.size) < 5000


def test_other_numbers_of_votes(built_index):
    found = sish.evaluate(sish.Index.open(built_index), k=2, ranking="similarity")
    assert {"mv1", "mv2", "f1_2", "precision2", "hit5"} <= set(found.by_label[0])
    assert "mv3" not in found.by_label[0]
    assert {"mmv1", "mmv2", "macro_f1_1", "macro_f1_2"} <= set(found.to_dict())
    assert list(found.lines())
