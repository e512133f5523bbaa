"""Searches over HTTP: the same answers as in Python, progress, cancelling, and what is made of answers."""

import base64
import io
import json
import socket
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image
from served import client_of, served

import sish
from sish.serve import search_calls
from sish.serve.app import CALLS
from sish.serve.questions import question_of
from sish.serve.searches import MOST_KEPT
from sish.slides.slide import open_slide


@pytest.fixture(scope="module")
def index(built_index):
    return sish.Index.open(built_index)


@pytest.fixture(scope="module")
def service(built_index):
    with served(sish.Index.open(built_index)) as service:
        yield service


def named(it, index):
    """The same with ids for the names that stand for them."""
    if isinstance(it, str):
        return index.slides[int(it[1:])].slide_id if it.startswith("@") else it
    if isinstance(it, dict):
        return {name: named(value, index) for name, value in it.items()}
    if isinstance(it, list | tuple):
        return type(it)(named(value, index) for value in it)
    if isinstance(it, sish.Concept):
        sides = (
            [
                (named(mark.slide_id, index), mark.region) if mark.region else named(mark.slide_id, index)
                for mark in side
            ]
            for side in (it.positive, it.negative)
        )
        return sish.Concept(*sides, strength=it.strength)
    return it


def plain(results: sish.Results) -> dict:
    return json.loads(json.dumps(results.to_dict()))


BOX = [100, 150, 900, 800]


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({}, {}),
        ({"k": 3, "ranking": "similarity"}, {"k": 3, "ranking": "similarity"}),
        ({"region": BOX}, {"region": tuple(BOX)}),
        ({"region": BOX, "angle": 30}, {"region": sish.Box(*BOX, angle=30)}),
        ({"exclude_patient": True, "k": 8}, {"exclude_patient": True, "k": 8}),
        ({"where": {"site": ["colon", "skin"]}}, {"where": {"site": ["colon", "skin"]}}),
        ({"search": {"threshold": 100}}, {"search": {"threshold": 100}}),
        ({"k": None, "region": None}, {}),
        ({"relevant": ["@3"], "irrelevant": ["@5"]}, {"like": ["@3"], "unlike": ["@5"]}),
        (
            {"relevant": [{"slide_id": "@3", "region": BOX, "angle": 20}], "region": BOX},
            {"like": [("@3", sish.Box(*BOX, angle=20))], "region": tuple(BOX)},
        ),
        (
            {
                "concept": {
                    "positive": ["@3"],
                    "negative": [{"slide_id": "@5", "region": BOX}],
                    "strength": -0.4,
                }
            },
            {"concept": sish.Concept(["@3"], [("@5", tuple(BOX))], -0.4)},
        ),
    ],
)
def test_an_answer_is_that_of_index_search(client, index, asked, options):
    """A name that begins with @ stands for the id of the slide of that number."""
    slide = index.slides[1].slide_id
    asked, options = (named(it, index) for it in (asked, options))
    answer = client.post("/api/search", json={"slide_id": slide, **asked})
    assert answer.status_code == 200
    assert answer.json() == plain(index.search(slide, **options))


def test_an_image_is_a_query(client, index):
    row = index.slides[2]
    with open_slide(row.path) as slide:
        pixels = slide.read((200, 200), 700, slide.mpp)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    url = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    answer = client.post("/api/search", json={"image": url, "mpp": row.mpp, "k": 4})
    assert answer.json() == plain(index.search(pixels, mpp=row.mpp, k=4))


