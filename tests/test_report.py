"""The page: self-contained, complete, and honest where a slide is gone."""

import math
import os
import re
import shutil
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from leica import write_leica
from PIL import Image
from report_page import ReportPage, pixels

import sish
from sish.demo.synthetic import write_slides
from sish.preview import CLUSTER_COLOURS, OUTLINE_COLOUR
from sish.results import ExamplePair

AT = datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2)))


@pytest.fixture(scope="module")
def index(built_index):
    return sish.Index.open(built_index)


@pytest.fixture(scope="module")
def answer(index):
    return index.search(index.slides[0].slide_id, k=3)


@pytest.fixture(scope="module")
def page(index, answer, tmp_path_factory):
    return written(answer, tmp_path_factory.mktemp("page"), index)


def written(results, folder, index, **options):
    return ReportPage(
        sish.write_report(results, folder / "out.html", index=index, **options).read_text("utf-8")
    )


def test_the_page_holds_the_query_every_hit_and_the_patch_pairs(page, answer):
    for hit in answer:
        assert f"{hit.rank}. {hit.slide_id}" in page.text and f"score {hit.score:.3f}" in page.text
        for pair in hit.patches:
            assert f"{pair.hamming} bits" in page.text
    pairs = [pair for hit in answer for pair in hit.patches]
    once = {pair.query_row for pair in pairs}  # a patch of the query has its pixels in the page once
    assert len(page.all("image")) == 1 + len(answer) + len(pairs) + len(once)
    for image in page.all("image"):
        assert image["aria-label"] and pixels(image).std() > 5
    shares = [
        f"{100 * pair.hamming / answer.asked.params.threshold:.0f} % of the threshold" for pair in pairs
    ]
    assert re.findall(r"\d+ % of the threshold", page.text) == shares


def test_nothing_is_loaded_and_every_link_has_its_target(page):
    ids = [own["id"] for _, own, _ in page.elements if "id" in own]
    assert len(ids) == len(set(ids))
    links = [own["href"] for tag, own, _ in page.elements if "href" in own and tag != "image"]
    targets = [own["popovertarget"] for own in page.all("button")]
    assert links and targets and {link.removeprefix("#") for link in links} | set(targets) <= set(ids)
    assert not any(
        "src" in own or {name for name in own if name.startswith("on")} for _, own, _ in page.elements
    )
    assert not page.all("script") and not page.all("link")
    policy = next(own["content"] for own in page.all("meta") if "http-equiv" in own)
    assert policy.split("; ")[:3] == ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"]
    tags = [tag for tag, _, _ in page.elements]
    assert tags.index("style") > [own.get("http-equiv") for _, own, _ in page.elements].index(
        "Content-Security-Policy"
    ), "the policy holds for what follows it"


def test_every_picture_can_be_enlarged_and_every_view_closed(page, answer):
    views = [own for own in page.all("div") if "popover" in own]
    assert len(views) == 1 + len(answer) + sum(len(hit.patches) for hit in answer)
    for view in views:
        assert view["role"] == "dialog" and view["aria-label"]
        assert [own["popovertargetaction"] for own in page.all("button", view["id"])] == ["hide"]
        assert page.all("use", view["id"]) and not page.all("image", view["id"]), "pixels are not there twice"


def test_numbers_link_the_pairs_and_their_frames_to_each_other(page, answer):
    for hit in answer:
        own = f"q1h{hit.rank}"
        places = {pair.xy for pair in hit.patches}
        frames = page.frames(own)
        assert len(frames) == len(places), "pairs of one place share a frame"
        back = {own["id"]: own["href"] for own in page.all("a", own) if "id" in own}
        numbers = [link["href"] for link in page.all("a", own) if link.get("class") == "number"]
        assert len(numbers) == len(hit.patches) and {name.removeprefix("#") for name in numbers} == set(back)
        for number, pair in enumerate(hit.patches, 1):
            assert numbers[number - 1] == "#{}-place{}-{}".format(own, *pair.xy)
            assert f"#q1-patch{pair.query_row}-place" in {
                it["href"] for it in page.all("a", f"{own}-match{number}")
            }
        assert f"#{own}-match1" in back.values()


@pytest.fixture(scope="module")
def glass(synthetic_slides, tmp_path_factory):
    """Two slides that are a part of a larger glass, at level-0 (1200, 700), and their index."""
    folder = tmp_path_factory.mktemp("glass")
    for path in sorted(synthetic_slides.glob("*-01.tif"))[:2]:
        with sish.open_slide(path) as slide:
            whole = slide.read((0, 0), slide.dimensions, slide.mpp)
        write_leica(folder / f"{path.stem}.scn", whole, (1200, 700), (5000, 4000))
    index = sish.Index.create(folder / "glass.sish")
    assert len(index.add(folder, show_progress=False).added) == 2
    return index


