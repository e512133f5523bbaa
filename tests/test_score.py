"""The score of a hit: one function of its matches in both rankings, told wherever a hit is told."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from code_archives import BITS, KINDS, THRESHOLD, random_slides, store_of, view_of
from PIL import Image

import sish
from sish.cli import main
from sish.results import SCORE

RANKINGS = ("uncertainty", "similarity")


def plain_matches(slides, query, threshold):
    """The distance of the nearest match of each query patch in each slide, by comparing everything."""
    rows = [np.unpackbits(barcode) for barcode in query.codes.barcodes]
    out = {}
    for slide in slides:
        others = [np.unpackbits(barcode) for barcode in slide.codes.barcodes]
        nearest = [min(int(np.count_nonzero(row != other)) for other in others) for row in rows]
        out[slide.row.slide_id] = {p: d for p, d in enumerate(nearest) if d <= threshold}
    return {name: found for name, found in out.items() if found}


def plain_score(matches, name, n_patches):
    """The score of a slide from its definition."""
    weights = [
        math.log(1 + len(matches) / max(1, sum(p in found for found in matches.values())))
        for p in range(n_patches)
    ]
    close = [max(0, 1 - 2 * matches[name].get(p, BITS) / BITS) for p in range(n_patches)]
    return sum(w * c for w, c in zip(weights, close, strict=True)) / sum(weights)


@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize("seed", range(6))
def test_every_hit_has_the_score_of_all_its_matches(tmp_path, seed, ranking):
    slides = random_slides(seed)
    view = view_of(store_of(tmp_path / "a", slides, "texture"), "texture")
    for slide in slides[:4]:
        near, far = (plain_matches(slides, slide, bits) for bits in (THRESHOLD, BITS))
        n_patches = slide.row.n_patches
        answer = view.search(slide.query, slide.codes, k=9, ranking=ranking)
        assert len(answer) == 9
        for hit in answer:
            assert hit.below_threshold == (hit.slide_id not in near)
            matches = far if hit.below_threshold else near
            mine = list(matches[hit.slide_id].values())
            assert hit.score == pytest.approx(plain_score(matches, hit.slide_id, n_patches))
            assert (hit.n_matched, hit.median_distance) == (len(mine), np.median(mine))
            assert 1 <= hit.n_matched <= answer.query.n_patches
            assert min(mine) == min(pair.hamming for pair in hit.patches)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranking", RANKINGS)
def test_a_slide_that_finds_itself_scores_exactly_one(tmp_path, kind, ranking):
    for seed in range(3):
        slides = random_slides(seed)
        view = view_of(store_of(tmp_path / str(seed), slides, kind), kind)
        for slide in slides:
            answer = view.search(slide.query, slide.codes, k=9, ranking=ranking)
            own = next(hit for hit in answer if hit.slide_id == slide.row.slide_id)
            assert (own.score, own.n_matched, own.median_distance) == (1.0, slide.row.n_patches, 0.0)
            assert (own.uncertainty is None) == (ranking == "similarity" or not own.placed)


def test_both_rankings_give_a_slide_the_same_score(tmp_path):
    slides = random_slides(1)
    view = view_of(store_of(tmp_path / "a", slides, "texture"), "texture")
    rises = 0
    for slide in slides:
        told = [
            {hit.slide_id: (hit.score, hit.n_matched, hit.median_distance) for hit in answer}
            for answer in (view.search(slide.query, slide.codes, k=9, ranking=name) for name in RANKINGS)
        ]
        assert told[0] == told[1]
        by_uncertainty = view.search(slide.query, slide.codes, k=9, ranking="uncertainty")
        placed = [hit.score for hit in by_uncertainty if hit.placed]
        rises += placed != sorted(placed, reverse=True)
        similar = view.search(slide.query, slide.codes, k=9, ranking="similarity")
        near = [hit.score for hit in similar if not hit.below_threshold]
        assert near == sorted(near, reverse=True)
    assert rises, "no case in which the score rises down the list: as the texts say that it may"


def test_a_score_counts_more_matches_than_a_hit_shows(tmp_path):
    slides = [slide for seed in range(4) for slide in random_slides(seed, patches=20)]
    slides = [replace(it, row=replace(it.row, slide_id=f"t{n}")) for n, it in enumerate(slides)]
    view = view_of(store_of(tmp_path / "a", slides, "texture"), "texture")
    slide = max(slides, key=lambda it: it.row.n_patches)
    hit = view.search(slide.query, slide.codes, k=1, ranking="similarity")[0]
    assert hit.n_matched == slide.row.n_patches > len(hit.patches) == 5


def test_the_score_is_told_in_every_answer(built_index, tmp_path, capsys):
    index = sish.Index.open(built_index)
    name = index.slides[0].slide_id
    answer = index.search(name, k=3, ranking="uncertainty")
    told = answer.to_dict()["results"]
    assert [(it["score"], it["n_matched"], it["median_distance"], it["uncertainty"]) for it in told] == [
        (hit.score, hit.n_matched, hit.median_distance, hit.uncertainty) for hit in answer
    ]
    words = ["search", name, "--index", str(built_index), "-k", "3", "--ranking"]
    assert main([*words, "uncertainty"]) == 0
    table = capsys.readouterr().out
    for hit in answer:
        columns = (hit.slide_id, hit.label, f"{hit.score:.3f}", f"{hit.n_matched}/{answer.query.n_patches}")
        wanted = r"\s+".join(map(re.escape, columns)) + rf"\s+{hit.median_distance:g} bits"
        assert re.search(wanted, table), table
    assert SCORE in table and "may rise" in table
    assert main([*words, "similarity"]) == 0
    table = capsys.readouterr().out
    assert SCORE in table and "may rise" not in table
    page = sish.write_report(answer, tmp_path / "a.html", index=index).read_text()
    for hit in answer:
        wanted = f"{hit.n_matched} of {answer.query.n_patches} patches matched, median distance"
        assert wanted in page and f"{hit.median_distance:g} bits" in page
    assert "on average" in page and "may rise" in page


def test_the_matched_patches_can_be_cut_out_by_the_json_alone(built_index):
    index = sish.Index.open(built_index)
    asked = index.search(index.slides[0].path, k=4, exclude_patient=True)
    answer = json.loads(json.dumps(asked.to_dict()))
    cuts = 0
    for hit in answer["results"]:
        for pair in hit["patches"]:
            for slide, (x, y) in ((answer["query"], pair["query_xy"]), (hit, pair["xy"])):
                edge = round(slide["patch_l0_px"])
                with Image.open(slide["path"]) as picture:
                    cut = np.asarray(picture.convert("RGB").crop((x, y, x + edge, y + edge)), np.int16)
                with sish.open_slide(slide["path"]) as opened:
                    assert opened.mpp == pytest.approx(slide["mpp"])
                    want = opened.read((x, y), edge, slide["mpp"])
                    assert slide["patch_l0_px"] * slide["mpp"] == pytest.approx(
                        index.recipe.patch_px * index.recipe.mpp
                    )
                width, height = opened.dimensions
                inside = np.s_[: height - y, : width - x]
                assert np.abs(cut[inside] - want[inside]).mean() < 1
                assert want.std() > 5, "a patch of tissue, not glass"
                cuts += 1
    assert cuts > 8
