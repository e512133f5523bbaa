"""Shards are filled from the slides and the labels of the whole archive, and merged to one index."""

import h5py
import numpy as np
import pytest
from PIL import Image
from plain_encoder import PlainEncoder
from sharded import assert_same

import sish
from sish import ingest
from sish.cli import main
from sish.index.store import Store
from sish.shards import Shard, ShardRecord, digest_of

NAMES = [f"{folder}/{name}" for folder, name in zip("abababab", "hgfedcba", strict=True)]
"""Pictures of two folders, so that their paths are in another order than their ids."""
IDS = sorted(name[-1] for name in NAMES)
COUNT = 3


class Foreign(PlainEncoder):
    """A `PlainEncoder` whose features are measured."""

    fingerprint, binarisation = "foreign", "projection"


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Pictures of tissue, a broken one, and labels of all."""
    folder = tmp_path_factory.mktemp("slides")
    for number, name in enumerate(NAMES):
        rng = np.random.default_rng(number)
        pixels = rng.integers(60, 200, (256, 256, 3)) * rng.uniform([0.8, 0.4, 0.8], [1, 0.65, 1])
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
    (folder / "a" / "x.png").write_bytes(b"no picture")
    lines = [f"{name},{'one' if name < 'd' else 'two'}" for name in [*IDS, "x"]]
    (folder / "labels.csv").write_text("\n".join(["slide_id,label", *lines, ""]))
    return folder


@pytest.fixture(scope="module")
def model(slides, tmp_path_factory):
    """An index without slides, whose encoder was measured on them all."""
    path = tmp_path_factory.mktemp("model") / "model.sish"
    return sish.Index.create(path, encoder=Foreign(), measure=slides, mpp=1.0, rerank="int8")


def added(folder, model, slides, shard, **options):
    path = folder / f"shard{Shard.parse(shard).number}"
    index = sish.Index.open_or_create(path, encoder=Foreign(), like=model)
    given = {"labels": slides / "labels.csv", "mpp": 1.0, "show_progress": False} | options
    return path, index.add(slides, shard=shard, **given)


def record_of(path):
    return ShardRecord.kept_with(Store.open(path).state.measured)


def test_shards_hold_each_slide_once_and_become_one_index(tmp_path, model, slides, monkeypatch):
    one = sish.Index.create(tmp_path / "one", encoder=Foreign(), rerank="int8")
    one.add(slides, labels=slides / "labels.csv", mpp=1.0, show_progress=False)
    monkeypatch.setattr(ingest, "take_sample", None)  # a shard never measures
    filled = [added(tmp_path, model, slides, f"{number}/{COUNT}") for number in range(COUNT)]
    assert sorted(name for _, report in filled for name in report.added) == IDS
    assert sum(len(report.failed) for _, report in filled) == 1, (
        "the broken one alone, and no row of the labels"
    )
    merged = sish.merge(tmp_path / "m", [path for path, _ in filled], show_progress=False)
    assert [skipped.path for skipped in merged.failed] == [str(slides / "a" / "x.png")]
    assert_same(tmp_path / "one", tmp_path / "m")


def test_a_finished_shard_tells_what_it_is_and_what_failed(tmp_path, model, slides):
    shard = next(Shard(number, COUNT) for number in range(COUNT) if Shard(number, COUNT).holds("x"))
    path, report = added(tmp_path, model, slides, str(shard))
    record = record_of(path)
    assert (record.shard, record.finished, record.digest) == (shard, True, digest_of([*IDS, "x"]))
    assert record.planned == len(report.added) + 1
    ((name, file, reason),) = record.failed
    assert (name, file, reason) == ("x", str(slides / "a" / "x.png"), report.failed[0].reason)
    assert record.before == 0 and record.started <= record.updated


def test_an_interrupted_shard_is_not_finished_and_goes_on(tmp_path, model, slides, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ingest.Ingest, "_add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        added(tmp_path, model, slides, "0/1")
    monkeypatch.undo()
    assert not record_of(tmp_path / "shard0").finished
    with pytest.raises(sish.ParameterError, match=r"shard 0/1 in .* is not finished"):
        sish.merge(tmp_path / "m", [tmp_path / "shard0"])
    path, report = added(tmp_path, model, slides, "0/1")
    assert report.added == IDS and record_of(path).finished
    _, again = added(tmp_path, model, slides, "0/1")
    assert (sorted(again.already), again.added, record_of(path).before) == (IDS, [], len(IDS))


def test_rows_that_name_no_slide_of_the_whole_archive_are_errors(tmp_path, model, slides):
    labels = tmp_path / "labels.csv"
    labels.write_text((slides / "labels.csv").read_text() + "nowhere,one\n")
    for number in range(COUNT):
        _, report = added(tmp_path, model, slides, f"{number}/{COUNT}", labels=labels)
        told = [skipped.reason for skipped in report.failed if skipped.path == "nowhere"]
        assert len(told) == 1 and "names nowhere" in told[0]


def test_a_folder_is_of_one_shard(tmp_path, model, slides):
    path, _ = added(tmp_path, model, slides, f"0/{COUNT}")
    index = sish.Index.open(path, encoder=Foreign())
    with pytest.raises(sish.ParameterError, match=r"got shard 1/3 for .*shard0, which is shard 0/3"):
        index.add(slides, mpp=1.0, shard="1/3")
    sish.Index.open_or_create(tmp_path / "all", encoder=Foreign(), like=model).add(
        slides, mpp=1.0, show_progress=False
    )
    with pytest.raises(sish.ParameterError, match="this slide is of another shard"):
        sish.Index.open(tmp_path / "all", encoder=Foreign()).add(slides, mpp=1.0, shard="0/3")


def test_a_shard_does_not_measure_its_own_slides(tmp_path, slides):
    index = sish.Index.create(tmp_path / "shard0", encoder=Foreign())
    with pytest.raises(sish.ParameterError, match="all shards must share one measurement"):
        index.add(slides, mpp=1.0, shard="0/3", show_progress=False)
    assert not len(index)


def test_an_index_that_should_be_like_another_and_is_not_is_refused(tmp_path, model):
    sish.Index.create(tmp_path / "other", encoder=PlainEncoder())
    with pytest.raises(sish.EncoderMismatchError, match="which it should be like"):
        sish.Index.open_or_create(tmp_path / "other", encoder=PlainEncoder(), like=model)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Files of features as TRIDENT writes them."""
    folder = tmp_path_factory.mktemp("features_uni")
    rng = np.random.default_rng(0)
    for name in IDS:
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["features"] = rng.normal(size=(60, 64)).astype(np.float32)
            file["coords"] = np.stack(np.divmod(np.arange(60), 8), 1) * 512
            file["coords"].attrs.update(
                patch_size=256, patch_size_level0=512, level0_magnification=40, target_magnification=20
            )
    return folder