def test_frames_lie_at_the_matched_places_of_a_slide_with_bounds(glass, tmp_path):
    name = glass.slides[0].slide_id
    answer = glass.search(name, k=1)
    page = written(answer, tmp_path, glass)
    thumbnail = pixels(page.all("image", "q1h1-picture")[0])
    patches = {pair.xy: number for number, pair in enumerate(answer[0].patches, 1)}
    assert len(patches) > 1
    for place, x, y, width, height in page.frames("q1h1"):
        left, top, right, bottom = (round(side) for side in (x, y, x + width, y + height))
        number = patches[tuple(map(int, place.removeprefix("q1h1-place").split("-")))]
        patch = pixels(page.all("image", f"q1h1-match{number}")[0])
        shown = Image.fromarray(thumbnail[top:bottom, left:right])
        size = (right - left, bottom - top)
        assert shown.size == size
        small = Image.fromarray(patch).resize((48, 48)), shown.resize((48, 48))
        first, second = (np.asarray(it, float)[:30] for it in small)  # a scale bar may cover the lower end
        assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("region", "told", "corners"),
    [
        ((1300, 800, 700, 600), "x 1300, y 800, 700 x 600 px of level 0",
         [(100, 100), (800, 100), (800, 700), (100, 700)]),
        (sish.Box(1300, 800, 800, 600, angle=90), "x 1400, y 700, 600 x 800 px of level 0",
         [(200, 0), (800, 0), (800, 800), (200, 800)]),
        # its centre is at (1700, 1100); cosine .8 and sine .6
        (sish.Box(1300, 800, 800, 600, angle=math.degrees(math.atan2(3, 4))),
         "turned clockwise by 36.8699 degrees",
         [(360, -80), (1000, 400), (640, 880), (0, 400)]),
    ],
)  # fmt: skip
def test_the_region_that_was_searched_for_is_framed(glass, tmp_path, region, told, corners):
    page = written(glass.search(glass.slides[0].slide_id, region=region, k=1), tmp_path, glass)
    (image,) = page.all("image", "q1-picture")
    with sish.open_slide(glass.slides[0].path) as slide:
        step = max(slide.bounds[2:]) / max(int(image["width"]), int(image["height"]))
        assert slide.bounds[:2] == (1200, 700)
    assert np.allclose(page.corners("q1"), np.array(corners) / step, atol=0.01)
    assert told in page.value("region")[0] and "region that was searched for" in page.text


def test_places_of_the_querys_matched_patches_are_marked(glass, tmp_path):
    answer = glass.search(glass.slides[0].slide_id, k=2)
    page = written(answer, tmp_path, glass)
    size = float(page.all("image", "q1-picture")[0]["width"])
    spots = {name: (x, y) for name, x, y, _, _ in page.frames("q1", "spot")}
    with sish.open_slide(glass.slides[0].path) as slide:
        step = max(slide.bounds[2:]) / 768
        assert size <= 768
    for hit in answer:
        for pair in hit.patches:
            wanted = ((pair.query_xy[0] - 1200) / step, (pair.query_xy[1] - 700) / step)
            assert spots[f"q1-patch{pair.query_row}-place"] == pytest.approx(wanted, abs=0.01)


def test_the_legend_has_the_colours_of_the_picture(page, index):
    colours = [own["style"].removeprefix("border-color:rgb(").removesuffix(")") for own in page.all("i")
               if own.get("style", "").startswith("border")]  # fmt: skip
    told = [tuple(map(int, colour.split())) for colour in colours]
    assert told[-1] == OUTLINE_COLOUR and set(told[:-1]) <= set(CLUSTER_COLOURS) and len(told) > 2
    picture = pixels(page.all("image", "q1-picture")[0]).astype(int)
    for colour in told:
        assert (np.abs(picture - colour).max(axis=2) < 60).any(), colour
    counts = re.findall(
        r"(\d+) patch(?:es)?(?= )", page.text.split("similar colours of tissue:")[1].split("outline")[0]
    )
    assert sum(map(int, counts)) == index.slides[0].n_patches