WRONG = [
    ({}, "want one of the two"),
    ({"slide_id": "a", "image": "b"}, "want one of the two"),
    ({"slide_id": 5}, "the id of a slide"),
    ({"slide": "a"}, "nearest: 'slide_id'"),
    ({"slide_id": "a", "mpp": 1}, "with an image only"),
    ({"image": "data:image/png;base64,AAAA", "mpp": 0.5}, "the image"),
    ({"image": "data:image/png;base64,AAA?", "mpp": 0.5}, "base64"),
    ({"image": "http://evil.example/a.png", "mpp": 0.5}, "data URL"),
    ({"image": "data:image/png;base64,AAAA"}, "scale"),
    ({"slide_id": "a", "k": 0}, "k=0"),
    ({"slide_id": "a", "k": True}, "k=True"),
    ({"slide_id": "a", "k": 1001}, "from 1 to 1000"),
    ({"slide_id": "a", "region": [1, 2, 3]}, "region"),
    ({"slide_id": "a", "region": [1, 2, "3", 4]}, "region"),
    ({"slide_id": "a", "region": [0, 0, 5, 5], "angle": "x"}, "angle"),
    ({"slide_id": "a", "where": ["site"]}, "where"),
    ({"slide_id": "a", "exclude_patient": "yes"}, "exclude_patient"),
    ({"slide_id": "a", "relevant": "b"}, "relevant"),
    ({"slide_id": "a", "irrelevant": [{"id": 1}]}, "irrelevant"),
    ({"slide_id": "a", "concept": ["b"]}, "concept"),
    ({"slide_id": "a", "concept": {"positive": ["b"], "negative": []}}, "negative"),
    ({"slide_id": "a", "concept": {"positive": ["b"], "negative": ["c"], "strength": 2}}, "strength"),
    ({"slide_id": "a", "relevant": 0}, "relevant"),
    ({"slide_id": "a", "relevant": [{"slide_id": "b", "box": [0, 0, 5, 5]}]}, "relevant"),
    ({"slide_id": "a", "relevant": "b" * 9999}, "relevant"),
    ({"image": "data:image/png;base64,é", "mpp": 0.5}, "base64"),
    ({"image": "data:image/png;base64,AAAA", "mpp": 10**400}, "scale"),
    ({"image": "data:image/png;base64,AAAA", "mpp": float("nan")}, "scale"),
    ([], "no JSON object"),
    ("text", "no JSON object"),
]


@pytest.mark.parametrize(("body", "why"), WRONG)
def test_bad_questions_are_told_in_one_line(client, body, why):
    answer = client.post("/api/search", content=json.dumps(body))  # NaN, too
    assert answer.status_code == 400 and why in answer.json()["error"]
    assert "\n" not in answer.json()["error"] and "/tmp" not in answer.json()["error"]
    assert len(answer.json()["error"]) < 300


@pytest.mark.parametrize("depth", [*range(900, 1000, 9), 100_000])
def test_bodies_that_are_nested_too_deep(client, depth):
    nested = b"[" * depth + b"]" * depth
    for body in (nested, b'{"slide_id": "a", "relevant": ' + nested + b"}", b'{"k": ' + nested + b"}"):
        assert client.post("/api/search", content=body).status_code == 400


def test_errors_repeat_little_of_what_was_sent(client):
    answer = client.post("/api/search", json={"slide_id": "x" * 1_000_000})
    assert answer.status_code == 404 and len(answer.content) < 2000
    assert answer.json()["error"].endswith("which is not in the index")


def test_a_refused_question_has_failed(client):
    for body in (b"{", b'{"slide_id": "not-there"}', b'{"image": "data:image/png;base64,AAAA", "mpp": 1}'):
        client.post("/api/search", content=body, headers={"X-Search-Id": "refused-1"})
        assert client.get("/api/searches/refused-1").json()["state"] == "failed"


def test_an_answer_outlives_refused_questions_and_heatmaps_of_it(client, index):
    ids = [row.slide_id for row in index.slides]
    client.post("/api/search", json={"slide_id": ids[0]}, headers={"X-Search-Id": "keep-this"})
    for number in range(MOST_KEPT + 1):
        client.post("/api/search", content=b"{", headers={"X-Search-Id": f"bad-{number:05}"})
        if number % 2:
            got = client.get(f"/api/slides/{ids[0]}/heatmap", params={"search": "keep-this"})
            assert got.status_code == 200
    assert client.get("/api/searches/keep-this/hits.csv").status_code == 200


