"""`sish index plan --slurm` on a real SLURM: its tasks, tasks that are killed, and the merge."""

import json
import re
from pathlib import Path

import pytest
from clusters import Cluster, slurm, wait_until
from sharded import assert_same

import sish
from sish.cli import main
from sish.cluster_status import ClusterStatus
from sish.demo.synthetic import write_slides

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Slides in a folder of an awkward name, one of which is no slide, and the index that one add makes."""
    folder = tmp_path_factory.mktemp("a") / 'it\'s $HOME; "x"'
    write_slides(folder / "%A slides", n_slides=10, seed=0, side_um=700)
    (folder / "%A slides" / "broken.svs").write_bytes(b"no slide")
    one = sish.Index.create(folder / "one.sish")
    report = one.add(folder / "%A slides", labels=folder / "%A slides" / "labels.csv", show_progress=False)
    assert len(report.added) == 10 and len(report.failed) == 1
    return folder


def plan(folder: Path, name: str, *options: str) -> Path:
    """Plan two shards of the slides, and return the index that they will be merged into."""
    index, slides = folder / name, folder / "%A slides"
    words = [str(slides), "--index", str(index), "--labels", str(slides / "labels.csv"), "--shards", "2"]
    asked = ["--slurm", "--time", "10", "--memory", "1G", "--cpus", "1", "--partition", "main", "--quiet"]
    assert main(["index", "plan", *words, *asked, *options]) == 0
    return index


def submit(cluster: Cluster, index: Path) -> tuple[str, str]:
    """Run the script of a plan; the numbers of the array job and of the merge."""
    words = cluster.run("bash", Path(f"{index}.slurm.sh")).split()
    return words[2].rstrip(";"), words[-1]


def shards_of(index: Path) -> list[Path]:
    return [Path(f"{index}.shards") / str(number) for number in range(2)]


def logs_of(index: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(Path(f"{index}.logs").iterdir()))


def test_the_array_and_the_merge_give_the_index_of_one_add(cluster, archive):
    index = plan(archive, "planned.sish", "--sbatch", "comment=a 'b' $c")
    encode, merge = submit(cluster, index)
    assert cluster.wait_for(merge) == ["COMPLETED"], logs_of(index)
    assert sorted(cluster.wait_for(encode)) == ["COMPLETED", "FAILED"]  # one has the file that is no slide
    asked = cluster.run("scontrol", "show", "job", "--oneliner", encode)
    assert "TimeLimit=00:10:00" in asked and "MinMemoryNode=1G" in asked and "Comment=a 'b' $c" in asked
    assert_same(index, archive / "one.sish")
    status = ClusterStatus.read(shards_of(index))
    assert (status.done, status.left, status.not_begun) == (10, 0, 0)
    assert [Path(path).name for _, path, _ in status.failed] == ["broken.svs"]


def test_tasks_that_were_killed_go_on_when_the_script_is_run_again(cluster, archive):
    index = plan(archive, "killed.sish")
    encode, merge = submit(cluster, index)
    wait_until(lambda: has_begun(shards_of(index)[1]), lambda: logs_of(index))
    cluster.run("scancel", "--signal=KILL", "--full", f"{encode}_1")
    assert cluster.wait_for(merge) == ["FAILED"]
    assert "shard 1/2" in logs_of(index) and "is not finished" in logs_of(index)
    done = ClusterStatus.read(shards_of(index))
    assert done.left > 0 and not done.shards[1].record.finished
    _, merge = submit(cluster, index)
    assert cluster.wait_for(merge) == ["COMPLETED"], logs_of(index)
    assert_same(index, archive / "one.sish")


def has_begun(shard: Path) -> bool:
    return ClusterStatus.read([shard]).shards[0].record is not None


def test_a_task_that_slurm_requeues_goes_on(cluster, archive):
    index = plan(archive, "requeued.sish")
    encode, merge = submit(cluster, index)
    wait_until(lambda: has_begun(shards_of(index)[0]), lambda: logs_of(index))
    cluster.run("scontrol", "requeue", f"{encode}_0")
    wait_until(lambda: "PENDING" in cluster.states(f"{encode}_0"), cluster.log)
    # SLURM waits two minutes; a start in the second of the requeue would be refused by the node
    cluster.run("scontrol", "update", f"JobId={encode}_0", "StartTime=now+3")
    assert cluster.wait_for(merge) == ["COMPLETED"], logs_of(index)
    assert_same(index, archive / "one.sish")


def test_status_tells_how_far_the_tasks_are(cluster, archive, capsys):
    index = plan(archive, "watched.sish")
    capsys.readouterr()
    _, merge = submit(cluster, index)
    seen = []
    while cluster.run("squeue", "--noheader", "--jobs", merge).strip():
        assert main(["index", "status", *map(str, shards_of(index)), "--json"]) == 0
        seen.append(json.loads(capsys.readouterr().out))
    assert cluster.states(merge) == ["COMPLETED"], logs_of(index)
    done = [it["done"] for it in seen]
    assert done == sorted(done) and done[-1] == 10


def test_the_daemons_listen_on_this_machine_only(cluster):
    text = (cluster.folder / "slurm.conf").read_text()
    ports = {int(number) for number in re.findall(r"Port=(\d+)", text)}
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    places = [line.split()[1].split(":") for line in table if line.split()[3] == "0A"]  # that listen
    found = {int(port, 16): address for address, port in places if int(port, 16) in ports}
    assert found == dict.fromkeys(ports, "0100007F")
