"""Partitions of an archive on two real servers, through postgres_fdw."""

import json

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
from sish.cli import main
from sish.index.postgres import archive
from sish.index.postgres.addresses import Address
from sish.index.postgres.connection import Database, composed
from sish.index.postgres.foreign import Servers
from sish.index.postgres.patches import Reader

WAYS = (
    {"search": {"budget": 100}},
    {"search": {"budget": 100}, "exclude_patient": True},
    {"search": {"budget": 100}, "where": {"label": ["a", "b"], "age": "30..60"}},
    {"where": {"patient": "p3"}},
    {"search": {"budget": 10**9, "threshold": 400}},
)
ASKED = [{"k": 9, "ranking": ranking, **own} for ranking in RANKINGS for own in WAYS]
ONE = [{"search": {"budget": 100}, "exclude_patient": True}]


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> sish.Index:
    """An index with a learnt tree; not to be written to."""
    return write_archive(tmp_path_factory.mktemp("large") / "index", many_slides(), commits=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> sish.Index:
    """An index without a tree; not to be written to."""
    return write_archive(tmp_path_factory.mktemp("small") / "index", few_slides())


def placed(remote: sish.Index) -> list[str]:
    """Where each partition of an archive is."""
    return [
        "remote" if where.startswith("server remote") else "here"
        for where in remote.info().partitions.values()
    ]


def tables(far) -> dict[str, int]:
    """The tables of archives on the second server, with how many rows each has."""
    names = far.run("SELECT schemaname, tablename FROM pg_tables WHERE tableowner = 'owner'")
    return {table: far.run(f'SELECT count(*) FROM "{schema}".{table}')[0][0] for schema, table in names}


def rows_here(front) -> int:
    """How many patches the first server holds."""
    parts = front.run(
        "SELECT oid::regclass::text FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE relkind = 'r'"
    )
    return sum(front.run(f"SELECT count(*) FROM {part}")[0][0] for (part,) in parts)


@pytest.mark.slow
def test_a_large_archive_answers_as_the_folder_after_each_change(large, two_databases, tmp_path):
    front, far = two_databases
    remote = pushed(large, front, partitions=3, servers=["remote"])
    remote.pull(tmp_path / "copy")
    folder = sish.Index.open(tmp_path / "copy")
    more = [coded(300, "s005"), coded(301, "s301"), coded(302, "s302")]

    def check() -> None:
        assert_same_archive(folder, remote)
        assert_same_answers(folder, remote, ["s003"], ASKED)
        assert sish.verify(str(remote.path)) == []
        assert placed(remote) == ["here", "remote", "here"]
        held = rows_here(front), sum(tables(far).values())
        assert min(held) > 1000 and sum(held) == remote.info().patches + remote.info().removed_patches

    check()
    assert [*tables(far)] == ["patch_0_p1"]
    for one in (folder, remote):
        one.remove(["s001", "s002", "s010"])
    check()
    add(tmp_path / "copy", more, replacing=True)
    write_archive(tmp_path / "more", more).push(address(front), replace=True)
    check()
    for one in (folder, remote):
        one.compact()
    check()
    assert [*tables(far)] == ["patch_1_p1"]


@pytest.mark.slow
def test_a_small_archive_learns_a_tree_on_two_servers(small, two_databases, tmp_path):
    front, far = two_databases
    remote = pushed(small, front, servers=["remote"])
    remote.pull(tmp_path / "copy")
    folder = sish.Index.open(tmp_path / "copy")
    assert_same_archive(folder, remote)
    assert_same_answers(folder, remote, ["s003"], ASKED)
    rest = [slide for slide in many_slides() if slide[0].slide_id not in small]
    add(tmp_path / "copy", rest)
    write_archive(tmp_path / "rest", rest).push(address(front))
    assert remote._store.current().tree is not None
    assert_same_archive(folder, remote)
    assert_same_answers(folder, remote, ["s003"], ASKED)
    assert sish.verify(str(remote.path)) == []
    assert placed(remote) == ["here", "remote"]
    assert [*tables(far)] == ["patch_1_p1"] and sum(tables(far).values()) > 1000


@pytest.mark.parametrize(
    ("few", "budget", "sent"),
    [(1 << 16, 100, "array_agg("), (1 << 16, 10**9, "array_agg("), (0, 10**9, "[:")],
)
def test_the_other_server_compares_its_patches_itself(large, two_databases, monkeypatch, few, budget, sent):
    front, _ = two_databases
    remote = pushed(large, front, servers=["remote"])
    asked, arrays = [], Reader.arrays

    def kept(reader, statement, values):
        asked.append((composed(reader.address, statement, patch=reader.table), dict(values)))
        return arrays(reader, statement, values)

    monkeypatch.setattr(Reader, "arrays", kept)
    monkeypatch.setattr(archive, "FEW", few)
    assert_same_answers(large, remote, ["s003"], [{"search": {"budget": budget}}])
    query, values = asked[0]
    with Database(remote.path).connection() as connection:
        found = connection.execute(b"EXPLAIN (VERBOSE) " + query.as_bytes(connection), values)
        plan = "\n".join(line for (line,) in found)
    assert "Async Foreign Scan" in plan
    assert "Relations: Aggregate on (sish.patch_0_p1 p" in plan
    told = next(line for line in plan.splitlines() if "Remote SQL" in line)
    assert "bit_count" in told and sent in told and "GROUP BY" in told


def test_a_server_that_does_not_answer_is_named_and_nothing_is_changed(large, two_databases, tmp_path):
    front, far = two_databases
    remote = pushed(large, front, servers=["remote"])
    before = remote.info()
    more = write_archive(tmp_path / "more", [coded(300, "s300")])
    far.server.stop()
    for what in (
        lambda: remote.search("s003"),
        lambda: more.push(address(front)),
        remote.compact,
        lambda: small_push(more, front),
    ):
        with pytest.raises(sish.StoreError, match=r"server \"?remote") as caught:
            what()
        assert "\n" not in str(caught.value) and "refused" in str(caught.value)
    far.server.start()
    assert sish.Index.open(address(front)).info() == before
    assert_same_answers(large, remote, ["s003"], ONE)
    more.push(address(front))
    assert len(sish.Index.open(address(front))) == len(large) + 1


def small_push(index: sish.Index, front) -> None:
    """Push to an archive of its own."""
    index.push(address(front, "other"), servers=["remote"])


def dies_after_commit(servers: Servers) -> None:
    """In place of the commit on other servers: it is done, and then the writer dies."""
    for connection in servers._others.values():
        connection.commit()
    raise KeyboardInterrupt


@pytest.mark.slow
def test_what_a_writer_left_that_died_between_two_commits_is_deleted(
    large, two_databases, tmp_path, monkeypatch
):
    front, far = two_databases
    remote = pushed(large, front, partitions=2, servers=["remote"])
    whole = tables(far)
    other = write_archive(tmp_path / "other", [coded(400, "other")])
    more = [coded(300, "s300"), coded(301, "s301")]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Servers, "commit", dies_after_commit)
        other.push(address(front))
    assert tables(far)["patch_0_p1"] > whole["patch_0_p1"]
    assert_same_archive(large, sish.Index.open(address(front)))
    assert_same_answers(large, remote, ["s003"], ONE)
    write_archive(tmp_path / "more", more).push(address(front))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Servers, "commit", dies_after_commit)
        remote.compact()
    assert [*tables(far)] == ["patch_0_p1", "patch_1_p1"]
    remote = sish.Index.open(address(front))
    remote.pull(tmp_path / "copy")
    folder = sish.Index.open(tmp_path / "copy")
    assert "s300" in folder and "other" not in folder and sish.verify(str(remote.path)) == []
    remote.compact()
    assert [*tables(far)] == ["patch_1_p1"]
    assert_same_archive(folder, remote)
    assert_same_answers(folder, remote, ["s003", "s300"], ONE)


