"""The page in a real browser: from the archive to a hit, by mouse and by keyboard, and what is not there."""

import re

import numpy as np
import pytest
from marked_slides import BOUNDED, GONE, ODD
from steps import ask_for_all, asked, ids, open_slide, shown_ids

pytestmark = pytest.mark.slow

COUNT = "#gallery .gallery-count"
ALL_OF_MAP = 0.92  # share of its canvas that a map takes at first: see camera.js


def told(page, text: str) -> None:
    """Wait until the gallery says how many slides it shows."""
    page.locator(COUNT).filter(has_text=re.compile(rf"^{text}$")).wait_for()


def cards(page) -> list[str]:
    """Return the ids in the gallery, in their order."""
    return [cell.get_attribute("title") for cell in page.get_by_role("gridcell").all()]


def test_the_token_leaves_the_address_and_the_page_shows_the_slides(page, service, marked_index):
    told(page, "12 slides")
    assert service.token not in page.url
    page.reload()  # by the cookie now
    told(page, "12 slides")
    assert cards(page) == sorted(row.slide_id for row in marked_index.slides)


def test_without_the_cookie_there_is_no_page(browser, service):
    context = browser.new_context()
    answer = context.new_page().goto(service.origin)
    assert answer.status == 401
    context.close()


def test_words_and_filters_find_what_the_index_holds(page, marked_index):
    told(page, "12 slides")
    page.get_by_label("Search slides").fill("GIEMSA skin")
    told(page, "0 of 12 slides")
    page.get_by_label("Search slides").fill("giemsa")
    stained = sorted(row.slide_id for row in marked_index.slides if row.metadata["stain"] == "Giemsa")
    told(page, f"{len(stained)} of 12 slides")
    assert cards(page) == stained

    page.get_by_label("Search slides").fill("")
    told(page, "12 slides")
    for site in ("skin", "liver"):
        page.get_by_role("group", name="Site").get_by_label(site).check()
    told(page, "4 of 12 slides")
    wanted = sorted(row.slide_id for row in marked_index.slides if row.site in ("skin", "liver"))
    assert cards(page) == wanted
    page.get_by_role("button", name="Remove Site: liver").click()
    told(page, "2 of 12 slides")


def test_a_condition_on_numbers_is_that_of_the_library(page, marked_index):
    told(page, "12 slides")
    page.locator("summary", has_text="year").click()
    page.get_by_label("Find in year").or_(page.get_by_role("group", name="year")).first.wait_for()
    box = page.get_by_role("group", name="year").get_by_label("2014")
    box.check()
    told(page, "1 of 12 slides")
    assert cards(page) == [row.slide_id for row in marked_index.slides if row.metadata["year"] == "2014"]


def test_a_stranger_to_the_mouse_finds_a_hit(page, marked_index):
    """Search for the slide, open it, ask, go to the second hit, open it: by keys alone."""
    told(page, "12 slides")
    page.keyboard.press("/")
    page.keyboard.type("lymphoid")
    told(page, "2 of 12 slides")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#first .scale-bar[data-um-per-px]").wait_for()

    to(page, "Find similar slides")
    _, answer = asked(page, lambda: page.keyboard.press("Enter"))
    assert shown_ids(page) == ids(marked_index.search("lymphoid-01", k=10, exclude_patient=True))
    second = answer["results"][1]["slide_id"]
    to(page, re.compile("^Open hit 1"))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=re.compile(rf"^Hit 2 · {re.escape(second)}")).wait_for()
    page.keyboard.press("Escape")
    page.locator("#second").wait_for(state="hidden")


def to(page, name) -> None:
    """Press Tab until a button of this name has the focus."""
    button = page.get_by_role("button", name=name)
    for _ in range(80):
        page.keyboard.press("Tab")
        if button.count() and button.first.evaluate("button => button === document.activeElement"):
            return
    raise AssertionError(f"Tab does not lead to {name}")


def test_help_tells_the_keys_and_escape_closes_it(page):
    told(page, "12 slides")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("draw a box to search for").wait_for()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


def test_the_map_opens_the_slide_that_is_clicked(page, service):
    told(page, "12 slides")
    places = page.request.get(f"{service.origin}/api/map").json()
    page.keyboard.press("m")
    page.locator(".map-told").filter(has_text="12 slides by").wait_for()
    # the list beside the map holds the slides nearest to its middle; the keyboard opens them
    listed = page.get_by_role("list", name="Slides in the middle of the map").get_by_role("button")
    assert sorted(listed.all_inner_texts()) == sorted(places["slide_ids"])

    xy = np.array(places["xy"])
    alone = (np.hypot(*(xy[:, None] - xy).T) + 9 * np.eye(len(xy))).min(axis=0).argmax()
    box = page.get_by_role("application", name=re.compile("^Map of slides")).bounding_box()
    middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    pixel = middle + (xy[alone] - 0.5) * ALL_OF_MAP * min(box["width"], box["height"])
    page.mouse.move(*pixel.tolist())
    page.locator(".map-card .card-id", has_text=places["slide_ids"][alone]).wait_for()
    page.mouse.click(*pixel.tolist())
    page.locator("#slide").wait_for()
    assert page.title().startswith(places["slide_ids"][alone])


def test_a_slide_that_is_gone_shows_a_card_that_says_so(page, service, marked_index):
    told(page, "12 slides")
    page.get_by_title(GONE, exact=True).get_by_text("No picture").wait_for()
    page.locator("#gallery").get_by_title(GONE, exact=True).click()
    card = page.get_by_role("group", name=f"{GONE} cannot be shown")
    reason = page.request.get(f"{service.origin}/api/slides/{GONE}").json()["reason"]
    card.get_by_text(reason, exact=True).wait_for()
    assert page.get_by_role("button", name="Draw a box").first.is_disabled()
    ask_for_all(page)
    assert shown_ids(page) == ids(marked_index.search(GONE, k=10, exclude_patient=True))


def test_an_id_that_is_no_name_of_a_file_works_everywhere(page, marked_index):
    open_slide(page, ODD)
    ask_for_all(page)
    assert shown_ids(page) == ids(marked_index.search(ODD, k=10, exclude_patient=True))
    page.wait_for_url(re.compile("slide=block.*see="))
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    page.get_by_role("application", name=f"{ODD}: arrow keys").wait_for()


def test_facts_of_a_slide_can_be_read(page):
    open_slide(page, BOUNDED)
    page.get_by_text(f"About {BOUNDED}").click()
    page.get_by_role("row", name="stain H&E").wait_for()
    page.get_by_role("row", name="scale 0.5").wait_for()


def test_the_description_of_the_calls_is_a_page_of_its_own(page, service):
    calls = page.request.get(f"{service.origin}/api/openapi.json").json()["paths"]
    page.goto(f"{service.origin}/api/docs")
    for path in calls:
        page.get_by_text(path).first.wait_for()