def run(*words):
    return main([str(word) for word in words])


@pytest.mark.parametrize("like", [False, True])
def test_the_commands_on_features(tmp_path, features, capsys, monkeypatch, like):
    add = "index", "add", "--features", features, "--feature-encoder", "uni", "--quiet"
    assert run(*add, "--index", tmp_path / "one") == 0
    more = ["--like", tmp_path / "one"] if like else []
    (tmp_path / "labels.csv").write_text("slide_id\n" + "\n".join(IDS))
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    for task in (1, 2):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        labels = "--labels", tmp_path / "labels.csv"
        assert run(*add, *more, *labels, "--index", tmp_path / f"s{task}", "--shard", "auto") == 0
    assert record_of(tmp_path / "s2").shard == Shard(1, 2)
    assert run("index", "merge", tmp_path / "m", tmp_path / "s1", tmp_path / "s2", "--quiet") == 0
    assert_same(tmp_path / "one", tmp_path / "m")
    capsys.readouterr()
    assert run(*add, "--index", tmp_path / "s1", "--shard", "2/2") == 1
    assert "want I/N" in capsys.readouterr().err


def test_without_the_option_slurm_is_not_asked(tmp_path, features, monkeypatch):
    for name, value in (("ID", "0"), ("MIN", "0"), ("COUNT", "2")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    words = "index", "add", "--features", features, "--feature-encoder", "uni", "--quiet"
    assert run(*words, "--index", tmp_path / "a") == 0
    assert len(sish.Index.open(tmp_path / "a")) == len(IDS)
    assert record_of(tmp_path / "a") is None


def test_a_new_shard_of_pixels_needs_a_model(tmp_path, slides, capsys):
    assert run("index", "add", slides, "--index", tmp_path / "s0", "--shard", "0/2", "--quiet") == 1
    assert "without --like" in capsys.readouterr().err
    assert not (tmp_path / "s0").exists()


@pytest.mark.slow
def test_the_commands_on_slides(tmp_path, synthetic_slides, built_index):
    labels = "--labels", synthetic_slides / "labels.csv"
    assert run("index", "create", "--index", tmp_path / "model", "--measure", synthetic_slides) == 0
    shards = [tmp_path / "s0", tmp_path / "s1"]
    for number, shard in enumerate(shards):
        add = "index", "add", synthetic_slides, "--index", shard, "--shard", f"{number}/2"
        assert run(*add, *labels, "--like", tmp_path / "model", "--quiet") == 0
    assert run("index", "merge", tmp_path / "m", *shards, "--quiet") == 0
    assert_same(built_index, tmp_path / "m")
