"""A slide has one answer, however it is asked for: by its file, by its id, by its features, by `evaluate`."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from code_archives import KINDS, random_slides, store_of, view_of

import sish
from sish.demo.synthetic import write_slides
from sish.evaluation import _queries
from sish.queries import query_of_indexed

RANKINGS = ("uncertainty", "similarity")


@pytest.mark.parametrize("kind", KINDS)
def test_stored_codes_give_the_answer_of_the_slide_itself(tmp_path, kind):
    for seed in range(4):
        slides = random_slides(seed)
        store = store_of(tmp_path / str(seed), slides, kind)
        view = view_of(store, kind)
        evaluated = {query.slide_id: (query, codes) for query, _, codes in _queries(store.snapshot())}
        for slide in slides:
            asked = slide.query, slide.codes
            by_id = query_of_indexed(slide.row, store.segments, None)
            for ranking in RANKINGS:
                for exclude in (False, True):
                    options = {"k": 9, "ranking": ranking, "exclude_patient": exclude}
                    want = view.search(*asked, **options).to_dict()
                    assert view.search(*by_id, **options).to_dict() == want
                    assert view.search(*evaluated[slide.row.slide_id], **options).to_dict() == want


def test_stored_codes_are_in_the_order_of_the_slide(tmp_path):
    slides = random_slides(3)
    store = store_of(tmp_path / "a", slides, "texture with a tree")
    assert any(len(np.unique(slide.codes.l0_xy, axis=0)) > 2 for slide in slides)
    for slide in slides:
        _, codes = query_of_indexed(slide.row, store.segments, None)
        assert np.array_equal(codes.l0_xy, slide.codes.l0_xy)
        assert np.array_equal(codes.barcodes, slide.codes.barcodes)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_do_not_depend_on_how_slides_lie_in_segments(tmp_path, kind):
    for seed in range(3):
        slides = random_slides(seed)
        one, three = (view_of(store_of(tmp_path / f"{seed}-{n}", slides, kind, n), kind) for n in (1, 3))
        for slide in slides[:3]:
            for ranking in RANKINGS:
                options = {"k": 9, "ranking": ranking}
                first = one.search(slide.query, slide.codes, **options)
                assert three.search(slide.query, slide.codes, **options).to_dict() == first.to_dict()


@pytest.mark.parametrize("kind", ["texture", "texture with a tree"])
def test_texture_keys_answer_alike_in_whatever_order_slides_were_added(tmp_path, kind):
    for seed in range(3):
        slides = random_slides(seed)
        orders = {
            "added": slides,
            "back": slides[::-1],
            "by id": sorted(slides, key=lambda it: it.row.slide_id),
        }
        views = [
            view_of(store_of(tmp_path / f"{seed} {name}", own, kind), kind) for name, own in orders.items()
        ]
        for slide in slides[:3]:
            for ranking in RANKINGS:
                answers = [view.search(slide.query, slide.codes, k=9, ranking=ranking) for view in views]
                assert len(answers[0]) == 9
                assert [it.to_dict() for it in answers[1:]] == 2 * [answers[0].to_dict()]


@pytest.mark.parametrize("kind", KINDS)
def test_slides_of_equal_score_come_in_order_of_their_ids(tmp_path, kind):
    (slide, *_) = random_slides(0)
    names = ["z", "m", "a", "k"]
    twins = [replace(slide, row=replace(slide.row, slide_id=name, patient=name)) for name in names]
    view = view_of(store_of(tmp_path / "a", twins, kind), kind, pre_step=0, succ_step=0)
    answer = view.search(slide.query, slide.codes, k=4, ranking="similarity")
    assert [(hit.slide_id, hit.score) for hit in answer] == [(name, 1.0) for name in sorted(names)]


@pytest.mark.slow
@pytest.mark.parametrize("keys", ["texture", "paper"])
def test_a_slide_has_one_answer_by_file_by_id_and_by_evaluate(tmp_path, keys, monkeypatch):
    labels = write_slides(tmp_path / "slides", n_slides=3, side_um=700)
    index = sish.Index.create(tmp_path / "a.sish", recipe=sish.Recipe(keys=keys))
    index.add(tmp_path / "slides", labels=labels, show_progress=False)
    monkeypatch.chdir(tmp_path)
    for row in index.slides:
        for ranking in RANKINGS:
            by_id = index.search(row.slide_id, k=4, ranking=ranking)
            assert index.search(row.path, k=4, ranking=ranking) == by_id
            assert by_id[0].score == 1.0 or ranking == "uncertainty"
        assert index.search(f"slides/{row.slide_id}.tif", k=4, ranking=ranking) == by_id
        with sish.open_slide(row.path) as slide:
            assert index.search(slide, k=4, ranking=ranking) == by_id
    for query, _, codes in _queries(index.snapshot()):
        want = index.search(query.slide_id, k=4, exclude_patient=True)
        assert index.view().search(query, codes, k=4, exclude_patient=True) == want


def test_features_have_one_answer_by_file_by_id_and_by_evaluate(tmp_path):
    rng = np.random.default_rng(5)
    textures = rng.normal(0, 1, (4, 64))
    lines = ["slide_id,label"]
    for number in rng.permutation(6).tolist():
        path = tmp_path / "features_uni_v1" / f"f{number}.h5"
        path.parent.mkdir(exist_ok=True)
        l0_xy = rng.permutation(np.stack(np.mgrid[:7, :7], axis=-1).reshape(-1, 2)) * 512
        with h5py.File(path, "w") as file:  # patches in no order, as some tools write them
            kinds = textures[rng.integers(0, 4, 49)] + rng.normal(0, 0.2, (49, 64))
            file["features"], file["coords"] = kinds.astype(np.float32), l0_xy
            told = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40}
            file["coords"].attrs.update(told)
        lines.append(f"f{number},{'ab'[number % 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    index = sish.Index.create_for_features(tmp_path / "a.sish", tmp_path)
    assert (
        index.add_features(tmp_path, labels=tmp_path / "labels.csv", show_progress=False).summary()
        == "6 added"
    )
    for query, _, codes in _queries(index.snapshot()):
        for ranking in RANKINGS:
            by_id = index.search(query.slide_id, k=6, ranking=ranking)
            assert index.search(query.path, k=6, ranking=ranking) == by_id
            assert index.view().search(query, codes, k=6, ranking=ranking) == by_id


def test_an_id_is_an_id_beside_a_folder_and_is_not_confused_with_another_file(
    built_index, tmp_path, monkeypatch
):
    index = sish.Index.open(built_index)
    row = index.slides[0]
    want = index.search(row.path, k=3)
    monkeypatch.chdir(tmp_path)
    (tmp_path / row.slide_id).mkdir()
    assert index.search(row.slide_id, k=3) == want
    (tmp_path / row.slide_id).rmdir()
    (tmp_path / row.slide_id).write_text("another file")
    with pytest.raises(sish.QueryError, match=f"give ./{row.slide_id} or") as caught:
        index.search(row.slide_id)
    assert "\n" not in str(caught.value)
    with pytest.raises(sish.SlideOpenError):
        index.search(f"./{row.slide_id}")


def test_the_id_of_a_slide_names_it_where_a_region_of_it_is_asked_for(built_index):
    index = sish.Index.open(built_index)
    row = index.slides[0]
    x, y = index.search(row.slide_id, k=1)[0].patches[0].xy
    region = (x, y, 2 * int(row.patch_l0_px), int(row.patch_l0_px))
    answer = index.search(row.slide_id, k=3, region=region)
    assert answer == index.search(row.path, k=3, region=region)
    assert answer.query.region == region and answer.query.n_patches < row.n_patches


def test_ids_with_folders_in_them_and_ids_too_long_for_a_file(own_index, tmp_path):
    table = tmp_path / "ids.csv"
    row = own_index.slides[0]
    copies = {"site/a.tif": "one.tif", "x" * 5000: "two.tif"}
    lines = ["path,slide_id"]
    for name, file in copies.items():
        (tmp_path / file).write_bytes(Path(row.path).read_bytes())
        lines.append(f"{tmp_path / file},{name}")
    table.write_text("\n".join(lines))
    own_index.add([tmp_path / file for file in copies.values()], labels=table, show_progress=False)
    for name, file in copies.items():
        by_id = own_index.search(name, k=3)
        assert by_id.query.slide_id == name
        assert own_index.search(tmp_path / file, k=3) == by_id
