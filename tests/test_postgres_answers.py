"""An archive in PostgreSQL answers as the folder does: every number, order and note of every answer."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed")
from postgres_archives import (
    RANKINGS,
    add,
    address,
    assert_same_answers,
    assert_same_archive,
    coded,
    few_slides,
    many_slides,
    pushed,
    write_archive,
)

import sish

EVERYTHING = 10**9
QUERIES = ["s003", "s007"]
FILTERS = (
    {},
    {"exclude_patient": True},
    {"where": {"label": ["a", "b"], "age": "30..60"}},
    {"where": {"site": "lung"}, "exclude_patient": True},
    {"where": {"patient": "p3"}},
    {"where": {"label": "there is none"}},
)
PARAMETERS = (
    {"budget": 1},
    {"budget": 33},
    {"budget": 300, "threshold": 60},
    {"budget": 2500, "threshold": 0},
    {"budget": EVERYTHING, "threshold": 400},
    {"budget": 300, "threshold": 1024},
)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> sish.Index:
    """An index with a learnt tree, of several segments; not to be written to."""
    path = tmp_path_factory.mktemp("large") / "index"
    index = write_archive(path, many_slides(), commits=4)
    add(path, [coded(200 + number) for number in range(6)], commits=2)
    assert index._store.current().tree is not None and index.info().segments > 1
    return index


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> sish.Index:
    """An index without a tree, of several segments; not to be written to."""
    index = write_archive(tmp_path_factory.mktemp("small") / "index", few_slides(), commits=3)
    assert index._store.current().tree is None and index.info().segments > 1
    return index


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> sish.Index:
    """An index with the paper's keys; not to be written to."""
    path = tmp_path_factory.mktemp("paper") / "index"
    return write_archive(path, few_slides(), recipe=sish.Recipe(keys="paper"), commits=3)


@pytest.fixture(params=["large", "small", "paper"])
def index(request) -> sish.Index:
    """Each of them in turn."""
    return request.getfixturevalue(request.param)


def each(**options):
    """The options with each ranking."""
    return [{"k": 9, "ranking": ranking, **options} for ranking in RANKINGS]


def in_turn(given, **options):
    """Each of the options that are given, with one ranking, then the other."""
    rankings = itertools.cycle(RANKINGS)
    return [{"k": 9, "ranking": next(rankings), **options, **own} for own in given]


def test_filters_and_patients(index, database):
    remote = pushed(index, database)
    assert_same_answers(index, remote, ["s003"], in_turn(FILTERS, search={"budget": 100}))
    assert_same_answers(index, remote, ["s007"], in_turn(FILTERS[1:], search={"budget": 40}))


def test_budgets_and_thresholds(index, database):
    remote = pushed(index, database)
    assert_same_answers(index, remote, ["s003"], in_turn({"search": own} for own in PARAMETERS))


def test_examples_and_concepts(index, database):
    remote = pushed(index, database)
    concept = sish.Concept(["s002", "s005"], "s004", 0.5)
    refined = ({"like": ["s004", "s009"]}, {"unlike": "s005", "like": "s008"}, {"concept": concept})
    assert_same_answers(index, remote, ["s003"], in_turn(refined, search={"budget": 200}))


def test_what_is_told_of_an_archive_is_the_folders(index, database):
    remote = pushed(index, database)
    assert_same_archive(index, remote)
    for told in ("threshold_source", "recall_source", "calibration_source", "rerank_source"):
        assert getattr(remote, told) == getattr(index, told)
    mine, its = index.info(), remote.info()
    for fact in ("slides", "patches", "removed_slides", "removed_patches", "measured"):
        assert getattr(its, fact) == getattr(mine, fact)
    assert sish.verify(str(remote.path)) == []
    assert "s003" in remote and "s999" not in remote and len(remote) == len(index)


def test_partitions_do_not_show(large, database):
    partitions = 5
    remote = pushed(large, database, partitions=partitions)
    (found,) = database.run("SELECT count(*) FROM pg_inherits WHERE inhparent = 'sish.patch_0'::regclass")
    assert found == (partitions,)
    assert_same_answers(large, remote, QUERIES, in_turn(FILTERS[:3], search={"budget": 100}))
    remote.compact()
    (found,) = database.run("SELECT count(*) FROM pg_inherits WHERE inhparent = 'sish.patch_1'::regclass")
    assert found == (partitions,)
    assert_same_answers(large, remote, QUERIES, each(search={"budget": 100}))
    assert sish.verify(str(remote.path)) == []


