"""The page's parts that need no browser, run by Node: pages of slides, keys of the grid, camera, palette."""

import json
import subprocess
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright", reason="playwright, which brings Node.js, is not installed")
NODE = str(Path(playwright.__file__).with_name("driver") / "node")


def run(script: str) -> Any:
    """Return what a script prints as JSON; it imports the page's modules as "./name.js"."""
    page = str(resources.files("sish.serve").joinpath("page"))
    text = script.replace('"./', f'"file://{page}/')
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_slides_are_fetched_once_a_page_and_the_farthest_forgotten() -> None:
    made = run("""
        import { SlidePages } from "./slide_pages.js";
        const asked = [];
        globalThis.fetch = async (path) => {
          const words = new URLSearchParams(path.split("?")[1]);
          asked.push(path);
          const offset = Number(words.get("offset"));
          const slides = Array.from({ length: 100 }, (_, i) => ({ slide_id: `s${offset + i}` }));
          return { ok: true, json: async () => ({ total: 100000, slides }) };
        };
        const rest = () => new Promise((done) => setTimeout(done, 5));
        let came = 0;
        const where = { site: ["=lung"], age: [">=50", "==x"] };
        const pages = new SlidePages({ query: "a b", where }, () => came++, (error) => { throw error; });
        pages.want(90, 210);
        pages.want(95, 120);
        await rest();
        const first = [...asked];
        const at = [pages.at(0), pages.at(299)].map((slide) => slide.slide_id);
        for (let page = 10; page < 80; page++) { pages.want(page * 100, page * 100); await rest(); }
        const kept = Array.from({ length: 80 }, (_, page) => page).filter((page) => pages.at(page * 100));
        const none = pages.at(99999) ?? null;
        console.log(JSON.stringify({ first, came, at, total: pages.total, kept, none }));
    """)
    words = "query=a+b&where=age%3D%3E%3D50&where=age%3D%3D%3Dx&site=%3Dlung"
    assert made["first"] == [f"/api/slides?{words}&offset={offset}&limit=100" for offset in (0, 100, 200)]
    assert made["at"] == ["s0", "s299"]
    assert made["total"] == 100_000
    assert made["came"] == 73  # a call for each page that came
    assert made["kept"] == list(range(20, 80))
    assert made["none"] is None


def test_a_page_that_does_not_come_is_asked_for_again() -> None:
    made = run("""
        import { SlidePages } from "./slide_pages.js";
        let broken = true;
        globalThis.fetch = async () => {
          if (broken) throw new Error("no network");
          return { ok: true, json: async () => ({ total: 1, slides: [{ slide_id: "a" }] }) };
        };
        const failed = [];
        const fail = (error) => failed.push(error.message);
        const pages = new SlidePages({ query: "", where: {} }, () => {}, fail);
        const rest = () => new Promise((done) => setTimeout(done, 5));
        pages.want(0, 0); await rest();
        broken = false;
        pages.want(0, 0); await rest();
        console.log(JSON.stringify({ failed, id: pages.at(0).slide_id }));
    """)
    assert made == {"failed": ["no network"], "id": "a"}


@pytest.mark.parametrize(
    ("key", "ctrl", "at", "step"),
    [
        ("ArrowDown", False, 5, 4),
        ("ArrowLeft", False, 5, -1),
        ("Home", False, 6, -2),
        ("End", False, 5, 2),
        ("Home", True, 6, -6),
        ("End", True, 6, 93),
        ("PageDown", False, 5, 12),
        ("a", False, 5, None),
    ],
)
def test_keys_move_in_a_grid_of_four_columns(key: str, ctrl: bool, at: int, step: int | None) -> None:
    made = run(f"""
        import {{ stepOf }} from "./grid_keys.js";
        const place = {{ at: {at}, last: 99, columns: 4, rowsInView: 3 }};
        console.log(JSON.stringify(stepOf({{ key: "{key}", ctrlKey: {str(ctrl).lower()} }}, place)));
    """)
    assert made == step


def test_the_place_under_the_pointer_stays_there_when_the_map_is_zoomed() -> None:
    made = run("""
        import { Camera } from "./camera.js";
        const camera = new Camera({ clientWidth: 800, clientHeight: 600 }, () => {});
        const before = camera.place([650, 120]);
        camera.zoomBy(3, [650, 120]);
        const zoomed = camera.place([650, 120]);
        camera.moveBy(40, 0);
        const moved = camera.place([690, 120]);
        camera.reset();
        console.log(JSON.stringify({ before, zoomed, moved, whole: camera.place([400, 300]) }));
    """)
    assert made["zoomed"] == pytest.approx(made["before"])
    assert made["moved"] == pytest.approx(made["before"])
    assert made["whole"] == pytest.approx([0.5, 0.5])


def test_thirty_labels_have_thirty_marks_and_others_share_one() -> None:
    made = run("""
        import { Palette } from "./palette.js";
        const labels = Array.from({ length: 32 }, (_, i) => `label ${i}`);
        const palette = new Palette(labels);
        console.log(JSON.stringify([...labels, null].map((label) => palette.mark(label))));
    """)
    marks = [(mark["colour"], str(mark["corners"])) for mark in made]
    assert len(set(marks[:30])) == 30
    assert len(set(marks[30:])) == 1
    assert marks[30] not in marks[:30]
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in pairwise(marks[:30]))


