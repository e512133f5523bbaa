"""Images no larger than a patch: one patch of their own size, with nothing around it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sish
from sish.encode import SlideEncoder
from sish.recipe import Recipe
from sish.slides.mosaic import is_one_patch, only_patch, read_patch
from sish.slides.slide import slide_from_array


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3), np.uint8)


def tissue(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Pink, with blobs of its own."""
    random = np.random.default_rng(seed)
    coarse = random.integers(-60, 60, (height // 8 + 1, width // 8 + 1, 1))
    blobs = np.kron(coarse, np.ones((8, 8, 1), int))[:height, :width]
    return np.clip(np.array([190, 110, 170]) + blobs, 0, 255).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 40), height=st.integers(1, 40), x=st.integers(-10, 39), y=st.integers(-10, 39),
    size=st.sampled_from([8, 16, 24]), step=st.sampled_from([1, 8]),
)  # fmt: skip
def test_a_patch_has_the_size_of_a_smaller_image_and_mirrors_what_lacks(width, height, x, y, size, step):
    """Against an image that is padded first: mirrored along a side shorter than a patch, else white."""
    pixels = noise(width, height)
    got = read_patch(slide_from_array(pixels, 1.0, "s"), (x, y), size, 1.0, step_px=step)
    sides, corner = [], []
    for axis, (length, place) in enumerate(((height, y), (width, x))):
        margins = [(64, 64) if other == axis else (0, 0) for other in range(3)]
        is_short = length < size
        how = {"mode": "symmetric"} if is_short else {"mode": "constant", "constant_values": 255}
        pixels = np.pad(pixels, margins, **how)
        sides.append(min(size, -(-length // step) * step) if is_short else size)
        corner.append(64 if is_short else 64 + place)
    assert np.array_equal(got, pixels[corner[0] :, corner[1] :][: sides[0], : sides[1]])


def test_the_scale_is_that_of_all_other_patches():
    # 96 px at 0.97 um/px are 93.1 px at 1.0: 93, and 3 that are mirrored
    slide = slide_from_array(tissue(96, 96), 0.97, "s")
    patch = read_patch(slide, (0, 0), 256, 1.0, step_px=32)
    assert patch.shape == (96, 96, 3)
    assert np.array_equal(patch[:93, :93], slide.read((0, 0), 93, 1.0))
    assert np.array_equal(patch[:, 93:96], patch[:, 92:89:-1])
    assert read_patch(slide, (0, 0), 256, 1.0).shape == (256, 256, 3), "for encoders that want whole patches"


@pytest.mark.parametrize(("side", "one"), [(96, True), (256, True), (257, False), (1536, False)])
def test_what_is_one_patch(side, one):
    assert is_one_patch(slide_from_array(noise(64, side), 1.0, "s"), 256, 1.0) == one


def test_a_blank_image_has_no_patch_and_a_pale_one_has():
    blank = np.full((96, 96, 3), 245, np.uint8)
    assert len(only_patch(slide_from_array(blank, 1.0, "s"), 256, 1.0)) == 0
    blank[:3] = (230, 190, 220)
    assert len(only_patch(slide_from_array(blank, 1.0, "s"), 256, 1.0)) == 1


@pytest.mark.parametrize("keys", ["texture", "paper"])
def test_small_images_are_encoded_at_their_own_size(keys):
    encoder = SlideEncoder(Recipe(keys=keys))
    pixels = tissue(96, 96)
    prepared = encoder.prepare(slide_from_array(pixels, 1.0, "s"))
    codes = encoder.encode(prepared)
    assert np.array_equal(codes.barcodes, encoder.encode_patches(pixels[None]).barcodes)
    assert (codes.keys > 0).all() == (keys == "paper")
    assert codes.l0_xy.tolist() == [[0, 0]]
    assert prepared.tissue.mask.all()


def test_an_archive_of_small_images_finds_each_and_its_own_pixels(tmp_path):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(tissue(96, 80, number)).save(folder / f"i{number}.png")
    Image.fromarray(np.full((96, 96, 3), 250, np.uint8)).save(folder / "blank.png")
    index = sish.Index.create(tmp_path / "archive.sish")
    report = index.add(folder, mpp=0.97, show_progress=False)
    assert (len(report.added), report.no_tissue) == (12, ["blank"])
    assert all(row.n_patches == 1 for row in index.slides if row.slide_id != "blank")
    for number in (0, 7):
        assert index.search(folder / f"i{number}.png", k=3)[0].slide_id == f"i{number}"
        best = index.search(tissue(96, 80, number), mpp=0.97, k=3)[0]
        assert (best.slide_id, best.patches[0].hamming) == (f"i{number}", 0)
    page = tmp_path / "report.html"
    sish.write_report(index.search(folder / "i0.png", k=3), page, index=index)
    assert page.stat().st_size > 10_000
    with pytest.raises(sish.QueryError, match="no tissue"):
        index.search(folder / "blank.png")


def test_commits_of_any_size_leave_the_same_index(tmp_path, monkeypatch):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(20):
        Image.fromarray(tissue(64, 64, number)).save(folder / f"i{number:02}.png")
    (folder / "j.png").write_bytes(b"no image")
    snapshots, commits = [], []
    for seconds in (0.0, 1e9):
        monkeypatch.setattr("sish.slide_writer._COMMIT_S", seconds)
        index = sish.Index.create(tmp_path / f"{seconds}.sish")
        report = index.add(folder, mpp=1.0, show_progress=False)
        assert report.added == [f"i{number:02}" for number in range(20)]
        assert [Path(skipped.path).name for skipped in report.failed] == ["j.png"]
        snapshots.append(index.snapshot())
        commits.append(index.info().generation)
    assert commits == [20, 1]
    assert snapshots[0].slides == snapshots[1].slides
    assert np.array_equal(snapshots[0].barcodes, snapshots[1].barcodes)


def test_what_is_encoded_is_kept_when_a_later_slide_stops_the_add(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr("sish.slide_writer._COMMIT_S", 1e9)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(tissue(64, 64, number)).save(folder / f"i{number}.png")
    (folder / "j.png").write_bytes(b"no image")
    index = sish.Index.create(tmp_path / "archive.sish")
    with pytest.raises(sish.SlideError):
        index.add(folder, mpp=1.0, on_error="raise", show_progress=False)
    assert [row.slide_id for row in index.slides] == ["i0", "i1", "i2"]
