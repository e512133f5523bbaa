"""`sish index plan`: the folders it makes, its commands and its script, whatever the slides' names are."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from sharded import assert_same

import sish
from sish.cli import main
from sish.cluster_plan import ClusterPlan, Resources
from sish.errors import ParameterError

STRANGE = "a 'b' \"c\" $(touch d) `e` ;&|*? \\ -é"

SHOWN = STRANGE.replace("\\ ", "")  # without what SLURM replaces in names of logs


def words_by_bash(line: str) -> list[str]:
    """The words that bash makes of a line, one by one."""
    program = f"printf '%s\\0' {line}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


@pytest.fixture
def submitted(tmp_path, monkeypatch):
    """Run a script with a `sbatch` that only notes its words and its input, and return them by job."""
    fake = tmp_path / "bin" / "sbatch"
    fake.parent.mkdir()
    fake.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, sys\n"
        f"notes = pathlib.Path({str(tmp_path / 'notes')!r})\n"
        "jobs = notes.read_text().splitlines() if notes.exists() else []\n"
        "jobs.append(json.dumps([sys.argv[1:], sys.stdin.read()]))\n"
        "notes.write_text('\\n'.join(jobs))\n"
        "print(f'{40 + len(jobs)};cluster')\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)

    def run(script: Path) -> list[tuple[list[str], str]]:
        subprocess.run(["bash", script], check=True, capture_output=True, cwd="/")
        return [tuple(json.loads(line)) for line in (tmp_path / "notes").read_text().splitlines()]

    return run


def test_commands_quote_every_name():
    plan = ClusterPlan((f"/{STRANGE}",), Path(f"/x/{STRANGE}.sish"), 3, {"labels": f"/l/{STRANGE}"})
    lines = plan.commands((f"/bin/{STRANGE}",)).splitlines()
    assert len(lines) == 4
    for number, line in enumerate(lines[:3]):
        assert words_by_bash(line) == [
            f"/bin/{STRANGE}", "index", "add", f"--index=/x/{STRANGE}.sish.shards/{number}",
            f"--shard={number}/3", f"--labels=/l/{STRANGE}", f"/{STRANGE}",
        ]  # fmt: skip
    shards = [f"/x/{STRANGE}.sish.shards/{number}" for number in range(3)]
    assert words_by_bash(lines[3]) == [f"/bin/{STRANGE}", "index", "merge", f"/x/{STRANGE}.sish", *shards]


def test_one_shard_is_merged_too():
    lines = ClusterPlan(("/s",), Path("/a.sish"), 1).commands(("sish",)).splitlines()
    assert lines == [
        "sish index add --index=/a.sish.shards/0 --shard=0/1 /s",
        "sish index merge /a.sish /a.sish.shards/0",
    ]


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\x1bb"])
def test_names_with_line_breaks_are_refused(name):
    with pytest.raises(ParameterError, match="without line breaks"):
        ClusterPlan((f"/{name}",), Path("/a.sish"), 2)
    with pytest.raises(ParameterError, match="without line breaks"):
        ClusterPlan(("/s",), Path(f"/{name}"), 2)
    with pytest.raises(ParameterError, match="without line breaks"):
        ClusterPlan(("/s",), Path("/a.sish"), 2, {"labels": name})


@pytest.mark.parametrize("name", ["a%A.sish", "a\\b.sish"])
def test_paths_that_slurm_would_change_are_refused(name):
    plan = ClusterPlan(("/s%A",), Path("/x", name), 2)
    with pytest.raises(ParameterError, match="give --index another path"):
        plan.slurm_script(Resources(), ("sish",))


@pytest.mark.parametrize("shards", [0, -1, 10_001])
def test_numbers_of_shards_out_of_range_are_refused(shards):
    with pytest.raises(ParameterError, match=f"got --shards {shards}"):
        ClusterPlan(("/s",), Path("/a.sish"), shards)


@pytest.mark.parametrize(
    "asked",
    [
        {"time": "1; rm x"},
        {"memory": ""},
        {"partition": "a b"},
        {"gpus": "$(x)"},
        {"cpus": 0},
        {"options": ("account",)},
        {"options": ("--account=x",)},
        {"options": ("comment=a\nb",)},
    ],
)
def test_resources_that_sbatch_cannot_mean_are_refused(asked):
    with pytest.raises(ParameterError, match="want"):
        Resources(**asked)


def test_the_script_asks_for_what_was_given(submitted, tmp_path):
    resources = Resources("8:00:00", "16G", 4, "a100:1", "long,short", (f"comment={STRANGE}", "account=lab"))
    script = tmp_path / "x.sh"
    plan = ClusterPlan(("/s",), tmp_path / f"a {SHOWN}.sish", 8)
    script.write_text(plan.slurm_script(resources, ("sish",)))
    (encode, task), (merge, after) = submitted(script)
    both = {"--time=8:00:00", "--mem=16G", "--partition=long,short", f"--comment={STRANGE}", "--account=lab"}
    both |= {"--requeue", "--open-mode=append", f"--chdir={plan.logs}"}
    assert both <= set(encode) and both <= set(merge)
    only = {"--array=0-7", "--cpus-per-task=4", "--gres=gpu:a100:1", "--output=encode-%a.log"}
    assert only <= set(encode) and not only & set(merge)
    assert "--dependency=afterany:41" in merge  # the number alone, without the name of a cluster
    assert "--export=ALL,SISH_ENCODE=41" in merge
    assert "--shard=auto" in task and "OMP_NUM_THREADS" in task and "index merge" in after


def test_a_task_works_on_the_shard_of_its_number(submitted, tmp_path):
    plan = ClusterPlan((f"/{STRANGE}",), tmp_path / f"a {SHOWN}.sish", 3)
    script = tmp_path / "x.sh"
    script.write_text(
        plan.slurm_script(Resources(), (sys.executable, "-c", "import sys; print(sys.argv[1:])"))
    )
    (_, task), _ = submitted(script)
    for first in (0, 5):
        array = {"SLURM_ARRAY_TASK_ID": str(first + 2), "SLURM_ARRAY_TASK_MIN": str(first)}
        done = subprocess.run(
            ["bash"], input=task, capture_output=True, text=True, env={**os.environ, **array}, check=True
        )
        said = ["index", "add", f"--index={plan.shard(2)}", "--shard=auto", f"/{STRANGE}"]
        assert done.stdout.strip() == str(said)


def test_the_index_has_the_calibration_of_one_add(synthetic_slides, built_index, tmp_path, capsys):
    index = tmp_path / "archive.sish"
    words = ["index", "plan", str(synthetic_slides), "--index", str(index), "--shards", "2", "--quiet"]
    assert main([*words, "--labels", str(synthetic_slides / "labels.csv")]) == 0
    first = capsys.readouterr().out
    planned, added = sish.Index.open(index), sish.Index.open(built_index)
    assert len(planned) == 0 and planned.fingerprint == added.fingerprint
    assert planned._store.header == added._store.header
    assert main([*words, "--labels", str(synthetic_slides / "labels.csv")]) == 0  # changes nothing
    assert capsys.readouterr().out == first and len(first.splitlines()) == 3
    add = shlex.split(first.splitlines()[0])
    assert add[:3] == [sys.executable, "-m", "sish"] and f"--like={index}" in add


def test_labels_tell_the_scale_of_the_measured_slides(tmp_path, synthetic_slides):
    from PIL import Image

    slides = tmp_path / "slides"
    slides.mkdir()
    rows = ["path,mpp"]
    for number, path in enumerate(sorted(synthetic_slides.glob("*.tif"))[:3]):
        with Image.open(path) as picture:
            picture.convert("RGB").save(slides / f"{number}.png")
        rows.append(f"{number}.png,0.5")
    labels = slides / "labels.csv"
    labels.write_text("\n".join(rows))
    one = sish.Index.create(tmp_path / "one.sish")
    assert len(one.add(slides, labels=labels, show_progress=False).added) == 3
    words = ["index", "plan", str(slides), "--index", str(tmp_path / "a.sish"), "--shards", "2", "--quiet"]
    assert main([*words, "--labels", str(labels)]) == 0
    assert sish.Index.open(tmp_path / "a.sish").fingerprint == one.fingerprint


def test_slides_that_cannot_be_measured_are_told(tmp_path, capsys):
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "a.svs").write_bytes(b"no slide")
    words = ["index", "plan", str(tmp_path / "slides"), "--index", str(tmp_path / "a.sish"), "--shards", "2"]
    assert main(words) == 1
    assert "too few of them can be read and have tissue" in capsys.readouterr().err


def test_the_script_is_written_beside_the_index_and_replaces_no_other_file(features, tmp_path, capsys):
    words = ["index", "plan", "--features", str(features), "--feature-encoder", "uni", "--shards", "2"]
    words += ["--index", str(tmp_path / "a.sish")]
    assert main([*words, "--slurm", "--gpus", "1"]) == 0
    script = tmp_path / "a.sish.slurm.sh"
    assert str(script) in capsys.readouterr().out and script.read_text().startswith("#!/usr/bin/env bash\n")
    assert "--gres=gpu:1" in script.read_text() and "--device=cuda" in script.read_text()
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    assert main([*words, "--slurm", "--script", str(other)]) == 1
    assert other.read_text() == "mine"


def test_an_index_with_slides_is_no_archive_to_merge_into(built_index, tmp_path, capsys):
    words = ["index", "plan", str(tmp_path), "--index", str(built_index), "--shards", "2"]
    assert main(words) == 1
    assert "holds 8 slides" in capsys.readouterr().err
    assert not Path(f"{built_index}.shards").exists()


def test_the_printed_commands_on_features_give_the_index_of_one_add(features, tmp_path, capsys):
    one, index = tmp_path / "one.sish", tmp_path / "planned.sish"
    common = ["--features", str(features), "--feature-encoder", "uni"]
    assert main(["index", "add", *common, "--index", str(one), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["index", "plan", *common, "--index", str(index), "--shards", "3", "--quiet"]) == 0
    for line in capsys.readouterr().out.splitlines():
        words = words_by_bash(line)
        assert words[:3] == [sys.executable, "-m", "sish"] and main(words[3:]) == 0
    assert_same(index, one)


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    """Files of features as TRIDENT writes them, in a folder of an awkward name."""
    folder = tmp_path_factory.mktemp("features") / "it's $HOME"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(10):
        with h5py.File(folder / f"s{number}.h5", "w") as file:
            file["features"] = rng.normal(size=(60, 64)).astype(np.float32)
            file["coords"] = np.stack(np.divmod(np.arange(60), 8), 1) * 512
            file["coords"].attrs.update(
                {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40}
            )
    return folder