QUESTION = """
    import { boxOf, draftOf, EMPTY, freshQuestion, inWords } from "./question.js";
    import { isReady, refinedQuestion } from "./question.js";
    import { get, set } from "./store.js";
    const box = { region: [10, 20, 300, 400], angle: 0 };
"""


def test_a_question_says_what_was_chosen_and_nothing_else() -> None:
    made = run(
        QUESTION
        + """
    const ask = (changes, state = {}) =>
        freshQuestion({ draft: { ...EMPTY, ...changes }, slideId: "a", box, ...state });
    console.log(JSON.stringify([
        ask({}),
        ask({ of: "box", k: 3, where: { site: ["lung"] }, exclude_patient: false }),
        ask({ of: "box" }, { box: { ...box, angle: 30 } }),
        ask({ of: "image", image: { url: "data:image/png;base64,AA==", mpp: 0.5, name: "x" } }),
        ask({ relevant: [{ slide_id: "b" }], positive: [{ slide_id: "c" }], negative: [{ slide_id: "d" }] }),
    ]));
    """
    )
    plain = {"k": 10, "ranking": "auto", "exclude_patient": True}
    region = [10, 20, 300, 400]
    assert made == [
        {"slide_id": "a", **plain},
        {
            "slide_id": "a",
            "region": region,
            **plain,
            "k": 3,
            "exclude_patient": False,
            "where": {"site": ["lung"]},
        },
        {"slide_id": "a", "region": region, "angle": 30, **plain},
        {"image": "data:image/png;base64,AA==", "mpp": 0.5, "k": 10, "ranking": "auto"},
        {"slide_id": "a", **plain},  # marks and concepts belong to the answer that they were made on
    ]


def test_asking_again_repeats_the_subject_of_the_answer_with_the_marks() -> None:
    made = run(
        QUESTION
        + """
    const answer = { question: { slide_id: "a", region: box.region, angle: 30, k: 5 } };
    const concept = { positive: [{ slide_id: "c" }], negative: [{ slide_id: "d" }], strength: -0.5 };
    const marks = { relevant: [{ slide_id: "b" }], irrelevant: [{ slide_id: "e" }] };
    const again = (draft) =>
        refinedQuestion({ draft: { ...EMPTY, ...draft }, slideId: "other", box: null, answer });
    console.log(JSON.stringify([
        again({ ...marks, ...concept, k: 7 }),
        again({ positive: concept.positive }),
        inWords(again({ ...marks, where: { site: ["lung", "skin"] } })),
    ]));
    """
    )
    subject = {"slide_id": "a", "region": [10, 20, 300, 400], "angle": 30}
    assert made[0] == {
        **subject,
        "k": 7,
        "ranking": "auto",
        "exclude_patient": True,
        "relevant": [{"slide_id": "b"}],
        "irrelevant": [{"slide_id": "e"}],
        "concept": {"positive": [{"slide_id": "c"}], "negative": [{"slide_id": "d"}], "strength": -0.5},
    }
    assert "concept" not in made[1]  # one side only
    assert made[2] == "Box on a, 1 relevant, 1 not relevant, site: lung or skin"


def test_an_earlier_question_is_taken_up_as_it_was() -> None:
    made = run(
        QUESTION
        + """
    set({ draft: { ...EMPTY, positive: [{ slide_id: "drawn" }] } });
    const questions = [
        { slide_id: "a", k: 3, ranking: "similarity", exclude_patient: false, where: { age: [">=50"] } },
        { slide_id: "a", region: box.region, angle: 15, k: 10, ranking: "auto", exclude_patient: true },
        { image: "data:image/png;base64,AA==", mpp: 0.25, k: 10, ranking: "auto" },
    ];
    const again = (question) => {
        const state = { draft: draftOf(question), slideId: question.slide_id ?? null, box: boxOf(question) };
        return [isReady(state), freshQuestion(state), state.draft.positive.length];
    };
    console.log(JSON.stringify({ questions, again: questions.map(again) }));
    """
    )
    assert made["again"] == [[True, question, 1] for question in made["questions"]]


def test_an_answer_keeps_the_open_hit_that_was_found_again() -> None:
    made = run(
        QUESTION
        + """
    import { ask } from "./asking.js";
    const found = { query: {}, ranking: "similarity", note: "", results: [{ slide_id: "b", patches: [] }] };
    const sent = [];
    globalThis.fetch = async (path, { headers } = {}) => {
        sent.push(path);
        return { ok: true, json: async () => found };
    };
    const hits = [];
    const open = [{ slide_id: "b", patches: [1] }, { slide_id: "c", patches: [1] }, { slide_id: "c" }];
    for (const hit of open) {
        set({ draft: EMPTY, slideId: "a", hit });
        await ask();
        hits.push(get().hit);
    }
    set({ slideId: null });
    await ask(); // nothing to ask for
    console.log(JSON.stringify({ hits, sent, asking: get().asking, asked: get().answer.question.slide_id }));
    """
    )
    assert made["hits"] == [{"slide_id": "b", "patches": []}, None, {"slide_id": "c"}]
    assert made["sent"] == ["/api/search"] * 3 and made["asking"] is None and made["asked"] == "a"
