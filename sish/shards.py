"""Shards: the parts of one list of slides that are encoded apart, each into an index of its own.

Each slide is in exactly one shard, by a hash of its id. So a machine that encodes a shard needs the list of
slides and no other machine. The index of a shard keeps a record of the work among its facts: which shard it
is, of which list, and whether it is finished. :func:`sish.merge` makes one index of all shards.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sish.errors import ParameterError

if TYPE_CHECKING:  # the command line names shards where there is no store
    from sish.archives import AnyStore
    from sish.index.store.manifest import JSON

FACT = "shard"
"""The name of the record among the facts that the store keeps."""

AUTO = "auto"
"""The shard that SLURM's variables of an array job name."""

_KEEP_EVERY_S = 5.0
"""Seconds between two writings of the record, about."""

_ARRAY = "SLURM_ARRAY_TASK_"


@dataclass(frozen=True, slots=True)
class Shard:
    """One of the shards of a list of slides.

    Examples
    --------
    >>> [Shard(number, 2).holds("a") for number in range(2)]
    [True, False]
    """

    number: int
    """From 0 to `count` - 1."""
    count: int
    """Number of shards."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range (ParameterError)."""
        if not 0 <= self.number < self.count:
            raise ParameterError(
                f"got shard {self.number} of {self.count}; want I/N, I from 0 to N - 1, such as 0/8"
            )

    def __str__(self) -> str:
        """Return it as `parse` takes it, such as ``3/8``."""
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str] | None = None) -> Shard:
        """Return the shard that a text names.

        Parameters
        ----------
        text : str
            ``I/N``, such as ``3/8``; or ``auto``, for the task of a SLURM array job.
        environ : mapping, optional
            The variables that ``auto`` reads; nothing else reads them. Default: those of the process.

        Returns
        -------
        Shard
            The shard.

        Raises
        ------
        ParameterError
            If it is anything else, or ``auto`` outside of an array job of consecutive numbers.

        Examples
        --------
        >>> Shard.parse("3/8"), Shard.parse("auto", {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "1",
        ...     "SLURM_ARRAY_TASK_COUNT": "8"})
        (Shard(number=3, count=8), Shard(number=4, count=8))
        """
        if text == AUTO:
            return _of_array(os.environ if environ is None else environ)
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None:
            raise ParameterError(
                f"got shard {text!r}; want I/N, I from 0 to N - 1, such as 0/8, or auto in a SLURM array"
            )
        return cls(int(found[1]), int(found[2]))

    def holds(self, slide_id: str) -> bool:
        """Return whether a slide of this id is in the shard."""
        digest = hashlib.blake2b(_bytes_of(slide_id), digest_size=8).digest()
        return int.from_bytes(digest, "little") % self.count == self.number


def _of_array(environ: Mapping[str, str]) -> Shard:
    """Return the shard of a task of a SLURM array job; ParameterError if its numbers do not tell."""
    names = ("ID", "MIN", "COUNT")
    told = [environ.get(_ARRAY + name, "") for name in names]
    if not all(re.fullmatch("[0-9]{1,9}", value) for value in told):
        shown = ", ".join(f"{_ARRAY}{name}={value!r}" for name, value in zip(names, told, strict=True))
        raise ParameterError(f"got shard 'auto' and {shown}; want a SLURM array job, or --shard I/N")
    task, first, count = map(int, told)
    step, last = environ.get(_ARRAY + "STEP", "1"), environ.get(_ARRAY + "MAX", str(first + count - 1))
    if step != "1" or last != str(first + count - 1):
        raise ParameterError(
            f"got shard 'auto' in an array of {count} tasks from {first} to {last} by steps of {step}; want "
            "consecutive numbers (sbatch --array=0-7), or --shard I/N"
        )
    return Shard(task - first, count)


