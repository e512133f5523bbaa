"""Refining a search by examples and by a concept, beside a plain computation of the same in numpy."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sish
from sish.cli import main
from sish.errors import ParameterError, QueryError, SishError, UnknownSlideError
from sish.qupath import write_geojson
from sish.refinement import Mark, marks_of, moved

SLIDES, ROWS, BITS = 12, 5, 1024
IDS = [f"s{number:02}" for number in range(SLIDES)]
EVERYTHING = {"threshold": BITS}


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> sish.Index:
    """Slides of random patches around some textures, each with a label and a patient."""
    rng = np.random.default_rng(0)
    textures = rng.normal(size=(6, 48))
    vectors = textures[rng.integers(0, 6, SLIDES * ROWS)] + rng.normal(size=(SLIDES * ROWS, 48))
    return sish.Index.from_vectors(
        tmp_path_factory.mktemp("refined") / "a.sish",
        vectors.astype(np.float32),
        np.repeat(IDS, ROWS),
        labels=dict(zip(IDS, ["x", "y", "z"] * 4, strict=True)),
        patients=dict(zip(IDS, [f"p{number // 2}" for number in range(SLIDES)], strict=True)),
        show_progress=False,
    )


def signs(index: sish.Index, slide_id: str) -> np.ndarray:
    """The barcodes of a slide as +-1, (N, 1024)."""
    return np.unpackbits(index.patches(slide_id).barcodes, axis=1).astype(int) * 2 - 1


def bits_apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Hamming distances of +-1 barcodes, (N, M)."""
    return (BITS - one @ other.T) // 2


def expected(index, query, like, unlike) -> dict[str, float]:
    """The score of each slide that may be found, by the definition in `sish.examples`."""
    asking = [signs(index, query), *(signs(index, one) for one in like)]
    importance = np.concatenate([np.full(len(it), ROWS / len(it)) for it in asking])
    asking = np.concatenate(asking)
    against = []
    for one in unlike:
        own = signs(index, one)
        nearest = {int(row) for row in bits_apart(signs(index, query), own).argmin(axis=1)}
        against += [own[row] for row in sorted(nearest)]
    closeness = {}
    for slide_id in IDS:
        if slide_id in unlike:
            continue
        own = signs(index, slide_id)
        bits = bits_apart(asking, own).astype(float)
        if against:
            bits[bits > bits_apart(np.stack(against), own).min(axis=0)] = np.inf
        best = bits.min(axis=1)
        closeness[slide_id] = np.where(np.isinf(best), -1, np.maximum(0, 1 - 2 * best / BITS))
    found = np.stack(list(closeness.values()), axis=1)
    n_found = np.maximum((found >= 0).sum(axis=1), 1)
    weight = importance * np.log1p((found >= 0).any(axis=0).sum() / n_found)
    scores = (weight[:, None] * np.maximum(found, 0)).sum(axis=0) / weight.sum()
    any_match = (found >= 0).any(axis=0)
    return {
        name: score for name, score, is_match in zip(closeness, scores, any_match, strict=True) if is_match
    }


@settings(max_examples=25, deadline=None)
@given(st.permutations(IDS), st.integers(0, 3), st.integers(0, 3))
def test_scores_are_those_of_the_definition(index, order, n_like, n_unlike):
    query, like, unlike = order[0], order[1 : 1 + n_like], order[5 : 5 + n_unlike]
    answer = index.search(query, k=SLIDES, ranking="similarity", like=like, unlike=unlike, search=EVERYTHING)
    want = expected(index, query, like, unlike)
    placed = [hit for hit in answer if hit.placed]
    assert {hit.slide_id: hit.score for hit in placed} == pytest.approx(want)
    assert [hit.score for hit in placed] == sorted((hit.score for hit in placed), reverse=True)
    assert {hit.slide_id for hit in answer} == set(IDS) - set(unlike), "k hits come, whatever is unlike"


