"""Which slide a file is: the same bytes under any name are, another slide of its name is not."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from slide_rows import slide_row

import sish
from sish.errors import QueryError, SlideOpenError
from sish.identity import Standing, compare, file_digest, find_row
from sish.index.store import SlideRow, Store

KIB = 1024


def write_picture(path: Path, seed: int, side: int = 300) -> Path:
    """A picture of noise on pink, uncompressed: its file's size tells its size in pixels only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-30, 30, (side, side, 3))
    Image.fromarray(np.add(noise, [200, 110, 170]).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def archive(tmp_path):
    """Two slides of one patient on a drive, and an index of them."""
    for number in (1, 2):
        write_picture(tmp_path / "drive" / f"{number}.bmp", number)
    (tmp_path / "a.csv").write_text("slide_id,label,patient\n1,normal,P\n2,normal,P\n")
    index = sish.Index.create(tmp_path / "archive.sish")
    assert add(index, tmp_path / "drive", labels=tmp_path / "a.csv").summary() == "2 added"
    return index


def add(index, place, **options):
    return index.add(place, mpp=1.0, show_progress=False, **options)


def without_digests(index) -> None:
    """Make the rows what an older release wrote."""
    with Store.open(index.path, write=True) as store:
        store.relabel({row.slide_id: replace(row, file_digest=None) for row in store.slides})
    assert all(row.file_digest is None for row in index.slides)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 900 * KIB), data=st.data())