@pytest.mark.slow
def test_after_each_kind_of_change(index, database, tmp_path):
    """The folder and the archive go the same way; so do copies of the archive."""
    own = sish.Index.open(index.path)
    remote = pushed(own, database)
    copy = tmp_path / "copy"
    remote.pull(copy)
    folder = sish.Index.open(copy)
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label,patient,site,age\ns004,z,p1,skin,77\ns009,,p1,,\n")
    other = write_archive(
        tmp_path / "other", [coded(300, "s005"), coded(301, "s301"), coded(302, "s302")], recipe=own.recipe
    )
    asked = in_turn(FILTERS[1:3], search={"budget": 150})

    def changed(change) -> None:
        for one in (folder, remote):
            change(one)
        assert_same_archive(folder, remote)
        assert_same_answers(folder, remote, ["s003", "s004"], asked)
        assert sish.verify(str(remote.path)) == []

    def merged(one: sish.Index) -> None:
        if one is folder:
            add(copy, [coded(300, "s005"), coded(301, "s301"), coded(302, "s302")], replacing=True)
        else:
            report = other.push(address(database), replace=True)
            assert (sorted(report.added), report.replaced) == (["s301", "s302"], ["s005"])

    changed(lambda one: one.remove(["s001", "s002", "s010"]))
    changed(lambda one: one.relabel(labels))
    changed(merged)
    assert remote.info().removed_slides
    changed(sish.Index.compact)
    assert remote.info().removed_slides == 0
    remote.pull(copy)
    assert_same_archive(sish.Index.open(copy), remote)
    assert_same_answers(sish.Index.open(copy), remote, ["s003", "s004"], asked)


@pytest.mark.slow
def test_an_archive_that_grows_learns_the_tree_of_one_add(small, large, database, tmp_path):
    """Pushed in parts it ends with the tree, keys and threshold of a folder that was added to."""
    remote = pushed(small, database)
    assert remote._store.current().tree is None
    rest = [slide for slide in many_slides() if slide[0].slide_id not in small]
    other = write_archive(tmp_path / "rest", rest)
    other.push(address(database))
    folder = tmp_path / "folder"
    write_archive(folder, [*few_slides(), *rest], commits=2)
    assert remote._store.current().tree is not None
    one = sish.Index.open(folder)
    assert_same_archive(one, remote)
    assert_same_answers(one, remote, QUERIES, each(search={"budget": 100}, exclude_patient=True))
    assert sish.verify(str(remote.path)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "slides"), [("int8", 80), ("float16", 20)])
def test_vectors_rank_again(database, tmp_path, kind, slides):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 64))
    ids = np.repeat([f"s{number:03}" for number in range(slides)], 60)
    vectors = centres[rng.integers(0, 12, len(ids))] + rng.normal(0, 0.5, (len(ids), 64))
    folder = sish.Index.from_vectors(
        tmp_path / "a",
        vectors.astype(np.float32),
        ids,
        labels={name: "abc"[int(name[1:]) % 3] for name in ids.tolist()},
        rerank=kind,
        show_progress=False,
    )
    remote = pushed(folder, database)
    given = ({}, {"patient": "s003", "exclude_patient": True}, {"where": {"label": "a"}})
    asked = in_turn(given, search={"budget": 100})
    assert_same_answers(folder, remote, [vectors[180:240].astype(np.float32)], asked)
    assert_same_answers(folder, remote, ["s003"], each(search={"budget": 100}, like="s005", unlike="s006"))
    assert remote.rerank == kind
    assert sish.verify(str(remote.path)) == []
    remote.pull(tmp_path / "copy")
    for name in ("s003", "s019"):
        mine, its = (it.patches(name) for it in (folder, sish.Index.open(tmp_path / "copy")))
        np.testing.assert_array_equal(its.vectors, mine.vectors)
    more = rng.normal(size=(60, 64)).astype(np.float32)
    for one in (folder, remote):
        one.add_vectors(more, ["new"] * 60, labels={"new": "c"}, show_progress=False)
    assert_same_archive(folder, remote)
    assert_same_answers(folder, remote, ["new"], each(search={"budget": 100}))


