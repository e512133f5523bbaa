"""Files below a folder, through links: each of them once, and none passed over in silence."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sish.errors import SlideOpenError
from sish.feature_files import find_feature_files
from sish.slides.files import find_slides
from sish.slides.folders import files_below
from sish.vqvae.images import list_images


def plant(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names_below(folder: Path, suffixes=(".svs",), on_error=None) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_below(folder, suffixes, on_error)]


def test_linked_folders_and_files_are_followed_for_every_kind_of_file(tmp_path):
    plant(tmp_path, "away/deep/a.png", "away/deep/a.h5", "in/b.png", "in/b.h5", "one.png")
    (tmp_path / "in" / "batch").symlink_to(tmp_path / "away")
    (tmp_path / "in" / "c.png").symlink_to(tmp_path / "one.png")
    place = tmp_path / "in"
    images = [place / name for name in ("b.png", "batch/deep/a.png", "c.png")]
    assert find_slides(place) == list_images(place) == images
    assert find_feature_files(place) == [place / "b.h5", place / "batch" / "deep" / "a.h5"]


def test_a_file_that_is_reached_twice_is_listed_by_its_own_place(tmp_path):
    plant(tmp_path, "z/a.svs")
    (tmp_path / "b").symlink_to(tmp_path / "z")  # comes first by name
    (tmp_path / "a.svs").symlink_to(tmp_path / "z" / "a.svs")
    (tmp_path / "again").symlink_to(tmp_path / "b")
    assert names_below(tmp_path) == ["z/a.svs"]
    (tmp_path / "links").mkdir()
    for name in ("y", "x"):
        (tmp_path / "links" / f"{name}.svs").symlink_to(tmp_path / "z" / "a.svs")
    assert names_below(tmp_path / "links") == ["x.svs"]


def test_loops_end_and_do_not_lead_out_of_the_folder(tmp_path):
    plant(tmp_path, "outside.svs", "in/a.svs", "in/deep/b.svs")
    (tmp_path / "in" / "self").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "in" / "ring").symlink_to(tmp_path / "in" / "ring2")
    (tmp_path / "in" / "ring2").symlink_to(tmp_path / "in" / "ring")
    told: list[SlideOpenError] = []
    assert names_below(tmp_path / "in", on_error=told.append) == ["a.svs", "deep/b.svs"]
    assert len(told) == 2 and all("ring" in str(error) for error in told)


def test_links_to_nowhere_are_told_if_they_may_be_wanted(tmp_path):
    plant(tmp_path, "a.svs")
    for name in ("gone.svs", "batch", "notes.txt", ".hidden.svs"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere" / name)
    told: list[SlideOpenError] = []
    assert names_below(tmp_path, on_error=told.append) == ["a.svs"]
    assert sorted(Path(str(error).partition(":")[0]).name for error in told) == ["batch", "gone.svs"]
    assert all("a link to nowhere" in str(error) and "\n" not in str(error) for error in told)
    with pytest.raises(SlideOpenError, match="a link to nowhere"):
        files_below(tmp_path, {".svs"})


@settings(max_examples=40, deadline=None)
@given(links=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8))
def test_any_tangle_of_links_gives_what_can_be_reached_once(tmp_path_factory, links):
    """Five folders with one slide each; whatever is linked, each slide that can be reached is found once."""
    base = tmp_path_factory.mktemp("tangle")
    plant(base, *(f"{number}/{number}.svs" for number in range(5)))
    for count, (place, target) in enumerate(links):
        (base / str(place) / f"link{count}").symlink_to(base / str(target))
    reached, before = {0}, set()
    while reached != before:
        before = set(reached)
        reached |= {target for place, target in links if place in reached}
    found = files_below(base / "0", {".svs"})
    assert sorted(os.path.realpath(path) for path in found) == sorted(
        os.path.realpath(base / str(number) / f"{number}.svs") for number in reached
    )
    assert all(first < second for first, second in pairwise(found))
