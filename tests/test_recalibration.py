"""A calibration is fixed at the first add, followed by readers, shared by shards, and measured again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sish
from sish.calibration import Calibration
from sish.demo.synthetic import write_slides
from sish.errors import IndexCorruptError, ParameterError, SlideError, StoreError
from sish.header import IndexHeader
from sish.index.projection import Part
from sish.index.store import Store
from sish.recalibration import FOLDER
from sish.recipe import Recipe
from tests.plain_encoder import PlainEncoder


class Foreign(PlainEncoder):
    """A `PlainEncoder` whose features are measured on an archive."""

    fingerprint, binarisation = "foreign", "projection"
    encoded = 0

    def features(self, images):
        type(self).encoded += len(images)
        return super().features(images)


class Parted(Foreign):
    """An encoder with parts, and statistics of other tissue."""

    fingerprint = "parted"
    parts = (Part(48, standardised=True), Part(16, weight=0.5))
    statistics = Calibration.learn(
        np.random.default_rng(0).gamma(1.0, size=(600, 64)).astype(np.float32) / 16, parts
    )


def draw_slides(folder: Path, names: range, side: int = 64) -> list[Path]:
    """Tiles of one patch (of `side` 64), each of colours of its own."""
    folder.mkdir(exist_ok=True)
    for name in names:
        rng = np.random.default_rng(name)
        pixels = rng.integers(60, 200, (side, side, 3)) * rng.uniform([0.8, 0.4, 0.8], [1, 0.65, 1])
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name:03}.png", compress_level=1)
    return [folder / f"{name:03}.png" for name in names]


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    return draw_slides(tmp_path_factory.mktemp("slides"), range(100))


def create(path, encoder=None, **told):
    recipe = Recipe(patch_px=64, fraction=1.0)
    return sish.Index.create(path, recipe=recipe, encoder=encoder or Foreign(), **told)


def add(index, slides, **told):
    return index.add(slides, mpp=1.0, show_progress=False, **told)


def barcodes(index):
    """The barcode of each patch, by its slide and place."""
    patches = index.snapshot()
    ids = [patches.slides[number].slide_id for number in patches.slide]
    places = map(tuple, patches.l0_xy.tolist())
    return {(name, xy): bits.tobytes() for name, xy, bits in zip(ids, places, patches.barcodes, strict=True)}


@pytest.fixture(scope="module")
def whole(slides, tmp_path_factory):
    """Added in one call."""
    index = create(tmp_path_factory.mktemp("whole") / "a.sish")
    add(index, slides)
    return index


@pytest.mark.parametrize("encoder", [Foreign, Parted])
def test_one_slide_and_then_others_are_as_all_at_once_after_a_recalibration(encoder, slides, tmp_path):
    """Before it the calibration is that of the first add, for all slides alike."""
    once, grown = (create(tmp_path / name, encoder()) for name in ("once.sish", "grown.sish"))
    add(once, slides)
    report = add(grown, slides[:1])
    first = grown.fingerprint
    assert bool(report.notes) == (encoder is Foreign)  # without statistics one slide is not enough
    add(grown, slides[1:])
    assert grown.fingerprint == first != once.fingerprint
    alone = create(tmp_path / "alone.sish", encoder())
    add(alone, slides[:1])
    assert barcodes(alone).items() <= barcodes(grown).items() and barcodes(grown) != barcodes(once)
    done = grown.recalibrate(show_progress=False)
    assert (done.slides, done.patches) == (100, 100)
    assert done.shipped == (0 if encoder is Foreign else 400)
    assert grown.fingerprint == once.fingerprint and barcodes(grown) == barcodes(once)
    assert grown.params == once.params
    assert [row.slide_id for row in grown.slides] == [row.slide_id for row in once.slides]


def test_the_order_of_files_and_the_number_of_readers_do_not_matter(slides, whole, tmp_path):
    other = create(tmp_path / "a.sish")
    other.encoder.workers = 1
    add(other, slides[::-1])
    assert other.fingerprint == whole.fingerprint and barcodes(other) == barcodes(whole)


def test_a_folder_that_was_moved_gives_the_same_calibration(whole, tmp_path):
    index = create(tmp_path / "a.sish")
    add(index, draw_slides(tmp_path / "elsewhere", range(100)))
    assert index.fingerprint == whole.fingerprint


def test_measured_patches_are_not_encoded_twice(slides, tmp_path):
    index = create(tmp_path / "a.sish")
    Foreign.encoded = 0
    add(index, slides[:20])
    assert Foreign.encoded == 20


def test_two_files_of_one_id_are_measured_once(slides, tmp_path):
    twin = draw_slides(tmp_path / "twin", range(1))
    index, other = create(tmp_path / "a.sish"), create(tmp_path / "b.sish")
    assert len(add(index, [*slides[:9], *twin]).failed) == 1
    add(other, slides[:9])
    assert index.fingerprint == other.fingerprint


def test_slides_that_fail_are_read_once_and_reported(slides, whole, tmp_path, monkeypatch):
    broken, opened = tmp_path / "broken.png", []
    broken.write_bytes(b"no picture")
    open_slide = sish.ingest.open_slide
    monkeypatch.setattr(
        "sish.ingest.open_slide", lambda path, **told: opened.append(path) or open_slide(path, **told)
    )
    index = create(tmp_path / "a.sish")
    report = add(index, [broken, *slides])
    assert [failed.path for failed in report.failed] == [str(broken)] and opened.count(broken) == 1
    assert barcodes(index) == barcodes(whole)


def test_one_slide_alone_measures_nothing_without_statistics(slides, tmp_path):
    index = create(tmp_path / "a.sish")
    note = add(index, slides[:1]).notes[-1]
    assert "not measured" in note and "sish index recalibrate" in note
    assert index.encoder.calibration is None and "sish index recalibrate" in index.calibration_source
    with pytest.raises(ParameterError, match="no two slides with tissue"):
        index.recalibrate(show_progress=False)
    assert not (index.path / FOLDER).exists() or add(index, slides[1:3])
    index.recalibrate(show_progress=False)
    assert index.encoder.calibration.patches == 3


@pytest.mark.parametrize("encoder", [Foreign, Parted])
def test_slides_without_tissue_are_no_first_add(encoder, slides, tmp_path):
    """They have no barcodes, so the slides after them decide."""
    Image.new("RGB", (640, 640), "white").save(tmp_path / "glass.png")
    index, other = create(tmp_path / "a.sish", encoder()), create(tmp_path / "b.sish", encoder())
    assert add(index, tmp_path / "glass.png").no_tissue == ["glass"]
    assert "not measured yet" in index.calibration_source
    assert not add(index, slides[:9]).notes
    add(other, slides[:9])
    assert index.fingerprint == other.fingerprint and barcodes(index) == barcodes(other)


def test_statistics_are_mixed_into_a_short_sample_and_info_says_so(slides, tmp_path):
    index = create(tmp_path / "a.sish", Parted())
    assert "not measured yet" in index.calibration_source
    assert not add(index, slides[:1]).notes
    told = index.calibration_source
    assert "on 1 patches" in told and "499 shipped" in told and "recalibrate" not in told
    grown = draw_slides(tmp_path / "large", range(500, 503), side=64 * 14)
    note = add(index, grown).notes[-1]
    assert "499 shipped" in note and "sish index recalibrate" in note and note == index.calibration_source


def test_what_was_given_stays(slides, tmp_path):
    """A threshold that a user gave is no measurement, and the measured one of the encoder follows."""
    plain, given = create(tmp_path / "a.sish"), create(tmp_path / "b.sish", search={"threshold": 77})
    for index in (plain, given):
        add(index, slides[:20])
    assert plain.params.threshold == plain.encoder.calibration.threshold
    assert given.params.threshold == 77 != given.encoder.calibration.threshold
    given.recalibrate(show_progress=False)
    assert sish.Index.open(given.path).params.threshold == 77


def test_a_reader_that_opened_the_empty_index_answers_after_another_ones_add(slides, tmp_path):
    index = create(tmp_path / "a.sish")
    reader = sish.Index.open(index.path, encoder=Foreign())
    add(index, slides[:20])
    found = reader.search(slides[3], mpp=1.0)
    assert found[0].slide_id == slides[3].stem and found[0].score == 1
    assert reader.fingerprint == index.fingerprint == reader.encoder.fingerprint
    assert reader.params == sish.Index.open(index.path, encoder=Foreign()).params
    writer = sish.Index.open(index.path, encoder=Foreign())
    add(writer, slides[20:60])
    writer.recalibrate(show_progress=False)
    assert reader.search(slides[30], mpp=1.0)[0].score == 1
    assert reader.fingerprint == writer.fingerprint == index.fingerprint


def test_a_reader_keeps_what_its_caller_gave(slides, tmp_path):
    index = create(tmp_path / "a.sish")
    reader = sish.Index.open(index.path, encoder=Foreign(), search={"threshold": 55, "budget": 7})
    add(index, slides[:20])
    assert (reader.params.threshold, reader.params.budget) == (55, 7)


def test_another_encoder_is_refused_also_after_the_calibration_changed(slides, tmp_path):
    index = create(tmp_path / "a.sish")
    other = sish.Index.open(index.path, encoder="object:else")
    add(index, slides[:20])
    assert other.search(slides[3].stem)[0].slide_id == slides[3].stem
    with pytest.raises(sish.EncoderMismatchError, match="foreign"):
        other.search(slides[3], mpp=1.0)


def test_a_crash_before_the_first_commit_leaves_the_empty_index(slides, whole, tmp_path, monkeypatch):
    index = create(tmp_path / "a.sish")
    empty = dict(index._store.header)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "append_many", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            add(index, slides)
    assert dict(Store.open(index.path).header) == empty and len(index) == 0
    add(index, slides)
    assert barcodes(index) == barcodes(whole)


def test_an_interrupted_first_add_goes_on_with_its_calibration(slides, tmp_path, monkeypatch):
    index, whole = create(tmp_path / "a.sish"), create(tmp_path / "whole.sish")
    add(whole, slides[:12])
    monkeypatch.setattr("sish.slide_writer._COMMIT_S", 0.0)
    seen, encode_rest = [], sish.encode.SlideEncoder.encode_rest

    def stops(*given):
        seen.append(given)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return encode_rest(*given)

    with monkeypatch.context() as patch:
        patch.setattr(sish.encode.SlideEncoder, "encode_rest", stops)
        with pytest.raises(KeyboardInterrupt):
            add(index, slides[:12])
    assert len(index) == 5 and index.fingerprint == whole.fingerprint
    add(index, slides[:12])
    assert barcodes(index) == barcodes(whole)


# ---- measuring again


@pytest.fixture
def grown(slides, tmp_path):
    """Two slides, and then others, with labels."""
    index = create(tmp_path / "grown.sish")
    labels = tmp_path / "labels.csv"
    rows = [f"{path.stem},{'ab'[number % 2]},p{number // 2},{number}" for number, path in enumerate(slides)]
    labels.write_text("\n".join(["slide_id,label,patient,stain", *rows]))
    own = draw_slides(tmp_path / "own", range(40))
    index.add(own[:2], override_mpp=1.5, show_progress=False)
    add(index, own[2:])
    index.relabel(labels)
    index.remove("020")
    return index


def test_labels_order_and_scales_stay(grown):
    before = grown.slides
    grown.recalibrate(show_progress=False)
    assert grown.slides == before
    assert grown.slides[0].mpp_source == "override" or grown.slides[0].mpp == 1.5
    assert grown.info().removed_slides == 0 and not (grown.path / FOLDER).exists()
    assert sish.verify(grown.path) == []


def test_the_same_features_encode_nothing(grown):
    assert grown.recalibrate(show_progress=False).slides == 39
    before, Foreign.encoded = barcodes(grown), 0
    assert grown.recalibrate(show_progress=False).slides == 0
    assert (
        Foreign.encoded == grown.info().patches
        and barcodes(grown) == before
        and not (grown.path / FOLDER).exists()
    )


def test_compact_recalibrates_by_choice(grown):
    first = grown.fingerprint
    grown.compact()
    assert grown.fingerprint == first
    grown.compact(recalibrate=True)
    assert grown.fingerprint != first and grown.info().segments == 1


def test_gone_and_changed_files_are_named_before_anything_is_done(grown):
    rows = grown.slides
    Path(rows[3].path).unlink()
    Image.new("RGB", (64, 64), "purple").save(rows[5].path)
    before, first, Foreign.encoded = barcodes(grown), grown.fingerprint, 0
    with pytest.raises(SlideError, match=r"2 slides cannot .* Bring the files back") as caught:
        grown.recalibrate(show_progress=False)
    assert rows[3].path in str(caught.value) and rows[5].path in str(caught.value)
    assert "\n" not in str(caught.value) and Foreign.encoded == 0
    assert barcodes(grown) == before and grown.fingerprint == first and not (grown.path / FOLDER).exists()
    grown.remove([rows[3].slide_id, rows[5].slide_id])
    assert grown.recalibrate(show_progress=False).slides == 37


class Stops(Foreign):
    """Fails once after some patches, as a disk or a user may."""

    left = 10**9

    def features(self, images):
        Stops.left -= len(images)
        if Stops.left < 0:
            raise KeyboardInterrupt
        return super().features(images)


def large(folder):
    """Slides of more patches than are measured."""
    return draw_slides(folder, range(6), side=64 * 9)


@pytest.mark.slow
def test_an_interrupted_recalibration_changes_nothing_and_goes_on(tmp_path, monkeypatch):
    index = create(tmp_path / "a.sish", Stops())
    slides = large(tmp_path / "slides")
    add(index, slides[:2])
    add(index, slides[2:])
    before, first, reader = barcodes(index), index.fingerprint, sish.Index.open(index.path, encoder=Foreign())
    monkeypatch.setattr("sish.slide_writer._COMMIT_S", 0.0)
    monkeypatch.setattr(Stops, "left", 6 * 50 + 3 * 31 + 9)
    with pytest.raises(KeyboardInterrupt):
        index.recalibrate(show_progress=False)
    assert (index.path / FOLDER).exists() and sish.verify(index.path) == []
    assert barcodes(index) == before and index.fingerprint == first
    assert reader.search(slides[4], mpp=1.0)[0].score == 1
    monkeypatch.setattr(Stops, "left", 10**9)
    Foreign.encoded = 0
    index.relabel(labels_of(tmp_path, slides))
    assert index.recalibrate(show_progress=False).slides == 6
    assert Foreign.encoded <= 3 * 81  # what was committed is not encoded again, and nothing is measured again
    assert {row.label for row in index.slides} == {"late"}
    once = create(tmp_path / "b.sish", Stops())
    add(once, slides)
    assert barcodes(index) == barcodes(once) and barcodes(index) != before
    assert reader.search(slides[4], mpp=1.0)[0].score == 1


def labels_of(folder, slides):
    file = folder / "late.csv"
    file.write_text("\n".join(["slide_id,label", *(f"{path.stem},late" for path in slides)]))
    return file


def begun(index, monkeypatch):
    """Interrupt a recalibration after the first commit."""
    monkeypatch.setattr("sish.slide_writer._COMMIT_S", 0.0)
    monkeypatch.setattr(Store, "replace_all", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        index.recalibrate(show_progress=False)
    monkeypatch.undo()
    assert len(Store.open(index.path / FOLDER)) == len(index)


@pytest.mark.slow
def test_slides_that_came_and_went_meanwhile_are_as_the_index_has_them(grown, slides, monkeypatch):
    begun(grown, monkeypatch)
    grown.remove(grown.slides[0].slide_id)
    add(grown, slides[60:62])
    rows = grown.slides
    assert grown.recalibrate(show_progress=False).slides == 40
    assert grown.slides == rows and {name for name, _ in barcodes(grown)} == {row.slide_id for row in rows}


@pytest.mark.slow
def test_compact_gives_up_what_was_begun(grown, monkeypatch):
    begun(grown, monkeypatch)
    assert "a recalibration was begun" in grown.calibration_source
    grown.compact()
    assert "begun" not in grown.calibration_source and not (grown.path / FOLDER).exists()


def test_what_a_finished_recalibration_left_is_not_taken_for_a_new_one(grown, slides, monkeypatch):
    monkeypatch.setattr("sish.recalibration.forget_begun", lambda _: None)  # killed right after its commit
    grown.recalibrate(show_progress=False)
    monkeypatch.undo()
    assert (grown.path / FOLDER).exists()
    add(grown, slides[60:90])
    once = grown.fingerprint
    assert grown.recalibrate(show_progress=False).slides == 69
    assert grown.fingerprint != once


def test_a_link_in_the_place_of_the_hidden_folder_is_refused(grown, tmp_path):
    (tmp_path / "mine").mkdir()
    (grown.path / FOLDER).symlink_to(tmp_path / "mine")
    with pytest.raises(StoreError, match="symbolic link"):
        grown.recalibrate(show_progress=False)
    grown.compact()
    assert (tmp_path / "mine").exists() and list((tmp_path / "mine").iterdir()) == []


def test_damage_is_told_before_slides_are_read(grown):
    segment = next((grown.path / "segments").iterdir())
    file = segment / "barcodes" / "c.0.0"
    file.write_bytes(b"\0" * file.stat().st_size)
    Foreign.encoded = 0
    with pytest.raises(IndexCorruptError):
        sish.Index.open(grown.path, encoder=Foreign()).recalibrate(show_progress=False)
    assert Foreign.encoded == 0


def test_an_encoder_whose_bits_are_its_own_has_nothing_to_measure(slides, tmp_path):
    index = create(tmp_path / "a.sish", PlainEncoder())
    with pytest.raises(ParameterError, match="holds no slide"):
        index.recalibrate()
    add(index, slides[:3])
    with pytest.raises(ParameterError, match="do not depend on the archive"):
        index.recalibrate()
    assert index.encoder.calibration is None


@pytest.mark.slow
def test_the_tree_and_what_was_measured_come_with_the_slides(tmp_path):
    slides = draw_slides(tmp_path / "slides", range(5), side=64 * 32)
    index = create(tmp_path / "a.sish")
    add(index, slides[:2])
    add(index, slides[2:])
    assert index.info().patches > 4000
    reader = sish.Index.open(index.path, encoder=Foreign())
    tree, first = index._store.current().tree_file.path, reader.search(slides[4], mpp=1.0)
    index.recalibrate(show_progress=False)
    state = index._store.current()
    assert state.tree_file.path != tree and {"threshold", "tree", "recall"} <= set(state.measured)
    assert sish.verify(index.path) == [] and index.info().leftovers == 0
    assert reader.search(slides[4], mpp=1.0)[0].slide_id == first[0].slide_id
    add(index, draw_slides(tmp_path / "more", range(7, 8), side=64 * 4))  # by the new tree and calibration
    assert reader.search(tmp_path / "more" / "007.png", mpp=1.0)[0].score == 1


KILLED = """
import sys
from pathlib import Path
import sish
from tests.test_recalibration import Foreign
import sish.ingest
import sish.slide_writer
sish.slide_writer._COMMIT_S = 0.0
index = sish.Index.open(sys.argv[1], encoder=Foreign())
commit = sish.ingest.Ingest._commit
def told(self):
    commit(self)
    print("committed", flush=True)
