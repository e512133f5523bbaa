"""Plan to encode an archive in shards on a cluster: the folders, the commands, and a script for SLURM.

The index of the archive is made first. It is empty, and the encoder's features are measured for it on the
slides on which an add of the whole list would measure them. Each shard's index, in a folder beside it, is
like it. So all shards make the same barcodes, and the merge puts them into the index of the archive::

    archive.sish            the archive: empty until the merge
    archive.sish.shards/0   an index for each shard
    archive.sish.logs/      what the tasks print
    archive.sish.slurm.sh   the script

Every name in a command or script is quoted for the shell, and a name with a line break is refused.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sish.archives import open_store
from sish.errors import ParameterError
from sish.ingest import Ingest
from sish.labels import read_labels
from sish.shards import AUTO, Shard
from sish.slides.reader_threads import SLIDE_TIMEOUT_S

if TYPE_CHECKING:
    from sish.slide_index import Index

MOST_SHARDS = 10_000
"""Most shards of a plan. SLURM's own limit of an array may be lower (``MaxArraySize``, often 1,001)."""

_END = "END_OF_TASK"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_REPLACED = re.compile(r"[%\\]")  # in names of output files: %j is the job, and a backslash ends that
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,:+-]*")
_OPTION = re.compile(r"(?P<name>[a-z][a-z0-9-]*)=(?P<value>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a task asks SLURM for. What is not given is left to the cluster's defaults."""

    time: str | None = None
    """Time limit of a task, as sbatch takes it: ``8:00:00``."""
    memory: str | None = None
    """Memory of a task: ``8G``."""
    cpus: int | None = None
    """Cores of a task."""
    gpus: str | None = None
    """GPUs of a task that encodes: ``1``, or with their type ``a100:1``."""
    partition: str | None = None
    """Partition, or several with commas."""
    options: tuple[str, ...] = ()
    """More options of sbatch as ``NAME=VALUE``: ``account=lab``."""

    def __post_init__(self) -> None:
        """Refuse values that sbatch cannot mean (ParameterError)."""
        for name in ("time", "memory", "gpus", "partition"):
            value = getattr(self, name)
            if value is not None and not _WORD.fullmatch(value):
                raise ParameterError(f"got --{name} {value!r}; want letters and digits, as sbatch takes it")
        if self.cpus is not None and self.cpus < 1:
            raise ParameterError(f"got --cpus {self.cpus}; want at least 1")
        for option in self.options:
            if not _OPTION.fullmatch(option) or _CONTROL.search(option):
                raise ParameterError(f"got --sbatch {option!r}; want NAME=VALUE, such as account=lab")

    def of_all(self) -> list[str]:
        """Return the options of sbatch for all tasks, the merge among them."""
        given = {"time": self.time, "mem": self.memory, "partition": self.partition}
        known = [f"--{name}={value}" for name, value in given.items() if value is not None]
        return [*known, *(f"--{option}" for option in self.options)]

    def of_encoding(self) -> list[str]:
        """Return the options of the tasks that encode."""
        given = {"cpus-per-task": self.cpus, "gres": self.gpus and f"gpu:{self.gpus}"}
        return [f"--{name}={value}" for name, value in given.items() if value is not None]


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A plan to encode slides in shards, and to merge them.

    Examples
    --------
    >>> plan = ClusterPlan(("/slides",), Path("/archive.sish"), 2, {"labels": "/my labels.csv"})
    >>> print(plan.commands(("sish",)))
    sish index add --index=/archive.sish.shards/0 --shard=0/2 '--labels=/my labels.csv' /slides
    sish index add --index=/archive.sish.shards/1 --shard=1/2 '--labels=/my labels.csv' /slides
    sish index merge /archive.sish /archive.sish.shards/{0..1}
    <BLANKLINE>
    """

    sources: tuple[str, ...]
    """Absolute paths of slides and folders; with `are_features`, of feature files."""
    index: Path
    """Absolute path of the archive's index."""
    shards: int
    """Number of shards."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of ``sish index add`` by name."""
    are_features: bool = False
    """Whether the sources are feature files."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and names that cannot be in a script (ParameterError)."""
        if not 1 <= self.shards <= MOST_SHARDS:
            raise ParameterError(f"got --shards {self.shards}; want 1 to {MOST_SHARDS}")
        for name in (*self.sources, str(self.index), *self.options.values()):
            if _CONTROL.search(name):
                raise ParameterError(
                    f"got the name {name!r}; a script wants names without line breaks and control "
                    "characters: rename it"
                )

    def beside(self, ending: str) -> Path:
        """Return the path beside the index whose name is the index's and an ending."""
        return self.index.with_name(self.index.name + ending)

    @property
    def folder(self) -> Path:
        """The folder of the shards."""
        return self.beside(".shards")

    @property
    def logs(self) -> Path:
        """The folder of what the tasks print."""
        return self.beside(".logs")

    @property
    def script(self) -> Path:
        """Where the script for SLURM goes, if no other path is given."""
        return self.beside(".slurm.sh")

    def shard(self, number: int) -> Path:
        """Return the folder of a shard's index."""
        return self.folder / str(number)

    @property
    def all_shards(self) -> str:
        """The folders of all shards, as bash takes them."""
        last = self.shards - 1
        return f"{shlex.quote(str(self.folder))}/" + (f"{{0..{last}}}" if last else "0")

    def commands(self, sish: Sequence[str]) -> str:
        """Return the plan as lines for bash: an add for each shard, to run anywhere, and then the merge."""
        adds = (
            self._add(sish, shlex.quote(f"--index={self.shard(number)}"), str(Shard(number, self.shards)))
            for number in range(self.shards)
        )
        return "\n".join([*adds, self._merge(sish), ""])

    def _add(self, sish: Sequence[str], index: str, shard: str) -> str:
        """Return the command of a shard; its index is quoted already."""
        options = shlex.join(f"--{name}={value}" for name, value in self.options.items())
        sources = shlex.join((*(("--features",) if self.are_features else ()), *self.sources))
        words = (shlex.join(sish), "index add", index, f"--shard={shard}", options, sources)
        return " ".join(filter(None, words))

    def _merge(self, sish: Sequence[str]) -> str:
        return f"{shlex.join(sish)} index merge {shlex.quote(str(self.index))} {self.all_shards}"

    def slurm_script(self, resources: Resources, sish: Sequence[str]) -> str:
        """Return a script for bash that hands the plan to SLURM: an array job, and the merge after it.

        The merge starts when all tasks have ended, however they ended, because a shard with failed slides is
        merged. It waits for tasks that SLURM put back into its queue, and refuses shards that are not
        finished. The script can be run again: what is done stays.

        Parameters
        ----------
        resources : Resources
            What the tasks ask for.
        sish : sequence of str
            The words of the command ``sish`` on the nodes.

        Returns
        -------
        str
            The script.

        Raises
        ------
        ParameterError
            If the index's path has a character that SLURM would replace in the names of logs.
        """
        if odd := _REPLACED.search(str(self.logs)):
            raise ParameterError(
                f"got {odd.group()!r} in the path {self.index}, which SLURM replaces in the names of logs; "
                "give --index another path"
            )
        logs = shlex.quote(f"--chdir={self.logs}")
        index = f"{shlex.quote(f'--index={self.folder}')}/$(({_TASK}))"
        encode = [f"--array=0-{self.shards - 1}", "--output=encode-%a.log", *resources.of_encoding()]
        threads = _THREADS if resources.cpus else ""
        return _SCRIPT.format(
            index=self.index,
            common=shlex.join(["--requeue", "--open-mode=append", *resources.of_all()]) + f" {logs}",
            encode=shlex.join(["--job-name=sish-encode", *encode]),
            merge=shlex.join(["--job-name=sish-merge", "--output=merge.log"]),
            add=threads + "exec " + self._add(sish, index, AUTO),
            merge_command="exec " + self._merge(sish),
            status=f"{shlex.join(sish)} index status {self.all_shards}",
            end=_END,
        )


_TASK = "SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN"
_THREADS = 'export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK" NUMBA_NUM_THREADS="$SLURM_CPUS_PER_TASK"\n'

_SCRIPT = """\
#!/usr/bin/env bash
# Encodes an archive in shards with SLURM and merges them into {index}
# Written by sish index plan. Run it with bash; run it again to go on with what is not done.
# How far it is: {status}
set -euo pipefail
common=({common})
encode=$(sbatch --parsable "${{common[@]}}" {encode} <<'{end}'
#!/usr/bin/env bash
set -euo pipefail
{add}
{end}
)
encode=${{encode%%;*}}
merge=$(sbatch --parsable "${{common[@]}}" {merge} \\
    --dependency="afterany:$encode" --export="ALL,SISH_ENCODE=$encode" <<'{end}'
#!/usr/bin/env bash
set -euo pipefail
# SLURM starts this job too early where it puts a task back into its queue, after a node failed:
# wait until it has said twice that no task is left; a controller that does not answer says nothing
none=0
while command -v squeue > /dev/null; do
    tasks=$(squeue --noheader --jobs="$SISH_ENCODE" 2>&1) || true
    case "$tasks" in
        "" | *"Invalid job id"*) none=$((none + 1)) ;;
        *) none=0 ;;
    esac
    if [ "$none" -eq 2 ]; then break; fi
    sleep 5
done
{merge_command}
{end}
)
echo "encoding: job $encode; merging after it: job ${{merge%%;*}}"
"""


def this_sish() -> tuple[str, ...]:
    """Return the words that run this very sish on any machine that sees the same folders."""
    return (sys.executable, "-m", "sish")


def calibrate(
    index: Index,
    slides: Iterable[str],
    *,
    labels: str | None = None,
    mpp: float | None = None,
    override_mpp: float | None = None,
    slide_timeout: float = SLIDE_TIMEOUT_S,
    show_progress: bool = True,
) -> bool:
    """Measure an index's encoder on slides as their first add does, and add none.

    Parameters
    ----------
    index : Index
        The index.
    slides, labels, mpp, override_mpp, slide_timeout, show_progress
        As of :meth:`sish.Index.add`.

    Returns
    -------
    bool
        Whether anything was measured. An index with patches, or with a calibration, keeps what it has.

    Raises
    ------
    ParameterError
        If too few of the slides can be read and have tissue.
    LabelsError
        If the labels file cannot be read.
    StoreError
        If another process writes to the index, or it cannot be written.
    """
    rows = None if labels is None else read_labels(labels)
    if len(index) or not index.encoder.needs_calibration:
        return False
    with open_store(index.path).writer() as store:
        ingest = Ingest(
            store, index.encoder, labels=rows, mpp=mpp, override_mpp=override_mpp, slide_timeout=slide_timeout
        )
        ingest.calibrate(slides, show_progress=show_progress)
    return True
