"""Several writers and readers of one archive in PostgreSQL; writers that are killed; servers that restart."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
    without_tissue,
    write_archive,
)

import sish
from sish.index.postgres.writing import Writing

ASKED = [{"k": 9, "ranking": "uncertainty"}, {"k": 9, "ranking": "similarity", "exclude_patient": True}]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[sish.Index]:
    """Six indexes of three slides each; not to be written to."""
    folder = tmp_path_factory.mktemp("shards")
    return [
        write_archive(folder / f"{shard}", [coded(shard + 6 * number) for number in range(3)])
        for shard in range(6)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> sish.Index:
    """An index of the slides of all shards; not to be written to."""
    return write_archive(tmp_path_factory.mktemp("whole") / "index", map(coded, range(18)))


def stored(database) -> list[str]:
    """The ids of an archive, in order, once the server has noticed who died."""
    return sorted(row.slide_id for row in sish.Index.open(address(database)).slides)


def killed(work: Callable[[], object], at_call: int) -> bool:
    """Work in a child that is killed as it sends its `at_call`-th statement; whether it was."""
    child = os.fork()
    if child == 0:
        calls = iter(range(at_call - 1, -1, -1))

        def counting(method: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **options: object) -> object:
                if next(calls, 0) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return method(*args, **options)

            return call

        psycopg = pytest.importorskip("psycopg")
        psycopg.Connection.execute = counting(psycopg.Connection.execute)
        psycopg.Copy.write = counting(psycopg.Copy.write)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_writers_of_an_archive_that_none_has_made(shards, whole, database):
    """One of them makes it, and nothing is lost or twice there."""
    with ThreadPoolExecutor(len(shards)) as pool:
        reports = [*pool.map(lambda shard: shard.push(address(database), readers=["reader"]), shards)]
    assert [len(report.added) for report in reports] == [3] * 6
    remote = sish.Index.open(address(database))
    assert sish.verify(address(database)) == []
    assert_same_archive(whole, remote)
    assert_same_answers(whole, remote, ["s003", "s010"], ASKED)


def test_writers_of_every_kind_at_once(shards, whole, database, tmp_path):
    remote = pushed(shards[0], database)
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label\ns000,z\ns006,z\n")
    work = [
        *(lambda shard=shard: shard.push(address(database)) for shard in shards[1:]),
        lambda: sish.Index.open(address(database)).relabel(labels),
        lambda: sish.Index.open(address(database)).remove("s012"),
        lambda: sish.Index.open(address(database)).compact(),
        remote.compact,
    ]
    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(one) for one in work]:
            done.result()
    assert sish.verify(address(database)) == []
    rows = {row.slide_id: row.label for row in remote.slides}
    assert sorted(rows) == sorted(row.slide_id for row in whole.slides if row.slide_id != "s012")
    assert rows["s000"] == rows["s006"] == "z" != rows["s001"]


def test_two_pushes_of_the_same_slides(whole, database):
    """The second waits for the first, and finds the slides there."""
    with ThreadPoolExecutor(2) as pool:
        reports = [*pool.map(lambda index: index.push(address(database)), [whole, whole])]
    assert sorted(len(report.added) for report in reports) == [0, 18]
    assert sorted(len(report.already) for report in reports) == [0, 18]
    assert_same_archive(whole, sish.Index.open(address(database)))


@pytest.mark.parametrize("first", [True, False])
def test_a_push_that_is_killed_leaves_the_old_or_the_new_state(shards, database, first):
    old = [] if first else [row.slide_id for row in shards[0].slides]
    if not first:
        pushed(shards[0], database)
    new = sorted([*old, *(row.slide_id for row in shards[1].slides)])
    step, call, kills = 4 if first else 3, 1, 0
    while killed(lambda: shards[1].push(address(database)), call):
        call, kills = call + step, kills + 1
        try:
            assert stored(database) in (sorted(old), new)
            assert sish.verify(address(database)) == []
        except sish.IndexNotFoundError:
            assert first
        if not first and stored(database) == new:
            sish.Index.open(address(database)).remove([row.slide_id for row in shards[1].slides])
    assert kills > 3
    assert stored(database) == new
    shards[2].push(address(database))
    assert sish.verify(address(database)) == []
    assert len(sish.Index.open(address(database))) == len(new) + 3


def test_a_compaction_that_is_killed_leaves_the_old_or_the_new_state(whole, database):
    remote = pushed(whole, database)
    remote.remove("s004")
    expected = [row.slide_id for row in whole.slides if row.slide_id != "s004"]
    call = 3
    while killed(lambda: sish.Index.open(address(database)).compact(), call):
        call += 4
        assert stored(database) == expected
        assert sish.verify(address(database)) == []
    assert call > 7
    (tables,) = database.run(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'sish' AND relkind = 'p'"
    )
    assert tables == (1,)  # none of the killed ones left its table


def test_rows_behind_the_last_slide_are_nobodys(shards, whole, database):
    """A partition on another server keeps them if its writer dies between two commits (postgres_fdw)."""
    remote = pushed(shards[0], database)
    before = remote.search("s006", k=3)
    copied = (
        'INSERT INTO sish.patch_0 (key, patch, x, y, nth, slide, "row", barcode) '
        'SELECT key, patch + (3 << 22), x, y, nth, slide + 3, "row", barcode FROM sish.patch_0'
    )
    database.run(copied)
    assert sish.Index.open(address(database)).search("s006", k=3) == before
    assert sish.verify(address(database)) == []
    for shard in shards[1:]:
        shard.push(address(database))
    assert sish.verify(address(database)) == []
    assert_same_archive(whole, remote)
    assert_same_answers(whole, remote, ["s003"], ASKED)
    database.run(copied.replace("3", "18"))
    remote.compact()
    assert sish.verify(address(database)) == []
    assert_same_archive(whole, remote)


def test_readers_see_one_state_while_others_write(database, tmp_path):
    """All slides are replaced in each change, so an answer of two states would be neither's."""
    rng = np.random.default_rng(0)
    ids = np.repeat([f"s{number:02}" for number in range(16)], 20)
    vectors = rng.normal(size=(3, len(ids), 24)).astype(np.float32)
    one = sish.Index.from_vectors(tmp_path / "one", vectors[0], ids, show_progress=False)
    other = sish.Index.create(tmp_path / "other", like=one)
    other.add_vectors(vectors[1], ids, show_progress=False)
    asked = {"k": 9, "search": {"threshold": 90}, "patient": "s03", "exclude_patient": True}
    allowed = [index.search(vectors[2, :20], **asked).to_dict() for index in (one, other)]
    remote, ended = pushed(one, database), threading.Event()

    def read(own: sish.Index) -> list[int]:
        seen: list[int] = []
        while not ended.is_set() or len(seen) < 4:
            seen.append(allowed.index(own.search(vectors[2, :20], **asked).to_dict()))
            own.patches("s03")
            assert len(own.snapshot()) == len(ids)
        return seen

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(read, it) for it in (remote, sish.Index.open(address(database)))]
        try:
            for index in (other, one, other):
                index.push(address(database), replace=True)
                sish.Index.open(address(database)).compact()
        finally:
            ended.set()
        assert {number for done in reading for number in done.result()} == {0, 1}
    assert sish.verify(address(database)) == []


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_a_server_that_restarts_between_two_searches(whole, database, end):
    remote = pushed(whole, database)
    before = remote.search("s003", k=5)
    getattr(database.server, end)()
    with pytest.raises(sish.StoreError, match=r"cannot connect|ended the connection") as caught:
        remote.search("s004", k=5)
    assert "\n" not in str(caught.value)
    database.server.start()
    assert remote.search("s003", k=5) == before
    database.server.restart()
    assert remote.remove("s017") == 1
    assert sish.verify(address(database)) == []