sish.ingest.Ingest._commit = told
index.recalibrate(show_progress=False)
"""


@pytest.mark.slow
def test_a_killed_recalibration_goes_on(grown):
    before = barcodes(grown)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(grown.path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    ) as process:
        for _ in range(5):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert barcodes(grown) == before and 0 < len(Store.open(grown.path / FOLDER)) < 39
    assert grown.recalibrate(show_progress=False).slides == 39
    assert barcodes(grown) != before


# ---- shards


def test_shards_that_are_alike_have_the_barcodes_of_one_index(slides, whole, tmp_path):
    shard = sish.Index.create(tmp_path / "shard.sish", like=whole)
    assert (shard.recipe, shard.fingerprint, shard.params.budget) == (
        whole.recipe, whole.fingerprint, whole.params.budget,
    )  # fmt: skip
    add(shard, slides[:7])
    assert barcodes(shard).items() <= barcodes(whole).items()
    named = sish.Index.create(tmp_path / "b.sish", like=whole.path, encoder=Foreign(), search={"budget": 9})
    add(named, slides[:1])
    assert barcodes(named).items() <= barcodes(shard).items() and named.params.budget == 9
    header = IndexHeader.from_json(named._store.header)
    assert header.calibration.to_json() == whole.encoder.calibration.to_json()


def test_an_index_like_one_that_was_not_measured_is_refused(slides, tmp_path):
    index = create(tmp_path / "a.sish")
    with pytest.raises(ParameterError, match="no calibration to share"):
        sish.Index.create(tmp_path / "b.sish", like=index)
    with pytest.raises(ParameterError, match="beside recipe=, measure= or rerank="):
        sish.Index.create(tmp_path / "b.sish", like=index, measure=slides)
    assert not (tmp_path / "b.sish").exists()


@pytest.mark.parametrize("opened", [False, True])
def test_an_index_like_another_by_another_encoder_is_refused(opened, whole, tmp_path):
    """Else nothing could be added to it."""
    like = whole if opened else whole.path
    with pytest.raises(sish.EncoderMismatchError, match="foreign"):
        sish.Index.create(tmp_path / "b.sish", like=like, encoder=Parted())
    assert not (tmp_path / "b.sish").exists()


def test_measuring_at_creation_is_the_same_draw(slides, whole, tmp_path):
    index = create(tmp_path / "a.sish", measure=slides, mpp=1.0)
    assert index.fingerprint == whole.fingerprint
    add(index, slides[:1])
    assert index.fingerprint == whole.fingerprint
    assert barcodes(index).items() <= barcodes(whole).items()


# ---- the default encoder


@pytest.mark.slow
def test_the_default_encoder_is_measured_as_any_other(tmp_path):
    write_slides(tmp_path / "slides", n_slides=4, side_um=900)
    slides = sorted((tmp_path / "slides").glob("*.tif*"))
    once, grown = (sish.Index.create(tmp_path / name) for name in ("once.sish", "grown.sish"))
    shipped = once.fingerprint
    once.add(slides, show_progress=False)
    own = once.encoder.calibration
    assert own.patches + own.shipped == 500 and own.patches == once.info().patches > 4
    assert own.spread is not None and once.params.threshold == own.threshold
    reader = sish.Index.open(grown.path)
    grown.add(slides[0], show_progress=False)
    grown.add(slides[1:], show_progress=False)
    assert len({shipped, once.fingerprint, grown.fingerprint}) == 3
    assert reader.search(slides[2])[0].score == 1
    assert grown.recalibrate(show_progress=False).slides == 4
    assert grown.fingerprint == once.fingerprint and barcodes(grown) == barcodes(once)
    assert reader.search(slides[2])[0].score == 1
    shard = sish.Index.create(tmp_path / "shard.sish", like=once.path)
    shard.add(slides[3], show_progress=False)
    assert barcodes(shard).items() <= barcodes(once).items()