def test_a_digest_sees_the_length_and_both_ends_and_the_middle(tmp_path_factory, size, data):
    path = tmp_path_factory.mktemp("digest") / "a"
    content = bytearray(np.random.default_rng(size).bytes(size))
    path.write_bytes(content)
    before = file_digest(path)
    assert before == file_digest(path)
    whole = size <= 320 * KIB
    ends = [st.integers(0, min(size, 64 * KIB) - 1), st.integers(max(0, size - 64 * KIB), size - 1)]
    place = data.draw(st.integers(0, size - 1) if whole else st.one_of(*ends, st.just(size // 2)))
    content[place] ^= 1
    path.write_bytes(content)
    assert file_digest(path) != before
    content[place] ^= 1
    path.write_bytes(content + b"\0")
    assert file_digest(path) != before


def test_what_cannot_be_read_has_no_digest(tmp_path):
    for path in (tmp_path, tmp_path / "none.svs"):
        with pytest.raises(SlideOpenError, match="cannot be read"):
            file_digest(path)


@pytest.mark.parametrize("digests", [True, False], ids=["digests", "older index"])
def test_another_slide_of_the_same_name_is_not_taken_while_a_drive_is_away(archive, tmp_path, digests):
    if not digests:
        without_digests(archive)
    before = archive.slides
    other = write_picture(tmp_path / "driveB" / "1.bmp", 7, 300 if digests else 301)
    (tmp_path / "drive").rename(tmp_path / "away")
    for options in ({}, {"replace": True}):
        report = add(archive, other, **options)
        assert "its slide id '1' is that of" in report.failed[0].reason and not report.already
    assert archive.slides == before
    asked = archive.search(other, mpp=1.0, exclude_patient=True, k=2)
    assert asked.query.patient != "P" and {hit.slide_id for hit in asked} == {"1", "2"}
    back = add(archive, tmp_path / "away")  # its own slides, elsewhere
    assert back.already == ["1", "2"] and not back.failed
    assert [Path(row.path).parent.name for row in archive.slides] == ["away", "away"]
    assert [(row.label, row.patient) for row in archive.slides] == [("normal", "P")] * 2


def test_a_good_copy_does_not_vouch_for_another_slide_of_its_name(archive, tmp_path):
    (tmp_path / "drive").rename(tmp_path / "away")
    other = write_picture(tmp_path / "driveB" / "1.bmp", 7)
    report = add(archive, [tmp_path / "away", other])
    assert report.already == ["1", "2"] and len(report.failed) == 1
    assert Path(archive.slides[0].path) == tmp_path / "away" / "1.bmp"


def test_a_file_that_was_replaced_in_place_is_told_and_made_anew_when_asked(archive, tmp_path):
    path = tmp_path / "drive" / "1.bmp"
    before = archive.snapshot().barcodes
    write_picture(path, 7)
    report = add(archive, tmp_path / "drive")
    assert report.already == ["2"] and "--replace" in report.failed[0].reason
    assert archive.search(path, mpp=1.0, k=1).query.patient == "1", "not the indexed slide's patient"
    assert np.array_equal(archive.snapshot().barcodes, before)
    assert add(archive, path, replace=True).replaced == ["1"]
    assert add(archive, path).already == ["1"]
    assert archive.search(path, mpp=1.0, k=1).query.patient == "P"


def test_a_query_is_known_by_its_bytes_under_any_name(archive, tmp_path):
    copy = tmp_path / "desktop" / "renamed.bmp"
    copy.parent.mkdir()
    copy.write_bytes((tmp_path / "drive" / "2.bmp").read_bytes())
    asked = archive.search(copy, k=2, exclude_patient=True)  # its given scale is known, too
    assert (asked.query.slide_id, asked.query.patient, len(asked)) == ("2", "P", 0)


def row_at(path: Path, slide_id: str, digest: str | None) -> SlideRow:
    return slide_row(slide_id, path=str(path), file_digest=digest)


def test_of_twins_the_one_of_the_path_comes_first_then_the_one_of_the_name(tmp_path):
    path = write_picture(tmp_path / "b.bmp", 1)
    digest = file_digest(path)
    rows = [replace(row_at(tmp_path / f"{name}.bmp", name, digest), n_patches=0) for name in "abc"]
    none = np.zeros((0, 1), int), np.zeros((0, 8), np.uint8), np.zeros((0, 2), int)
    with Store.create(tmp_path / "index", {}) as store:
        for row in rows:
            store.append(row, *none)
        assert find_row(path, "b", store.state) == rows[1]
        moved = path.rename(tmp_path / "elsewhere.bmp")
        assert find_row(moved, "c", store.state) == rows[2] and find_row(moved, "x", store.state) == rows[0]
        assert find_row(tmp_path / "none.bmp", "a", store.state) is None
        store.relabel({row.slide_id: replace(row, file_digest="0") for row in rows})
        assert find_row(moved, "x", store.state) is None


def test_links_to_a_slide_are_the_slide(tmp_path):
    path = write_picture(tmp_path / "a.bmp", 1)
    (tmp_path / "link.bmp").symlink_to(path)
    os.link(path, tmp_path / "hard.bmp")
    for digest in (file_digest(path), None):
        for name in ("a", "link", "hard"):
            assert compare(tmp_path / f"{name}.bmp", row_at(path, "a", digest)) is Standing.SAME
    assert compare(tmp_path / "link.bmp", row_at(path, "a", "0")) is Standing.CHANGED


def test_a_part_of_an_indexed_slide_is_not_cut_out_of_the_file_that_took_its_place(archive, tmp_path):
    part = (0, 0, 256, 256)
    assert archive.search("1", region=part).query.slide_id == "1"
    write_picture(tmp_path / "drive" / "1.bmp", 3)
    with pytest.raises(QueryError, match="is another file now than when it was added as '1'"):
        archive.search("1", region=part)
    assert archive.search(tmp_path / "drive" / "1.bmp", mpp=1.0, region=part).query.n_patches == 1


def test_a_pipe_is_refused_and_not_waited_for(archive, tmp_path):
    for name in ("1.bmp", "1.dcm"):
        (tmp_path / "drive" / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / "drive" / name)
        with pytest.raises(SlideOpenError, match="not a regular file"):
            archive.search(tmp_path / "drive" / name)
    with pytest.raises(SlideOpenError, match="not a regular file"):
        archive.search("1", region=(0, 0, 256, 256))
