"""Merged shards give the index of one add; a merge that is killed goes on; odd shards are refused."""

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from sharded import assert_same, header_of_codes, keep_record, write_codes, write_shards

import sish
from sish.cli import main
from sish.index.store import Store
from sish.index.store import store as store_module
from sish.index.store.disk import replace_file
from sish.shards import ShardRecord

IDS = [f"slide-{number:03}" for number in range(110)]
"""6,600 patches: a tree is learnt at 4,000, and looked at once more."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A folder with the index of one add, `one`, and three shards."""
    folder = tmp_path_factory.mktemp("archive")
    header = header_of_codes(folder)
    write_codes(folder / "one", IDS, header)
    write_shards(folder, IDS, 3, header)
    return folder


def shards_of(folder):
    return sorted(folder.glob("shard?"))


@pytest.fixture
def own_archive(archive, tmp_path):
    """A copy that the test may change."""
    shutil.copytree(archive, tmp_path / "own")
    return tmp_path / "own"


def test_merged_shards_are_the_index_of_one_add(archive, tmp_path):
    report = sish.merge(tmp_path / "m", reversed(shards_of(archive)), show_progress=False)
    assert (report.merged, report.already, report.failed) == (len(IDS), 0, ())
    assert Store.open(archive / "one").tree is not None
    assert_same(archive / "one", tmp_path / "m")
    assert sish.verify(tmp_path / "m") == []


def test_answers_are_those_of_one_add(archive, tmp_path):
    sish.merge(tmp_path / "m", shards_of(archive), show_progress=False)
    one, merged = sish.Index.open(archive / "one"), sish.Index.open(tmp_path / "m")
    for slide_id in IDS[::10]:
        for ranking in ("uncertainty", "similarity"):
            hits = [
                [hit.to_dict() for hit in index.search(slide_id, k=4, ranking=ranking)]
                for index in (one, merged)
            ]
            assert hits[0] == hits[1]


def test_stored_vectors_are_merged_too(tmp_path):
    header = header_of_codes(tmp_path, vectors=32)
    write_codes(tmp_path / "one", IDS[:20], header, vectors=32)
    sish.merge(tmp_path / "m", write_shards(tmp_path, IDS[:20], 2, header, vectors=32), show_progress=False)
    assert Store.open(tmp_path / "m").snapshot().vectors is not None
    assert_same(tmp_path / "one", tmp_path / "m")


class Killed(BaseException):
    """The moment at which a process is killed."""


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_merge_that_is_killed_at_any_commit_ends_as_one_that_is_not(archive, tmp_path, monkeypatch, after):
    commits = 0

    def killed(path, data):
        nonlocal commits
        commits += 1
        if not after and commits == at:
            raise Killed
        replace_file(path, data)
        if after and commits == at:
            raise Killed

    monkeypatch.setattr(store_module, "replace_file", killed)
    at = 1
    while True:
        out, commits = tmp_path / f"m{at}", 0
        try:
            sish.merge(out, shards_of(archive), show_progress=False)
        except Killed:
            monkeypatch.undo()
            sish.merge(out, shards_of(archive), show_progress=False)
            assert_same(archive / "one", out)
            monkeypatch.setattr(store_module, "replace_file", killed)
            at += 1
            continue
        break
    assert at > 6


