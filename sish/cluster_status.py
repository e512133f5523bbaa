"""Progress of shards that are being encoded: done, failed and left, slides an hour, and when they end.

It is read from the records that the shards' indexes keep (:mod:`sish.shards`). So it asks no scheduler, and
runs on any machine that sees the folders, while the tasks work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sish.archives import folder_of
from sish.errors import IndexNotFoundError, ParameterError
from sish.index.store import Store
from sish.printing import counted
from sish.shards import Shard, ShardRecord


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """Progress of one shard."""

    path: str
    """The folder of its index."""
    record: ShardRecord | None
    """What its index says; None if no task has begun it."""
    done: int
    """Slides in its index."""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ShardStatus:
        """Read a shard's index.

        Parameters
        ----------
        path : path-like
            Its folder. There may be none yet.

        Returns
        -------
        ShardStatus
            Its progress.

        Raises
        ------
        ParameterError
            If there is an index with slides that is no shard.
        StoreError
            If it cannot be read.
        """
        try:
            with Store.open(folder_of(path)) as store:
                record, done = ShardRecord.kept_with(store.state.measured), len(store)
        except IndexNotFoundError:
            return cls(str(path), None, 0)
        if record is None and done:
            raise ParameterError(f"{path} is an index and no shard; want folders of index add --shard")
        return cls(str(path), record, done)

    @property
    def failed(self) -> int:
        """Number of slides that failed in the last run."""
        return 0 if self.record is None else len(self.record.failed)

    @property
    def left(self) -> int | None:
        """Number of slides that are not done and have not failed; None if no task has begun."""
        return None if self.record is None else max(0, self.record.planned - self.done - self.failed)

    @property
    def slides_an_hour(self) -> float:
        """Slides that the last run added, by its time so far; 0 if that is not known."""
        if self.record is None or self.record.updated <= self.record.started:
            return 0.0
        seconds = self.record.updated - self.record.started
        return 3600 * max(0, self.done - self.record.before) / seconds

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the seconds to its end; 0 if it is finished, None if its pace is not known."""
        if self.record is None:
            return None
        if self.record.finished:
            return 0.0
        return 3600 * self.left / self.slides_an_hour if self.left and self.slides_an_hour else None

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        record = self.record
        return {
            "path": self.path,
            "shard": None if record is None else str(record.shard),
            "planned": None if record is None else record.planned,
            "done": self.done,
            "failed": self.failed,
            "left": self.left,
            "finished": record is not None and record.finished,
            "slides_an_hour": round(self.slides_an_hour, 1),
            "seconds_left": self.seconds_left,
            "updated": None if record is None else record.updated,
        }

    def line(self, now: float) -> str:
        """Return it as a line; `now` is in seconds since 1970."""
        if self.record is None:
            return f"{self.path}: not begun"
        line = f"shard {self.record.shard}: {self.done} of {counted(self.record.planned, 'slide')} done"
        line += f", {self.failed} failed" if self.failed else ""
        if self.record.finished:
            return f"{line}; finished"
        pace = f"{self.slides_an_hour:.0f} slides an hour, {_told(self.seconds_left)}"
        return f"{line}, {self.left} left; {pace}; last news {_span(now - self.record.updated)} ago"


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """Progress of all shards that were named."""

    shards: tuple[ShardStatus, ...]
    """Their progress, in the order of their numbers; those that are not begun come last."""

    @classmethod
    def read(cls, paths: Iterable[str | os.PathLike[str]]) -> ClusterStatus:
        """Read the indexes of shards.

        Parameters
        ----------
        paths : iterable of path-like
            Their folders.

        Returns
        -------
        ClusterStatus
            Their progress.

        Raises
        ------
        ParameterError
            If they are not shards of one list, or one is given twice.
        StoreError
            If one cannot be read.
        """
        shards = sorted(map(ShardStatus.read, paths), key=_order)
        _check([shard for shard in shards if shard.record is not None])
        return cls(tuple(shards))

    @property
    def done(self) -> int:
        """Slides in all indexes."""
        return sum(shard.done for shard in self.shards)

    @property
    def failed(self) -> list[tuple[str, str, str]]:
        """Slides that failed: slide id, file and reason."""
        return [line for shard in self.shards if shard.record is not None for line in shard.record.failed]

    @property
    def left(self) -> int:
        """Slides that are left in the shards that have begun."""
        return sum(shard.left or 0 for shard in self.shards)

    @property
    def not_begun(self) -> int:
        """Number of shards that no task has begun, those among them that were not named."""
        records = [shard.record for shard in self.shards if shard.record is not None]
        return max(len(self.shards), records[0].count if records else 0) - len(records)

    @property
    def slides_an_hour(self) -> float:
        """Slides an hour of all shards that are at work."""
        return sum(
            it.slides_an_hour for it in self.shards if it.record is not None and not it.record.finished
        )

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the seconds to the end of the last shard; None if the pace of one is not known."""
        spans = [shard.seconds_left for shard in self.shards]
        known = [span for span in spans if span is not None]
        return max(known, default=0.0) if len(known) == len(spans) and not self.not_begun else None

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "done": self.done,
            "failed": [{"slide_id": a, "path": b, "reason": c} for a, b, c in self.failed],
            "left": self.left,
            "not_begun": self.not_begun,
            "slides_an_hour": round(self.slides_an_hour, 1),
            "seconds_left": self.seconds_left,
            "shards": [shard.to_dict() for shard in self.shards],
        }

    def lines(self) -> list[str]:
        """Return it as lines: one a shard, and one on all."""
        now = time.time()
        all_of_them = f"all: {counted(self.done, 'slide')} done, {len(self.failed)} failed, {self.left} left"
        all_of_them += f" and {counted(self.not_begun, 'shard')} not begun" if self.not_begun else ""
        pace = f"; {self.slides_an_hour:.0f} slides an hour, {_told(self.seconds_left)}" if self.left else ""
        return [*(shard.line(now) for shard in self.shards), all_of_them + pace]


def _order(status: ShardStatus) -> tuple[bool, int]:
    return (True, 0) if status.record is None else (False, status.record.number)


def _check(begun: Sequence[ShardStatus]) -> None:
    """Refuse shards that are not of one list, or one that is given twice (ParameterError)."""
    seen: dict[Shard, ShardStatus] = {}
    for status in begun:
        record, first = status.record, begun[0].record
        assert record is not None and first is not None
        if (record.count, record.digest) != (first.count, first.digest):
            raise ParameterError(
                f"{status.path} is a shard of another list of slides, or of another number of shards, than "
                f"{begun[0].path}: give the shards of one plan"
            )
        if record.shard in seen:
            raise ParameterError(f"{status.path} and {seen[record.shard].path} are both shard {record.shard}")
        seen[record.shard] = status


def _told(seconds: float | None) -> str:
    """Return how long it takes, in words."""
    return "end not known yet" if seconds is None else f"about {_span(seconds)} to go"


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(max(0.0, seconds))))
