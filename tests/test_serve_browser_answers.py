"""Answers: refined, undone, explained, cancelled, saved and taken along are what the library says."""

import base64
import csv
import io
import json
import re
import threading
import zipfile

import numpy as np
import pytest
from marked_slides import BOUNDED, marks_of
from PIL import Image
from sights import sight_of
from steps import ask_for_all, asked, box_of, drag, ids, open_slide, shown_ids, view

import sish
from sish.slides.slide import open_slide as read_slide

pytestmark = pytest.mark.slow

FINE_SLIDE = "squamous-02"


def card(page, slide_id: str):
    """Return the card of a hit in the panel."""
    return page.locator(f'#answer li.hit[data-slide="{slide_id}"]')


def mark(page, slide_id: str, name: str) -> None:
    """Mark a hit as Relevant or Not relevant."""
    button = card(page, slide_id).get_by_role("button", name=name, exact=True)
    button.click()
    card(page, slide_id).locator('[data-mark][aria-pressed="true"]').wait_for()


def example_of(given: dict):
    """Return an example of a question as the library takes it."""
    return (given["slide_id"], box_of(given)) if "region" in given else given["slide_id"]


def test_marked_hits_refine_a_search_and_undo_takes_it_back(page, marked_index):
    open_slide(page, FINE_SLIDE)
    ask_for_all(page)
    before = shown_ids(page)
    mark(page, before[0], "Relevant")
    mark(page, before[2], "Not relevant")
    question, _ = asked(page, page.get_by_role("button", name="Ask again with these").click)
    assert question["relevant"] == [{"slide_id": before[0]}]
    assert question["irrelevant"] == [{"slide_id": before[2]}]
    options = {"k": 10, "exclude_patient": True}
    refined = marked_index.search(FINE_SLIDE, like=[before[0]], unlike=[before[2]], **options)
    assert shown_ids(page) == ids(refined) != before

    page.get_by_role("button", name="Undo").click()
    assert shown_ids(page) == before
    page.get_by_role("button", name="Redo").click()
    assert shown_ids(page) == ids(refined)
    page.keyboard.press("Control+z")
    assert shown_ids(page) == before
    page.get_by_text("Questions asked (2)").click()
    page.get_by_role("button", name="1 not relevant").click()
    assert shown_ids(page) == ids(refined)


def test_hits_of_a_box_are_marked_by_the_place_that_matches(page, marked_index):
    open_slide(page, FINE_SLIDE)
    sight = sight_of(page, "#first", marks_of(marked_index, FINE_SLIDE))
    page.get_by_role("button", name="Draw a box").first.click()
    corners = sight.to_screen(marks_of(marked_index, FINE_SLIDE))
    question, first = asked(page, lambda: drag(page, *corners))
    best = first["results"][0]
    mark(page, best["slide_id"], "Relevant")
    again, _ = asked(page, page.get_by_role("button", name="Ask again with these").click)
    [example] = again["relevant"]
    assert example["slide_id"] == best["slide_id"]
    assert example["region"][:2] in [pair["xy"] for pair in best["patches"]]
    wanted = marked_index.search(
        FINE_SLIDE, region=box_of(question), like=[example_of(example)], k=10, exclude_patient=True
    )
    assert shown_ids(page) == ids(wanted)


def test_a_concept_of_boxes_moves_a_search(page, marked_index):
    open_slide(page, FINE_SLIDE)
    sight = sight_of(page, "#first", marks_of(marked_index, FINE_SLIDE))
    ask_for_all(page)
    page.locator("#concept summary").click()
    marks = marks_of(marked_index, FINE_SLIDE)
    middle = marks.mean(axis=0)
    for name, corner in (("Boxes that show it", marks[0]), ("Boxes that do not show it", marks[1])):
        page.get_by_role("group", name=name).get_by_role("button", name="Draw a box").click()
        drag(page, *sight.to_screen(np.array([corner, middle])))
        page.get_by_role("group", name=name).get_by_role("listitem").wait_for()
    page.get_by_label("Strength").fill("-0.8")
    question, _ = asked(page, page.get_by_role("button", name="Ask with this concept").click)
    given = question["concept"]
    concept = sish.Concept(
        positive=[example_of(one) for one in given["positive"]],
        negative=[example_of(one) for one in given["negative"]],
        strength=-0.8,
    )
    assert given["strength"] == -0.8
    assert shown_ids(page) == ids(
        marked_index.search(FINE_SLIDE, concept=concept, k=10, exclude_patient=True)
    )


def test_options_and_filters_are_those_of_the_library(page, marked_index):
    open_slide(page, FINE_SLIDE)
    page.locator("#ask-options summary").click()
    page.get_by_label("Number of hits").fill("3")
    page.keyboard.press("Tab")
    page.get_by_label("Ranking").select_option("similarity")
    page.get_by_label("Leave out slides of the same patient").uncheck()
    page.get_by_label("Column").select_option("site")
    page.get_by_label("Value or condition").fill("!=skin")
    page.keyboard.press("Enter")
    ask_for_all(page)
    wanted = marked_index.search(FINE_SLIDE, k=3, ranking="similarity", where={"site": "!=skin"})
    assert shown_ids(page) == ids(wanted)


