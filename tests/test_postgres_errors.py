"""What can be wrong with an archive in PostgreSQL is told on one line, and no line has a password in it."""

import logging
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed")
from postgres_archives import (
    add,
    address,
    assert_same_answers,
    assert_same_archive,
    coded,
    pushed,
    write_archive,
)
from postgres_servers import PASSWORD, PASSWORD_ROLE

import sish
from sish.cli import main
from sish.errors import IndexExistsError, IndexFormatError, SlideExistsError
from sish.index.postgres.addresses import Address

SECRET = "hush-hush"


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> sish.Index:
    """An index of a few slides; not to be written to."""
    return write_archive(tmp_path_factory.mktemp("small") / "index", map(coded, range(12)))


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> sish.Index:
    """An index with a learnt tree; not to be written to."""
    return write_archive(tmp_path_factory.mktemp("large") / "index", map(coded, range(200)))


def told_by(command: list[str], capsys) -> str:
    """The one line that a command which fails tells."""
    capsys.readouterr()
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    return err


def assert_told(place: str, words: str, error: type[sish.SishError], capsys) -> None:
    """Check what opening an address raises, and what the command line tells."""
    with pytest.raises(error, match=words) as caught:
        sish.Index.open(place)
    for told in (str(caught.value), told_by(["index", "info", "--index", place], capsys)):
        assert "\n" not in told.rstrip("\n")
        assert SECRET not in told and PASSWORD not in told


def test_a_wrong_password_or_none(database, capsys):
    base = database.dsn_of(PASSWORD_ROLE, SECRET)
    assert_told(base, "cannot connect.*password authentication failed", sish.StoreError, capsys)
    other = f"{database.dsn_of(PASSWORD_ROLE)}?password={SECRET}"
    assert_told(other, "password authentication failed", sish.StoreError, capsys)
    assert_told(database.dsn_of(PASSWORD_ROLE), "no password", sish.StoreError, capsys)


def test_a_role_and_a_database_that_are_not_there(database, capsys):
    assert_told(database.dsn_of("nobody", SECRET), "nobody", sish.StoreError, capsys)
    nowhere = database.dsn.replace(database.name, "nowhere")
    assert_told(nowhere, 'database "nowhere" does not exist', sish.StoreError, capsys)


