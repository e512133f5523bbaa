"""The threshold of an archive: a share of pairs of different patients, whatever the order of adding was."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_encoder import PlainEncoder
from slide_rows import slide_row

import sish
from sish import thresholds
from sish.cli import main
from sish.index.params import SearchParams
from sish.index.repair import repair
from sish.index.store import Store, slide_snapshot
from sish.index.store.segment import Segment
from sish.searchers import TextureKeys
from sish.thresholds import FEWEST_PATCHES, Measured, Settings, keep_threshold

GOLDEN = Path(__file__).parent / "golden"
TEXTURES = np.random.default_rng(5).integers(0, 256, (9, 16), np.uint8)


def slide(name, patches=20, patient=None, seed=0):
    """A slide of patches of a few textures, with noise."""
    rng = np.random.default_rng(seed)
    noise = np.bitwise_and.reduce(rng.integers(0, 256, (3, patches, 16), np.uint8))
    barcodes = TEXTURES[rng.integers(0, 9, patches)] ^ noise
    row = slide_row(f"s{name}", patches, patient=f"p{name}" if patient is None else patient)
    zeros = np.zeros((patches, 1), np.int64)
    return slide_snapshot(row, zeros, barcodes, np.zeros((patches, 2), np.int64))


def commit(store, new, *, replacing=False):
    """Append slides as the library's writers do."""
    old = [store.state.row(it.slides[0].slide_id) for it in new]
    store.append_many(new, replace=replacing)
    keep_threshold(store, [*(it.slides[0] for it in new), *filter(None, old)])


def kept(store):
    return Measured.kept_with(store.state.measured)


def figures(found):
    """A measurement without the number of patches at its time."""
    return None if found is None else (found.bits, found.pairs, found.last)


def plain_threshold(slides):
    """A percentile of the distances of all pairs of different patients, pair by pair."""
    patches = [(part.slides[0].patient, barcode) for part in slides for barcode in part.barcodes]
    distances = [
        int(np.bitwise_count(one ^ other).sum())
        for (mine, one), (theirs, other) in itertools.combinations(patches, 2)
        if mine != theirs
    ]
    percent = round(max(1.0, 2500 / len(patches)), 2)  # 25 similar patches for each
    return int(np.percentile(distances, percent)), len(distances)


def make_small(patch):
    """Make samples so small that properties show in few patches, and do not flush commits."""
    patch.setattr(thresholds, "_SAMPLE", 24)
    patch.setattr(thresholds, "FEWEST_PATCHES", 15)
    patch.setattr(thresholds, "_FEWEST_PAIRS", 10)
    patch.setattr(thresholds, "_TOGETHER", 7)
    patch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def small(monkeypatch):
    """`make_small` for one test."""
    make_small(monkeypatch)


# ---- the figure


def test_it_is_a_percentile_of_all_pairs_of_different_patients(tmp_path):
    slides = [slide(number, 21, patient="ab"[number % 2], seed=number) for number in range(11)]  # 231 patches
    with Store.create(tmp_path / "a", {}) as store:
        commit(store, slides)
        bits, pairs = plain_threshold(slides)
        assert (kept(store).bits, kept(store).pairs, kept(store).patches) == (bits, pairs, 231)
        whole = [
            replace(part, slides=(replace(part.slides[0], patient="x" + part.slides[0].slide_id),))
            for part in slides
        ]
        assert plain_threshold(whole) != (bits, pairs)


def test_that_of_a_larger_archive_is_close_to_that_of_all_its_pairs(tmp_path):
    slides = [slide(number, 50, seed=number) for number in range(60)]
    with Store.create(tmp_path / "a", {}) as store:
        commit(store, slides)
        codes = np.concatenate([part.barcodes for part in slides])
        rng = np.random.default_rng(0)
        left, right = rng.integers(0, 3000, (2, 200_000))
        differ = left // 50 != right // 50
        distances = np.bitwise_count(codes[left[differ]] ^ codes[right[differ]]).sum(1)
        assert abs(kept(store).bits - np.percentile(distances, 1)) <= 1
        assert kept(store).pairs <= 1 << 15


