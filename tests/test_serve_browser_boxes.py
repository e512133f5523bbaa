"""Boxes on a slide: drawn in any view, by mouse or by keys, each is the very box that is asked for."""

import numpy as np
import pytest
from marked_slides import BOUNDED, marks_of
from sights import sight_of
from steps import asked, box_of, drag, ids, open_slide, shown_ids, turn, view

pytestmark = pytest.mark.slow

FINE_SLIDE = "glandular-02"


@pytest.mark.parametrize(
    ("slide_id", "degrees", "mirrored"),
    [(BOUNDED, 0, False), (BOUNDED, 90, True), (BOUNDED, 30, False), (FINE_SLIDE, -25, True)],
)
def test_a_box_drawn_between_two_marks_is_asked_for(page, marked_index, slide_id, degrees, mirrored):
    open_slide(page, slide_id)
    view(page, "Zoom out")
    turn(page, degrees)
    if mirrored:
        view(page, "Mirror")
    marks = marks_of(marked_index, slide_id)
    sight = sight_of(page, "#first", marks, mirrored)
    page.get_by_role("button", name="Draw a box").first.click()
    question, _ = asked(page, lambda: drag(page, *sight.to_screen(marks)))
    box = box_of(question)
    assert question["slide_id"] == slide_id
    assert box.is_turned == (degrees % 90 != 0)
    near = 2 / sight.scale  # two pixels of the screen
    for mark in marks:
        assert np.abs(box.corners - mark).max(axis=1).min() < near
    wanted = marked_index.search(slide_id, region=box, k=10, exclude_patient=True)
    assert shown_ids(page) == ids(wanted)


def test_a_box_is_made_moved_resized_and_turned_by_keys_alone(page, marked_index):
    open_slide(page, BOUNDED)
    sight = sight_of(page, "#first", marks_of(marked_index, BOUNDED))
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    question, _ = asked(page, lambda: page.keyboard.press("Enter"))
    middle = box_of(question)

    for keys in ("b", "ArrowRight", "ArrowRight", "ArrowDown", "Shift+ArrowRight", "]", "]"):
        page.keyboard.press(keys)
    question, _ = asked(page, lambda: page.keyboard.press("Enter"))
    box = box_of(question)
    moved = (box.centre - middle.centre) * sight.scale
    assert moved[0] == pytest.approx(2 * moved[1], abs=2) and moved[1] > 5
    assert box.width > middle.width and abs(box.height - middle.height) <= 1
    assert middle.angle == 0 and box.angle == 10
    wanted = marked_index.search(BOUNDED, region=box, k=10, exclude_patient=True)
    assert shown_ids(page) == ids(wanted)


def test_escape_stops_drawing_and_a_click_draws_nothing(page):
    open_slide(page, BOUNDED)
    draw = page.get_by_role("button", name="Draw a box").first
    draw.click()
    surface = page.locator("#first .draw-surface")
    surface.click()
    assert draw.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    surface.wait_for(state="hidden")
    assert draw.get_attribute("aria-pressed") == "false"
    assert page.locator("#panel").get_by_label("Whole slide").is_checked()
    assert not page.locator("#answer").is_visible()


def test_a_drawn_box_is_dragged_by_its_edge_and_asked_for_again(page, marked_index):
    open_slide(page, BOUNDED)
    marks = marks_of(marked_index, BOUNDED)
    sight = sight_of(page, "#first", marks)
    quarter, middle = marks[0] + (marks[1] - marks[0]) / 4, marks.mean(axis=0)
    page.get_by_role("button", name="Draw a box").first.click()
    question, _ = asked(page, lambda: drag(page, *sight.to_screen(np.array([quarter, middle]))))
    before = box_of(question)
    edge = sight.to_screen(np.array([[(quarter[0] + middle[0]) / 2, middle[1]]]))[0]
    question, _ = asked(page, lambda: drag(page, edge, edge + np.array([30, 20])))
    box = box_of(question)
    assert (box.centre - before.centre) * sight.scale == pytest.approx([30, 20], abs=2)
    assert (box.width, box.height) == pytest.approx((before.width, before.height), abs=2)
    assert shown_ids(page) == ids(marked_index.search(BOUNDED, region=box, k=10, exclude_patient=True))
