"""Leave-one-patient-out: the right ones are left out, and the figures are those of the answers."""

import pytest

import sish
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