# ---- independence


@st.composite
def histories(draw):
    """Slides in some order and some commits, with detours: slides that are replaced, or removed again."""
    names = draw(st.permutations(range(9)))
    cuts = sorted(draw(st.sets(st.integers(1, 8))))
    parts = [list(names[start:stop]) for start, stop in itertools.pairwise([0, *cuts, 9])]
    steps = [("add", part) for part in parts]
    for kind in draw(st.lists(st.sampled_from(["compact", "again", "visit", "marry"]), max_size=4)):
        steps.insert(draw(st.integers(1, len(steps))), (kind, None))
    return steps


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(histories())
def test_order_commits_merges_and_detours_do_not_change_it(tmp_path_factory, steps):
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        folder = tmp_path_factory.mktemp("a")
        with Store.create(folder / "plain", {}) as store:
            store.append_many([slide(number, 3 + number, seed=number) for number in range(9)])
            want = figures(Measured.on(store.state))
        with Store.create(folder / "lived", {}) as store:
            for kind, part in steps:
                live(store, kind, part)
            assert figures(kept(store)) == want
        shutil.rmtree(folder)


def live(store, kind, part):
    """Take one step of a life; all but "add" lead back to the slides that were there."""
    if kind == "add":
        commit(store, [slide(number, 3 + number, seed=number) for number in part])
        return
    first = store.slides[0]
    number = int(first.slide_id[1:])
    if kind == "compact":
        store.compact()
    elif kind == "again":
        commit(store, [slide(number, 40, seed=99)], replacing=True)
        commit(store, [slide(number, 3 + number, seed=number)], replacing=True)
    elif kind == "visit":
        commit(store, [slide(77, 30, seed=77)])
        gone = store.state.row("s77")
        store.remove(["s77"])
        keep_threshold(store, [gone])
    else:
        for patient in ("another", first.patient):
            row = replace(first, patient=patient)
            store.relabel({first.slide_id: row})
            keep_threshold(store, [row])


@pytest.mark.slow
def test_a_commit_measures_only_if_the_sample_changed_and_at_every_doubling(tmp_path, small, monkeypatch):
    measured = []
    on = Measured.on
    monkeypatch.setattr(Measured, "on", lambda state: measured.append(len(state.slides)) or on(state))
    with Store.create(tmp_path / "a", {}) as store:
        for number in range(300):
            before = store.generation
            commit(store, [slide(number, 2, seed=number)])
            patches = 2 * (number + 1)
            if patches < 15:
                assert kept(store) is None
                continue
            assert patches < 2 * kept(store).patches
            assert store.generation == before + 1 + (measured[-1:] == [number + 1])
            if number % 100 == 99:
                assert figures(kept(store)) == figures(on(store.state))
    # slide i brings a patch of the sample with a chance of about 48 / 2 i
    assert 12 < len(measured) < 24 + 24 * np.log(300 / 12) * 1.5


def test_a_commit_that_changes_no_sample_reads_no_patches(tmp_path, small, monkeypatch):
    with Store.create(tmp_path / "a", {}) as store:
        commit(store, [slide(number, 40, seed=number) for number in range(20)])
        new = next(it for it in map(slide, range(100, 200)) if not kept(store).is_of(it.slides[0]))
        monkeypatch.setattr(Segment, "patches", property(lambda self: pytest.fail("read")), raising=False)
        keep_threshold(store, new.slides)


# ---- where there is none


def test_below_200_patches_it_is_not_measured_and_then_it_is(tmp_path):
    with Store.create(tmp_path / "a", {}) as store:
        commit(store, [slide(number, 20, seed=number) for number in range(9)] + [slide("x", 19)])
        assert (kept(store), dict(store.state.measured)) == (None, {})
        commit(store, [slide("y", 1)])
        assert kept(store).patches == FEWEST_PATCHES == 200
        row = store.state.row("sy")
        store.remove(["sy"])
        keep_threshold(store, [row])
        assert dict(store.state.measured) == {}