def test_marks_given_again_and_again_hold_nobody_up(client, index, monkeypatch):
    asked = []
    real = search_calls.row_named

    async def counted(archive, slide_id):
        asked.append(slide_id)
        return await real(archive, slide_id)

    monkeypatch.setattr(search_calls, "row_named", counted)
    ids = [row.slide_id for row in index.slides]
    body = {"slide_id": ids[0], "relevant": [ids[1]] * 1000}
    assert client.post("/api/search", json=body).status_code == 200 and asked == ids[:2]


def test_questions_that_only_the_index_can_refuse(client):
    slide = client.get("/api/slides").json()["slides"][0]["slide_id"]
    for extra in (
        {"ranking": "best"},
        {"where": {"colour": "red"}},
        {"region": [10**7, 0, 100, 100]},
        {"search": {"budgt": 1}},
    ):
        answer = client.post("/api/search", json={"slide_id": slide, **extra})
        assert answer.status_code == 400 and answer.json()["error"]
    assert client.post("/api/search", json={"slide_id": "not-there"}).status_code in (404, 410)
    assert client.post("/api/search", content=b"{").status_code == 400
    assert (
        client.post("/api/search", json={"slide_id": slide}, headers={"X-Search-Id": "a b"}).status_code
        == 400
    )


def test_slide_ids_are_no_paths(client, index):
    """A file of the machine is no query, though `Index.search` takes paths."""
    answer = client.post("/api/search", json={"slide_id": index.slides[0].path})
    assert answer.status_code == 404 and "not in the index" in answer.json()["error"]
    marked = {"slide_id": index.slides[0].slide_id, "relevant": [index.slides[1].path]}
    assert client.post("/api/search", json=marked).status_code == 404


def test_ids_that_are_names_of_files_here_are_ids(built_index, tmp_path, monkeypatch):
    """The folder in which the server was started is nobody's business."""
    monkeypatch.chdir(tmp_path)
    index = sish.Index.open(built_index)
    slide, other = (row.slide_id for row in index.slides[:2])
    marked = {"slide_id": other, "region": BOX}
    bodies = [
        {"slide_id": slide},
        {"slide_id": slide, "region": BOX},
        {"slide_id": slide, "relevant": [marked], "concept": {"positive": [marked], "negative": [slide]}},
    ]
    with served(index) as service, client_of(service) as client:
        before = [client.post("/api/search", json=body).json() for body in bodies]
        for name in (slide, other):
            (tmp_path / name).write_text("no slide")
        assert [client.post("/api/search", json=body).json() for body in bodies] == before
    assert all(answer["results"] for answer in before)


def test_an_answer_can_be_taken_along(client, index):
    slide = index.slides[0].slide_id
    answer = client.post(
        "/api/search", json={"slide_id": slide, "k": 3}, headers={"X-Search-Id": "mine-mine"}
    )
    assert answer.headers["x-search-id"] == "mine-mine"
    assert client.get("/api/searches/mine-mine").json()["state"] == "done"
    table = client.get("/api/searches/mine-mine/hits.csv")
    assert len(table.text.strip().splitlines()) == 4 and "attachment" in table.headers["content-disposition"]
    page = client.get("/api/searches/mine-mine/report.html")
    assert page.text.startswith("<!doctype html>") and slide in page.text
    files = zipfile.ZipFile(
        io.BytesIO(client.get("/api/searches/mine-mine/geojson.zip?origin=slide").content)
    )
    assert len(files.namelist()) == 3 and all(json.loads(files.read(it)) for it in files.namelist())
    assert client.get("/api/searches/mine-mine/geojson.zip?origin=x").status_code == 400
    assert client.get("/api/searches/mine-mine/other").status_code == 404
    assert client.get("/api/searches/not-there/hits.csv").status_code == 404


def test_a_heatmap_is_that_of_the_index(client, index):
    slide, other = index.slides[0].slide_id, index.slides[3].slide_id
    asked = {"slide_id": slide, "region": BOX}
    name = client.post("/api/search", json=asked).headers["x-search-id"]
    for _ in range(2):  # the second time from kept codes
        heat = client.get(f"/api/slides/{other}/heatmap?search={name}")
        wanted = index.heatmap(other, index.search(slide, region=tuple(BOX)))
        assert heat.json() == json.loads(json.dumps(wanted.to_dict()))
    assert client.get(f"/api/slides/{other}/heatmap?search=none-such").status_code == 404


