"""A real browser for tests, Chromium or one that is built on it, and a page that must stay clean."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """The program; without one the test is skipped, unless CI forbids that."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        say = pytest.fail if os.environ.get("SISH_TEST_EVERYTHING") else pytest.skip
        say(f"no browser: install one of {', '.join(NAMES)}")
    return found


@contextmanager
def browsing() -> Iterator["sync_api.Browser"]:
    """A browser."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def clean_page(browser, origin: str, **options) -> Iterator["sync_api.Page"]:
    """A page that, at its end, had no error, broke no policy, and asked no other machine for anything.

    Answers of an error's status are errors of the console, too: a test that wants one appends its path to
    `page.expected`.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
    page = context.new_page()
    page.set_default_timeout(20_000)
    wrong: list[str] = []
    page.expected = []
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda said: wrong.append(f"{said.type}: {said.text} ({said.location['url']})")
            if said.type in ("error", "warning") else None)  # fmt: skip
    page.on(
        "request", lambda asked: wrong.append(f"asked {asked.url}") if is_foreign(asked.url, origin) else None
    )
    try:
        yield page
        unexpected = [it for it in wrong if not any(path in it for path in page.expected)]
        assert not unexpected, "\n".join(unexpected)
    finally:
        context.close()


def is_foreign(url: str, origin: str) -> bool:
    """Whether a request leaves this server."""
    return not url.startswith((origin + "/", "data:", "blob:"))
