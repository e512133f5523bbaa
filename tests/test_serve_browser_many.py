"""More than a thousand slides, given as vectors: few are in the page at a time, and none has pictures."""

import numpy as np
import pytest
from browsers import clean_page
from served import served
from steps import ask_for_all, ids, shown_ids

import sish

pytestmark = pytest.mark.slow

N_SLIDES = 1200


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> sish.Index:
    """An index of slides in four groups, two vectors a slide."""
    rng = np.random.default_rng(0)
    group = np.arange(N_SLIDES) % 4
    vectors = np.eye(4, 32)[group] * 4 + rng.normal(0, 1, (N_SLIDES, 32))
    names = [f"slide-{number:04}" for number in range(N_SLIDES)]
    return sish.Index.from_vectors(
        tmp_path_factory.mktemp("many") / "many.sish",
        np.repeat(vectors, 2, axis=0).astype(np.float32),
        np.repeat(names, 2),
        labels={name: f"group {number}" for name, number in zip(names, group, strict=True)},
        show_progress=False,
    )


@pytest.fixture
def page(browser, many):
    with served(many) as service, clean_page(browser, service.origin, reduced_motion="reduce") as page:
        page.goto(service.url)
        page.get_by_text("1,200 slides", exact=True).first.wait_for()
        yield page


def test_few_of_many_slides_are_in_the_page_and_keys_reach_all(page, many):
    cells = page.get_by_role("gridcell")
    cells.first.wait_for()
    page.keyboard.press("/")
    page.keyboard.press("Enter")
    for key, wanted in (("Control+End", 1199), ("ArrowLeft", 1198), ("Control+Home", 0), ("ArrowRight", 1)):
        page.keyboard.press(key)
        page.locator(f'[role=gridcell][title="slide-{wanted:04}"]:focus').wait_for()
        assert cells.count() < 100
    page.keyboard.press("Enter")
    page.get_by_role("group", name="slide-0001 cannot be shown").wait_for()
    ask_for_all(page)
    assert shown_ids(page) == ids(many.search("slide-0001", k=10, exclude_patient=True))


def test_the_wheel_brings_slides_that_were_not_there(page):
    first = page.get_by_role("grid").get_by_title("slide-0000", exact=True)
    first.hover()
    page.mouse.wheel(0, 40_000)
    first.wait_for(state="detached")
    page.locator("[role=gridcell][title]").first.wait_for()
    assert page.locator("[role=gridcell][title]").first.get_attribute("title") > "slide-0100"