def test_a_reader_needs_a_user_mapping_and_its_rights_there(large, two_databases):
    front, far = two_databases
    pushed(large, front, servers=["remote"], readers=["reader"])
    reader = sish.Index.open(address(front, user="reader"))
    with pytest.raises(sish.StoreError, match="CREATE USER MAPPING") as caught:
        reader.search("s003")
    assert "\n" not in str(caught.value)
    front.run(
        "CREATE USER MAPPING FOR reader SERVER remote OPTIONS (user 'reader', password_required 'false')"
    )
    assert_same_answers(large, reader, ["s003"], ONE)
    sish.Index.open(address(front)).compact()
    assert_same_answers(large, sish.Index.open(address(front, user="reader")), ["s003"], ONE)
    far.run("REVOKE SELECT ON ALL TABLES IN SCHEMA {} FROM reader".format(*schema_of(far)))
    with pytest.raises(sish.StoreError, match=r"another server.*permission denied") as caught:
        sish.Index.open(address(front, user="reader")).search("s003")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_table_that_is_gone_from_the_other_server_is_no_new_state(small, two_databases):
    front, far = two_databases
    remote = pushed(small, front, servers=["remote"])
    far.run("DROP SCHEMA {} CASCADE".format(*schema_of(far)))
    with pytest.raises(sish.StoreError, match=r"another server.* has them no more") as caught:
        remote.search("s003")
    assert "\n" not in str(caught.value)