def test_the_label_of_the_query_stands_beside_those_of_the_hits(page, answer, index, tmp_path):
    label = index.slides[0].label
    assert answer.query.label == label and answer.query.to_dict()["label"] == label
    same = sum(hit.label == label for hit in answer)
    assert 0 < same < len(answer), "the test needs both"
    kinds = [own["class"] for own in page.all("span") if own.get("class", "").startswith("chip")]
    assert (kinds.count("chip same"), kinds.count("chip other")) == (same, len(answer) - same)
    assert f"{same} of 3 have the label of the query, {label}." in page.text
    noise = np.random.default_rng(1).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    unknown = index.search(noise, mpp=1.0, k=2)
    assert unknown.query.label is None
    other = written(unknown, tmp_path, index)
    assert "of the query, " not in other.text.split("most similar")[1].split("1. ")[0]
    assert index.search(index.slides[0].path, k=1).query.label == label


def test_the_head_tells_when_and_how_it_was_searched(index, tmp_path):
    name = index.slides[0].slide_id
    options = {"k": 2, "ranking": "similarity", "exclude_patient": True, "where": {"label": ["!=x", "!=y"]}}
    answer = index.search(name, search={"threshold": 250, "budget": 900}, **options)
    page = written([answer, index.search(name)], tmp_path, index, at=AT)
    assert page.value("written") == ["2026-01-02 03:04 (UTC+02:00)"]
    assert page.value("program") == [f"sish {sish.__version__}"] and page.value("encoder") == [
        index.fingerprint
    ]
    assert page.value("recall") == [index.recall_source]
    assert page.value("threshold") == [index.threshold_source, "250 bits, given for this search"]
    assert page.value("hits wanted") == ["2", "5"]
    assert page.value("ranked") == ["by similarity", "by uncertainty"]
    assert page.value("budget")[0].startswith("900 patches")
    assert page.value("own patient") == [f"{index.slides[0].patient} was left out", "not left out"]
    assert page.value("only") == ["label: !=x, !=y"]
    assert {"score", "matched, median", "bits", "uncertainty"} <= {
        text for tag, text in page.texts if tag == "dt"
    }
    assert [own["href"] for own in page.all("a")][:2] == ["#q1", "#q2"]


def test_answers_without_hits_and_answers_that_no_search_made_have_a_page(index, answer, tmp_path):
    none = index.search(index.slides[0].slide_id, where={"patient": "nobody"})
    page = written(none, tmp_path, index)
    assert "0 most similar slides" in page.text and page.value("only") == ["patient: nobody"]
    bare = written(replace(answer, asked=None), tmp_path, index)
    assert not bare.value("budget") and f"{answer[0].slide_id}" in bare.text


def test_the_same_answer_at_the_same_time_is_the_same_page(index, answer, tmp_path):
    first = sish.write_report(answer, tmp_path / "a.html", index=index, at=AT).read_bytes()
    assert sish.write_report(answer, tmp_path / "b.html", index=index, at=AT).read_bytes() == first
    before = datetime.now().astimezone().replace(second=0, microsecond=0)
    told = written(answer, tmp_path, index).value("written")[0]
    now = datetime.strptime(told, "%Y-%m-%d %H:%M (UTC%z)")
    assert before <= now <= datetime.now().astimezone()


def test_slides_that_are_gone_leave_a_card_with_the_reason(own_index, tmp_path):
    results = own_index.search(own_index.slides[0].slide_id, k=2)
    gone = tmp_path / "gone.sish"
    moved = replace(results, hits=tuple(replace(hit, path=str(gone)) for hit in results))
    page = written(moved, tmp_path, own_index)
    assert page.text.count(f"{gone}: ") == 2 and page.text.count("No picture") == 2
    assert "q1h1-picture" not in {own.get("id") for _, own, _ in page.elements}
    assert len(page.all("use", "q1h1-match1")) == 2, "the query's patch is still shown, and enlarged"