@pytest.mark.parametrize("ranking", ["similarity", "uncertainty"])
def test_no_examples_change_nothing(index, ranking):
    plain = index.search("s03", ranking=ranking)
    nothing = sish.Concept(positive="s01", negative="s02", strength=0)
    for options in ({"like": []}, {"unlike": ()}, {"like": None, "unlike": None}, {"concept": nothing}):
        answer = index.search("s03", ranking=ranking, **options)
        assert answer == plain and answer.to_dict() == plain.to_dict()


@pytest.mark.parametrize("ranking", ["similarity", "uncertainty"])
def test_liked_slides_stay_and_unlike_ones_go(index, ranking):
    before = [hit.slide_id for hit in index.search("s00", ranking=ranking)]
    liked, rejected = before[1], before[2]
    answer = index.search("s00", ranking=ranking, like=liked, unlike=[rejected])
    found = [hit.slide_id for hit in answer]
    assert answer.ranking == ranking and len(found) == 5
    assert liked in found[:3] and rejected not in found
    assert answer.note == "refined by 1 like, 1 unlike"
    assert index.search("s00", like=["s01", "s02"], exclude_patient=True, ranking=ranking).note.startswith(
        "refined by 2 like"
    )


def test_filters_and_patients_go_on_working(index):
    answer = index.search("s00", k=12, like=["s01", "s04"], where={"label": ["y", "z"]}, exclude_patient=True)
    assert {hit.label for hit in answer} == {"y", "z"}
    assert "s01" not in {hit.slide_id for hit in answer}, "of the query's patient, whoever likes it"
    nothing = index.search("s00", unlike=IDS)
    assert len(nothing) == 0 and "unlike slides" in nothing.note


def test_examples_that_found_a_hit_are_told(index):
    answer = index.search("s00", k=3, like="s05", search={"threshold": 1}, ranking="similarity")
    (hit,) = [hit for hit in answer if hit.slide_id == "s05"]
    assert hit.n_matched == 0 and not hit.patches and hit.median_distance == 0
    assert all(pair.slide_id == "s05" and pair.example_row == pair.row for pair in hit.examples)
    assert hit.to_dict()["examples"][0]["hamming"] == 0
    (own,) = [hit for hit in answer if hit.slide_id == "s00"]
    assert len(own.patches) == 5 and "examples" not in own.to_dict()


def test_an_example_weighs_as_much_as_the_query(tmp_path):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(60, 32)).astype(np.float32)
    ids = ["large"] * 50 + ["small"] * 5 + ["query"] * 5
    index = sish.Index.from_vectors(tmp_path / "w.sish", vectors, ids, show_progress=False)
    answer = index.search("query", like=["large", "small"], ranking="similarity", search={"threshold": 0})
    assert [hit.score for hit in answer] == pytest.approx([1 / 3] * 3)


