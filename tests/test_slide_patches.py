"""Patches drawn from the tissue of slides, and what of them is kept on disk."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from sish.demo.synthetic import write_slides
from sish.errors import ParameterError, SlideOpenError
from sish.vqvae.data import Cut, PatchData, Split
from sish.vqvae.patch_cache import PatchCache, slots_within
from sish.vqvae.slide_patches import SlidePatches, SlideSquares, _opened, find_places


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Three small generated slides; not to be written to."""
    folder = tmp_path_factory.mktemp("slides")
    write_slides(folder, n_slides=3, side_um=300)
    return folder


def small_cut(folder, **changes) -> Cut:
    return Cut(**{"train_px": 16, "valid_px": 24, "per_slide": 6, "cache_folder": folder} | changes)


def patches_of(paths, cut, size_px=64, *, augment=False):
    squares = SlideSquares(find_places(paths, cut.slide_mpp), cut)
    return SlidePatches(squares, range(len(squares.slides)), size_px, augment=augment)


def all_of(patches) -> torch.Tensor:
    return torch.stack([patches[number] for number in range(len(patches))])


def kept_file(folder) -> Path:
    (file,) = folder.glob("*.squares")
    return file


def test_patches_of_slides_come_from_tissue(data_dir):
    slide = data_dir / "slides" / "cmu-1-small-region.svs"
    cut = Cut(64, 64, mpp=1.0, per_slide=12, cache_gb=0)
    patches = patches_of([slide], cut)
    assert len(patches) == 12
    drawn = all_of(patches)
    assert drawn.shape == (12, 64, 64, 3)
    assert len({patch.numpy().tobytes() for patch in drawn}) == 12
    assert (drawn.float().mean((1, 2, 3)) < 235).float().mean() > 0.7
    assert torch.equal(patches_of([slide], cut)[5], drawn[5])


def test_a_slide_that_tells_its_scale_keeps_it_unless_that_is_replaced(slides):
    paths = sorted(slides.glob("*.tif"))[:1]  # 0.5 um/px
    assert [places.slide_mpp for places in find_places(paths)] == pytest.approx([0.5])
    with pytest.warns(UserWarning, match="slide_mpp was not used for 1 of the slides"):
        assert [places.slide_mpp for places in find_places(paths, 0.25)] == pytest.approx([0.5])
    squares = SlideSquares(find_places(paths, 0.25, 1.0), Cut(16, 16, mpp=1.0, cache_gb=0))
    assert squares.slides[0].slide_mpp == 1.0
    assert squares.fixed(0, 3).shape == (24, 24, 3)
    with pytest.raises(ParameterError, match="override_mpp"):
        Cut(override_slide_mpp=99.0)


def test_slides_that_cannot_be_used_are_skipped(data_dir):
    slides = data_dir / "slides"
    paths = [slides / "bad" / "broken.svs", slides / "tcga-cr-7395-01a-01-ts1.svs"]
    with pytest.warns(UserWarning) as caught, pytest.raises(SlideOpenError, match="none of the 2 slides"):
        find_places(paths)
    assert len(caught) == 2
    assert "slide_mpp" in str(caught[1].message)
    with pytest.warns(UserWarning, match=r"broken\.svs"):
        assert [places.path for places in find_places(paths, 0.5)] == paths[1:]
    cut = Cut(slide_mpp=0.5, cache_gb=0)
    assert patches_of(paths[1:], cut, augment=True)[0].shape == (64, 64, 3)


def test_kept_patches_are_those_of_the_slide_and_need_it_no_more(slides, tmp_path):
    own = shutil.copytree(slides, tmp_path / "slides")
    paths = sorted(own.glob("*.tif"))
    cut = small_cut(tmp_path / "kept")
    squares = SlideSquares(find_places(paths), cut)
    first, second = (SlidePatches(squares, part, 24, augment=False) for part in ([0, 2], [1]))
    drawn = [all_of(first), all_of(second)]
    plain = patches_of(paths, small_cut(tmp_path / "none", cache_gb=0), 24)
    assert torch.equal(drawn[0], torch.cat([all_of(plain)[:6], all_of(plain)[12:]]))
    assert torch.equal(drawn[1], all_of(plain)[6:12])
    assert not (tmp_path / "none").exists()
    for path in paths:
        path.write_bytes(b"")
    _opened.cache_clear()
    assert torch.equal(all_of(first), drawn[0])
    crops = SlidePatches(squares, [1], 16, augment=True)
    assert not torch.equal(all_of(crops), all_of(crops))  # what is kept is cropped anew


def test_a_later_run_finds_what_is_kept_and_other_settings_replace_it(slides, tmp_path):
    paths = sorted(slides.glob("*.tif"))
    all_of(patches_of(paths, small_cut(tmp_path), 24))
    kept = kept_file(tmp_path)
    written = kept.read_bytes()
    all_of(patches_of(paths, small_cut(tmp_path), 24))
    assert kept.read_bytes() == written
    for changes in ({"mpp": 2.0}, {"valid_px": 32}, {"per_slide": 5}):
        patches_of(paths, small_cut(tmp_path, **changes), 16)
        assert not kept.exists()
        kept = kept_file(tmp_path)
    patches_of(paths[1:], small_cut(tmp_path, per_slide=5), 16)
    assert not kept.exists()


def test_no_more_is_kept_than_allowed_and_the_rest_is_drawn_anew(slides, tmp_path):
    paths = sorted(slides.glob("*.tif"))
    limit = 8 * (4 + 3 * 24 * 24)
    patches = patches_of(paths, small_cut(tmp_path, cache_gb=limit / 1e9), 16, augment=True)
    assert patches.squares.kept == 2
    all_of(patches)
    assert kept_file(tmp_path).stat().st_size == 6 * (4 + 3 * 24 * 24) <= limit
    assert not torch.equal(patches[5], patches[5])
    assert slots_within(limit, 24) == 8


def test_what_is_damaged_is_read_again(slides, tmp_path):
    patches = patches_of(sorted(slides.glob("*.tif")), small_cut(tmp_path), 24)
    drawn = all_of(patches)
    good = kept_file(tmp_path).read_bytes()
    changed = bytearray(good)
    changed[2000] ^= 255
    for bad in (good[:-100], bytes(changed), b"", bytes(len(good))):
        kept_file(tmp_path).write_bytes(bad)
        assert torch.equal(all_of(patches), drawn)
        assert kept_file(tmp_path).read_bytes() == good


def test_a_disk_that_refuses_costs_one_warning(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(28, "No space left on device")

    cache = PatchCache(tmp_path, 4, "these")
    square = np.ones((4, 4, 3), np.uint8)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.warns(UserWarning, match=r"No space left .*cache_folder"):
            cache.put(0, square)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        cache.put(0, square)
        assert cache.get(0) is None


def test_workers_share_what_is_kept(slides, tmp_path):
    cut = small_cut(tmp_path)
    data = PatchData(slides=slides, split=Split(share=0.4), cut=cut, batch_size=4, num_workers=2)
    data.setup("fit")
    torch.manual_seed(0)
    batches = [batch for loader in (data.train_dataloader(), data.val_dataloader()) for batch in loader]
    assert sum(len(batch) for batch in batches) == 18
    assert kept_file(tmp_path).stat().st_size == 18 * (4 + 3 * 24 * 24)
    assert not {*data.train_set.slides} & {*data.valid_set.slides}