def test_names_that_look_like_html_are_text(own_index, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    table = tmp_path / "labels.csv"
    first, evil = own_index.slides[0].slide_id, "<script>alert(1)</script>"
    table.write_text(f'slide_id,label,patient,site,<b>grade,size\n{first},{evil},"""><p>",<i>,<u>,<s>\n')
    own_index.relabel(table)
    asked = [own_index.search(noise, mpp=1.0, k=8), own_index.search(first, k=8, where={"label": f"={evil}"})]
    odd = [replace(it, query=replace(it.query, slide_id=f'{evil}"')) for it in asked]
    page = written(odd, tmp_path, own_index)
    assert not {"script", "b>", "u", "s"} & {tag for tag, _, _ in page.elements}
    assert page.text.count(evil) > 4 and '"><p>' in page.value("patient") and "<i>" in page.value("site")
    assert page.value("<b>grade") == ["<u>", "<u>"] and "below the threshold" in page.text
    assert "<s>" in page.value("size") and any("px" in size for size in page.value("size")), "neither hides"


def test_slides_are_closed_as_soon_as_too_many_are_open(index, tmp_path, monkeypatch):
    opened, most = [], []

    def opening(path, **scale):
        opened.append(sish.open_slide(path, **scale))
        most.append(sum(not is_closed(slide) for slide in opened))
        return opened[-1]

    monkeypatch.setattr("sish.report_pictures.open_slide", opening)
    monkeypatch.setattr("sish.report_pictures._OPEN_SLIDES", 3)
    page = written(index.search(index.slides[0].slide_id, k=8), tmp_path, index)
    assert "No picture" not in page.text
    assert len(opened) >= 8 and max(most) == 4  # the fourth closes another as it comes
    assert all(map(is_closed, opened))


def is_closed(slide: sish.Slide) -> bool:
    try:
        slide.read((0, 0), 1, slide.mpp)
    except sish.SlideReadError:
        return True
    return False


def test_another_file_in_the_place_of_a_hit_is_not_shown(tmp_path):
    write_slides(tmp_path / "slides", n_slides=3, side_um=512)
    index = sish.Index.create(tmp_path / "a.sish")
    index.add(tmp_path / "slides", show_progress=False)
    _, hit, other = (Path(row.path) for row in index.slides)
    results = index.search(index.slides[0].slide_id, k=3)
    results = replace(results, hits=tuple(it for it in results if it.path == str(hit)))
    assert "No picture" not in written(results, tmp_path, index).text
    shutil.copy(other, hit)
    page = written(results, tmp_path, index)
    assert page.text.count("is another file now") == 1 and not page.all("image", f"q1h{results[0].rank}")


def test_patches_that_marked_slides_found_stand_beside_those_of_the_query(index, answer, tmp_path):
    marked, hit = index.slides[1], answer[1]
    places = index.patches(marked.slide_id).l0_xy
    example = ExamplePair(marked.slide_id, tuple(map(int, places[2])), hit.patches[0].xy, 77, 2, 5)
    gone = replace(example, slide_id="gone<b>", hamming=78)
    own = replace(hit, rank=1, examples=(example, gone))
    page = page_of_one(own, answer, tmp_path, index)
    first, second = (f"q1h1-match{len(hit.patches) + more}" for more in (1, 2))
    left, right = map(pixels, page.all("image", first))
    with sish.open_slide(marked.path) as slide:
        wanted = slide.read(example.example_xy, 256, 1.0)
    assert np.abs(left.astype(float) - np.asarray(Image.fromarray(wanted).resize((192, 192)))).mean() < 8
    assert (right == pixels(page.all("image", "q1h1-match1")[0])).all()
    assert f"patch 2 of {marked.slide_id}, marked as relevant" in page.text and "77 bits" in page.text
    assert len(page.all("image", second)) == 1 and "patch 2 of gone<b>, marked" in page.text
    tags = [set(text.split(", ")) for tag, text in page.texts if tag == "text"]
    assert any({"1", str(len(hit.patches) + 1), str(len(hit.patches) + 2)} <= tag for tag in tags)
    only = replace(own, patches=(), examples=(example,))
    assert page_of_one(only, answer, tmp_path, index).all("image", "q1h1-match1")


def page_of_one(hit, answer, tmp_path, index):
    return written(replace(answer, hits=(hit,)), tmp_path, index)


def test_features_say_that_they_are_no_pixels(index, answer, tmp_path):
    other = replace(answer, hits=(replace(answer[0], path="/features/a.h5"),))
    assert "/features/a.h5: holds features, not pixels" in written(other, tmp_path, index).text


def test_names_that_are_not_utf8_are_spelt_out(index, tmp_path):
    results = index.search(index.slides[0].slide_id, k=1)
    name = os.fsdecode(b"caf\xe9")
    odd = replace(results, hits=tuple(replace(hit, slide_id=name, path=f"/{name}") for hit in results))
    assert r"caf\udce9" in written(odd, tmp_path, index).text


def test_a_page_that_cannot_be_written_is_an_error(index, tmp_path):
    results = index.search(index.slides[0].slide_id, k=1)
    with pytest.raises(sish.OutputError, match="give another path"):
        sish.write_report(results, tmp_path / "no" / "page.html", index=index)
    assert not list(Path(tmp_path).iterdir())