@pytest.mark.slow
def test_a_process_that_is_killed_and_started_again(archive, tmp_path):
    words = [sys.executable, "-m", "sish", "index", "merge", tmp_path / "m", *shards_of(archive), "--quiet"]
    for wait in (0.2, 0.4, 0.6, 0.8, 1.0):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / "m" / "manifest.json").exists():
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(words, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert_same(archive / "one", tmp_path / "m")


def test_a_planned_merge_tells_what_a_merge_does(archive, tmp_path, capsys):
    out, shards = tmp_path / "m", shards_of(archive)
    words = ["index", "merge", *map(str, (out, *shards))]
    assert main([*words, "--dry-run"]) == 0 and not out.exists()
    assert capsys.readouterr().out == f"{len(IDS)} to merge, 0 already there; nothing was written\n"
    plan = sish.plan_merge(out, shards)
    assert not out.exists() and plan == sish.merge(out, shards, show_progress=False)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert sish.plan_merge(out, shards) == sish.merge(out, shards, show_progress=False)
    assert {path: path.read_bytes() for path in before} == before
    for odd in (shards[1:], [shards[0], *shards]):
        with pytest.raises(sish.ParameterError) as planned:
            sish.plan_merge(tmp_path / "n", odd)
        with pytest.raises(sish.ParameterError) as merged:
            sish.merge(tmp_path / "n", odd, show_progress=False)
        assert str(planned.value) == str(merged.value)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for call in (sish.plan_merge, sish.merge):
        with pytest.raises(sish.IndexFormatError, match="is not empty"):
            call(tmp_path / "full", shards)


def test_a_second_merge_does_nothing(archive, tmp_path):
    sish.merge(tmp_path / "m", shards_of(archive), show_progress=False)
    generation = sish.Index.open(tmp_path / "m").generation
    report = sish.merge(tmp_path / "m", shards_of(archive), show_progress=False)
    assert (report.merged, report.already) == (0, len(IDS))
    assert sish.Index.open(tmp_path / "m").generation == generation


def record_of(path):
    return ShardRecord.kept_with(Store.open(path).state.measured)


def change_record(path, **changes):
    keep_record(path, replace(record_of(path), **changes))


def unfinished(shards):
    change_record(shards[1], finished=False, planned=99)


def of_another_list(shards):
    change_record(shards[1], digest="0")


def of_another_count(shards):
    change_record(shards[1], count=4)


def forgotten(shards):
    with Store.open(shards[1], write=True) as store:
        store.keep_measured({"shard": None})


def with_another_calibration(shards):
    with Store.open(shards[1], write=True) as store:
        store.replace_header({**store.header, "fingerprint": "other"}, {})


def with_a_stray_slide(shards):
    slide_id = Store.open(shards[1]).slides[0].slide_id
    change_record(shards[1], number=2)
    change_record(shards[2], number=1)
    return slide_id


def twice(shards):
    shards[2] = shards[1]


def without_one(shards):
    del shards[1]


def none_at_all(shards):
    shards.clear()


def damaged(shards):
    file = next(shards[1].glob("segments/*/barcodes/c.0.0"))
    file.write_bytes(b"\0" + file.read_bytes()[1:])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            unfinished,
            r"shard 1/3 in .*shard1 is not finished: it has \d+ of 99 slides",
        ),
        (of_another_list, r"shard1 is a shard of another list of slides than .*shard0"),
        (of_another_count, r"shard1 is shard 1/4, and .*shard0 is 0/3"),
        (forgotten, r"shard1 is no shard"),
        (with_another_calibration, r"shard1 was made with another fingerprint than .*shard0"),
        (with_a_stray_slide, r"slide slide-\d+ in .*shard1 is not of shard 2/3"),
        (twice, r"shard1 and .*shard1 are both shard 1/3"),
        (without_one, r"shards 1/3 are missing"),
        (none_at_all, r"got no shards"),
        (damaged, r"shard1.*barcodes"),
    ],
)
def test_odd_shards_are_refused_by_name(own_archive, spoil, told):
    shards = shards_of(own_archive)
    spoil(shards)
    with pytest.raises(sish.SishError, match=told):
        sish.merge(own_archive / "m", shards, show_progress=False)
    assert not (own_archive / "m").exists()


def test_an_id_in_two_shards_is_refused_by_name(own_archive):
    shards = shards_of(own_archive)
    header = dict(Store.open(shards[0]).header)
    twin = Store.open(shards[0]).slides[0].slide_id
    record = record_of(shards[1])
    shutil.rmtree(shards[1])
    write_codes(shards[1], [twin], header)
    keep_record(shards[1], record)
    with pytest.raises(sish.StoreError, match=rf"slide {twin} is in .*shard0 and in .*shard1"):
        sish.merge(own_archive / "m", shards, show_progress=False)


def test_an_index_of_other_slides_is_not_merged_into(own_archive):
    shards = shards_of(own_archive)
    header = dict(Store.open(shards[0]).header)
    write_codes(own_archive / "m", ["another"], header)
    with pytest.raises(sish.ParameterError, match=r"m holds another, which is not as these shards have it"):
        sish.merge(own_archive / "m", shards, show_progress=False)
    Store.create(own_archive / "empty", {**header, "fingerprint": "other"}).close()
    with pytest.raises(sish.ParameterError, match=r"empty was made with another fingerprint than the shards"):
        sish.merge(own_archive / "empty", shards, show_progress=False)
    with pytest.raises(sish.ParameterError, match="as a shard and as the index"):
        sish.merge(shards[0], shards, show_progress=False)


def test_a_slide_that_changed_in_its_shard_since_is_not_passed_over(own_archive):
    shards = shards_of(own_archive)
    sish.merge(own_archive / "m", shards, show_progress=False)
    index = sish.Index.open(shards[0])
    name = index.slides[0].slide_id
    (own_archive / "labels.csv").write_text(f"slide_id,label\n{name},new\n")
    index.relabel(own_archive / "labels.csv")
    with pytest.raises(sish.ParameterError, match=f"holds {name}"):
        sish.merge(own_archive / "m", shards, show_progress=False)


def test_the_command_tells_which_slides_failed_in_their_shards(own_archive, capsys):
    shards = shards_of(own_archive)
    change_record(shards[0], failed=(("x", "/x.svs", "/x.svs: is empty"), (IDS[0], "/y.svs", "came later")))
    words = ["index", "merge", str(own_archive / "m"), *map(str, shards), "--quiet"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out == f"{len(IDS)} merged, 0 already there; {own_archive / 'm'} holds {len(IDS)} slides\n"
    assert err == "sish: failed in its shard: /x.svs: is empty\n"
