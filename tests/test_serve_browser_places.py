"""Places: frames lie where matches are, linked views agree, and a link restores what is seen."""

import re

import numpy as np
import pytest
from browsers import clean_page
from marked_slides import BOUNDED, marks_of
from sights import of_colour, sight_of, slide_in
from steps import ask_for_all, asked, drag, open_slide, turn, um_per_px, view, wait_for_scale

pytestmark = pytest.mark.slow

FINE_SLIDE = "squamous-02"
ORANGE, BLUE = (230, 159, 0), (0, 114, 178)  # --match and --query of style.css


def compare(page, query: str, hit: str) -> dict:
    """Ask for all of a slide, open a hit beside it, and return the hit."""
    open_slide(page, query)
    _, answer = ask_for_all(page)
    page.get_by_role("button", name=re.compile(f"^Open hit .*{re.escape(hit)}")).click()
    page.locator("#second .scale-bar[data-um-per-px]").wait_for()
    return next(one for one in answer["results"] if one["slide_id"] == hit)


@pytest.mark.parametrize(("query", "hit"), [(FINE_SLIDE, BOUNDED), (BOUNDED, FINE_SLIDE)])
def test_the_frames_of_a_hit_lie_on_its_matched_patches(page, marked_index, query, hit):
    found = compare(page, query, hit)
    view(page, "Whole slide", "#second")
    sight = sight_of(page, "#second", marks_of(marked_index, hit))
    pixels, corner = slide_in(page, "#second")
    orange = of_colour(pixels, ORANGE, near=40) + corner
    places = np.array([pair["xy"] for pair in found["patches"]])
    side = found["patch_l0_px"]
    wanted = sight.to_screen(np.concatenate([places.min(axis=0), places.max(axis=0) + side]).reshape(2, 2))
    seen = np.array([orange.min(axis=0), orange.max(axis=0) + 1])
    assert np.abs(seen - wanted).max() < 3
    for place in places:  # each has four sides of its own
        for middle in np.array([[0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]]) * side + place:
            assert np.abs(orange - sight.to_screen(middle[None])).max(axis=1).min() < 3


def centres(page, marked_index, sights: dict) -> dict:
    """Return the um at the middle of each pane."""
    found = {}
    for pane, slide_id in sights.items():
        box = page.locator(f"{pane} .deep-zoom").bounding_box()
        middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
        marks = marks_of(marked_index, slide_id)
        sight = sight_of(page, pane, marks)
        (first, second), row = sight.to_screen(marks), marks[1] - marks[0]
        share = (middle - first) / (second - first)
        mpp = next(one.mpp for one in marked_index.slides if one.slide_id == slide_id)
        found[pane] = (share * row) * mpp
    return found


def test_linked_views_zoom_to_equal_um_per_px_and_move_by_equal_um(page, marked_index):
    compare(page, FINE_SLIDE, BOUNDED)
    panes = {"#first": FINE_SLIDE, "#second": BOUNDED}
    wait_for_scale(page, "#first", um_per_px(page, "#second"))
    view(page, "Whole slide", "#second")
    view(page, "Zoom out", "#second")
    sights = {pane: sight_of(page, pane, marks_of(marked_index, panes[pane])) for pane in panes}
    before = um_per_px(page, "#second")
    wait_for_scale(page, "#first", before)
    assert sights["#second"].scale == pytest.approx(2 * sights["#first"].scale, rel=0.02)

    start = centres(page, marked_index, panes)
    middle = np.array([page.locator("#second .deep-zoom").bounding_box()[side] for side in "xy"]) + 150
    drag(page, middle, middle + np.array([40, -30]))
    moved = {pane: end - start[pane] for pane, end in centres(page, marked_index, panes).items()}
    assert moved["#second"] == pytest.approx(np.array([-40, 30]) * before, abs=2 * before)
    assert moved["#first"] == pytest.approx(moved["#second"], abs=2 * before)

    view(page, "Zoom in", "#first")
    for pane in panes:
        wait_for_scale(page, pane, before / 2)


def test_unlinked_views_move_apart(page):
    compare(page, FINE_SLIDE, BOUNDED)
    page.get_by_role("button", name="Linked").click()
    before = um_per_px(page, "#second")
    wait_for_scale(page, "#first", before)
    view(page, "Zoom in", "#first")
    wait_for_scale(page, "#first", before / 2)
    assert um_per_px(page, "#second") == before
    page.keyboard.press("l")
    wait_for_scale(page, "#second", before / 2)


def test_a_matched_pair_that_is_pointed_at_is_framed_in_both_slides(page):
    compare(page, FINE_SLIDE, BOUNDED)
    page.locator(f'li.hit[data-slide="{BOUNDED}"] .pair').first.hover()
    for pane in ("#first", "#second"):
        page.locator(f"{pane} .layer-pair rect").wait_for(state="attached")
    page.mouse.move(5, 5)
    page.locator("#second .layer-pair rect").wait_for(state="detached")


def test_a_link_restores_slide_view_turn_mirror_and_box_in_another_page(page, browser, service, marked_index):
    open_slide(page, BOUNDED)
    view(page, "Zoom out")
    turn(page, 30)
    view(page, "Mirror")
    marks = marks_of(marked_index, BOUNDED)
    sight = sight_of(page, "#first", marks, mirrored=True)
    page.get_by_role("button", name="Draw a box").first.click()
    question, _ = asked(page, lambda: drag(page, *sight.to_screen(marks)))
    page.wait_for_url(re.compile("box=.*30"))
    link = page.url

    with clean_page(browser, service.origin, reduced_motion="reduce") as other:
        other.expected += page.expected
        other.goto(service.url)  # the cookie
        other.locator("#gallery").wait_for()
        other.goto("about:blank")
        other.goto(link)
        other.locator("#first .scale-bar[data-um-per-px]").wait_for()
        again = sight_of(other, "#first", marks, mirrored=True)
        assert again.to_screen(marks) == pytest.approx(sight.to_screen(marks), abs=3)
        asked_again, _ = ask_for_all(other)
        assert asked_again == question


def test_a_link_to_a_hit_opens_it_with_its_frames(page):
    found = compare(page, FINE_SLIDE, BOUNDED)
    page.wait_for_url(re.compile(f"hit={BOUNDED}.*beside="))
    page.reload()
    page.locator("#second .scale-bar[data-um-per-px]").wait_for()
    frames = page.locator("#second .layer-frames rect")
    frames.first.wait_for(state="attached")
    places = {(float(one.get_attribute("x")), float(one.get_attribute("y"))) for one in frames.all()}
    assert places == {tuple(pair["xy"]) for pair in found["patches"]}


def test_the_link_can_be_copied(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_slide(page, BOUNDED)
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Copied.").wait_for()
    assert page.locator("body").evaluate("() => navigator.clipboard.readText()") == page.url


def test_back_and_forward_lead_through_slides_however_quick_the_steps_are(page):
    open_slide(page, BOUNDED)
    page.keyboard.press("g")
    open_slide(page, FINE_SLIDE)
    page.reload()
    page.get_by_role("application", name=re.compile(f"^{FINE_SLIDE}")).wait_for()
    page.go_back()
    page.get_by_role("region", name="Slides").wait_for()
    page.go_back()
    page.get_by_role("application", name=re.compile(f"^{BOUNDED}")).wait_for()
    page.go_forward()
    page.go_forward()
    page.get_by_role("application", name=re.compile(f"^{FINE_SLIDE}")).wait_for()