def test_heat_and_outlines_lie_over_both_slides(page, marked_index):
    open_slide(page, FINE_SLIDE)
    ask_for_all(page)
    page.get_by_role("button", name=re.compile(f"^Open hit .*{BOUNDED}")).click()
    page.locator("#second .scale-bar[data-um-per-px]").wait_for()
    view(page, "Whole slide", "#second")
    view(page, "Zoom out", "#second")
    results = marked_index.search(FINE_SLIDE, k=10, exclude_patient=True)
    panes = {"#first": FINE_SLIDE, "#second": BOUNDED}
    for name in ("Heat", "Mosaic", "Tissue"):
        page.get_by_role("button", name=name, exact=True).click()
    for pane, slide_id in panes.items():
        heat = marked_index.heatmap(slide_id, results)
        within = int((heat.hamming <= heat.threshold).sum())
        told = f"{within} of {len(heat.hamming)} tiles are within the threshold of {heat.threshold} bits"
        page.locator(pane).get_by_text(told).wait_for()
        seen = {
            name: screen_box(page, f"{pane} .layer-{name} {kind}")
            for name, kind in (("heat", "image"), ("mosaic", "path"), ("tissue", "path"))
        }
        for name in seen:  # the marks below tell where the slide is
            page.locator(f"{pane} .layer-{name}").evaluate("group => { group.style.opacity = 0; }")
        marks = marks_of(marked_index, slide_id)
        sight = sight_of(page, pane, marks)
        mosaic = marked_index.patches(slide_id).l0_xy
        for name, places in (("heat", heat.l0_xy), ("mosaic", mosaic)):
            wanted = sight.to_screen(np.array([places.min(axis=0), places.max(axis=0) + heat.patch_l0_px]))
            assert seen[name] == pytest.approx(wanted, abs=3)
        whole = sight.to_screen(marks)
        assert (seen["tissue"][0] > whole[0] - 60).all() and (seen["tissue"][1] < whole[1] + 60).all()


def screen_box(page, selector: str) -> np.ndarray:
    """Return where a mark lies: its top left and its bottom right corner, (2, 2)."""
    page.locator(selector).wait_for(state="attached")
    box = page.locator(selector).bounding_box()
    return np.array([[box["x"], box["y"]], [box["x"] + box["width"], box["y"] + box["height"]]])


def test_why_a_slide_is_where_it_is(page, marked_index):
    open_slide(page, FINE_SLIDE)
    ask_for_all(page)
    results = marked_index.search(FINE_SLIDE, k=10, exclude_patient=True)
    hit = results[1].slide_id
    card(page, hit).get_by_role("button", name="Why here?").click()
    for words in marked_index.explain(results, hit).words:
        card(page, hit).get_by_text(words, exact=True).wait_for()
    card(page, hit).get_by_role("img", name=re.compile("^Histogram of distances")).wait_for()


def test_pointing_at_a_pair_of_a_closed_hit_shows_both_patches_large(page):
    open_slide(page, FINE_SLIDE)
    _, answer = ask_for_all(page)
    hit = answer["results"][0]
    page.get_by_role("button", name=f"Open hit 1, {hit['slide_id']}").hover()
    pair = card(page, hit["slide_id"]).locator(".pair").first
    pair.hover()
    page.locator("#lens").get_by_text(f"{hit['patches'][0]['hamming']} of").wait_for()
    assert page.locator("#lens img").count() == 2
    page.mouse.move(5, 5)
    page.locator("#lens").wait_for(state="detached")


class Held:
    """An index whose searches wait for a sign after their first step."""

    def __init__(self, index, monkeypatch):
        self.go_on, self.ended = threading.Event(), threading.Event()
        real = index.search

        def search(*given, on_progress, **options):
            try:
                on_progress(3, 7)
                self.go_on.wait(60)
                on_progress(4, 7)
                return real(*given, on_progress=on_progress, **options)
            finally:
                self.ended.set()

        monkeypatch.setattr(index, "search", search)


def test_a_long_search_tells_how_far_it_is_and_can_be_cancelled(page, service, monkeypatch):
    open_slide(page, FINE_SLIDE)
    held = Held(service.archive.index, monkeypatch)
    page.get_by_role("button", name="Find similar slides").click()
    page.get_by_text("3 of 7 patches").wait_for()
    assert page.get_by_role("progressbar", name="Progress of the search").get_attribute("value") == "3"
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as told:
        page.get_by_role("button", name="Cancel").click()
    assert told.value.ok
    page.get_by_text("The search was cancelled.").wait_for()
    held.go_on.set()
    assert held.ended.wait(60)
    page.locator("#ask-progress").wait_for(state="hidden")
    assert not page.locator("#answer").is_visible()
    held.go_on.set()
    ask_for_all(page)  # the next one works


