"""Who may come in: the token, the hosts, other origins, bodies, and the headers of every answer."""

import http.client
import re
from pathlib import Path

import httpx
import pytest
from served import served

import sish
from sish.serve import guard, server
from sish.serve.archive import UPLOAD_BYTES

PAGE = Path(guard.__file__).with_name("page")


@pytest.fixture(scope="module")
def service(built_index):
    with served(sish.Index.open(built_index)) as service:
        yield service


PATHS = ("/", "/page/main.js", "/api/info", "/api/slides", "/api/docs", "/api/openapi.json", "/nothing")


@pytest.mark.parametrize("path", PATHS)
def test_nobody_comes_in_without_the_token(service, path):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"{service.origin}=x"}):
        answer = httpx.get(service.origin + path, headers=headers)
        assert answer.status_code == 401 and "sish serve printed" in answer.text


def test_a_wrong_token_in_the_address_sets_no_cookie(service):
    answer = httpx.get(service.origin + "/?token=" + service.token[:-1])
    assert answer.status_code == 401 and "set-cookie" not in answer.headers


def test_the_token_in_the_address_becomes_a_cookie_of_this_site_alone(service):
    with httpx.Client(base_url=service.origin) as browser:
        first = browser.get(service.url)
        assert first.status_code == 200 and "text/html" in first.headers["content-type"]
        assert re.search(r"HttpOnly; SameSite=Strict$", first.headers["set-cookie"])
        assert browser.get("/api/info").json()["n_slides"] == 8  # by the cookie
    assert (
        httpx.get(service.origin + "/api/info?token=" + service.token).status_code == 401
    )  # first page only


def test_a_foreign_host_is_refused(service):
    port = int(service.origin.rpartition(":")[2])
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.putrequest("GET", "/api/info", skip_host=True)
        connection.putheader("Host", host)
        connection.putheader("Authorization", f"Bearer {service.token}")
        connection.endheaders()
        assert connection.getresponse().status == 400
        connection.close()


def test_names_of_a_proxy_are_taken(built_index):
    door = guard.Door.of("t", [*server.LOOPBACK, "Slides.example"], 80, 1)
    assert {"slides.example", "slides.example:80", "localhost"} <= door.hosts


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {
            "Origin": "http://127.0.0.1:1"
        },  # another server of this machine is the same site, so it has the cookie
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_origin_cannot_ask(client, service, headers):
    slide = client.get("/api/slides").json()["slides"][0]["slide_id"]
    asked = {"slide_id": slide, "k": 1}
    assert client.post("/api/search", json=asked, headers=headers).status_code == 403
    own = {"Origin": service.origin, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/search", json=asked, headers=own).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_the_headers_of_safety(client, path):
    headers = client.get(path).headers
    assert headers["content-security-policy"] == guard.POLICY
    assert "unsafe" not in guard.POLICY and "default-src 'none'" in guard.POLICY
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


def test_bodies_are_bounded_whatever_they_say_of_their_length(client):
    def pieces():
        for _ in range(UPLOAD_BYTES // (1 << 20) + 2):
            yield b" " * (1 << 20)

    assert client.post("/api/search", content=b" " * (UPLOAD_BYTES + 1)).status_code == 413
    assert client.post("/api/search", content=pieces()).status_code == 413
    assert client.get("/api/info").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/..%2fapp.py",
        "/api/slides/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/api/slides/..%2F..%2Fetc%2Fpasswd/tiles/0/0_0.jpg",
        "/api/slides/%00",
        "/page/",
    ],
)
def test_no_path_leads_out(client, path):
    request = client.build_request("GET", "/")
    request.url = request.url.copy_with(raw_path=path.encode())
    answer = client.send(request)
    assert answer.status_code == 404 and "root:" not in answer.text


def test_the_vendored_viewer_is_the_published_one_and_its_style_is_allowed():
    import hashlib

    script = (PAGE / "vendor" / "openseadragon.min.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() == (
        "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad"
    )
    assert script.startswith(b"//! openseadragon 6.1.1")
    assert guard.OPENSEADRAGON_STYLE.encode() in script
    assert "Redistributions" in (PAGE / "vendor" / "openseadragon.LICENSE.txt").read_text()


@pytest.mark.parametrize("path", sorted(PAGE.glob("*.js")), ids=lambda path: path.name)
def test_modules_are_short_and_make_no_code_of_text(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 200
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?:",
        text.replace("http://www.w3.org/2000/svg", ""),
    )


@pytest.mark.parametrize("path", sorted(PAGE.glob("*.html")), ids=lambda path: path.name)
def test_pages_have_nothing_inline_and_nothing_from_elsewhere(path):
    text = path.read_text()
    assert not re.search(r"\bon\w+=|\bstyle=|<style|https?:|//\w", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