def test_an_explanation_is_that_of_the_index(client, index):
    slide = index.slides[0].slide_id
    results = index.search(slide, k=3)
    name = client.post("/api/search", json={"slide_id": slide, "k": 3}).headers["x-search-id"]
    for hit in (*results, index.slides[-1]):
        told = client.get(f"/api/searches/{name}/explain?slide_id={hit.slide_id}").json()
        assert told == json.loads(json.dumps(index.explain(results, hit.slide_id).to_dict()))
    assert client.get(f"/api/searches/{name}/explain?slide_id=not-there").status_code == 404


class Held:
    """An index whose searches wait for a sign after each step."""

    def __init__(self, index, monkeypatch):
        self.begun, self.ended, self.go_on = threading.Event(), threading.Event(), threading.Event()
        real = index.search

        def search(*given, on_progress, **options):
            try:
                on_progress(0, 2)
                self.begun.set()
                self.go_on.wait(20)
                on_progress(1, 2)
                return real(*given, on_progress=on_progress, **options)
            finally:
                self.ended.set()

        monkeypatch.setattr(index, "search", search)


def test_progress_is_told_and_a_search_can_be_cancelled(built_index, monkeypatch):
    index = sish.Index.open(built_index)
    held = Held(index, monkeypatch)
    with served(index) as service, client_of(service) as client:
        answers = []

        def ask():
            with client_of(service) as own:
                body, head = {"slide_id": index.slides[0].slide_id}, {"X-Search-Id": "cancel-me"}
                answers.append(own.post("/api/search", json=body, headers=head))

        thread = threading.Thread(target=ask)
        thread.start()
        assert held.begun.wait(20)
        assert client.get("/api/searches/cancel-me").json() == {"state": "running", "done": 0, "total": 2}
        client.delete("/api/searches/cancel-me")
        held.go_on.set()
        thread.join(20)
        assert answers[0].status_code == 409 and "cancelled" in answers[0].json()["error"]
        assert client.get("/api/searches/cancel-me").json()["state"] == "cancelled"
        assert client.get("/api/searches/cancel-me/hits.csv").status_code == 404
        again = client.post("/api/search", json={"slide_id": index.slides[0].slide_id})
        assert again.status_code == 200