def test_one_patient_gives_no_pairs(tmp_path):
    with Store.create(tmp_path / "a", {}) as store:
        commit(store, [slide(number, 30, "same", seed=number) for number in range(10)])
        assert (kept(store).bits, kept(store).pairs) == (None, 0)
        chosen = Settings(SearchParams(threshold=77), measures=True)
        assert chosen.of(store.state).threshold == 77
        assert "77 bits, the encoder's: only 0 pairs" in chosen.told(store.state)
        commit(store, [slide(number, 30, "other", seed=number) for number in range(10, 12)])
        assert chosen.of(store.state).threshold == kept(store).bits > 0


@pytest.mark.parametrize(
    "fact",
    [
        *(None, 5, [], {}, {"bits": 3}),
        {"bits": -1, "percent": 1.0, "pairs": 1, "patches": 1, "last": 1},
        {"bits": 3.5, "percent": 1.0, "pairs": 1, "patches": 1, "last": 1},
        {"bits": True, "percent": 1.0, "pairs": 1, "patches": 1, "last": 1},
        {"bits": 3, "percent": 1.0, "pairs": "1", "patches": 1, "last": 1},
        {"bits": 3, "percent": 1.0, "pairs": 1, "patches": 1, "last": 2**64},
        {"bits": 3, "percent": 0.5, "pairs": 1, "patches": 1, "last": 1},
        {"bits": 3, "percent": 101.0, "pairs": 1, "patches": 1, "last": 1},
        {"bits": 3, "percent": "1", "pairs": 1, "patches": 1, "last": 1},
        {"bits": 3, "percent": 1.0, "pairs": 1, "patches": 1, "last": 1, "more": 1},
    ],
)
def test_a_fact_of_another_kind_counts_as_none_and_is_measured_again(tmp_path, fact):
    with Store.create(tmp_path / "a", {}) as store:
        slides = [slide(number, 25, seed=number) for number in range(10)]
        commit(store, slides)
        want = kept(store)
        store.keep_measured({"threshold": fact})
        assert kept(store) is None
        assert Settings(SearchParams(threshold=7), measures=True).of(store.state).threshold == 7
        keep_threshold(store, [])
        assert kept(store) == want


# ---- an index


@pytest.fixture
def index(tmp_path):
    """An index of an encoder given as an object, with a threshold of 12 bits, whose slides are codes."""
    made = sish.Index.create(tmp_path / "a.sish", encoder=PlainEncoder())
    with Store.open(made.path, write=True) as store:
        commit(store, [slide(number, 25, seed=number) for number in range(12)])
    return made


def test_an_index_searches_with_the_measured_threshold(index):
    found = index.info().measured["threshold"]
    assert found["bits"] == index.params.threshold == index.view().searcher.params.threshold != 12
    assert index.params.reach == 12
    assert sish.Index.open(index.path).params.threshold == found["bits"]
    for hit in index.search("s3", k=12, ranking="similarity"):
        assert hit.below_threshold == (min(pair.hamming for pair in hit.patches) > found["bits"])


@pytest.mark.parametrize("within", [4, 20, 40])
def test_scores_count_what_the_encoder_reaches_and_matches_what_is_similar(index, within):
    wide = SearchParams(threshold=50)
    both = SearchParams(threshold=within, reach=50)
    want = index.search("s3", k=12, ranking="similarity", search=wide)
    found = index.search("s3", k=12, ranking="similarity", search=both)
    assert [(hit.slide_id, hit.score) for hit in found] == [(hit.slide_id, hit.score) for hit in want]
    snapshot = index.snapshot()
    number = {row.slide_id: place for place, row in enumerate(snapshot.slides)}
    query = snapshot.barcodes[snapshot.slide == number["s3"]]
    for hit in found:
        own = snapshot.barcodes[snapshot.slide == number[hit.slide_id]]
        nearest = np.bitwise_count(query[:, None] ^ own[None]).sum(2).min(1)
        similar = nearest[nearest <= within]
        assert hit.below_threshold == (not len(similar))
        if len(similar):
            assert (hit.n_matched, hit.median_distance) == (len(similar), np.median(similar))
    assert both.with_changes({"threshold": 3}).reach == 0
    assert both.with_changes({"budget": 9}).reach == 50