def digest_of(slide_ids: Iterable[str]) -> str:
    """Return a digest of a list of slides, whatever its order: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for slide_id in sorted(set(slide_ids)):
        digest.update(_bytes_of(slide_id) + b"\0")
    return digest.hexdigest()


def _bytes_of(slide_id: str) -> bytes:
    return slide_id.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """The record of a shard's work, which its index keeps. The slides that are done are in the index."""

    number: int
    """Which shard, from 0 on."""
    count: int
    """Of how many."""
    digest: str
    """Digest of the ids of the whole list (`digest_of`)."""
    planned: int
    """Number of slides of this shard."""
    before: int
    """Number of slides that the index held when the last run started."""
    started: float
    """When the last run started, in seconds since 1970."""
    updated: float
    """When the record was last written, in seconds since 1970."""
    failed: tuple[tuple[str, str, str], ...] = ()
    """Slides that failed in the last run: slide id, file and reason."""
    finished: bool = False
    """Whether the last run came to its end."""

    @property
    def shard(self) -> Shard:
        """The shard."""
        return Shard(self.number, self.count)

    @classmethod
    def kept_with(cls, facts: Mapping[str, JSON]) -> ShardRecord | None:
        """Return the record among a store's facts; None if there is none, or one of another kind."""
        fact = facts.get(FACT)
        try:
            found = cls(**fact) if isinstance(fact, Mapping) else None  # type: ignore[arg-type]
            if found is None or not found._is_sound():
                return None
            return replace(found, failed=tuple((str(a), str(b), str(c)) for a, b, c in found.failed))
        except (TypeError, ValueError):
            return None

    def _is_sound(self) -> bool:
        """Return whether all values are of their types and in their ranges."""
        counts = (self.number, self.count, self.planned, self.before)
        times = (self.started, self.updated)
        return (
            all(type(it) is int and it >= 0 for it in counts)
            and self.number < self.count
            and all(type(it) in (int, float) for it in times)
            and isinstance(self.digest, str)
            and isinstance(self.finished, bool)
        )

    def fact(self) -> dict[str, JSON]:
        """Return what the store keeps."""
        return {FACT: {**asdict(self), "failed": [list(line) for line in self.failed]}}


class ShardLog:
    """Keeps the record of a shard's index up to date while slides are added.

    Parameters
    ----------
    store : Store or RemoteStore
        The index, open for writing.
    shard : Shard
        Which shard it is.

    Raises
    ------
    ParameterError
        If the index is another shard, or holds slides that are not of this one.
    """

    def __init__(self, store: AnyStore, shard: Shard) -> None:
        """Check the index; see the class."""
        self.shard, self._store = shard, store
        self._failed: dict[str, tuple[str, str, str]] = {}
        self._kept = time.monotonic()
        kept = ShardRecord.kept_with(store.state.measured)
        if kept is not None and kept.shard != shard:
            raise ParameterError(
                f"got shard {shard} for {store.path}, which is shard {kept.shard}: give each shard a folder "
                "of its own"
            )
        for slide_id, _ in store.state.ids_and_paths() if kept is None else ():
            if not shard.holds(slide_id):
                raise ParameterError(
                    f"got shard {shard} for {store.path}, which holds {slide_id}, and this slide is of "
                    "another shard: give the shard a folder of its own"
                )

    def begin(self, slide_ids: Collection[str]) -> None:
        """Write the record of a run that starts, given the ids of the whole list."""
        now, held = time.time(), len(self._store)
        planned = sum(map(self.shard.holds, set(slide_ids)))
        numbers = self.shard.number, self.shard.count
        self._record = ShardRecord(*numbers, digest_of(slide_ids), planned, held, now, now)
        self._keep()

    def fail(self, slide_id: str, path: Path, reason: str) -> None:
        """Note a slide that failed; it is written with the next record."""
        self._failed[slide_id] = (slide_id, str(path), reason)

    def tick(self) -> None:
        """Write the record if that was not done lately."""
        if time.monotonic() - self._kept >= _KEEP_EVERY_S:
            self._keep()

    def finish(self) -> None:
        """Write that the run came to its end."""
        self._record = replace(self._record, finished=True)
        self._keep()

    def _keep(self) -> None:
        self._record = replace(self._record, updated=time.time(), failed=tuple(self._failed.values()))
        self._store.keep_measured(self._record.fact())
        self._kept = time.monotonic()