@given(
    st.lists(st.binary(min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.binary(min_size=3, max_size=3), min_size=1, max_size=4),
    st.binary(min_size=3, max_size=3),
    st.floats(-1, 1),
)
def test_a_concept_turns_the_most_telling_bits(positive, negative, query, strength):
    def ones(sides, bit):
        return sum(side[bit // 8] >> (7 - bit % 8) & 1 for side in sides) / len(sides)

    apart = [ones(positive, bit) - ones(negative, bit) for bit in range(24)]
    want = [ones([query], bit) for bit in range(24)]
    order = sorted(range(24), key=lambda bit: -abs(apart[bit]))
    for bit in order[: round(abs(strength) * 24)]:
        if apart[bit]:
            want[bit] = float((apart[bit] > 0) == (strength > 0))
    arrays = [[np.frombuffer(one, np.uint8)[None] for one in side] for side in (positive, negative)]
    found = moved(np.frombuffer(query, np.uint8)[None], *arrays, strength)
    assert np.unpackbits(found).tolist() == want


def test_a_concept_moves_a_search(index):
    ask = {"k": 12, "ranking": "similarity", "search": EVERYTHING}
    plain = {hit.slide_id: hit.score for hit in index.search("s00", **ask)}
    ranks = []
    for strength in (-0.6, 0.6):
        answer = index.search("s00", concept=sish.Concept(["s07"], ["s09"], strength), **ask)
        assert answer.note == f"refined by a concept of strength {strength:g}"
        scores = {hit.slide_id: hit.score for hit in answer}
        ranks.append(scores["s07"] - scores["s09"])
    assert ranks[0] < plain["s07"] - plain["s09"] < ranks[1]


def test_vectors_move_with_the_barcodes(tmp_path):
    rng = np.random.default_rng(2)
    means = 4 * rng.normal(size=(3, 40))
    vectors = np.concatenate([mean + rng.normal(size=(20, 40)) for mean in means]).astype(np.float32)
    ids = np.repeat(["a", "b", "c"], 20)
    kept = sish.Index.from_vectors(tmp_path / "v.sish", vectors, ids, rerank="int8", show_progress=False)
    ask = {"k": 1, "ranking": "similarity", "search": EVERYTHING}
    assert kept.search("a", **ask)[0].slide_id == "a"
    assert kept.search("a", concept=sish.Concept("b", "a", 1), **ask)[0].slide_id == "b"
    assert kept.search("a", unlike="a", like="c", **ask)[0].slide_id == "c"


def test_the_papers_keys_are_refined_too(tmp_path):
    shutil.copytree(Path(__file__).parent / "golden" / "paper.sish", tmp_path / "paper.sish")
    index = sish.Index.open(tmp_path / "paper.sish")
    ids = [row.slide_id for row in index.slides if row.n_patches]
    for ranking in ("similarity", "uncertainty"):
        answer = index.search(ids[0], k=len(ids), ranking=ranking, like=ids[1], unlike=ids[2])
        assert {hit.slide_id for hit in answer} == set(ids) - {ids[2]}
        assert ids[1] in [hit.slide_id for hit in answer][:2]
    moved_to = index.search(ids[0], concept=sish.Concept(ids[1], ids[2], 0.5))
    assert len(moved_to) == 5 and "concept" in moved_to.note


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"like": "s0"}, UnknownSlideError, "no slide 's0'"),
        ({"unlike": ["s01", "none"]}, UnknownSlideError, "no slide 'none'"),
        ({"like": ["s01"], "unlike": "s01"}, ParameterError, "in like and in unlike"),
        ({"like": [3.5]}, SishError, "want text or a whole number"),
        ({"like": ("s01", (0, 0, 0, 9))}, ParameterError, "sides above 0"),
        ({"like": [("s01", (0, 0, 9, 9))]}, QueryError, "given as vectors"),
        ({"concept": "s01"}, SishError, "want a sish.Concept"),
    ],
)
def test_what_is_no_example_is_refused(index, options, error, words):
    with pytest.raises(error, match=words) as caught:
        index.search("s00", **options)
    assert isinstance(caught.value, SishError)


@pytest.mark.parametrize(
    ("concept", "words"),
    [
        ({"positive": "a", "negative": "b", "strength": 1.5}, "from -1 to 1"),
        ({"positive": "a", "negative": "b", "strength": float("nan")}, "from -1 to 1"),
        ({"positive": "a", "negative": "b", "strength": "much"}, "from -1 to 1"),
        ({"positive": [], "negative": "b"}, "without positive examples"),
        ({"positive": "a", "negative": None}, "without negative examples"),
    ],
)
def test_what_is_no_concept_is_refused(concept, words):
    with pytest.raises(ParameterError, match=words):
        sish.Concept(**concept)


def test_marks_are_ids_and_pairs():
    box = sish.Box(0, 0, 5, 5, 30)
    assert marks_of("a") == (Mark("a"),) and marks_of(7) == (Mark("7"),)
    assert marks_of(("a", "b", "a")) == (Mark("a"), Mark("b"))
    assert marks_of(("a", "b")) == (Mark("a"), Mark("b"))
    assert marks_of(("a", [0, 0, 5, 5])) == (Mark("a", (0, 0, 5, 5)),)
    assert marks_of([["a", box], "b"]) == (Mark("a", box), Mark("b"))


