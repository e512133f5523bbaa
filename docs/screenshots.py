"""Make the pictures of docs/how-to/serve.md anew, from the archive of ``make demo``.

``python docs/screenshots.py demo/archive.sish`` needs the extras ``serve`` and ``test``, and Chromium.
"""

import io
import shutil
import sys
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from sish.serve.server import Address, Service
from sish.slide_index import Index

HERE = Path(__file__).parent
QUALITY = 88
SETTLE_MS = 2500  # until pictures have come and movements have ended


def save(page: Page, name: str) -> None:
    """Write what the page shows as a picture."""
    page.wait_for_timeout(SETTLE_MS)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(HERE / f"serve-{name}.webp", quality=QUALITY)


def take(page: Page) -> None:
    """Walk through the page and take a picture of each view."""
    page.locator("#gallery img").first.wait_for()
    save(page, "slides")
    page.get_by_role("button", name="Map").click()
    page.locator("#map.shown").wait_for()
    save(page, "map")
    page.get_by_role("button", name="Slides").first.click()
    page.get_by_role("searchbox", name="Search slides").fill("glandular-02")
    page.get_by_text("1 of ").first.wait_for()
    page.locator("#gallery img").first.click()
    page.wait_for_timeout(SETTLE_MS)
    page.get_by_role("button", name="Draw a box").click()
    surface = page.locator(".draw-surface").bounding_box()
    assert surface is not None
    x, y = surface["x"] + 0.3 * surface["width"], surface["y"] + 0.3 * surface["height"]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 250, y + 250, steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Open hit 1,").click()
    save(page, "ask")


def main(index: str) -> None:
    """Serve an index and take the pictures."""
    service = Service(Index.open(index), Address(port=0))
    threading.Thread(target=service.run, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(service.url)
        take(page)
    service.stop()


if __name__ == "__main__":
    main(sys.argv[1])