def test_no_server(capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"postgresql://ann:{SECRET}@127.0.0.1:{free.getsockname()[1]}/slides"
        assert_told(place, "cannot connect.*check host, port", sish.StoreError, capsys)
        assert len(sish.verify(place)) == 1 and SECRET not in sish.verify(place)[0]


def test_no_archive(database, index, capsys):
    assert_told(database.dsn, "without this archive", sish.IndexNotFoundError, capsys)
    pushed(index, database)
    assert_told(address(database, "other"), "without this archive", sish.IndexNotFoundError, capsys)
    database.run("CREATE SCHEMA empty AUTHORIZATION owner")
    assert_told(address(database, "empty"), "without this archive", sish.IndexNotFoundError, capsys)
    assert len(pushed(index, database, "empty")) == len(index)
    with pytest.raises(IndexExistsError, match="already"):
        sish.Index.create(address(database, "empty"))


@pytest.mark.parametrize(
    "given",
    [
        f"postgresql://ann:{SECRET}%@h/db",
        f"postgresql://ann:a/{SECRET}@h/db",
        f"postgresql://ann:a?{SECRET}@h/db",
        f"postgresql://ann:a#{SECRET}@h/db",
        f"postgresql://ann:{SECRET}@h/db?archive=No",
        f"postgresql://ann:{SECRET}@h/db?archive",
        f"postgresql://ann@h/db?password={SECRET}&archive",
        f"postgresql://ann@h/db?password={SECRET}%&x=y",
        f"postgresql://ann@h/db?sslpassword={SECRET}&such=option",
        f"postgresql://ann:{SECRET}@[::1/db",
        f"postgresql://ann:{SECRET}@127.0.0.1:port/db",
        f"postgresql://ann:{SECRET}@127.0.0.1:999999/db",
    ],
)
def test_what_is_no_address_is_told_without_its_password(given, index, capsys):
    for ask in (sish.Index.open, index.push):
        with pytest.raises((sish.ParameterError, sish.StoreError)) as caught:
            ask(given)
        assert SECRET not in str(caught.value) and "\n" not in str(caught.value)
    assert SECRET not in told_by(["index", "info", "--index", given], capsys)


def test_a_password_is_neither_shown_nor_logged(database, index, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    database.run(f"CREATE SCHEMA sish AUTHORIZATION {PASSWORD_ROLE}")
    database.run(f"GRANT CREATE ON DATABASE {database.name} TO {PASSWORD_ROLE}")
    place = database.dsn_of(PASSWORD_ROLE, PASSWORD)
    index.push(place)
    remote = sish.Index.open(place)
    shown = [repr(it) for it in (remote, remote._store, remote._store.state, remote.view(), remote.path)]
    shown += [str(remote.path), f"{Address.parse(place)!r}", str(remote.search("s003").to_dict())]
    for options in ([], ["--json"]):
        assert main(["index", "info", "--index", place, *options]) == 0
        assert main(["index", "list", "--index", place, *options]) == 0
        assert main(["search", "s003", "--index", place, *options]) == 0
    shown += [*capsys.readouterr(), caplog.text]
    for text in shown:
        assert PASSWORD not in text and PASSWORD.replace(" ", "%20") not in text
    assert any(PASSWORD_ROLE in text for text in shown)


def test_a_reader_reads_and_a_stranger_does_not(database, index, capsys, tmp_path):
    remote = pushed(index, database, readers=["reader"])
    place = address(database, user="reader")
    reader = sish.Index.open(place)
    assert_same_answers(index, reader, ["s003"], [{"k": 5}])
    assert sish.verify(place) == []
    reader.pull(tmp_path / "copy")
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label\ns003,z\n")
    changes = [
        lambda: reader.remove("s003"),
        lambda: reader.relabel(labels),
        reader.compact,
        reader.measure_threshold,
        lambda: index.push(place),
        lambda: sish.Index.create(address(database, "own", user="reader")),
    ]
    for change in changes:
        with pytest.raises(sish.StoreError, match="without the right") as caught:
            change()
        assert "\n" not in str(caught.value)
    assert "without the right" in told_by(["index", "remove", "s003", "--index", place], capsys)
    assert_same_archive(index, remote)
    remote.compact()  # makes a new table, which the reader may read, too
    assert reader.search("s003", k=5) == index.search("s003", k=5)
    assert_told(address(database, user="stranger"), "without the right", sish.StoreError, capsys)
    assert "without the right" in sish.verify(address(database, user="stranger"))[0]


@pytest.mark.parametrize("tag", ["CREATE TABLE", "CREATE INDEX"])
def test_a_full_disk_changes_nothing(database, index, tag):
    with database.full_disk(tag):
        with pytest.raises(sish.StoreError, match=r"disk is full.*nothing was changed") as caught:
            index.push(address(database))
        assert "\n" not in str(caught.value)
    remote = pushed(index, database)
    remote.remove("s004")
    with database.full_disk(tag), pytest.raises(sish.StoreError, match="disk is full"):
        remote.compact()
    assert remote.info().removed_slides == 1 and sish.verify(address(database)) == []
    remote.compact()
    assert remote.info().removed_slides == 0 and "s003" in remote


def test_an_archive_of_another_format(database, index, capsys):
    remote = pushed(index, database)
    database.run("UPDATE sish.archive SET format = 77, generation = generation + 1")
    assert_told(address(database), "format 77; this release reads", IndexFormatError, capsys)
    for ask in (lambda: remote.search("s003"), lambda: index.push(address(database))):
        with pytest.raises(IndexFormatError, match="format 77"):
            ask()


def test_codes_of_another_encoder_are_refused(database, index, tmp_path):
    remote = pushed(index, database)
    paper = write_archive(tmp_path / "paper", [coded(50)], recipe=sish.Recipe(keys="paper"))
    with pytest.raises(sish.EncoderMismatchError, match="cannot be compared") as caught:
        paper.push(address(database), replace=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(sish.EncoderMismatchError):
        remote.pull(paper.path)
    assert_same_archive(index, remote)


def test_a_slide_with_other_codes_is_refused_unless_it_is_to_be_replaced(database, index, tmp_path):
    remote = pushed(index, database)
    other = write_archive(tmp_path / "other", [coded(30), coded(31, "s003")])
    with pytest.raises(SlideExistsError, match="'s003' is there with other codes") as caught:
        other.push(address(database))
    assert caught.value.slide_id == "s003"
    assert_same_archive(index, remote)
    report = other.push(address(database), replace=True)
    assert (report.added, report.replaced) == (["s030"], ["s003"])


def test_pgvector_or_none(database, index):
    """Its operator is used where it is, in whatever schema; answers are the same."""
    remote = pushed(index, database)
    before = [remote.search("s003", k=9, ranking="similarity")]
    if database.server.name == "wheel":
        odd = '"a "" {name} {} %s %"'
        database.run(f"CREATE SCHEMA {odd}; CREATE EXTENSION vector SCHEMA {odd}")
        remote = sish.Index.open(address(database))
        assert "bit_count" in remote._store.state.distance  # it may not use that schema
        database.run(f"GRANT USAGE ON SCHEMA {odd} TO owner")
        remote = sish.Index.open(address(database))
        assert "<~>" in remote._store.state.distance
        before.append(remote.search("s003", k=9, ranking="similarity"))
    else:
        assert "bit_count" in remote._store.state.distance
    assert before == len(before) * [index.search("s003", k=9, ranking="similarity")]


@pytest.mark.slow
def test_without_psycopg_the_extra_is_named(index):
    code = (
        "import sys; sys.modules['psycopg'] = None\nfrom sish.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "index", "info", "--index"]
    done = subprocess.run([*command, "postgresql://ann@h/db"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "needs psycopg" in done.stderr and "pip install" in done.stderr
    assert subprocess.run([*command, str(index.path)], capture_output=True).returncode == 0


WHERE = 'WHERE slide = 3 AND "row" = 5'
OTHER_BIT = "barcode = barcode # (B'1' || repeat('0', 1023)::bit(1023))"
COPIED = (
    'INSERT INTO sish.patch_0 SELECT key, patch, x, y, nth, slide, "row" + 400, barcode FROM sish.patch_0 '
)
DAMAGE = {
    "barcode": (f"UPDATE sish.patch_0 SET {OTHER_BIT} {WHERE}", "'s003'"),
    "place": (f"UPDATE sish.patch_0 SET x = x + 1 {WHERE}", "'s003' has barcodes, places"),
    "key": (f"UPDATE sish.patch_0 SET key = key + 1 {WHERE}", "numbers of patches of the keys"),
    "negative key": (f"UPDATE sish.patch_0 SET key = -1 {WHERE}", "numbers of patches of the keys"),
    "nth": (f"UPDATE sish.patch_0 SET nth = nth + 1 {WHERE}", "not in the order"),
    "number": (f"UPDATE sish.patch_0 SET patch = patch + 1 {WHERE}", "'s003' has patches whose numbers"),
    "row": (f'UPDATE sish.patch_0 SET "row" = 999 {WHERE}', "'s003' has"),
    "slide": (f"UPDATE sish.patch_0 SET slide = 4 {WHERE}", "'s003' has"),
    "missing patch": (f"DELETE FROM sish.patch_0 {WHERE}", "'s003' has"),
    "missing patches": ("TRUNCATE sish.patch_0", "has 0 patches"),
    "extra patch": (f"{COPIED}{WHERE}", "'s003' has"),
    "counts": (
        "UPDATE sish.archive SET counts = set_byte(counts, 0, get_byte(counts, 0) # 1)",
        "numbers of patches of the keys",
    ),
    "missing table": ("DROP TABLE sish.patch_0", "."),
    "slide row": ("UPDATE sish.slide SET n_patches = n_patches + 1 WHERE number = 3", "'s003' has"),
    "missing slide": ("DELETE FROM sish.slide WHERE number = 3", "12 slides were added"),
    "missing slides": ("DELETE FROM sish.slide", "12 slides were added"),
    "slide elsewhere": ("UPDATE sish.slide SET number = 99 WHERE number = 3", "12 slides were added"),
    "digest": ("UPDATE sish.slide SET codes_digest = '\\x00' WHERE number = 3", "'s003' has barcodes"),
    "no archive": ("DELETE FROM sish.archive", "format None"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_finds_what_sql_did_behind_its_back(database, index, kind, capsys):
    pushed(index, database)
    place = address(database)
    assert sish.verify(place) == []
    statement, words = DAMAGE[kind]
    database.run(statement)
    problems = sish.verify(place)
    assert problems and any(words in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)
    assert main(["index", "verify", place]) == 1
    assert problems[0] in capsys.readouterr().out


def test_verify_finds_damage_of_trees_and_keys(database, large):
    pushed(large, database)
    place = address(database)
    assert sish.verify(place) == []
    row = "key = (SELECT max(key) FROM sish.patch_0) AND nth = 0"
    database.run(f"UPDATE sish.patch_0 SET key = key - 1 WHERE {row}")
    assert any("keys are not those of the tree" in problem for problem in sish.verify(place))
    large.push(address(database, "other"))
    place = address(database, "other")
    database.run("UPDATE other.archive SET tree = NULL")
    assert sish.verify(place) != []


def test_verify_finds_another_vector(database, tmp_path):
    rng = np.random.default_rng(0)
    ids = np.repeat(["a", "b", "c"], 20)
    folder = sish.Index.from_vectors(
        tmp_path / "a", rng.normal(size=(60, 16)), ids, rerank="int8", show_progress=False
    )
    pushed(folder, database)
    assert sish.verify(address(database)) == []
    database.run(
        "UPDATE sish.patch_0 SET vector = set_byte(vector, 3, get_byte(vector, 3) # 1) "
        'WHERE slide = 1 AND "row" = 2'
    )
    (problem,) = sish.verify(address(database))
    assert "'b' has barcodes, places or vectors" in problem
    database.run("UPDATE sish.patch_0 SET vector = '\\x00' WHERE slide = 1 AND \"row\" = 2")
    assert len(sish.verify(address(database))) == 1


def test_a_patch_that_is_gone_is_told_by_a_search(database, index):
    remote = pushed(index, database)
    database.run("DELETE FROM sish.patch_0 WHERE slide = 3")
    with pytest.raises(sish.IndexCorruptError, match="sish index verify"):
        remote.search("s003")


@pytest.mark.slow
def test_on_the_command_line(database, index, tmp_path, capsys):
    place, own = address(database), str(tmp_path / "own")

    def said(*command: str) -> str:
        assert main([*command]) == 0
        return capsys.readouterr().out

    copy = write_archive(tmp_path / "own", map(coded, range(12)))
    assert said("index", "push", place, "--index", own).startswith("pushed 12 new slides")
    add(tmp_path / "own", [coded(40)])
    words = said("index", "push", place, "--index", own, "--partitions", "2", "--readers", "reader")
    assert words.startswith("pushed 1 new slides, replaced 0, 12 were there") and "13 slides" in words
    listed = said("index", "list", "--index", place)
    assert sorted(listed.splitlines()) == sorted(said("index", "list", "--index", own).splitlines())
    told = said("index", "info", "--index", place)
    assert str(Address.parse(place)) in told and "13" in told
    answers = [said("search", "s003", "--index", it, "-k", "4", "--json") for it in (own, place)]
    assert answers[0] == answers[1]
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label\ns003,z\n")
    assert "1 slide" in said("index", "label", str(labels), "--index", place)
    assert "removed 1" in said("index", "remove", "s040", "--index", place)
    assert "no slide 's040'" in told_by(["index", "remove", "s040", "--index", place], capsys)
    assert "every byte" in said("index", "verify", "--index", place)
    said("index", "compact", "--index", place)
    assert "pulled 12 slides" in said("index", "pull", place, "--index", str(tmp_path / "pulled"))
    pulled = sish.Index.open(tmp_path / "pulled")
    assert_same_archive(pulled, sish.Index.open(place))
    assert [row.label for row in pulled.slides if row.slide_id == "s003"] == ["z"]
    assert "13" in held_by(copy) and "is there with other codes" in told_by(
        ["index", "push", place, "--index", str(changed(tmp_path / "changed").path)], capsys
    )


def held_by(index: sish.Index) -> str:
    """How many slides an index holds, in words."""
    return f"{len(index)} slides"


def changed(path) -> sish.Index:
    """An index whose slide s003 has other codes."""
    row, codes = coded(3)
    return write_archive(path, [(row, replace(codes, barcodes=codes.barcodes ^ np.uint8(1)))])
