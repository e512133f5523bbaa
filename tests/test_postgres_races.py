"""An archive in PostgreSQL between two steps of one client, when another one changes it."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed")
import sish
from sish import transfer
from sish.errors import ArchiveRenewedError
from sish.index.postgres.addresses import Address
from sish.index.postgres.connection import Database
from sish.index.postgres.state import RemoteState
from sish.searchers import TextureKeys
from sish.thresholds import measure_threshold

PATCHES = 50
FEW, MANY = 20, 100
"""Slides of an archive without and with a learnt tree: it needs 4,000 patches."""
_CENTRES = np.random.default_rng(0).normal(size=(30, 24))


def vectors_of(slides):
    """Vectors of some slides, by their numbers, and the slides' ids."""
    own = [np.random.default_rng(number) for number in slides]
    found = [_CENTRES[rng.integers(0, 30, PATCHES)] + rng.normal(size=(PATCHES, 24)) / 3 for rng in own]
    return np.concatenate(found).astype(np.float32), np.repeat(
        [f"s{number:03}" for number in slides], PATCHES
    )


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    path = tmp_path_factory.mktemp("few") / "few.sish"
    return sish.Index.from_vectors(path, *vectors_of(range(FEW)), show_progress=False)


@pytest.fixture(scope="module")
def many(few, tmp_path_factory):
    index = sish.Index.create(tmp_path_factory.mktemp("many") / "many.sish", like=few)
    index.add_vectors(*vectors_of(range(MANY)), show_progress=False)
    return index


@pytest.fixture
def remote(few, database):
    few.push(database.dsn)
    return sish.Index.open(database.dsn)


def test_an_archive_without_slides_answers_nothing(few, database, tmp_path):
    query = vectors_of([0])[0]
    remote = sish.Index.create(database.dsn, like=few)
    assert not remote.search(query) and not len(remote.snapshot())
    few.push(database.dsn)
    remote.remove([row.slide_id for row in remote.slides])
    remote.compact()
    assert not remote.search(query) and not len(remote.snapshot()) and not sish.verify(database.dsn)
    remote.pull(tmp_path / "pulled.sish")
    assert not len(sish.Index.open(tmp_path / "pulled.sish"))


def test_a_state_keeps_the_patches_of_slides_that_another_client_removes(remote, few, database):
    state = remote._store.current()
    sish.Index.open(database.dsn).remove(["s003"])
    snapshot, whole = state.snapshot(), few.snapshot()
    assert [row.slide_id for row in snapshot.slides] == [row.slide_id for row in whole.slides]
    np.testing.assert_array_equal(snapshot.barcodes, whole.barcodes)
    assert len(remote.snapshot()) == (FEW - 1) * PATCHES


def test_a_writer_measures_what_it_holds_after_another_one_compacted(remote, database):
    with remote._store.writer() as store:
        keys = TextureKeys(store, seed=0)
        sish.Index.open(database.dsn).compact()
        measure_threshold(store)
        sish.Index.open(database.dsn).compact()
        keys.grow(0)
    assert len(sish.Index.open(database.dsn).search("s000")) == 5 and not sish.verify(database.dsn)


def test_a_writer_takes_the_tree_that_another_one_learnt(remote, many, database):
    with remote._store.writer() as store:
        keys = TextureKeys(store, seed=0)
        many.push(database.dsn)
        table = database.run("SELECT patches FROM sish.archive")
        store.refresh()
        keys.grow(MANY * PATCHES)
    assert database.run("SELECT patches FROM sish.archive") == table == [("patch_1",)]


def test_facts_of_a_learnt_tree_are_those_of_the_state_that_it_is_of(remote, many, database, monkeypatch):
    """Two pushes come together, and the first one learns the tree while the second one waits to do so."""
    grow = transfer._grow

    def late(store, report):
        monkeypatch.setattr(transfer, "_grow", grow)
        sish.Index.open(database.dsn).compact()
        grow(store, report)

    monkeypatch.setattr(transfer, "_grow", late)
    report = many.push(database.dsn)
    assert len(report.added) == MANY - FEW and len(report.already) == FEW
    measured = sish.Index.open(database.dsn)._store.state.measured
    assert measured["tree"]["checked"] == measured["threshold"]["patches"] == MANY * PATCHES


