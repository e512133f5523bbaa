"""Add slides to a store, and skip and report broken ones.

Slides are committed every two seconds, so an interrupted run can be resumed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from sish.archives import AnyStore
from sish.encode import PreparedSlide, SlideCodes, SlideEncoder
from sish.errors import LabelsError, ParameterError, SlideError, SlideOpenError, errors_about
from sish.header import IndexHeader
from sish.identity import Standing, compare, file_digest
from sish.index.store import INDEXED, NO_TISSUE, SlideRow, State
from sish.labels import LabelRow, Labels
from sish.nearest import nearest_to
from sish.plans import AddPlan, PlannedSlide
from sish.printing import counted, printable
from sish.progress import Progress, progress
from sish.results import AddReport, Skipped
from sish.sampling import Sample, SampledSlide, take_sample
from sish.shards import Shard, ShardLog
from sish.slide_writer import SlideWriter
from sish.slides.files import absolute, find_slides, slide_id_of
from sish.slides.formats.dicom import is_dicom, series_files
from sish.slides.reader_threads import (
    SLIDE_TIMEOUT_S,
    TimeLimit,
    checked_timeout,
    each_ahead,
    end_soon,
    start,
)
from sish.slides.scale import GIVEN, OVERRIDE, check_given, is_unused
from sish.slides.slide import Slide, open_slide

_LOG = logging.getLogger(__name__)

OnError = Literal["skip", "raise"]
"""What to do with a slide that fails: go on and report it, or stop."""


_MOST_AHEAD = 4
"""Most slides whose mosaics are chosen while one is encoded; a very large slide takes 100 MB."""


def check_on_error(on_error: OnError) -> None:
    """Refuse anything else (ParameterError)."""
    if on_error not in ("skip", "raise"):
        raise ParameterError(f"got on_error={on_error!r}; want 'skip' or 'raise'")


@dataclass(frozen=True, slots=True)
class Job:
    """A slide to add."""

    slide_id: str
    """Its id."""
    path: Path
    """Its file."""
    labels: LabelRow | None
    """Its row of the labels file, if there is one."""
    stored: SlideRow | None
    """Its row, if it is in the store already."""
    limit: TimeLimit
    """How long it may take."""
    file_digest: str | None = None
    """The digest of its file (`sish.identity`), once it is prepared."""


Encode = Callable[[], tuple[SlideRow, SlideCodes]]
"""The rest of the work on a slide, for one slide at a time; it gives row and codes, or raises SlideError."""


class Scaled(Protocol):
    """The facts about a slide's pixels that the store keeps."""

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height of level 0 in pixels."""

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 pixel."""

    @property
    def mpp_source(self) -> str:
        """Where the mpp comes from."""