@pytest.mark.slow
def test_a_file_a_region_and_an_id(built_index, database):
    folder = sish.Index.open(built_index)
    remote = pushed(folder, database)
    row = folder.slides[2]
    assert_same_answers(folder, remote, [Path(row.path), row.slide_id], each())
    side = int(4 * row.patch_l0_px)
    x, y = folder.search(row.slide_id, k=1)[0].patches[0].xy
    assert_same_answers(folder, remote, [row.slide_id], each(region=(x, y, side, side)))
    mine, its = (sish.evaluate(it, k=3).to_pandas() for it in (folder, remote))
    assert its.equals(mine)


ODD = (
    "'; DROP TABLE sish.patch_0; --",
    'a"b',
    "tab\tnew\nline\r",
    "back\\slash \\. \\N",
    "%s %(slides)s %% {patch} {archive}",
    "Ünïcode 癌 \U0001f52c \u202e",
    "$$ $1 :name",
    "NULL",
    "{a,b}",
)


def test_texts_are_kept_as_they_are(database, tmp_path):
    slides = []
    for number, odd in enumerate(ODD):
        told = {"label": odd, "patient": odd, "site": odd, "path": odd, "metadata": {odd: odd, "other": "x"}}
        slides.append(coded(number, odd, **told))
    slides.append(coded(99, "empty", label="", patient="", site="", path="", metadata={"": ""}))
    slides.append(coded(98, "in JSON", metadata={"nul": "a\0b", "byte": "\udcff", "a\0": "\udcff"}))
    folder = write_archive(tmp_path / "odd", slides)
    remote = pushed(folder, database)
    assert_same_archive(folder, remote)
    for row, _ in slides[: len(ODD)]:
        asked = [{"ranking": "similarity", "where": {"label": [row.label, "a"], "patient": row.patient}}]
        assert_same_answers(folder, remote, [row], asked)
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label,site\nempty,'; DELETE FROM slide; --,%s\n")
    for one in (folder, remote):
        assert one.relabel(labels).changed == ("empty",)
        assert one.remove(ODD[:3]) == 3
    assert_same_archive(folder, remote)
    remote.compact()
    assert_same_archive(folder, remote)
    assert sish.verify(str(remote.path)) == []


@pytest.mark.parametrize("odd", ["nul\0here", "file\udcff"])
@pytest.mark.parametrize("field", ["slide_id", "path", "label", "patient", "site"])
def test_a_text_that_postgresql_cannot_keep_is_refused_by_name(database, tmp_path, odd, field):
    row, codes = coded(1)
    row = replace(row, **{field: odd})
    folder = write_archive(tmp_path / "odd", [coded(0), (row, codes)])
    with pytest.raises(sish.StoreError, match="PostgreSQL cannot keep") as caught:
        folder.push(address(database))
    assert caught.value.slide_id == row.slide_id
    assert "\n" not in str(caught.value) and repr(odd)[1:-1] in str(caught.value)
    write_archive(tmp_path / "plain", [coded(0)]).push(address(database))  # nothing is in the way
    assert len(sish.Index.open(address(database))) == 1


def test_names_of_roles_are_no_sql(small, database):
    odd = 'a"; DROP SCHEMA sish CASCADE; --'
    quoted = '"' + odd.replace('"', '""') + '"'
    database.run(f"CREATE ROLE {quoted} LOGIN")
    try:
        pushed(small, database, readers=[odd, "reader"])
        (found,) = database.run("SELECT count(*) FROM sish.slide")
        assert found == (len(small),)
        assert len(sish.Index.open(address(database, user="reader"))) == len(small)
        with pytest.raises(sish.StoreError, match="there is none") as caught:
            small.push(address(database), readers=["there is none"])
        assert "\n" not in str(caught.value)
    finally:
        database.run(f"DROP OWNED BY {quoted}; DROP ROLE {quoted}")


@pytest.mark.parametrize(
    "name", ["", "A", "a-b", "1a", "pg_a", "a;b", "a'b", 'a"b', "é", "a.b", "x" * 49, "a b", "a\0"]
)
def test_a_name_of_an_archive_is_small_letters(name, database, small):
    with pytest.raises(sish.ParameterError, match="small letters") as caught:
        small.push(address(database, archive=name))
    assert "\n" not in str(caught.value)


def test_archives_of_one_database_are_apart(small, paper, database):
    one, other = pushed(small, database, "one"), pushed(paper, database, "select_table")
    assert_same_answers(small, one, ["s003"], each())
    assert_same_answers(paper, other, ["s003"], each())
    one.remove("s003")
    assert "s003" in other and "s003" not in one