# ---- slides with pixels


@pytest.fixture
def pixels(built_index) -> sish.Index:
    return sish.Index.open(built_index)


def part_of(index: sish.Index, slide_id: str, tiles: float = 2) -> tuple[int, int, int, int]:
    """A region of a slide about one of its patches."""
    patches = index.patches(slide_id)
    (x, y), side = patches.l0_xy[0].tolist(), patches.patch_l0_px
    return x, y, round(tiles * side), round(tiles * side)


def test_by_id_and_by_file_the_answer_is_the_same(pixels):
    ids = [row.slide_id for row in pixels.slides]
    region = part_of(pixels, ids[2])
    options = {"like": [ids[1], (ids[2], region)], "unlike": ids[3], "concept": sish.Concept(ids[4], ids[5])}
    by_id = pixels.search(ids[0], **options)
    assert by_id == pixels.search(pixels.slides[0].path, **options)
    assert by_id.note.startswith("refined by 2 like, 1 unlike, a concept of strength 0.5")


def test_a_marked_region_speaks_for_itself_alone(pixels):
    ids = [row.slide_id for row in pixels.slides]
    region = part_of(pixels, ids[1])
    answer = pixels.search(ids[0], k=8, unlike=(ids[1], region), ranking="similarity")
    assert ids[1] in {hit.slide_id for hit in answer}, "only a part of it is unlike"
    turned = pixels.search(ids[0], k=8, like=[(ids[1], sish.Box(*region, angle=30))], ranking="similarity")
    found = next(hit for hit in turned if hit.slide_id == ids[1])
    assert {pair.slide_id for hit in turned for pair in hit.examples} <= {ids[1]}
    plain = pixels.search(ids[0], k=8, ranking="similarity")
    assert found.score > next(hit.score for hit in plain if hit.slide_id == ids[1])


def test_marked_regions_are_told_and_can_be_cancelled(pixels):
    ids = [row.slide_id for row in pixels.slides]
    calls = []
    pixels.search(
        ids[0],
        like=[(ids[1], part_of(pixels, ids[1]))],
        on_progress=lambda done, total: calls.append((done, total)),
    )
    own = pixels.slides[0].n_patches
    assert calls[0] == (own, own) and calls[1][0] == own < calls[1][1]
    assert calls[-1][0] == calls[-1][1] > own

    def cancel(done, total):
        if total > own:
            raise KeyError("cancelled")

    with pytest.raises(KeyError, match="cancelled"):
        pixels.search(ids[0], like=[(ids[1], part_of(pixels, ids[1]))], on_progress=cancel)


def test_a_refined_answer_is_shown_like_any_other(pixels, tmp_path):
    ids = [row.slide_id for row in pixels.slides]
    answer = pixels.search(ids[0], k=8, like=[ids[1], ids[2]], unlike=ids[3], search={"threshold": 250})
    assert any(hit.examples for hit in answer)
    report = sish.write_report(answer, tmp_path / "report.html", index=pixels)
    assert "refined by 2 like, 1 unlike" in Path(report or tmp_path / "report.html").read_text()
    write_geojson([answer], tmp_path / "drawn", index=pixels)
    assert len(answer.to_pandas()) == 7
    assert len(answer.pairs_to_pandas()) == sum(len(hit.patches) for hit in answer)
    assert "examples" not in answer.to_pandas().columns
    for hit in answer:
        why = pixels.explain(answer, hit.slide_id)
        assert (why.rank, why.score) == (hit.rank, pytest.approx(hit.score))
    assert any("unlike" in word for word in pixels.explain(answer, ids[3]).words)


def test_on_the_command_line(pixels, capsys):
    ids = [row.slide_id for row in pixels.slides]
    words = ["search", ids[0], "--index", str(pixels.path), "--like", ids[1], ids[2], "--unlike", ids[3]]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "refined by 2 like, 1 unlike" in shown and ids[3] not in shown
    assert main([*words, "--unlike", "none"]) != 0
    assert "no slide 'none'" in capsys.readouterr().err
