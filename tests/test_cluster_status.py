"""`sish index status`: what shards' records say, in numbers and lines, and the list of slides that failed."""

import json
from pathlib import Path

import pytest
from store_cases import arrays_of, make_row

import sish
from sish.cli import main
from sish.cluster_status import ClusterStatus, ShardStatus
from sish.errors import LabelsError, ParameterError
from sish.index.store import Store, slide_snapshot
from sish.shards import ShardRecord
from sish.slides.files import find_slides

FAILED = ("bad, one", "/slides/bad, one.svs", 'says "no"')


@pytest.fixture
def shard_at(tmp_path):
    """Make the index of a shard with a number of slides, and with its record or None."""

    def make(name: str, slides: int, record: ShardRecord | None) -> str:
        with Store.create(tmp_path / name, {}) as store:
            rows = [make_row(f"{name}-{number}", 2, number) for number in range(slides)]
            if rows:
                store.append_many([slide_snapshot(row, *arrays_of(row)) for row in rows])
            if record is not None:
                store.keep_measured(record.fact())
        return str(tmp_path / name)

    return make


def record(number=0, planned=10, **changes) -> ShardRecord:
    known = {"count": 3, "digest": "d", "before": 0, "started": 1000.0, "updated": 1060.0}
    return ShardRecord(number=number, planned=planned, **{**known, **changes})


def test_pace_and_end_are_those_of_the_last_run(shard_at):
    status = ShardStatus.read(shard_at("a", 5, record(before=2, failed=(FAILED,))))
    assert (status.done, status.failed, status.left) == (5, 1, 4)
    assert status.slides_an_hour == 180  # three in a minute
    assert status.seconds_left == 80
    assert "5 of 10 slides done, 1 failed, 4 left; 180 slides an hour, about 0:01:20 to go" in status.line(0)


def test_a_finished_shard_has_no_time_left(shard_at):
    status = ShardStatus.read(shard_at("a", 9, record(finished=True, failed=(FAILED,))))
    assert status.seconds_left == 0 and status.line(0).endswith("1 failed; finished")


def test_the_end_is_unknown_without_a_pace(shard_at):
    assert ShardStatus.read(shard_at("a", 0, record())).seconds_left is None
    assert ShardStatus.read(shard_at("b", 2, record(before=2))).seconds_left is None
    assert ShardStatus.read(shard_at("c", 2, record(updated=1000.0))).seconds_left is None
    assert ShardStatus.read(shard_at("d", 0, None)).line(0).endswith("d: not begun")


def test_all_shards_together(shard_at):
    paths = [
        shard_at("c", 4, record(2)),
        shard_at("a", 10, record(0, finished=True)),
        shard_at("b", 5, record(1, failed=(FAILED,))),
    ]
    status = ClusterStatus.read(paths)
    assert [it.record.number for it in status.shards] == [0, 1, 2]
    assert (status.done, status.left, status.not_begun, status.failed) == (19, 10, 0, [FAILED])
    assert status.slides_an_hour == 300 + 240  # of those at work
    assert status.seconds_left == 90  # of the last to end
    assert status.lines()[-1] == (
        "all: 19 slides done, 1 failed, 10 left; 540 slides an hour, about 0:01:30 to go"
    )


@pytest.mark.parametrize("named", [True, False])
def test_shards_that_no_task_has_begun_are_counted(shard_at, tmp_path, named):
    missing = [str(tmp_path / "0"), str(tmp_path / "1")] if named else []
    status = ClusterStatus.read([shard_at("a", 4, record(2)), *missing])
    assert status.not_begun == 2 and status.seconds_left is None
    assert "2 shards not begun" in status.lines()[-1] and "end not known yet" in status.lines()[-1]


def test_folders_that_are_not_shards_of_one_list_are_refused(shard_at, built_index):
    first = shard_at("a", 1, record(0))
    for other, said in (
        (shard_at("b", 1, record(1, digest="e")), "another list"),
        (shard_at("c", 1, record(1, count=4)), "another number of shards"),
        (shard_at("d", 1, record(0)), "both shard 0/3"),
        (str(built_index), "no shard"),
    ):
        with pytest.raises(ParameterError, match=said):
            ClusterStatus.read([first, other])


def test_the_command_prints_json(shard_at, capsys):
    paths = [shard_at("a", 9, record(0, failed=(FAILED,), finished=True)), shard_at("b", 5, record(1))]
    assert main(["index", "status", *paths, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["done"], said["left"], said["not_begun"]) == (14, 5, 1)
    assert said["failed"] == [dict(zip(("slide_id", "path", "reason"), FAILED, strict=True))]
    assert [it["shard"] for it in said["shards"]] == ["0/3", "1/3"]


def test_failures_are_a_list_of_slides(shard_at, tmp_path, capsys):
    table = tmp_path / "failures.csv"
    path = shard_at("a", 9, record(0, failed=(FAILED,), finished=True))
    assert main(["index", "status", path, "--failures", str(table)]) == 0
    assert [str(it) for it in find_slides(table)] == [FAILED[1]]
    assert table.read_text() == 'slide_id,path,reason\n"bad, one","/slides/bad, one.svs","says ""no"""\n'


def test_slides_that_failed_are_added_by_their_list(synthetic_slides, tmp_path, capsys):
    slides, index = tmp_path / "slides", tmp_path / "a.sish"
    slides.mkdir()
    good, broken = sorted(synthetic_slides.glob("*.tif"))[:2]
    (slides / good.name).symlink_to(good)
    (slides / broken.name).write_bytes(b"no slide")
    shards = [str(tmp_path / "s0"), str(tmp_path / "s1")]
    assert main(["index", "plan", str(slides), "--index", str(index), "--shards", "2", "--quiet"]) == 0
    codes = [
        main(
            ["index", "add", str(slides), "--index", it, "--shard", f"{n}/2", "--like", str(index), "--quiet"]
        )
        for n, it in enumerate(shards)
    ]
    assert sorted(codes) == [0, 1]
    table = tmp_path / "failures.csv"
    assert main(["index", "status", *shards, "--failures", str(table)]) == 0
    (slides / broken.name).unlink()
    (slides / broken.name).symlink_to(broken)
    assert main(["index", "add", str(table), "--index", str(index), "--quiet"]) == 0
    assert [row.path for row in sish.Index.open(index).slides] == [str(slides / broken.name)]


def test_a_list_has_files_beside_it_and_needs_a_path_in_each_row(tmp_path):
    table = tmp_path / "slides.csv"
    table.write_text("stain,path\nHE,b/1.svs\nHE,/a/2.svs\n")
    assert find_slides(table) == [tmp_path / "b" / "1.svs", Path("/a/2.svs")]
    table.write_text("stain,path\nHE,\n")
    with pytest.raises(LabelsError, match=r"line 2: has no path"):
        find_slides(table)
