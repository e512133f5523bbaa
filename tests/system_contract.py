"""What every system must do: inherit from `SystemContract` and say how to make one.

    class TestMine(SystemContract):
        def make(self):
            return Mine()

The fixture `pictures` are twelve small images, four of each of three labels, at 1 um/px with a mask each; the
first two of a label are of one group.
"""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sish.errors import LabelsError, MissingMaskError, MissingMppError, ParameterError, QueryError, SlideError
from sish.systems.base import System
from sish.systems.item import Item

_COLOURS = {"pink": (214, 130, 170), "violet": (120, 70, 160), "rose": (225, 170, 190)}
_SIDE = 256


def write_picture(path, colour, seed):
    """A noisy texture of one colour with dark dots, and the mask of its centre beside it."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(colour, 18, (_SIDE, _SIDE, 3)), 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    pencil = ImageDraw.Draw(picture)
    for x, y in rng.integers(0, _SIDE, (colour[0] // 3, 2)).tolist():
        pencil.ellipse((x, y, x + 9, y + 9), fill=(70, 40, 110))
    picture.save(path)
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).ellipse((40 + seed, 40, 190, 200 - seed), fill=255)
    mask.save(path.with_name(f"{path.stem}_mask.png"))


def write_pictures(folder):
    """Twelve items, see the module."""
    items = []
    for number, (label, colour) in enumerate(_COLOURS.items()):
        for copy in range(4):
            path = folder / f"{label}{copy}.png"
            write_picture(path, colour, 10 * number + copy)
            group = f"patient-{label}" if copy < 2 else ""
            mask = path.with_name(f"{path.stem}_mask.png")
            items.append(Item(path.stem, path, frozenset({label}), group, mpp=1.0, mask=mask))
    return tuple(items)


class SystemContract:
    """The tests; class attributes say what a system needs of its items."""

    needs_mpp = False
    """Whether it cannot do without a scale."""
    needs_mask = False
    """Whether it cannot do without a mask."""
    finds_equals = True
    """Whether no match of a picture has a higher score than the same picture under another name."""

    def make(self) -> System:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls, pictures):
        return cls().make().fit(pictures)

    def test_the_own_group_is_never_found(self, fitted, pictures):
        for query in pictures[:3]:
            found = fitted.search(query, k=len(pictures))
            own = {item.item_id for item in pictures if item.group and item.group == query.group}
            assert not {hit.item_id for hit in found} & (own | {query.item_id})

    def test_a_ranking_never_rises_and_counts_from_one(self, fitted, pictures):
        found = fitted.search(pictures[5], k=6)
        scores = [hit.score for hit in found]
        assert scores == sorted(scores, reverse=True) and len(scores) > 1
        assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
        assert len({hit.item_id for hit in found}) == len(found)
        assert 0 < found.looked_at <= len(pictures) - 1

    def test_ranking_alone_answers_as_a_search(self, fitted, pictures):
        for query in pictures[::5]:
            assert fitted.rank(query, fitted.describe_query(query), 4) == fitted.search(query, 4)

    def test_the_same_picture_under_another_name_comes_first(self, fitted, pictures):
        if not self.finds_equals:
            pytest.skip("its scores do not compare pictures with themselves")
        for picture in pictures[2::4]:
            stranger = replace(picture, item_id="stranger", group="", labels=frozenset())
            found = fitted.search(stranger, k=len(pictures))
            same = next(hit for hit in found if hit.item_id == picture.item_id)
            assert same.score == found[0].score

    def test_equal_scores_are_in_the_order_of_the_database(self, pictures):
        twins = [replace(pictures[2], item_id=name) for name in ("z", "y", "x")]
        other = replace(pictures[7], item_id="other")
        found = self.make().fit([*twins, other]).search(replace(pictures[2], item_id="query"), k=3)
        names = [hit.item_id for hit in found if hit.item_id != "other"]
        assert names == ["z", "y", "x"][: len(names)] and len(names) > 1

    def test_fewer_items_than_wanted_are_a_short_answer(self, fitted, pictures):
        found = fitted.search(pictures[2], k=100)
        assert len(found) <= len(pictures) - 1 and "100" in found.note
        lonely = self.make().fit(pictures[4:8] if not fitted.needs_labels else pictures)
        nothing = lonely.rank(replace(pictures[4], item_id="q"), lonely.describe_query(pictures[4]), k=1)
        assert len(nothing) == 1 and not nothing.note

    def test_an_empty_database_gives_empty_answers(self, pictures):
        empty = self.make().fit([])
        found = empty.search(pictures[0], k=3)
        assert (len(empty), len(found), found.looked_at, empty.bytes_per_item) == (0, 0, 0, 0.0)
        assert "empty" in found.note

    def test_a_query_whose_group_is_everything_finds_nothing(self, fitted, pictures):
        if fitted.needs_labels:
            pytest.skip("one class only is refused")
        found = self.make().fit(pictures[:2]).search(pictures[0])
        assert len(found) == 0 and "group" in found.note

    def test_a_search_before_fit_is_refused(self, pictures):
        with pytest.raises(QueryError, match="fit"):
            self.make().search(pictures[0])

    @pytest.mark.parametrize("k", [0, -1, 1.5, True])
    def test_k_must_be_a_positive_whole_number(self, fitted, pictures, k):
        with pytest.raises(ParameterError, match="k="):
            fitted.search(pictures[0], k)

    def test_two_items_of_one_id_are_refused(self, pictures):
        with pytest.raises(ParameterError, match="pink0"):
            self.make().fit([*pictures, pictures[0]])

    def test_fitting_anew_replaces_the_database(self, pictures):
        system = self.make().fit(pictures)
        system.fit(pictures[::-1])
        assert [item.item_id for item in system.items] == [item.item_id for item in pictures[::-1]]
        fresh = self.make().fit(pictures[::-1])
        assert system.search(pictures[0], 5) == fresh.search(pictures[0], 5)

    def test_given_descriptions_are_not_made_again(self, fitted, pictures):
        again = self.make().fit(pictures, [fitted.describe(item) for item in pictures])
        assert again.search(pictures[1], 4) == fitted.search(pictures[1], 4)
        with pytest.raises(ParameterError, match="descriptions"):
            self.make().fit(pictures, [fitted.describe(pictures[0])])

    def test_a_broken_file_is_an_error_or_is_kept_account_of(self, pictures, tmp_path):
        broken = tmp_path / "broken.png"
        broken.write_bytes(b"no picture")
        items = [*pictures, replace(pictures[0], item_id="broken", path=broken)]
        with pytest.raises(SlideError, match=r"broken\.png"):
            self.make().fit(items)
        system = self.make().fit(items, on_error="skip")
        assert len(system) == len(pictures)
        assert [skipped.path for skipped in system.skipped] == [str(broken)]
        with pytest.raises(SlideError):
            system.search(items[-1])

    def test_a_picture_without_its_scale(self, fitted, pictures):
        bare = replace(pictures[2], item_id="bare", mpp=None)
        if self.needs_mpp:
            with pytest.raises(MissingMppError, match="mpp"):
                fitted.search(bare)
        else:
            assert len(fitted.search(bare, 2)) == 2

    def test_a_picture_without_its_mask(self, fitted, pictures):
        bare = replace(pictures[2], item_id="bare", mask=None)
        if self.needs_mask:
            with pytest.raises(MissingMaskError, match="mask"):
                fitted.search(bare)
        else:
            assert len(fitted.search(bare, 2)) == 2

    def test_a_system_that_learns_wants_labels_of_two_classes(self, pictures):
        if not self.make().needs_labels:
            bare = [replace(item, labels=frozenset()) for item in pictures]
            assert len(self.make().fit(bare).search(bare[0], 2)) == 2
            return
        with pytest.raises(LabelsError, match="none"):
            self.make().fit([replace(item, labels=frozenset()) for item in pictures])
        with pytest.raises(LabelsError, match="pink"):
            self.make().fit(pictures[:4])

    def test_the_size_of_the_database_is_told(self, fitted, pictures):
        assert fitted.nbytes() > 0 and fitted.bytes_per_item == fitted.nbytes() / len(pictures)
