"""The page in a real browser: what a person does, and what the library answers."""

import pytest
from browsers import browsing, clean_page
from served import served

import sish

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def index(built_index):
    return sish.Index.open(built_index)


@pytest.fixture(scope="module")
def service(built_index):
    with served(sish.Index.open(built_index)) as service:
        yield service


@pytest.fixture(scope="module")
def browser():
    with browsing() as browser:
        yield browser


@pytest.fixture
def page(browser, service):
    with clean_page(browser, service.origin) as page:
        page.goto(service.url)
        yield page


def test_the_token_leaves_the_address_and_the_page_shows_the_slides(page, service, index):
    page.get_by_text(f"{len(index)} slides").first.wait_for()
    assert service.token not in page.url
    page.reload()  # by the cookie now
    page.get_by_text(index.slides[0].slide_id, exact=True).first.wait_for()