def test_a_search_can_be_watched_and_cancelled_while_its_question_is_read(built_index, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(body):
        begun.set()
        go_on.wait(20)
        return question_of(body)

    monkeypatch.setattr(search_calls, "question_of", slow)
    index = sish.Index.open(built_index)
    with served(index) as service, client_of(service) as client, ThreadPoolExecutor() as pool:
        body, head = {"slide_id": index.slides[0].slide_id}, {"X-Search-Id": "slow-to-read"}
        answer = pool.submit(client.post, "/api/search", json=body, headers=head)
        assert begun.wait(20)
        assert client.get("/api/searches/slow-to-read").json()["state"] == "waiting"
        client.delete("/api/searches/slow-to-read")
        go_on.set()
        assert answer.result(20).status_code == 409


def test_searches_that_wait_for_their_turn_can_be_cancelled(built_index, monkeypatch):
    index = sish.Index.open(built_index)
    held = Held(index, monkeypatch)
    box = {"slide_id": index.slides[0].slide_id, "region": BOX}
    with served(index) as service, client_of(service) as client, ThreadPoolExecutor(3) as pool:

        def ask(name):
            with client_of(service) as own:
                return own.post("/api/search", json=box, headers={"X-Search-Id": name})

        names = ("first-one", "second-one")
        first = [pool.submit(ask, name) for name in names]
        while [client.get(f"/api/searches/{name}").json().get("state") for name in names] != ["running"] * 2:
            time.sleep(0.05)
        third = pool.submit(ask, "third-one")
        while client.get("/api/searches/third-one").status_code == 404:
            time.sleep(0.05)
        client.delete("/api/searches/third-one")
        assert third.result(10).status_code == 409, "while the first two still run"
        assert client.get("/api/searches/third-one").json()["state"] == "cancelled"
        held.go_on.set()
        assert [answer.result(20).status_code for answer in first] == [200, 200]
        assert ask("fourth-one").status_code == 200


def test_who_leaves_while_sending_leaves_no_traceback(built_index, capfd):
    with served(sish.Index.open(built_index)) as service:
        port = int(service.origin.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as half:
            half.sendall(
                f"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 99\r\n"
                f"Authorization: Bearer {service.token}\r\nX-Search-Id: half-sent\r\n\r\n{{".encode()
            )
            time.sleep(0.3)
        with client_of(service) as client:
            for _ in range(100):
                if client.get("/api/searches/half-sent").json().get("state") == "failed":
                    break
                time.sleep(0.05)
            else:
                raise AssertionError("the search still waits for its question")
    assert "Traceback" not in capfd.readouterr().err


def test_a_search_whose_asker_left_is_cancelled(built_index, monkeypatch):
    index = sish.Index.open(built_index)
    held = Held(index, monkeypatch)
    with served(index) as service:
        head = {"Authorization": f"Bearer {service.token}", "X-Search-Id": "left-alone"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                service.origin + "/api/search",
                json={"slide_id": index.slides[0].slide_id}, headers=head, timeout=1.0,
            )  # fmt: skip
        time.sleep(0.6)  # the server looks every quarter of a second
        held.go_on.set()
        assert held.ended.wait(20)
        with client_of(service) as client:
            for _ in range(100):
                state = client.get("/api/searches/left-alone").json()["state"]
                if state != "running":
                    break
                time.sleep(0.05)
            assert state == "cancelled"


def test_old_answers_are_forgotten(client):
    slide = client.get("/api/slides").json()["slides"][0]["slide_id"]
    for number in range(MOST_KEPT + 1):
        head = {"X-Search-Id": f"number-{number:03}"}
        client.post("/api/search", json={"slide_id": slide, "k": 1}, headers=head)
    assert client.get("/api/searches/number-000").status_code == 404
    assert client.get("/api/searches/number-001").status_code == 200


def test_many_ask_at_once_and_each_gets_its_own_answer(service, index):
    wanted = {row.slide_id: plain(index.search(row.slide_id, k=4)) for row in index.slides}
    wrong = []

    def ask(slide):
        with client_of(service) as client:
            for region in (None, BOX):
                answer = client.post("/api/search", json={"slide_id": slide, "k": 4, "region": region})
                if answer.status_code != 200 or (region is None and answer.json() != wanted[slide]):
                    wrong.append((slide, answer.text))

    threads = [threading.Thread(target=ask, args=(slide,)) for slide in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_description_names_every_call_and_field(client):
    told = client.get("/api/openapi.json").json()
    assert {(method.upper(), path) for path, methods in told["paths"].items() for method in methods} == {
        (call.method, call.path) for call in CALLS
    }
    body = told["paths"]["/api/search"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for name in body["properties"]:
        with pytest.raises(sish.SishError) as refused:
            question_of({name: object()})
        assert "got a field" not in str(refused.value)
    assert client.get("/api/docs").status_code == 200


def test_an_index_of_vectors_takes_no_images(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32)
    index = sish.Index.from_vectors(
        tmp_path / "a.sish", vectors, np.repeat(["a", "b", "c"], 20), show_progress=False
    )
    with served(index) as service, client_of(service) as client:
        assert client.get("/api/info").json()["takes_images"] is False
        found = client.post("/api/search", json={"slide_id": "b", "k": 2})
        assert found.json() == plain(index.search("b", k=2))
        for rest, status in (("/thumbnail", 410), ("/tiles/0/0_0.jpg", 410), ("/patch?x=0&y=0", 410)):
            assert client.get(f"/api/slides/b{rest}").status_code == status
        assert client.get("/api/slides/b/mosaic").json() == {"patch_l0_px": None, "patches": []}
        boxed = client.post("/api/search", json={"slide_id": "b", "region": [0, 0, 9, 9]})
        assert boxed.status_code == 400 and "given as vectors" in boxed.json()["error"]
