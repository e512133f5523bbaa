"""The index as a user meets it: add, search, filter, change, go on after an interruption."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sish
from sish.encode import SlideEncoder
from sish.evaluation import _queries
from sish.searchers import GuidedSearcher
from sish.view import View


def some_of(slides: Path, n: int = 3) -> list[Path]:
    """The first slides of a folder, where encoding all of them would show no more."""
    return sorted(slides.glob("*.tif"))[:n]


def write_image(path: Path, value: int) -> Path:
    Image.new("RGB", (600, 600), (value, value, value)).save(path)
    return path


def test_a_slide_finds_itself_first_with_nothing_between(built_index):
    index = sish.Index.open(built_index)
    for row in index.slides[::3]:
        results = index.search(row.path, k=3, ranking="similarity")
        assert results[0].slide_id == row.slide_id
        assert results[0].score == pytest.approx(1.0)
        assert all(pair.hamming == 0 and pair.query_xy == pair.xy for pair in results[0].patches)
        assert [hit.rank for hit in results] == [1, 2, 3]


def test_both_rankings_put_the_slide_itself_first(built_index):
    index = sish.Index.open(built_index)
    results = index.search(index.slides[0].path, k=2)
    assert results.ranking == "uncertainty"
    assert results[0].slide_id == index.slides[0].slide_id
    assert results[0].uncertainty is not None


def test_k_hits_come_back_even_where_few_pass_the_threshold(built_index):
    index = sish.Index.open(built_index)
    results = index.search(index.slides[0].path, k=8, ranking="similarity")
    assert len(results) == 8
    assert len({hit.slide_id for hit in results}) == 8
    flags = [hit.below_threshold for hit in results]
    assert flags == sorted(flags), "hits that pass come before those that do not"


def test_what_is_like_nothing_gets_the_nearest_with_a_flag(built_index):
    index = sish.Index.open(built_index)
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    results = index.search(noise, mpp=1.0, k=3)
    assert len(results) == 3
    assert all(hit.below_threshold for hit in results)


def test_the_querys_patient_is_left_out_when_asked(built_index):
    index = sish.Index.open(built_index)
    by_patient = {}
    for row in index.slides:
        by_patient.setdefault(row.patient, []).append(row)
    patient, rows = max(by_patient.items(), key=lambda item: len(item[1]))
    found = {hit.patient for hit in index.search(rows[0].path, k=8, exclude_patient=True)}
    assert patient not in found
    named = index.search(rows[0].path, k=8, exclude_patient=True, patient=index.slides[-1].patient)
    assert index.slides[-1].patient not in {hit.patient for hit in named}


def test_filters_by_label_and_metadata(built_index):
    index = sish.Index.open(built_index)
    label = index.slides[0].label
    hits = index.search(index.slides[-1].path, k=8, where={"label": label})
    assert hits.hits and {hit.label for hit in hits} == {label}
    with pytest.raises(sish.QueryError, match="no slide has"):
        index.search(index.slides[0].path, where={"colour": "red"})


def test_a_region_is_found_in_its_own_slide(built_index):
    index = sish.Index.open(built_index)
    row = index.slides[0]
    whole = index.search(row.path, k=1)[0]
    x, y = whole.patches[0].xy
    size = int(row.patch_l0_px)
    hit = index.search(row.path, k=1, region=(x, y, size, size))[0]
    assert hit.slide_id == row.slide_id
    assert hit.patches[0] == sish.PatchPair((x, y), (x, y), 0, query_row=0, row=whole.patches[0].row)


def test_arrays_and_pil_images_are_queries_and_need_a_scale(built_index):
    index = sish.Index.open(built_index)
    row = index.slides[0]
    x, y = index.search(row.path, k=1)[0].patches[0].xy
    with sish.open_slide(row.path) as slide:
        patch = slide.read((x, y), index.recipe.patch_px, index.recipe.mpp)
    for query in (patch, Image.fromarray(patch)):
        assert index.search(query, mpp=index.recipe.mpp, k=1)[0].slide_id == row.slide_id
    with pytest.raises(sish.SishError, match="mpp"):
        index.search(patch)


def test_a_report_tells_how_long_adding_took(tmp_path, synthetic_slides):
    start = time.perf_counter()
    report = sish.Index.create(tmp_path / "a.sish").add(some_of(synthetic_slides, 1), show_progress=False)
    assert 0 < report.seconds < time.perf_counter() - start


def test_adding_twice_does_nothing_unless_asked_to_replace(own_index, synthetic_slides):
    before = own_index.info()
    again = own_index.add(synthetic_slides, show_progress=False)
    assert len(again.already) == 8 and not again.added
    assert own_index.info() == before
    one = own_index.slides[0]
    replaced = own_index.add(one.path, replace=True, show_progress=False)
    assert replaced.replaced == [one.slide_id]
    assert len(own_index) == 8
    assert sish.verify(own_index.path) == []


def test_an_interrupted_add_keeps_what_was_done_and_goes_on(tmp_path, synthetic_slides, monkeypatch):
    index = sish.Index.create(tmp_path / "archive.sish")
    encode, calls = SlideEncoder.encode_rest, []  # what is left of a slide that was measured

    def interrupted_in_the_third(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(*given)

    monkeypatch.setattr(SlideEncoder, "encode_rest", interrupted_in_the_third)
    slides = some_of(synthetic_slides, 4)
    with pytest.raises(KeyboardInterrupt):
        index.add(slides, show_progress=False)
    assert len(sish.Index.open(index.path)) == 2
    report = index.add(slides, show_progress=False)
    assert len(report.already) == 2 and len(report.added) == 2


def test_removed_slides_are_not_found_and_compact_frees_their_bytes(own_index):
    gone = own_index.slides[0]
    assert own_index.remove(gone.slide_id) == 1
    assert gone.slide_id not in own_index
    assert gone.slide_id not in {hit.slide_id for hit in own_index.search(gone.path, k=8)}
    before = own_index.info().bytes
    own_index.compact()
    assert own_index.info().bytes < before
    assert sish.verify(own_index.path) == []
    with pytest.raises(sish.UnknownSlideError, match="holds no slide 'nowhere'"):
        own_index.remove("nowhere")


def test_relabel_changes_labels_without_touching_codes(own_index, tmp_path):
    first = own_index.slides[0]
    table = tmp_path / "new.csv"
    table.write_text(f"slide_id,label,patient,stain\n{first.slide_id},renamed,Q1,HE\n")
    assert own_index.relabel(table).changed == (first.slide_id,)
    changed = next(row for row in own_index.slides if row.slide_id == first.slide_id)
    assert (changed.label, changed.patient, dict(changed.metadata)) == ("renamed", "Q1", {"stain": "HE"})
    assert own_index.search(first.path, k=1, where={"stain": "HE"})[0].slide_id == first.slide_id


def test_an_open_index_sees_what_another_process_adds(own_index):
    reader = sish.Index.open(own_index.path)
    query = reader.slides[-1].path
    assert reader.search(query, k=1)[0].slide_id == reader.slides[-1].slide_id
    gone = reader.slides[-1].slide_id
    own_index.remove(gone)
    assert gone not in {hit.slide_id for hit in reader.search(query, k=8)}


def test_a_slide_without_tissue_is_recorded_and_never_found(own_index, tmp_path):
    glass = write_image(tmp_path / "glass.png", 244)
    report = own_index.add(glass, mpp=1.0, show_progress=False)
    assert report.no_tissue == ["glass"]
    assert own_index.add(glass, mpp=1.0, show_progress=False).already == ["glass"]
    assert "glass" not in {hit.slide_id for hit in own_index.search(own_index.slides[0].path, k=20)}
    with pytest.raises(sish.QueryError, match="no tissue"):
        own_index.search(glass, mpp=1.0)


def test_broken_slides_are_skipped_and_reported_or_stop_the_add(own_index, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "text.svs").write_text("this is no slide")
    (folder / "empty.svs").touch()
    shutil.copy(own_index.slides[0].path, folder / "good.tif")
    report = own_index.add(folder, show_progress=False)
    assert report.added == ["good"]
    assert sorted(Path(skipped.path).name for skipped in report.failed) == ["empty.svs", "text.svs"]
    assert all("\n" not in skipped.reason for skipped in report.failed)
    with pytest.raises(sish.SlideOpenError):
        own_index.add(folder / "text.svs", on_error="raise", show_progress=False)
    assert sish.verify(own_index.path) == []


def test_two_files_of_one_slide_id_are_not_mixed_up(own_index, tmp_path):
    first = own_index.slides[0]
    other = tmp_path / Path(first.path).name
    shutil.copy(own_index.slides[1].path, other)
    report = own_index.add(other, show_progress=False)
    assert "rename one" in report.failed[0].reason
    table = tmp_path / "ids.csv"
    table.write_text(f"path,slide_id\n{other},second\n")
    assert own_index.add(other, labels=table, show_progress=False).added == ["second"]


def test_label_rows_without_a_slide_are_reported(own_index, synthetic_slides, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("slide_id,label\nnobody,tumour\n")
    report = own_index.add(synthetic_slides, labels=table, show_progress=False)
    assert "nobody" in report.failed[0].reason
    with pytest.raises(sish.LabelsError, match="nobody"):
        own_index.add(synthetic_slides, labels=table, on_error="raise", show_progress=False)


def test_no_label_means_ranking_without_labels(tmp_path, synthetic_slides):
    index = sish.Index.create(tmp_path / "archive.sish")
    index.add(sorted(synthetic_slides.glob("*.tif*"))[:2], show_progress=False)
    assert index.search(index.slides[0].path).ranking == "similarity"
    with pytest.raises(sish.QueryError, match="needs a label"):
        index.search(index.slides[0].path, ranking="uncertainty")


def test_another_encoder_is_refused_with_both_fingerprints(own_index, tmp_path):
    other = sish.Recipe(mpp=0.5)
    half = sish.Index.create(tmp_path / "half.sish", recipe=other)
    assert half.fingerprint != own_index.fingerprint
    header = dict(own_index._store.header) | {"fingerprint": half.fingerprint}
    from sish.index.store import Store

    Store.create(tmp_path / "foreign.sish", header).close()
    with pytest.raises(
        sish.EncoderMismatchError, match=f"{half.fingerprint}.*{own_index.fingerprint}".replace("+", r"\+")
    ):
        sish.Index.open(tmp_path / "foreign.sish").add(
            own_index.slides[0].path, on_error="raise", show_progress=False
        )


def test_an_empty_index_answers_with_nothing(tmp_path, synthetic_slides):
    index = sish.Index.create(tmp_path / "empty.sish")
    results = index.search(next(synthetic_slides.glob("*.tif*")))
    assert len(results) == 0 and len(index) == 0


def test_the_same_slides_give_the_same_codes(built_index, tmp_path, synthetic_slides):
    index = sish.Index.create(tmp_path / "again.sish", like=built_index)
    index.add(some_of(synthetic_slides), show_progress=False)
    one, two = index.snapshot(), sish.Index.open(built_index).snapshot()
    same = np.isin(two.slide, range(len(one.slides)))
    assert [row.slide_id for row in two.slides[: len(one.slides)]] == [row.slide_id for row in one.slides]
    assert np.array_equal(one.keys, two.keys[same]) and np.array_equal(one.barcodes, two.barcodes[same])


@pytest.mark.parametrize(
    ("options", "match"),
    [({"k": 0}, "k=0"), ({"ranking": "best"}, "ranking='best'"), ({"region": (0, 0, -5, 10)}, "region")],
)
def test_bad_options_are_refused(built_index, options, match):
    index = sish.Index.open(built_index)
    with pytest.raises(sish.SishError, match=match):
        index.search(index.slides[0].path, **options)


@pytest.mark.parametrize("recipe", [{"patch_px": 100}, {"mpp": 0}, {"fraction": 2}, {"pooling": "mean"}])
def test_bad_recipes_are_refused(tmp_path, recipe):
    with pytest.raises(sish.ParameterError, match="got"):
        sish.Index.create(tmp_path / "bad.sish", recipe=sish.Recipe(**recipe))
    assert not (tmp_path / "bad.sish").exists()


def test_flags_and_scores_tell_the_truth(built_index):
    index = sish.Index.open(built_index)
    threshold = index.params.threshold
    for row in index.slides:
        for ranking in ("uncertainty", "similarity"):
            results = index.search(row.slide_id, k=8, ranking=ranking, exclude_patient=True)
            for hit in results:
                assert hit.below_threshold == (min(pair.hamming for pair in hit.patches) > threshold)
            if ranking == "similarity":  # a list by uncertainty is not in order of the score
                near = [hit.score for hit in results if not hit.below_threshold]
                assert near == sorted(near, reverse=True)
            assert all(0 <= hit.score <= 1 for hit in results)
            placed = [hit.placed for hit in results]
            assert placed == sorted(placed, reverse=True), "what fills the list comes last"
            assert [hit.rank for hit in results] == list(range(1, len(results) + 1))


def test_every_allowed_slide_can_be_found_however_far(own_index):
    few = replace(own_index.params, pre_step=1, succ_step=1, n_seeds=1, threshold=0)
    narrow = View.of(GuidedSearcher.of(own_index.snapshot(), few))
    query, _, codes = next(_queries(own_index.snapshot()))
    others = [row for row in own_index.slides if row.patient != query.patient]
    found = narrow.search(query, codes, k=8, exclude_patient=True)
    assert {hit.slide_id for hit in found} == {row.slide_id for row in others}


def test_nothing_left_is_said_once(built_index):
    index = sish.Index.open(built_index)
    first = index.slides[0]
    results = index.search(first.path, where={"label": first.label, "patient": "nobody"})
    assert not results.hits and "no slide is left" in results.note


def test_replacing_keeps_what_was_known(own_index):
    before = own_index.slides[0]
    own_index.add(before.path, replace=True, show_progress=False)
    after = next(row for row in own_index.slides if row.slide_id == before.slide_id)
    assert after == before


def test_a_query_is_known_by_its_file_and_not_by_its_name(own_index, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = own_index.slides[0], own_index.slides[1]
    shutil.copy(first.path, tmp_path / "a" / "x.tif")
    shutil.copy(second.path, tmp_path / "b" / "x.tif")
    table = tmp_path / "ids.csv"
    table.write_text(f"path,slide_id,label,patient\n{tmp_path}/a/x.tif,ax,{first.label},PX\n")
    own_index.add(tmp_path / "a", labels=table, show_progress=False)
    own = own_index.search(tmp_path / "a" / "x.tif", k=9, exclude_patient=True)
    assert (own.query.slide_id, own.query.patient) == ("ax", "PX")
    assert "ax" not in {hit.slide_id for hit in own}
    other = own_index.search(tmp_path / "b" / "x.tif", k=9, exclude_patient=True)
    assert other.query.patient == second.patient, "a copy of an indexed slide is that slide"
    assert "ax" in {hit.slide_id for hit in other}


def test_a_moved_archive_is_recognised_and_its_paths_follow(own_index, tmp_path, synthetic_slides):
    (tmp_path / "first").mkdir()
    for slide in some_of(synthetic_slides):
        shutil.copy(slide, tmp_path / "first")
    index = sish.Index.create(tmp_path / "moving.sish")
    index.add(tmp_path / "first", show_progress=False)
    (tmp_path / "first").rename(tmp_path / "second")
    report = index.add(tmp_path / "second", show_progress=False)
    assert len(report.already) == 3 and not report.failed
    assert all(Path(row.path).is_file() for row in index.slides)
    (tmp_path / "link").symlink_to(tmp_path / "second")
    again = index.add([tmp_path / "link", tmp_path / "second" / ".." / "second"], show_progress=False)
    assert not again.failed and not again.added


def test_a_broken_slide_does_not_take_the_id_of_a_good_one(own_index, tmp_path):
    shutil.copy(own_index.slides[0].path, tmp_path / "twin.tif")
    (tmp_path / "twin.svs").write_text("broken")
    report = own_index.add([tmp_path / "twin.svs", tmp_path / "twin.tif"], show_progress=False)
    assert report.added == ["twin"] and len(report.failed) == 1


def test_a_given_scale_is_remembered(own_index, tmp_path):
    with sish.open_slide(own_index.slides[0].path) as slide:
        pixels = slide.overview(1.0)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    own_index.add(tmp_path / "plain.png", mpp=1.0, show_progress=False)
    assert own_index.search(tmp_path / "plain.png", k=1).query.mpp == 1.0
    assert own_index.add(tmp_path / "plain.png", replace=True, show_progress=False).replaced == ["plain"]


def test_slides_without_tissue_do_not_weigh(own_index, tmp_path):
    query = own_index.slides[0].path
    before = [(hit.slide_id, hit.score) for hit in own_index.search(query, k=8)]
    rows = ["path,label"]
    for number in range(5):
        glass = write_image(tmp_path / f"glass{number}.png", 244)
        rows.append(f"{glass},{own_index.slides[0].label}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    own_index.add(tmp_path.glob("*.png"), labels=tmp_path / "labels.csv", mpp=1.0, show_progress=False)
    assert [(hit.slide_id, hit.score) for hit in own_index.search(query, k=8)] == before


def test_one_slide_without_a_label_changes_the_ranking_and_says_so(own_index, tmp_path):
    shutil.copy(own_index.slides[0].path, tmp_path / "bare.tif")
    own_index.add(tmp_path / "bare.tif", show_progress=False)
    results = own_index.search(own_index.slides[0].path)
    assert (results.ranking, results.note) == ("similarity", "1 of 9 slides has no label (bare)")