def test_a_threshold_that_is_given_is_kept(index, tmp_path):
    own = index.params.threshold
    assert sish.Index.open(index.path, search={"threshold": 3}).params.threshold == 3
    assert sish.Index.open(index.path, search=SearchParams(threshold=4)).params.threshold == 4
    index.params = {"budget": 50}
    assert (index.params.budget, index.params.threshold) == (50, own)
    found = index.search("s3", k=12, ranking="similarity", search={"threshold": 0})
    assert any(hit.below_threshold for hit in found) and index.params.threshold == own
    index.params = {"threshold": 5}
    assert index.params.threshold == 5
    made = sish.Index.create(tmp_path / "b.sish", encoder=PlainEncoder(), search={"threshold": 9})
    with Store.open(made.path, write=True) as store:
        commit(store, [slide(number, 25, seed=number) for number in range(12)])
    assert made.params.threshold == sish.Index.open(made.path).params.threshold == 9
    assert made.info().measured["threshold"]["bits"] == own  # told, and not used


def test_removing_and_relabelling_measure_again(index, tmp_path):
    first = index.info().measured["threshold"]
    index.remove(["s0", "s1"])
    second = index.info().measured["threshold"]
    assert (first["patches"], second["patches"]) == (300, 250)
    (tmp_path / "labels.csv").write_text("slide_id,patient\n" + "".join(f"s{i},one\n" for i in range(2, 12)))
    index.relabel(tmp_path / "labels.csv")
    assert (index.info().measured["threshold"]["bits"], index.params.threshold) == (None, 12)


def test_the_papers_keys_keep_the_threshold_of_the_encoder(tmp_path):
    made = sish.Index.create(tmp_path / "a.sish", encoder=PlainEncoder(), recipe=sish.Recipe(keys="paper"))
    with Store.open(made.path, write=True) as store:
        store.append_many([slide(number, 25, seed=number) for number in range(12)])
    made.remove("s3")
    assert (made.params.threshold, dict(made.info().measured)) == (12, {})


def test_learning_a_tree_measures(tmp_path):
    with Store.create(tmp_path / "a", {}) as store:
        keys = TextureKeys(store, seed=0)
        slides = [slide(number, 500, seed=number) for number in range(9)]
        store.append_many(slides)
        keys.grow(4500)
        assert store.tree is not None and kept(store).patches == 4500


def test_a_repair_that_drops_slides_measures_those_that_are_left(index):
    with Store.open(index.path, write=True) as store:
        commit(store, [slide(number, 2, seed=number) for number in range(20, 22)])
    segment = sorted((index.path / "segments").iterdir())[-1]
    next(segment.glob("barcodes/c*")).write_bytes(b"x")
    assert not repair(index.path).is_sound
    assert index.repair(drop=True).is_sound
    assert index.info().measured["threshold"]["patches"] == index.info().patches == 300


@pytest.mark.parametrize("name", ["small", "tree", "features", "paper"])
def test_an_older_index_keeps_its_threshold_and_tells_what_was_measured(name, tmp_path):
    shutil.copytree(GOLDEN / f"{name}.sish", tmp_path / "old.sish")
    index = sish.Index.open(tmp_path / "old.sish")
    threshold = index.params.threshold
    assert threshold == (123 if name == "features" else 399)
    index.remove(index.slides[0].slide_id)
    assert index.params.threshold == sish.Index.open(index.path).params.threshold == threshold
    found = index.info().measured.get("threshold")
    assert (found is None) == (name == "paper" or index.info().patches < 200)
    if found is not None:
        assert index.params == SearchParams(threshold=threshold, visit_query_key=True)
        index.params = {"threshold": found["bits"]}
        assert index.view().searcher.params.threshold == found["bits"]


