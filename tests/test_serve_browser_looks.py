"""Every view at two widths, light and dark: nothing is too wide, covered, pale or nameless."""

import re
import shutil

import pytest
from browsers import clean_page
from looks import covered, overflow, pale, without_name
from marked_slides import BOUNDED, GONE
from served import served
from steps import ask_for_all, open_slide

import sish

pytestmark = pytest.mark.slow

WIDTHS = {1280: 800, 1920: 1080}
"""Widths of windows, and their heights."""
FOLDED = "#panel details:not([open]) > summary"
FINE_SLIDE = "squamous-02"


def problems(page) -> dict[str, list[str]]:
    """Return what is wrong with what the page shows, at both widths and in both themes."""
    found = {}
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(100)  # for what watches sizes
        found[f"wider than {width}"] = [f"{overflow(page)} px"] if overflow(page) else []
        found[f"covered at {width}"] = covered(page)
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme)
        found[f"pale when {theme}"] = pale(page)
    found["without a name"] = without_name(page)
    return {what: those for what, those in found.items() if those}


def test_every_view_can_be_seen_read_and_named(page):
    wrong = {}
    page.get_by_text("12 slides", exact=True).first.wait_for()
    wrong["gallery"] = problems(page)
    page.keyboard.press("?")
    wrong["help"] = problems(page)
    page.keyboard.press("Escape")
    page.keyboard.press("m")
    page.locator(".map-told").filter(has_text="12 slides by").wait_for()
    wrong["map"] = problems(page)
    page.keyboard.press("g")
    open_slide(page, FINE_SLIDE)
    wrong["slide"] = problems(page)
    ask_for_all(page)
    wrong["answer"] = problems(page)
    page.get_by_role("button", name="Relevant", exact=True).first.click()
    page.get_by_role("button", name="Why here?").first.click()
    page.get_by_role("img", name=re.compile("^Histogram")).first.wait_for()
    page.get_by_role("button", name=re.compile(f"^Open hit .*{BOUNDED}")).click()
    page.locator("#second .scale-bar[data-um-per-px]").wait_for()
    for name in ("Heat", "Mosaic", "Tissue"):
        page.get_by_role("button", name=name, exact=True).click()
    page.locator("#second").get_by_text("tiles are within").wait_for()
    while page.locator(FOLDED).count():
        page.locator(FOLDED).first.click()
    wrong["compared"] = problems(page)
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    wrong["drawing"] = problems(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Search with an image").click()
    wrong["image"] = problems(page)
    page.keyboard.press("g")
    page.locator("#gallery").get_by_title(GONE, exact=True).click()
    page.get_by_role("group", name=f"{GONE} cannot be shown").wait_for()
    wrong["gone"] = problems(page)
    assert not {view: those for view, those in wrong.items() if those}


def ground(page) -> str:
    return page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")


def test_the_theme_is_chosen_by_a_button_and_kept(page):
    light = ground(page)
    page.get_by_role("button", name=re.compile("Dark$")).click()
    dark = ground(page)
    assert dark != light
    page.reload()
    page.get_by_role("button", name=re.compile("Light$")).wait_for()
    assert ground(page) == dark


def test_another_process_changes_the_archive_and_the_page_says_so(browser, marked_archive, tmp_path):
    own = tmp_path / "own.sish"
    shutil.copytree(marked_archive, own)
    with served(sish.Index.open(own)) as service, clean_page(browser, service.origin) as page:
        page.expected += [f"/api/slides/{slide_id}/thumbnail" for slide_id in (GONE, FINE_SLIDE)]
        page.clock.install()
        page.goto(service.url)
        page.get_by_text("12 slides", exact=True).first.wait_for()
        before = service.archive.index.generation
        sish.Index.open(own).remove([FINE_SLIDE])
        for _ in range(20):
            with page.expect_response("**/api/info") as looked:
                page.clock.fast_forward("00:11")  # the page looks every ten seconds
            if looked.value.json()["generation"] != before:
                break
        page.get_by_text("The archive changed: 12 slides became 11.").wait_for()
        page.get_by_text("11 slides", exact=True).first.wait_for()
        assert page.locator("#gallery").get_by_title(FINE_SLIDE, exact=True).count() == 0
