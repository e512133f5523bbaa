"""The interface of all systems: a toy of some twenty lines keeps the whole contract."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from system_contract import SystemContract

from sish import systems
from sish.errors import ParameterError, QueryError, SlideOpenError
from sish.systems.base import Scores, System
from sish.systems.item import Item


class MeanColour(System[np.ndarray]):
    """A whole system: the nearer the mean colour, the more similar."""

    name = "mean colour"

    def describe(self, item):
        try:
            with Image.open(item.path) as picture:
                return np.asarray(picture.convert("RGB")).mean(axis=(0, 1))
        except UnidentifiedImageError as error:
            raise SlideOpenError(f"{item.path}: not a readable picture; give a PNG or JPEG") from error

    def build(self, descriptions):
        self.colours = np.reshape(descriptions, (-1, 3))

    def score(self, description, allowed, k):
        return Scores(-np.linalg.norm(self.colours - description, axis=1))

    def nbytes(self):
        return self.colours.nbytes


class TestMeanColour(SystemContract):
    def make(self):
        return MeanColour()


class NearestLabel(MeanColour):
    """A system that learns: the nearer the mean colour of an item's label, the more similar."""

    name = "nearest label"
    needs_labels = True

    def build(self, descriptions):
        super().build(descriptions)
        labels = [item.label for item in self.items]
        self.means = {
            label: self.colours[[own == label for own in labels]].mean(axis=0) for label in set(labels)
        }

    def score(self, description, allowed, k):
        return Scores(
            np.array([-np.linalg.norm(self.means[item.label] - description) for item in self.items])
        )


class TestNearestLabel(SystemContract):
    def make(self):
        return NearestLabel()


class Told(System[float]):
    """Answers with the scores that it is told."""

    name = "told"

    def __init__(self, scores):
        self.scores = scores

    def describe(self, item):
        return 0.0

    def build(self, descriptions):
        pass

    def score(self, description, allowed, k):
        return self.scores

    def nbytes(self):
        return 0


def answer(scores, n, k, group=""):
    items = [Item(f"i{number}", Path("none"), group="g" if number == 1 else "") for number in range(n)]
    found = Told(scores).fit(items).search(Item("query", Path("none"), group=group), k)
    return [(hit.item_id, hit.score) for hit in found], found


def test_a_ranking_by_hand():
    scores = Scores(np.array([0.5, 2.0, 0.5, -1.0]))
    assert answer(scores, 4, 3)[0] == [("i1", 2.0), ("i0", 0.5), ("i2", 0.5)]
    assert answer(scores, 4, 2, group="g")[0] == [("i0", 0.5), ("i2", 0.5)]


def test_a_system_that_looks_at_a_part_says_which_and_how_much():
    scores = Scores(np.array([0.1, 0.9, -np.inf]), np.array([3, 1, 0]), looked_at=3)
    hits, found = answer(scores, 4, 3)
    assert hits == [("i1", 0.9), ("i3", 0.1)]
    assert found.looked_at == 3 and found.note.startswith("2 of 3")


def test_many_ties_stay_in_order():
    assert answer(Scores(np.zeros(50)), 50, 3)[0] == [("i0", 0.0), ("i1", 0.0), ("i2", 0.0)]


def test_scores_that_are_none_are_refused():
    with pytest.raises(QueryError, match="told: got scores that are no numbers"):
        answer(Scores(np.array([np.nan, 1.0])), 2, 1)
    with pytest.raises(ParameterError, match="scores"):
        answer(Scores(np.array([1.0])), 2, 1)


def test_the_face_hands_on_what_it_names():
    for name in dir(systems):
        thing = getattr(systems, name)
        assert thing.__name__ == name and thing.__doc__
    assert systems.System is System and systems.Item is Item
    with pytest.raises(AttributeError, match="Nothing"):
        _ = systems.Nothing


def test_an_answer_in_plain_values():
    _, found = answer(Scores(np.array([0.5, 2.0])), 2, 3)
    plain = json.loads(json.dumps(found.to_dict()))
    assert list(plain) == ["query", "ranking", "note", "results", "looked_at"]
    assert plain["query"]["item_id"] == "query" and plain["looked_at"] == 2
    assert plain["results"][0] == {
        "rank": 1, "item_id": "i1", "path": "none", "labels": [], "score": 2.0, "placed": True
    }  # fmt: skip
    assert found.headline == "ranked by told: 2 of 3 wanted: no more could be found"
