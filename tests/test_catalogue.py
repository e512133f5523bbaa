"""The list of slides that the page shows: its order, its search over words, its filters, its counts."""

from pathlib import Path

import numpy as np
import pytest

from sish import Index, QueryError
from sish.serve.catalogue import Catalogue

_FACTS = {  # label, site, patient
    "b/2": ("Tumour", "lung", "p1"),
    "a": ("normal", "lung", "p1"),
    "c": ("Tumour", "skin", "p2"),
    "é": ("Tumour", "skin", "p3"),
    "d": (None, "skin", "p4"),
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index of five slides in two segments, of which one more was removed."""
    path = Path(tmp_path_factory.mktemp("catalogue")) / "a.sish"
    made = None
    for ids in (["b/2", "a", "gone"], ["c", "é", "d"]):
        vectors = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
        told = {
            name: {it: _FACTS[it][place] for it in ids if it in _FACTS and _FACTS[it][place]}
            for place, name in enumerate(("labels", "sites", "patients"))
        }
        add = made.add_vectors if made else lambda *given, **told: Index.from_vectors(path, *given, **told)
        added = add(vectors, np.repeat(ids, 20), **told, show_progress=False)
        made = made or added
    made.remove("gone")
    return made


@pytest.fixture(scope="module")
def catalogue(index: Index) -> Catalogue:
    return Catalogue.of(index.state_and_view()[0])


def ids(catalogue: Catalogue, *asked: object) -> list[str]:
    return [row.slide_id for row in catalogue.rows(catalogue.find(*asked))]


def test_slides_come_in_order_of_ids_without_removed_ones(catalogue: Catalogue) -> None:
    assert ids(catalogue) == sorted(_FACTS)
    assert len(catalogue) == 5
    assert catalogue.row("gone") is None
    assert catalogue.row("b/2").label == "Tumour"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("tumour", ["b/2", "c", "é"]),
        ("SKIN tumour", ["c", "é"]),
        ("P1", ["a", "b/2"]),
        ("É", ["é"]),
        ("nothing", []),
        ("gone", []),
    ],
)
def test_every_word_must_occur_in_any_case(catalogue: Catalogue, words: str, found: list[str]) -> None:
    assert ids(catalogue, words) == found


def test_filters_and_words_hold_together(catalogue: Catalogue) -> None:
    assert ids(catalogue, "", {"site": ["=lung", "=skin"], "label": ["=Tumour"]}) == ["b/2", "c", "é"]
    assert ids(catalogue, "p2", {"site": ["skin"]}) == ["c"]
    assert ids(catalogue, "", {"label": ["!=Tumour"]}) == ["a", "d"]
    with pytest.raises(QueryError, match="organ"):
        catalogue.find("", {"organ": ["lung"]})


def test_columns_count_the_values_of_live_slides(catalogue: Catalogue) -> None:
    label, patient, site = catalogue.columns
    assert label["name"] == "label"
    assert label["values"] == [{"value": "Tumour", "count": 3}, {"value": "normal", "count": 1}]
    assert label["distinct"] == 2
    assert patient["values"][0] == {"value": "p1", "count": 2}
    assert site["values"] == [{"value": "skin", "count": 3}, {"value": "lung", "count": 2}]