def test_a_server_that_crashes_during_a_push(shards, database, monkeypatch):
    remote = pushed(shards[0], database)
    commit = Writing.commit

    def crash(self: Writing) -> None:
        commit(self)
        database.server.crash()

    with monkeypatch.context() as patched:
        patched.setattr(Writing, "commit", crash)
        with pytest.raises(sish.StoreError, match="ended the connection") as caught:
            shards[1].push(address(database))
    assert "\n" not in str(caught.value)
    database.server.start()
    assert stored(database) == sorted(row.slide_id for row in shards[0].slides)
    shards[1].push(address(database))
    assert len(remote) == 6 and sish.verify(address(database)) == []


def test_slides_without_tissue_alone(database, tmp_path):
    folder = write_archive(tmp_path / "glass", [without_tissue("glass"), without_tissue("dust")])
    remote = pushed(folder, database)
    assert_same_archive(folder, remote)
    assert sish.verify(address(database)) == []
    more = write_archive(tmp_path / "more", map(coded, range(3)))
    more.push(address(database))
    add(tmp_path / "glass", map(coded, range(3)))
    assert_same_archive(sish.Index.open(tmp_path / "glass"), remote)
    assert_same_answers(sish.Index.open(tmp_path / "glass"), remote, ["s001"], ASKED)
    empty = write_archive(tmp_path / "empty", [])
    assert empty.push(address(database)).summary().startswith("pushed 0 new slides")
    assert len(pushed(empty, database, "of_nothing")) == 0
    assert sish.verify(address(database, "of_nothing")) == []


ADD = """
import os, signal, sys
import sish, sish.slide_writer
from sish.index.postgres.store import RemoteStore

sish.slide_writer._COMMIT_S = 0  # so that each slide is a commit
commits, append = [], RemoteStore.append_many
def kill(*args, **options):
    if len(commits) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    commits.append(append(*args, **options))
RemoteStore.append_many = kill
sish.Index.create(sys.argv[1]).add(sys.argv[2], labels=sys.argv[2] + "/labels.csv", show_progress=False)
"""


@pytest.mark.slow
def test_slides_are_added_straight_into_an_archive_and_an_add_resumes(
    built_index, synthetic_slides: Path, database
):
    done = subprocess.run(
        [sys.executable, "-c", ADD, address(database), str(synthetic_slides)], capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    remote = sish.Index.open(address(database))
    assert 0 < len(remote) < 8 and sish.verify(address(database)) == []
    there = {row.slide_id for row in remote.slides}
    report = remote.add(synthetic_slides, labels=synthetic_slides / "labels.csv", show_progress=False)
    assert set(report.already) == there and len(report.added) == 8 - len(there)
    folder = sish.Index.open(built_index)
    assert_same_archive(folder, remote)
    names = [row.slide_id for row in folder.slides]
    assert_same_answers(folder, remote, names[::3], ASKED)
    np.testing.assert_equal(sorted(row.slide_id for row in remote.slides), sorted(names))