class Ingest:
    """Adds slides to a store that is open for writing.

    Parameters
    ----------
    store : Store or RemoteStore
        Where they go.
    encoder : SlideEncoder
        It makes their codes.
    labels : Labels, optional
        Their labels.
    mpp : float, optional
        Scale of slides whose files have none; a row of the labels file takes precedence.
    override_mpp : float, optional
        Scale of all slides, whatever their files say; a row of the labels file takes precedence.
    replace : bool
        Encode slides again that are in the store already.
    on_error : {"skip", "raise"}
        Go on after a slide that fails, or stop with its error.
    slide_timeout : float
        Seconds that a slide may take before it fails; 0 for no limit.
    shard : Shard, optional
        The shard that the store is of; slides of other shards are left out.
    """

    def __init__(
        self,
        store: AnyStore,
        encoder: SlideEncoder,
        *,
        labels: Labels | None = None,
        mpp: float | None = None,
        override_mpp: float | None = None,
        replace: bool = False,
        on_error: OnError = "skip",
        slide_timeout: float = SLIDE_TIMEOUT_S,
        shard: Shard | None = None,
    ) -> None:
        """Check the arguments; see the class for them."""
        check_on_error(on_error)
        check_given(mpp, override_mpp)
        self.encoder, self._store, self._labels = encoder, store, labels
        self._mpp, self._override_mpp = mpp, override_mpp
        self._replace, self._on_error = replace, on_error
        self._report = AddReport(notes=list(labels.notes) if labels else [])
        self._start = time.perf_counter()
        self._timeout = checked_timeout(slide_timeout)
        self._open: dict[Path, Slide] = {}  # slides whose mosaics are being chosen
        self._done: dict[str, Path] = {}  # ids that this run encoded
        self._sample = Sample()
        self._writer = SlideWriter(store, encoder.recipe, replace=replace)
        self._jobs: list[Job] = []  # encoded and not committed yet
        self._shard_log = None if shard is None else ShardLog(store, shard)

    def run(self, slides: Iterable[str | os.PathLike[str]], *, show_progress: bool = True) -> AddReport:
        """Add slides: files, or folders that are searched for slides."""
        jobs = self._listed(slides)
        self._begin()
        already = len(self._report.already)
        _LOG.info(
            "%s: %s to add, %d already there",
            printable(str(self._store.path)),
            counted(len(jobs), "slide"),
            already,
        )
        report = self.work(jobs, show_progress=show_progress)
        if self._shard_log is not None:
            self._shard_log.finish()
        report.seconds = time.perf_counter() - self._start
        return report

    def plan(self, slides: Iterable[str | os.PathLike[str]], *, show_progress: bool = True) -> AddPlan:
        """Return what `run` would do. Files are opened, and nothing is written."""
        jobs, new, again = self._listed(slides), list[PlannedSlide](), list[PlannedSlide]()
        self._check_encoder(jobs)
        ahead = min(self.encoder.workers, _MOST_AHEAD)
        looking = each_ahead(jobs, self._look_at, ahead, lambda _job: None)
        with closing(looking), progress("looking", len(jobs), show=show_progress) as bar:
            for job, looked in looking:
                try:
                    with errors_about(job.path, job.slide_id), job.limit:
                        self._check_new(job)
                        mpp = job.limit.result(looked)
                except SlideError as error:
                    self._fail(job.path, error)
                else:
                    self._done[job.slide_id] = job.path
                    to = new if job.stored is None else again
                    to.append(PlannedSlide(job.slide_id, str(job.path), mpp))
                bar.step(job.slide_id)
        report = self._report
        return AddPlan(
            tuple(new), tuple(again), tuple(report.already), tuple(report.failed), tuple(report.notes)
        )

    def work(self, jobs: list[Job], *, show_progress: bool = True) -> AddReport:
        """Add the slides of these jobs."""
        self._check_encoder(jobs)
        if jobs:
            self.measure(jobs, show_progress=show_progress)
        with progress("adding", len(jobs), show=show_progress) as bar:
            try:
                for job, prepared in self._prepare_ahead(jobs):
                    self._add(job, prepared, bar)
            finally:
                self._commit()  # encoded slides are kept, whatever stops the others
        return self._report

    def _check_encoder(self, jobs: list[Job]) -> None:
        """Refuse wrong weights before any slide is opened, and a shard whose encoder was not measured."""
        if not jobs:
            return
        self.encoder.load()
        if self._shard_log is not None and self.encoder.needs_calibration:
            raise ParameterError(
                f"got shard {self._shard_log.shard} for {self._store.path}, whose encoder was not measured; "
                "all shards must share one measurement: make one index by sish index create --measure "
                "SLIDES, and each shard with --like that index (like=)"
            )

    def measure(self, jobs: list[Job], *, show_progress: bool = True) -> None:
        """Measure the encoder's features on the first slides with tissue of an index, if it needs that.

        What was measured is committed together with the first slides. An encoder without statistics of its
        own is not measured on one slide alone.
        """
        if self._store.state.n_patches or not self.encoder.needs_calibration:
            return
        first = {job.slide_id: job for job in reversed(jobs)}  # the later ones of an id are refused
        openers = {job.path: partial(self._open_slide, job) for job in first.values()}
        sample = take_sample(self.encoder, openers, slide_timeout=self._timeout, show_progress=show_progress)
        self._sample = sample
        if sample.with_tissue >= (2 if self.encoder.model.statistics is None else 1):
            before, self.encoder = self.encoder, self.encoder.measured_on(sample.features)
            header = IndexHeader.from_json(self._store.header).measured(before, self.encoder)
            self._writer.header = header  # is committed with the first slides

    def calibrate(self, slides: Iterable[str | os.PathLike[str]], *, show_progress: bool = True) -> None:
        """Measure the encoder's features as `run` would, and add no slide (ParameterError if it cannot)."""
        jobs = self._listed(slides)
        self.measure(jobs, show_progress=show_progress)
        if self._writer.header is None:
            raise ParameterError(
                f"got {counted(len(jobs), 'slide')} to measure features on, and too few of them can be read "
                "and have tissue; give more slides"
            )
        self._store.replace_header(self._writer.header.to_json(), {})

    def _listed(self, slides: Iterable[str | os.PathLike[str]]) -> list[Job]:
        """Return the slides to add, by id, as merged shards have them; nothing is written."""
        self._seen: dict[Path, str] = {}
        self._moved: dict[str, SlideRow] = {}
        jobs = sorted(self._to_add(slides), key=lambda job: job.slide_id)
        self._check_labels(self._seen, self._store.state)
        return jobs

    def _begin(self) -> None:
        """Keep where slides are now that were moved, and what a shard will hold."""
        self._store.relabel(self._moved)
        if self._shard_log is not None:
            self._shard_log.begin(self._seen.values())

    def _to_add(self, slides: Iterable[str | os.PathLike[str]]) -> Iterator[Job]:
        """Yield the slides to add. Slides that are in the index already are reported and left out."""
        stored, seen = self._store.state, self._seen
        for path in self._find(slides):
            if path in seen:
                continue
            row = self._labels.find(path, slide_id_of(path)) if self._labels else None
            slide_id = seen[path] = row.slide_id if row and row.slide_id else self._id_of(path, stored)
            if self._shard_log is not None and not self._shard_log.shard.holds(slide_id):
                continue
            there = stored.row(slide_id)
            standing = None if there is None else self._standing(path, there)
            if there is None or (self._replace and standing is not Standing.OTHER):
                yield Job(slide_id, path, row, there, TimeLimit(self._timeout, str(path)))
            elif standing is Standing.SAME:
                self._report.already.append(slide_id)
                if not Path(there.path).exists():
                    self._moved[slide_id] = replace(there, path=str(path))

    def _standing(self, path: Path, there: SlideRow) -> Standing:
        """Return the relation of a file to the indexed slide of its id; report a file that is refused."""
        try:
            standing = compare(path, there)
        except SlideError as error:
            self._fail(path, error)
            return Standing.OTHER
        if standing is Standing.OTHER:
            self._fail(path, _taken(there.slide_id, path, there.path or "a slide given as vectors"))
        elif standing is Standing.CHANGED and not self._replace:
            self._fail(path, _changed(path, there.slide_id))
        return standing

    def _id_of(self, path: Path, stored: State) -> str:
        """Return a slide's id; a DICOM series keeps the id by which it was indexed earlier."""
        slide_id = slide_id_of(path)
        if stored.has(slide_id) or not is_dicom(path):
            return slide_id
        rows = (row for file in series_files(path) for row in stored.rows_with("path", str(file)))
        return next((row.slide_id for row in rows), slide_id)

    def _find(self, slides: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
        for given in slides:
            try:
                found = self._list(given)
            except SlideError as error:
                self._fail(Path(given), error)
                continue
            yield from map(absolute, found)

    def _list(self, given: str | os.PathLike[str]) -> list[Path]:
        """Return the slides of a folder, or the file itself."""
        found = find_slides(given, on_error=partial(self._fail, Path(given)))
        if not found:
            raise SlideOpenError(f"{given}: got a folder or list without slides in it; want at least one")
        return found

    def _check_labels(self, seen: dict[Path, str], stored: State) -> None:
        """Report the rows of the labels file that fit no slide, which are most likely typing errors."""
        if self._labels is None:
            return
        known = list(seen.items())
        if self._labels.unmatched(known):  # a row may be of a slide that was added earlier
            known += [(Path(row.path), row.slide_id) for row in stored.slides]
        for name in self._labels.unmatched(known):
            self._fail(
                Path(name),
                LabelsError(
                    f"{self._labels.path} names {name}, and no such slide was given or is indexed"
                    f"{nearest_to(name, (slide_id for _, slide_id in known))}",
                    path=self._labels.path,
                ),
            )

    def _prepare_ahead(self, jobs: list[Job]) -> Iterator[tuple[Job, Future[Encode]]]:
        """Return each job with the future of its mosaic; the next mosaics are chosen while it is encoded."""
        ahead = min(self.encoder.workers, _MOST_AHEAD)
        return each_ahead(jobs, self._prepare_timed, ahead, self._abandon)

    def _prepare_timed(self, job: Job) -> Encode:
        _LOG.info("slide %s begins: %s", printable(job.slide_id), printable(str(job.path)))
        with job.limit:
            return self._prepare(job)

    def _abandon(self, job: Job) -> None:
        """Close a slide that is still being prepared, so that its next read fails."""
        slide = self._open.pop(job.path, None)
        if slide is not None:
            start(slide.close)

    def _prepare(self, job: Job) -> Encode:
        """Do the part that can be done ahead, in a thread; return the rest of the work."""
        job = replace(job, file_digest=file_digest(job.path))
        if job.path in self._sample.failed:  # one that hangs is not waited for twice
            raise self._sample.failed[job.path]
        slide = self._open_slide(job)
        sampled = self._sample.slides.pop(job.path, None)
        if sampled is not None:
            return partial(self._encode_rest, job, slide, sampled)
        self._open[job.path] = slide
        try:
            prepared = self.encoder.prepare(slide)
        except BaseException:
            slide.close()
            raise
        finally:
            self._open.pop(job.path, None)
        return partial(self._encode, job, prepared)

    def _look_at(self, job: Job) -> float | None:
        """Open a slide, and return its scale in um per pixel; SlideError if an add would refuse its file."""
        slide = self._open_slide(job)
        try:
            return slide.mpp
        finally:
            end_soon(slide.close)

    def _open_slide(self, job: Job) -> Slide:
        mpp, override_mpp = self._given_for(job)
        return open_slide(job.path, mpp=mpp, override_mpp=override_mpp)

    def _given_for(self, job: Job) -> tuple[float | None, float | None]:
        """Return the `mpp` and `override_mpp` of a slide: from its labels, as given now, or as stored."""
        row = job.labels
        mpp = row.mpp if row and row.mpp else self._mpp
        override_mpp = row.override_mpp if row and row.override_mpp else self._override_mpp
        return remembered(job.stored, mpp, override_mpp)

    def _encode(self, job: Job, prepared: PreparedSlide) -> tuple[SlideRow, SlideCodes]:
        try:
            self._check_new(job)
            codes = self.encoder.encode(prepared, job.limit)
            return row_of(job, prepared.slide, prepared.mosaic.l0_size, codes), codes
        finally:
            end_soon(prepared.slide.close)

    def _encode_rest(self, job: Job, slide: Slide, sampled: SampledSlide) -> tuple[SlideRow, SlideCodes]:
        """Encode a slide that was measured."""
        try:
            self._check_new(job)
            codes = self.encoder.encode_rest(slide, sampled.mosaic, sampled.seen, job.limit)
            return row_of(job, slide, sampled.mosaic.l0_size, codes), codes
        finally:
            end_soon(slide.close)

    def _check_new(self, job: Job) -> None:
        if job.slide_id in self._done:
            raise _taken(job.slide_id, job.path, self._done[job.slide_id])

    def _add(self, job: Job, preparing: Future[Encode], bar: Progress) -> None:
        try:
            with errors_about(job.path, job.slide_id):
                encode = job.limit.result(preparing)
                with job.limit:
                    row, codes = encode()
        except SlideError as error:
            self._abandon(job)
            self._fail(job.path, error)
        else:
            self._done[job.slide_id] = job.path
            self._jobs.append(job)
            seconds, patches = job.limit.spent, counted(len(codes), "patch", "es")
            _LOG.info("slide %s ends: %s in %.1f s", printable(job.slide_id), patches, seconds)
            self._writer.take(row, codes, job.stored)
            if self._writer.is_due:
                self._commit()
        bar.step(job.slide_id)

    def _commit(self) -> None:
        """Commit the slides that wait, and only then report them."""
        jobs, self._jobs = self._jobs, []
        for job, (row, before) in zip(jobs, self._writer.commit(), strict=True):
            if row.mpp_source != OVERRIDE and is_unused(self._given_for(job)[0], row.mpp):
                self._report.own_scale.append(job.slide_id)
            self._report.enter(row, before)
        if self._shard_log is not None:
            self._shard_log.tick()

    def _fail(self, path: Path, error: SlideError | LabelsError) -> None:
        _LOG.warning("skipped: %s", printable(str(error)))
        if self._on_error == "raise":
            with errors_about(path):
                raise error
        if self._shard_log is not None and error.slide_id is not None:
            self._shard_log.fail(error.slide_id, path, str(error))
        slide_id = None if isinstance(error, LabelsError) else error.slide_id or slide_id_of(path)
        self._report.failed.append(Skipped(str(path), str(error), slide_id))


def remembered(
    stored: SlideRow | None, mpp: float | None, override_mpp: float | None
) -> tuple[float | None, float | None]:
    """Return the `mpp` and `override_mpp` given now, else those with which the slide was added."""
    if stored is not None and mpp is None and stored.mpp_source == GIVEN:
        mpp = stored.mpp
    if stored is not None and override_mpp is None and stored.mpp_source == OVERRIDE:
        override_mpp = stored.mpp
    return mpp, override_mpp


def _taken(slide_id: str, path: Path, other: Path | str) -> SlideError:
    return SlideError(
        f"{path}: its slide id {slide_id!r} is that of {other}: "
        "rename one, or give both ids in a labels file with the columns path and slide_id",
        slide_id=slide_id,
    )


def _changed(path: Path, slide_id: str) -> SlideError:
    return SlideError(
        f"{path}: is another file now than when it was added as {slide_id!r}: "
        "--replace (replace=True) makes its codes anew; if it is another slide, give it an id of its own",
        slide_id=slide_id,
    )


def row_of(job: Job, slide: Scaled, patch_l0_px: float, codes: SlideCodes) -> SlideRow:
    """Return the row of a slide for the store, with its earlier labels and those of the labels file."""
    width, height = slide.dimensions
    row = SlideRow(
        slide_id=job.slide_id,
        path=str(job.path),
        n_patches=len(codes),
        patch_l0_px=patch_l0_px,
        mpp=slide.mpp,
        mpp_source=slide.mpp_source,
        width=width,
        height=height,
        label=job.stored.label if job.stored else None,
        patient=job.stored.patient if job.stored else job.slide_id,
        site=job.stored.site if job.stored else None,
        status=INDEXED if len(codes) else NO_TISSUE,
        metadata=job.stored.metadata if job.stored else {},
        file_digest=job.file_digest,
    )
    return job.labels.applied_to(row) if job.labels else row