def part_of(marked_index) -> tuple[np.ndarray, bytes]:
    """Return a part of a slide as pixels and as the bytes of a PNG."""
    row = next(row for row in marked_index.slides if row.slide_id == FINE_SLIDE)
    with read_slide(row.path) as slide:
        pixels = slide.read((300, 300), 1000, slide.mpp)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return pixels, stream.getvalue()


def test_an_image_that_is_chosen_is_asked_for(page, marked_index):
    pixels, data = part_of(marked_index)
    page.get_by_role("button", name="Search with an image").click()
    page.locator("#ask-file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": data})
    page.get_by_label("Scale in µm per pixel").fill("0.25")
    page.keyboard.press("Tab")
    page.get_by_text("So the image shows 250 × 250 µm of tissue").wait_for()
    _, answer = ask_for_all(page)
    wanted = marked_index.search(pixels, mpp=0.25, k=10)
    assert shown_ids(page) == ids(wanted)
    assert answer == json.loads(json.dumps(wanted.to_dict()))


GIVE = """(node, [kind, base64]) => {
    const data = new DataTransfer();
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    data.items.add(new File([bytes], "given.png", { type: "image/png" }));
    const about = { bubbles: true, cancelable: true, clipboardData: data, dataTransfer: data };
    node.dispatchEvent(kind === "paste" ? new ClipboardEvent(kind, about) : new DragEvent(kind, about));
}"""


def give(page, kind: str, data: bytes) -> None:
    """Paste or drop a picture on the page."""
    page.locator("body").evaluate(GIVE, [kind, base64.b64encode(data).decode()])


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_an_image_that_is_pasted_or_dropped_waits_for_its_scale(page, marked_index, kind):
    pixels, data = part_of(marked_index)
    give(page, kind, data)
    page.get_by_text("given.png").wait_for()
    assert page.get_by_role("button", name="Find similar slides").is_disabled()
    page.get_by_role("button", name="0.5 (20× objective)").click()
    ask_for_all(page)
    assert shown_ids(page) == ids(marked_index.search(pixels, mpp=0.5, k=10))


def test_an_image_that_is_too_large_is_refused_before_it_is_sent(page, marked_index):
    def small(route):
        info = route.fetch().json()
        route.fulfill(json={**info, "limits": {**info["limits"], "upload_bytes": 2000}})

    page.route("**/api/info", small)
    page.reload()
    page.get_by_text("12 slides", exact=True).first.wait_for()
    _, data = part_of(marked_index)
    give(page, "paste", data)
    page.get_by_text(re.compile("^Got an image of .* MB; want at most")).wait_for()
    assert page.get_by_text("given.png").count() == 0


def test_a_session_is_saved_and_opened_again(page, tmp_path):
    open_slide(page, FINE_SLIDE)
    ask_for_all(page)
    shown = shown_ids(page)
    page.get_by_text("Questions asked (1)").click()
    with page.expect_download() as coming:
        page.get_by_role("button", name="Save session").click()
    coming.value.save_as(tmp_path / "session.json")

    page.wait_for_url(re.compile(f"slide={FINE_SLIDE}"))
    page.reload()
    page.locator("#first .scale-bar[data-um-per-px]").wait_for()
    page.get_by_text("Questions asked (0)").click()
    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Open session").click()
    choosing.value.set_files(tmp_path / "session.json")
    page.get_by_text("This answer is from a file.").wait_for()
    assert shown_ids(page) == shown
    question, _ = asked(page, page.get_by_role("button", name="Ask again", exact=True).click)
    assert question["slide_id"] == FINE_SLIDE and shown_ids(page) == shown


def test_a_file_that_is_no_session_is_refused_in_words(page):
    open_slide(page, FINE_SLIDE)
    page.get_by_text("Questions asked (0)").click()
    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Open session").click()
    choosing.value.set_files({"name": "a.json", "mimeType": "application/json", "buffer": b'{"a": 1}'})
    page.get_by_text("Got a.json, which is no session").wait_for()


def test_an_answer_is_taken_along_as_table_report_and_geojson(page):
    open_slide(page, FINE_SLIDE)
    ask_for_all(page)
    shown = shown_ids(page)

    def taken(name: str) -> bytes:
        with page.expect_download() as coming:
            page.locator("#take-along").get_by_role("button", name=name, exact=True).click()
        return coming.value.path().read_bytes()

    rows = list(csv.DictReader(io.StringIO(taken("CSV").decode())))
    assert [row["slide_id"] for row in rows] == shown
    report = taken("Report").decode()
    assert report.startswith("<!doctype html>") and all(name in report for name in (FINE_SLIDE, shown[0]))
    places = zipfile.ZipFile(io.BytesIO(taken("GeoJSON")))
    assert len(places.namelist()) == len(shown)
    assert all(json.loads(places.read(name))["features"] for name in places.namelist()[:1])