def test_a_push_does_what_one_that_was_killed_left_undone(remote, many, database, monkeypatch):
    def killed(store, report):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(transfer, "_grow", killed)
        many.push(database.dsn)
    assert remote._store.current().tree_file is None
    assert not many.push(database.dsn).patches
    assert remote._store.current().tree_file is not None


def test_a_search_asks_again_as_often_as_keys_are_made_anew(remote, few, monkeypatch):
    archive, calls = RemoteState.archive, []

    def renewed(state, tree):
        calls.append(state)
        if len(calls) < 5:
            raise ArchiveRenewedError("renewed")
        return archive(state, tree)

    monkeypatch.setattr(RemoteState, "archive", renewed)
    assert [hit.slide_id for hit in remote.search("s000")] == [hit.slide_id for hit in few.search("s000")]


@pytest.mark.parametrize("name", ["patch_1", "patch_level"])
def test_an_archive_may_be_named_like_a_table_of_patches(few, database, name):
    address = f"{database.dsn}?archive={name}"
    with pytest.raises(sish.IndexNotFoundError):
        sish.Index.open(address)
    few.push(address)
    assert len(sish.Index.open(address)) == FEW


def test_options_of_an_address_reach_the_server_as_they_are(few, database):
    options = "options=-c%20work_mem%3D7MB&application_name=a+b%20c"
    few.push(f"{database.dsn}?{options}")
    address = Address.parse(f"{database.dsn}?{options}&archive=lung")
    assert address.conninfo.endswith("options=-c%20work_mem%3D7MB&application_name=a%2Bb%20c")
    assert str(address).endswith("&archive=lung")


@pytest.mark.parametrize("user", ["postgres", "a member"])
def test_what_others_write_is_the_owners(few, database, user):
    few.push(database.dsn, readers=["reader"])
    if user == "a member":
        database.run('CREATE ROLE "a member" LOGIN IN ROLE owner')
    try:
        other = sish.Index.open(database.dsn_of(user.replace(" ", "%20")))
        other.remove(["s003"])
        other.compact()
        for role in ("owner", "reader"):
            assert sish.Index.open(database.dsn_of(role)).search("s000")
        sish.Index.open(database.dsn).compact()
    finally:
        database.run('DROP ROLE IF EXISTS "a member"')


def test_a_slide_that_moved_to_a_name_that_postgresql_cannot_keep(remote):
    row = replace(remote._store.state.row("s003"), path="/slides/\udcff.svs")
    with pytest.raises(sish.StoreError, match="rename the file"):
        remote._store.relabel({"s003": row})


def test_a_connection_that_was_cut_unseen_is_given_up_after_half_a_minute(database):
    with Database(Address.parse(f"{database.dsn}?keepalives_idle=7")).connection() as connection:
        given = connection.info.get_parameters()
    assert (given["tcp_user_timeout"], given["keepalives_idle"]) == ("30000", "7")


def test_a_second_calibration_is_refused_once_slides_are_there(database, tmp_path):
    """Two adds to a new archive each measure the encoder; codes of the later one would be of another kind."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 32)).astype(np.float32)
    index = sish.Index.from_vectors(
        tmp_path / "a.sish", vectors, np.repeat(["a", "b"], 30), show_progress=False
    )
    index.push(f"{database.dsn}?archive=measured")
    there = sish.Index.open(f"{database.dsn}?archive=measured")
    other = {**there._store.header, "fingerprint": "another"}
    (part,) = (segment.live() for segment in index._store.state.segments)
    with pytest.raises(sish.EncoderMismatchError, match="add again"):
        there._store.append_many([part], replace=True, header=other)
    assert len(there) == 2 and there.fingerprint == index.fingerprint
