"""A real SLURM on 127.0.0.1 for tests: a controller and two nodes of two tasks each, by any user.

Nothing of the machine's own SLURM or munge is used or changed: configuration, key, sockets and state are in a
folder of the test. The daemons stop with the test, and with the process of the tests if that is killed.
"""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scontrol", "setpriv")
NODES = ("n1", "n2")
TASKS_A_NODE = 2
PATIENCE_S = 300

CONFIGURATION = """\
ClusterName=sish
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""
NODE = (
    "NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} "
    f"CPUs={TASKS_A_NODE} RealMemory=8000 State=UNKNOWN"
)


def find_programs() -> dict[str, str]:
    """The programs by name; without one the test is skipped, unless CI forbids that."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = {name: shutil.which(name, path=path) for name in PROGRAMS}
    if missing := [name for name, program in found.items() if program is None]:
        say = pytest.fail if os.environ.get("SISH_TEST_EVERYTHING") else pytest.skip
        say(f"no SLURM: {', '.join(missing)} not found; Debian's packages are slurm-wlm and munge")
    return found


class Cluster:
    """A running SLURM. Its commands find it by the configuration in their environment."""

    def __init__(self, folder: Path, programs: dict[str, str]) -> None:
        self.folder, self.programs = folder, programs
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        for name in [name for name in self.environment if name.startswith(("SBATCH_", "SLURM_ARRAY"))]:
            del self.environment[name]

    def run(self, *command: str | Path, **options) -> str:
        """Run a command on the cluster and return what it printed; it must succeed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, **options)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def states(self, job: str) -> list[str]:
        """The states of a job, one for each task of an array: COMPLETED, FAILED, RUNNING, ..."""
        shown = self.run("scontrol", "show", "job", "--oneliner", job)
        return [word.removeprefix("JobState=") for word in shown.split() if word.startswith("JobState=")]

    def wait_for(self, job: str) -> list[str]:
        """Wait until no task of a job is waiting or running, and return the tasks' states."""
        wait_until(lambda: not self.run("squeue", "--noheader", "--jobs", job).strip(), self.log)
        return self.states(job)

    def log(self) -> str:
        """The last lines of what the daemons wrote."""
        logs = sorted(path for path in self.folder.iterdir() if path.suffix in (".log", ".out"))
        return "\n".join(line for path in logs for line in _tail(path))


def _tail(path: Path) -> list[str]:
    return [f"{path.name}: {line}" for line in path.read_text(errors="replace").splitlines()[-15:]]


def wait_until(is_so, describe) -> None:
    """Wait until something is so; after five minutes the test fails with a description."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, describe()
        time.sleep(0.1)


@contextmanager
def slurm(folder: Path) -> Iterator[Cluster]:
    """A cluster whose daemons keep everything in a folder, which must have a short path (for its socket)."""
    cluster = Cluster(folder, find_programs())
    configure(folder)
    with ExitStack() as daemons:
        munge = folder / "munge"
        start = lambda *command: daemons.enter_context(daemon(cluster, *command))  # noqa: E731
        start(
            "munged", "--foreground", "--force", "--num-threads=2",  # forced: its folder is nobody else's
            f"--key-file={munge}/key", f"--socket={munge}/socket", f"--pid-file={munge}/pid",
            f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        wait_until((munge / "socket").exists, cluster.log)
        start("slurmctld", "-D", "-c")
        for node in NODES:
            start("slurmd", "-D", "-N", node)
        wait_until(lambda: are_idle(cluster), cluster.log)
        yield cluster


def configure(folder: Path) -> None:
    """Write the configuration, and a key that only this cluster has."""
    (folder / "munge").mkdir(mode=0o755)
    (folder / "state").mkdir()
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    port, *node_ports = free_ports(1 + len(NODES))
    nodes = [NODE.format(node=node, port=it) for node, it in zip(NODES, node_ports, strict=True)]
    text = CONFIGURATION.format(folder=folder, port=port, user=getpass.getuser(), nodes="\n".join(nodes))
    (folder / "slurm.conf").write_text(text)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for it in sockets:
            it.bind(("127.0.0.1", 0))
        return [it.getsockname()[1] for it in sockets]


@contextmanager
def daemon(cluster: Cluster, name: str, *options: str) -> Iterator[None]:
    """Run a daemon in the foreground; it stops with the test, and if the process of the tests is killed."""
    command = (cluster.programs["setpriv"], "--pdeathsig", "TERM", cluster.programs[name], *options)
    with (cluster.folder / f"{name}.out").open("ab") as out:
        process = subprocess.Popen(command, env=cluster.environment, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def are_idle(cluster: Cluster) -> bool:
    """Whether all nodes wait for work."""
    done = subprocess.run(
        ["sinfo", "--noheader", "--format=%T %D"], env=cluster.environment, capture_output=True, text=True
    )
    return done.stdout.split() == ["idle", str(len(NODES))]
