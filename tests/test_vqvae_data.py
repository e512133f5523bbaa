"""Training data: what is listed, how it is cut, and what is said about bad input."""

import csv
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from sish.errors import LabelsError, ParameterError, SishError, SlideNotFoundError, SlideOpenError
from sish.vqvae.data import Cut, PatchData, Split
from sish.vqvae.images import ImagePatches, list_images


def write_image(path, size=(40, 32), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    Image.fromarray(generator.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(path)
    return path


def write_labels(folder, names):
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label"], *[[name, "x"] for name in names]])


@pytest.fixture
def folder(tmp_path):
    for name in ("train/b.png", "train/a.jpg", "valid/c.png", "other/d.tif"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_images_of_a_folder(folder):
    names = ["other/d.tif", "train/a.jpg", "train/b.png", "valid/c.png"]
    assert list_images(folder) == [folder / name for name in names]
    assert list_images(folder, "train/") == [folder / "train/a.jpg", folder / "train/b.png"]


def test_images_of_a_csv_file(folder):
    write_labels(folder, ["valid/c.png", "train/a.jpg", ""])
    expected = [folder / "train/a.jpg", folder / "valid/c.png"]
    assert list_images(folder) == expected
    assert list_images(folder / "labels.csv") == expected
    assert list_images(folder, "valid/") == [folder / "valid/c.png"]


def test_sources_that_hold_nothing(tmp_path):
    with pytest.raises(SlideNotFoundError, match=r"--data\.folder"):
        list_images(tmp_path / "none")
    with pytest.raises(SlideOpenError, match="no images"):
        list_images(tmp_path)
    write_image(tmp_path / "a.png")
    with pytest.raises(SlideOpenError, match="'train/'"):
        list_images(tmp_path, "train/")
    (tmp_path / "labels.csv").write_text("file,label\na.png,1\n")
    with pytest.raises(LabelsError, match="wanted path among them"):
        list_images(tmp_path)


def test_centre_crop_is_the_centre(tmp_path):
    path = write_image(tmp_path / "a.png", (40, 32))
    patch = ImagePatches([path], 16, augment=False)[0]
    assert patch.dtype == torch.uint8
    assert np.array_equal(patch, np.asarray(Image.open(path))[8:24, 12:28])


def test_random_crops_are_turned_parts_of_the_image(tmp_path):
    path = write_image(tmp_path / "a.png", (20, 20))
    pixels = np.asarray(Image.open(path))
    windows = {pixels[y : y + 16, x : x + 16].tobytes() for y in range(5) for x in range(5)}
    torch.manual_seed(0)
    patches = ImagePatches([path], 16, augment=True)
    ways = set()
    for _ in range(60):
        patch = patches[0].numpy()
        turns = [(k, f) for k in range(4) for f in (False, True)]
        undone = [np.rot90(patch[::-1] if f else patch, -k) for k, f in turns]
        found = [way for way, part in zip(turns, undone, strict=True) if part.tobytes() in windows]
        assert len(found) == 1
        ways.add(found[0])
    assert len(ways) == 8


def test_a_seed_turns_crops_as_in_release_0_1(tmp_path):
    path = write_image(tmp_path / "a.png", (8, 8))
    pixels = np.asarray(Image.open(path))
    patches = ImagePatches([path], 8, augment=True)
    for seed in range(20):
        torch.manual_seed(seed)
        found = patches[0].numpy()
        torch.manual_seed(seed)
        torch.randint(1, ()), torch.randint(1, ())  # the place, which has no choice here
        way = int(torch.randint(8, ()))
        turned = np.rot90(pixels, way % 4)
        np.testing.assert_array_equal(found, turned[::-1] if way >= 4 else turned)


def test_augmentation_repeats_with_the_seed(tmp_path):
    patches = ImagePatches([write_image(tmp_path / "a.png")], 16, augment=True)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(torch.stack([patches[0] for _ in range(5)]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_images_that_do_not_decode_are_replaced(tmp_path):
    good = write_image(tmp_path / "good.png")
    bad = [tmp_path / "bad.png", tmp_path / "cut.png"]
    bad[0].write_text("no image")
    bad[1].write_bytes(good.read_bytes()[:200])
    patches = ImagePatches([*bad, good], 16, augment=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drawn = [patches[number] for number in range(3)] + [patches[0]]
    assert all(torch.equal(patch, drawn[2]) for patch in drawn)
    assert len(patches.unreadable) == 2
    assert [warning.category for warning in caught].count(UserWarning) == 1
    with pytest.raises(SlideOpenError, match="none of the 2 images decodes"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ImagePatches(bad, 16, augment=False)[0]


def test_images_smaller_than_the_crop_are_refused(tmp_path):
    patches = ImagePatches([write_image(tmp_path / "a.png", (40, 32))], 33, augment=False)
    with pytest.raises(ParameterError, match="40 x 32 px, smaller than the crop of 33"):
        patches[0]


def test_split_by_prefix(folder):
    data = PatchData(folder, split=Split("train/", "valid/"), cut=Cut(16, 24), batch_size=2)
    data.setup("fit")
    assert (len(data.train_set), len(data.valid_set)) == (2, 1)
    assert next(iter(data.train_dataloader())).shape == (2, 16, 16, 3)
    assert next(iter(data.val_dataloader())).shape == (1, 24, 24, 3)
    assert [batch.shape for batch in data.calibration_batches(10)] == [(2, 24, 24, 3)]


def test_no_file_is_both_trained_and_validated_on(folder):
    data = PatchData(folder, split=Split("", "valid/"), cut=Cut(16, 16))
    data.setup("fit")
    assert not {*data.train_set.paths} & {*data.valid_set.paths}
    assert len(data.train_set) + len(data.valid_set) == 4


def test_split_by_share_moves_no_file_when_others_come(tmp_path):
    for number in range(40):
        write_image(tmp_path / f"{number}.png", (16, 16))
    before = PatchData(tmp_path, split=Split(share=0.3), cut=Cut(16, 16))
    before.setup("fit")
    assert 3 <= len(before.valid_set) <= 25
    held_out = {*before.valid_set.paths}
    write_image(tmp_path / "new.png", (16, 16))
    after = PatchData(tmp_path, split=Split(share=0.3), cut=Cut(16, 16))
    after.setup("fit")
    assert {*after.valid_set.paths} - {tmp_path / "new.png"} == held_out


@pytest.mark.parametrize(
    "make",
    [
        lambda path: PatchData(),
        lambda path: PatchData(path, batch_size=0),
        lambda path: PatchData(path, split=Split(share=1.0)),
        lambda path: PatchData(path, cut=Cut(train_px=0)),
        lambda path: PatchData(path, cut=Cut(mpp=0.0)),
        lambda path: PatchData(path, cut=Cut(cache_gb=-1.0)),
        lambda path: PatchData(path, stain_jitter=-1.0),
        lambda path: PatchData(path / "none").setup("fit"),
        lambda path: PatchData(slides=path / "none").setup("fit"),
        lambda path: PatchData(slides=path).setup("fit"),
    ],
)
def test_bad_options_are_refused(tmp_path, make):
    with pytest.raises(SishError):
        make(tmp_path)


def test_two_images_can_be_split(tmp_path):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name)
    data = PatchData(tmp_path, cut=Cut(16, 16))
    data.setup("fit")
    assert (len(data.train_set), len(data.valid_set)) == (1, 1)


def test_one_image_cannot_be_split(tmp_path):
    write_image(tmp_path / "a.png")
    with pytest.raises(ParameterError, match=r"--data\.split\.share"):
        PatchData(tmp_path).setup("fit")


def test_images_and_slides_together(folder, data_dir):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the folder of slides holds some that cannot be used
        data = PatchData(
            folder, data_dir / "slides", cut=Cut(16, 16, per_slide=4, cache_gb=0), split=Split(share=0.5)
        )
        data.setup("fit")
    assert data.train_set[0].shape == data.train_set[len(data.train_set) - 1].shape == (16, 16, 3)


def test_a_name_that_is_not_utf_8_is_shared_out_like_any_other(tmp_path):
    for name in ("a.png", "\udcff.png"):
        write_image(tmp_path / name)
    data = PatchData(tmp_path)
    data.setup("fit")
    assert len(data.train_set) == len(data.valid_set) == 1