@pytest.mark.parametrize("name", ["small", "tree"])
def test_an_older_index_uses_the_measured_threshold_once_it_is_asked_to(name, tmp_path, capsys):
    shutil.copytree(GOLDEN / f"{name}.sish", tmp_path / "old.sish")
    index = sish.Index.open(tmp_path / "old.sish")
    before = index.info().generation
    assert main(["index", "measure", "--index", str(index.path), "--json"]) == 0
    bits = json.loads(capsys.readouterr().out)["threshold"]
    index = sish.Index.open(index.path)
    found = index.info().measured.get("threshold", {"bits": 399})["bits"]
    assert bits == found == index.params.threshold == index.view().searcher.params.threshold
    assert (bits == 399) == (index.info().patches < FEWEST_PATCHES)
    assert index.info().generation == before + 1
    assert index.measure_threshold() == bits and not sish.verify(index.path)


def test_an_index_made_with_a_threshold_can_be_told_to_measure_it(index, tmp_path):
    made = sish.Index.create(tmp_path / "b.sish", encoder=PlainEncoder(), search={"threshold": 9})
    with Store.open(made.path, write=True) as store:
        commit(store, [slide(number, 25, seed=number) for number in range(12)])
    assert made.params.threshold == 9
    assert made.measure_threshold() == made.params.threshold == index.params.threshold != 9


def test_the_papers_keys_are_not_measured(tmp_path):
    shutil.copytree(GOLDEN / "paper.sish", tmp_path / "old.sish")
    with pytest.raises(sish.ParameterError, match="has the paper's keys, which keep their threshold of 399"):
        sish.Index.open(tmp_path / "old.sish").measure_threshold()


def test_info_tells_it(index, capsys):
    bits = index.params.threshold
    assert main(["index", "info", "--index", str(index.path)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("threshold")]
    assert f"{bits} bits, which" in line and "% of" in line
    assert main(["index", "info", "--index", str(index.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["search"]["threshold"] == told["measured"]["threshold"]["bits"] == bits


def test_info_of_an_empty_index_tells_the_encoders(tmp_path, capsys):
    sish.Index.create(tmp_path / "a.sish", encoder=PlainEncoder())
    assert main(["index", "info", "--index", str(tmp_path / "a.sish")]) == 0
    assert "12 bits, the encoder's: fewer than 200 patches" in capsys.readouterr().out


def write_features(folder, count):
    """Files of features as TRIDENT writes them, around some means."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(5, 32)) * 3
    for number in range(count):
        with h5py.File(folder / f"slide-{number}.h5", "w") as file:
            size = 900 + number
            noise = rng.normal(size=(size, 32))
            file["features"] = (means[rng.integers(5, size=size)] + noise).astype(np.float32)
            file["coords"] = np.stack(np.divmod(np.arange(size), 30), 1) * 512
            file["coords"].attrs.update(
                patch_size=256, patch_size_level0=512, level0_magnification=40, target_magnification=20
            )


@pytest.mark.slow
def test_slides_that_are_added_together_or_one_by_one_in_any_order_have_one_threshold(tmp_path):
    write_features(tmp_path, 8)
    files = sorted(tmp_path.glob("*.h5"))
    told = []
    for name, batches in {
        "all": [files],
        "each": [[it] for it in files],
        "back": [[it] for it in files[::-1]],
    }.items():
        made = sish.Index.create_for_features(tmp_path / name, files, feature_encoder="a")
        assert made.params.threshold == made.encoder.calibration.threshold
        for batch in batches:
            made.add_features(batch, show_progress=False, feature_encoder="a")
        told.append((figures(Measured.kept_with(made.info().measured)), made.params.threshold))
        assert made.info().patches > FEWEST_PATCHES
    assert told[0] == told[1] == told[2]
    assert told[0][0][0] == told[0][1]