def schema_of(far) -> tuple[str, ...]:
    """The schemas of archives on the second server."""
    return tuple(
        name for (name,) in far.run("SELECT DISTINCT schemaname FROM pg_tables WHERE tableowner = 'owner'")
    )


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"servers": ["nowhere"]}, "no server nowhere; want .*CREATE SERVER"),
        ({"servers": ["unmapped"]}, "server unmapped without a user mapping"),
        ({"servers": ["remote"], "partitions": 1}, "want at least 2"),
        ({"servers": ["remote"], "readers": ["nobody"]}, 'role "nobody" does not exist'),
    ],
)
def test_servers_that_cannot_be_used_are_refused(small, two_databases, options, wanted):
    front, far = two_databases
    front.run("CREATE SERVER unmapped FOREIGN DATA WRAPPER postgres_fdw")
    with pytest.raises(sish.SishError, match=wanted) as caught:
        small.push(address(front), **options)
    assert "\n" not in str(caught.value)
    assert tables(far) == {}
    assert_same_archive(small, pushed(small, front, servers=["remote"]))


def test_servers_are_chosen_with_the_first_slides(small, two_databases):
    front, _ = two_databases
    remote = pushed(small, front)
    with pytest.raises(sish.ParameterError, match=r"got servers remote.* these: none"):
        small.push(address(front), servers=["remote"])
    other = pushed(small, front, "other", servers=["remote"])
    small.push(address(front, "other"), servers=["remote"])
    assert (placed(remote), placed(other)) == (["here"], ["here", "remote"])


def test_a_copy_of_the_first_database_does_not_write_into_the_tables_of_the_other(
    large, two_databases, tmp_path
):
    front, _ = two_databases
    remote = pushed(large, front, servers=["remote"])
    remote._store.close()
    more = write_archive(tmp_path / "more", [coded(300, "s300")])
    name = f"{front.name}_copy"
    front.server.run(f"CREATE DATABASE {name} TEMPLATE {front.name} OWNER owner")
    try:
        copy = address(front).replace(front.name, name)
        with pytest.raises(sish.StoreError, match=r"copy of another database.*sish index compact"):
            more.push(copy)
        assert len(sish.Index.open(copy)) == len(large)
        sish.Index.open(copy).compact()
        more.push(copy)
        assert len(sish.Index.open(copy)) == len(large) + 1
        assert sish.verify(copy) == []
        sish.Index.open(copy)._store.close()
    finally:
        front.server.run(f"DROP DATABASE {name} WITH (FORCE)")
    assert_same_archive(large, sish.Index.open(address(front)))


@pytest.mark.parametrize("extensions", [None, "cube,vector"])
def test_pgvector_is_used_where_all_servers_have_it(small, two_databases, extensions):
    """The operator is made by hand: Debian's servers of the tests have no pgvector."""
    front, _ = two_databases
    for database in two_databases:
        database.run("""
            CREATE FUNCTION public.far(bit, bit) RETURNS float8 LANGUAGE sql IMMUTABLE
                AS 'SELECT bit_count($1 # $2)::float8';
            CREATE OPERATOR public.<~> (LEFTARG = bit, RIGHTARG = bit, FUNCTION = public.far)""")
    assert "<~>" in pushed(small, front, "alone")._store.state.distance
    if extensions:
        front.run(f"ALTER SERVER remote OPTIONS (ADD extensions '{extensions}')")
    remote = pushed(small, front, servers=["remote"])
    assert ("<~>" in remote._store.state.distance) == bool(extensions)
    assert_same_answers(small, remote, ["s003"], ONE)


def test_the_command_line_pushes_to_several_servers_and_tells_where_patches_are(small, two_databases, capsys):
    front, _ = two_databases
    to = address(front)
    assert (
        main(["index", "push", to, "--index", str(small.path), "--partitions", "2", "--servers", "remote"])
        == 0
    )
    capsys.readouterr()
    assert main(["index", "info", "--index", to]) == 0
    told = capsys.readouterr().out
    assert "patch_0_p0   database" in told and "patch_0_p1   server remote, schema sish_" in told
    assert main(["index", "info", "--index", to, "--json"]) == 0
    assert [*json.loads(capsys.readouterr().out)["partitions"]] == ["patch_0_p0", "patch_0_p1"]
    assert isinstance(sish.Index.open(to).path, Address)
