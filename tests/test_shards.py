"""Shards: which slide is in which, what SLURM's variables name, and the record that the index keeps."""

import pytest

from sish.errors import ParameterError
from sish.shards import Shard, ShardRecord, digest_of

IDS = [f"slide {number}" for number in range(500)]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_each_slide_is_in_exactly_one_shard(count):
    shards = [Shard(number, count) for number in range(count)]
    assert all(sum(shard.holds(slide_id) for shard in shards) == 1 for slide_id in IDS)
    sizes = [sum(map(shard.holds, IDS)) for shard in shards]
    assert min(sizes) > 500 / count / 1.5


def test_the_hash_stays_what_it_was():
    """Shards of two machines, or of two releases, must fit each other."""
    assert [Shard(0, 3).holds(name) for name in ("a", "b", "é", "x\udce9", "slide 1")] == [
        False, False, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "1", "8/8", "-1/8", "1/0", "a/b", "1/8/9", "0x1/8", " 1/8", "AUTO"])
def test_other_texts_are_refused(text):
    with pytest.raises(ParameterError, match=r"want I/N, I from 0 to N - 1"):
        Shard.parse(text)


ARRAY = {
    "SLURM_ARRAY_TASK_ID": "12",
    "SLURM_ARRAY_TASK_MIN": "10",
    "SLURM_ARRAY_TASK_MAX": "14",
    "SLURM_ARRAY_TASK_COUNT": "5",
    "SLURM_ARRAY_TASK_STEP": "1",
}


def test_auto_reads_the_array(monkeypatch):
    assert Shard.parse("auto", ARRAY) == Shard(2, 5)
    for name, value in ARRAY.items():
        monkeypatch.setenv(name, value)
    assert Shard.parse("auto") == Shard(2, 5)
    assert Shard.parse("0/3") == Shard(0, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"SLURM_ARRAY_TASK_STEP": "2"},
        {"SLURM_ARRAY_TASK_MAX": "20"},
        {"SLURM_ARRAY_TASK_ID": "9"},
        {"SLURM_ARRAY_TASK_ID": ""},
        {"SLURM_ARRAY_TASK_COUNT": "many"},
    ],
)
def test_an_array_with_holes_or_none_is_refused(change):
    with pytest.raises(ParameterError, match=r"want|shard"):
        Shard.parse("auto", {**ARRAY, **change})


def test_the_digest_is_of_the_list_in_any_order():
    assert digest_of(["b", "a"]) == digest_of(["a", "b", "a"]) != digest_of(["ab"])


def test_the_record_is_kept_as_it_is():
    failed = (("a", "/x/a.svs", "is empty"),)
    record = ShardRecord(1, 3, digest_of("abc"), 2, 0, 10.5, 11.0, failed, finished=True)
    assert ShardRecord.kept_with(record.fact()) == record
    assert record.shard == Shard(1, 3)


@pytest.mark.parametrize(
    "odd",
    [{"number": 3}, {"count": "3"}, {"failed": [["a"]]}, {"finished": 1}, {"planned": -1}, {"more": 1}],
)
def test_an_odd_record_is_none(odd):
    fact = ShardRecord(1, 3, "d", 2, 0, 10, 11).fact()["shard"]
    assert ShardRecord.kept_with({"shard": {**fact, **odd}}) is None
    assert ShardRecord.kept_with({"shard": "1/3"}) is None
    assert ShardRecord.kept_with({}) is None
