"""What a person does on the page, step by step, for tests in a browser."""

import math
import re
from collections.abc import Callable

import numpy as np

import sish


def open_slide(page, slide_id: str) -> None:
    """Open a slide from the gallery, and wait until its picture is there."""
    page.locator("#gallery").get_by_title(slide_id, exact=True).click()
    page.locator("#first .scale-bar[data-um-per-px]").wait_for()


def asked(page, act: Callable[[], object]) -> tuple[dict, dict]:
    """Do something that asks, and return the question and the answer once its hits are shown."""
    with page.expect_response(lambda answer: answer.url.endswith("/api/search")) as coming:
        act()
    found = coming.value.json()
    told = re.compile(rf"^{len(found['results'])} similar slide")
    page.locator("#answer-title").filter(has_text=told).wait_for()
    return coming.value.request.post_data_json, found


def ask_for_all(page) -> tuple[dict, dict]:
    """Press the button that asks for what the panel says, at first the whole slide."""
    return asked(page, page.get_by_role("button", name="Find similar slides").click)


def box_of(question: dict) -> sish.Box:
    """Return the box of a question, or of an example."""
    return sish.Box(*question["region"], angle=question.get("angle", 0))


def shown_ids(page) -> list[str]:
    """Return the ids of the hits in the panel, in their order."""
    return [card.get_attribute("data-slide") for card in page.locator("#answer li.hit").all()]


def ids(results) -> list[str]:
    """Return the ids of the library's hits."""
    return [hit.slide_id for hit in results]


def drag(page, start: np.ndarray, end: np.ndarray) -> None:
    """Drag with the mouse between two places of the screen."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    page.mouse.move(*start.tolist())
    page.mouse.down()
    page.mouse.move(*((start + end) / 2).tolist())
    page.mouse.move(*end.tolist())
    page.mouse.up()


def um_per_px(page, pane: str) -> float:
    """Return the scale that a pane shows."""
    return float(page.locator(f"{pane} .scale-bar").get_attribute("data-um-per-px"))


def wait_for_scale(page, pane: str, wanted: float) -> None:
    """Wait until a pane shows so many um per pixel of the screen."""
    for _ in range(100):
        if math.isclose(um_per_px(page, pane), wanted, rel_tol=1e-6):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{pane} shows {um_per_px(page, pane)} um/px; want {wanted}")


def view(page, name: str, pane: str = "#first") -> None:
    """Press a button that changes the view of a pane, such as Mirror."""
    page.locator(pane).get_by_role("button", name=name, exact=True).click()


def turn(page, degrees: int, pane: str = "#first") -> None:
    """Turn the slide in a pane."""
    angle = page.locator(pane).get_by_label("Turned by degrees")
    angle.fill(str(degrees))
    angle.press("Enter")
