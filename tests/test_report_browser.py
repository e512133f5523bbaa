"""The report in a real browser: what opens larger, what links lead to, and that its policy holds."""

import pytest
from browsers import browsing, clean_page

import sish

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(built_index, tmp_path_factory):
    index = sish.Index.open(built_index)
    path = tmp_path_factory.mktemp("report") / "report.html"
    return sish.write_report(index.search(index.slides[0].slide_id, k=3), path, index=index)


@pytest.fixture(scope="module")
def browser():
    with browsing() as browser:
        yield browser


@pytest.fixture
def page(browser, report):
    with clean_page(browser, f"file://{report.parent}") as page:
        page.goto(f"file://{report}")
        yield page


def test_a_click_shows_a_slide_larger_and_escape_returns_to_it(page):
    small = page.locator("#q1h2 > .look svg").bounding_box()
    page.locator("#q1h2 > .look .cover").click(position={"x": 5, "y": 5})
    view = page.locator("#q1h2-zoom")
    assert view.is_visible() and view.locator("svg").bounding_box()["width"] > 1.5 * small["width"]
    assert view.locator("use").bounding_box()["width"] > 1.5 * small["width"], "the picture is in it"
    page.keyboard.press("Escape")
    assert not view.is_visible()
    assert page.evaluate("document.activeElement.getAttribute('popovertarget')") == "q1h2-zoom"


def test_a_match_opens_larger_and_closes_by_keyboard(page):
    page.locator("#q1h1-match1 .cover").focus()
    page.keyboard.press("Enter")
    view = page.locator("#q1h1-patch1-zoom")
    assert view.is_visible()
    first, second = (use.bounding_box() for use in view.locator("use").all())
    assert first["width"] == second["width"] > 250 and first["y"] == second["y"], "side by side"
    page.keyboard.press("Enter")  # the button that closes it has the focus
    assert not view.is_visible()


def test_numbers_lead_to_the_frame_and_frames_to_the_pair(page):
    page.locator("#q1h3-match2 a.number").click()
    framed = page.locator("#q1h3 svg a:target rect:not(.halo)")
    assert framed.evaluate("it => parseFloat(getComputedStyle(it).strokeWidth)") > 4
    page.locator("#q1h3 svg a").first.click()
    assert page.locator("#q1h3 .pair:target").count() == 1
    page.locator("#q1h1-match1 p a:not(.number)").click()
    assert page.locator("#q1 .spot:target").evaluate("it => getComputedStyle(it).visibility") == "visible"
    place = page.locator("#q1 .spot:target rect:not(.halo)").bounding_box()
    assert 0 <= place["y"] < page.viewport_size["height"], "it is in view"


@pytest.mark.parametrize("width", [600, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 3 * 128) == (scheme == "light")


def test_on_paper_nothing_is_left_of_the_buttons(page):
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".cover:visible, .zoom:visible, nav:visible").count() == 0
    assert page.locator("#q1h1 image").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_the_policy_forbids_what_a_name_could_smuggle_in(browser, report, tmp_path):
    text = report.read_text(encoding="utf-8")
    evil = '<script>document.title = "run"</script><img src="x" onerror="document.title = \'run\'">'
    (tmp_path / "evil.html").write_text(text.replace("<main>", f"<main>{evil}"), encoding="utf-8")
    page = browser.new_page()
    said = []
    page.on("console", lambda line: said.append(line.text))
    page.goto(f"file://{tmp_path}/evil.html")
    assert page.title() == "Similar slides"
    assert sum("Content Security Policy" in line for line in said) >= 2, said
    page.close()
