"""Slides into the store, one durable commit a slide: resumable; broken slides are skipped and reported."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from sish.encode import PreparedSlide, SlideCodes, SlideEncoder
from sish.errors import LabelsError, ParameterError, SlideError, SlideOpenError
from sish.index.store import INDEXED, NO_TISSUE, SlideRow, Store
from sish.labels import LabelRow, Labels, slide_id_of
from sish.patches import TextureKeys
from sish.progress import Progress, progress
from sish.results import AddReport, Skipped
from sish.slide import Slide, find_slides, open_slide

__all__ = ["Ingest", "OnError", "absolute", "is_same"]

OnError = Literal["skip", "raise"]
"""What to do with a slide that fails: go on and report it, or stop."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A slide to add."""

    slide_id: str
    path: Path
    labels: LabelRow | None
    stored: SlideRow | None


class Ingest:
    """Adds slides to a store that is open for writing.

    Parameters
    ----------
    store : Store
        Where they go.
    encoder : SlideEncoder
        What makes codes of them.
    labels : Labels, optional
        What is known of them.
    mpp : float, optional
        Scale of slides that do not tell theirs; a row of the labels file comes first.
    replace : bool
        Make the codes of slides anew that are in the store already.
    on_error : {"skip", "raise"}
        Go on after a slide that fails, or stop with its error.
    """

    def __init__(
        self,
        store: Store,
        encoder: SlideEncoder,
        *,
        labels: Labels | None = None,
        mpp: float | None = None,
        replace: bool = False,
        on_error: OnError = "skip",
    ) -> None:
        """Check the arguments; see the class for them."""
        if on_error not in ("skip", "raise"):
            raise ParameterError(f"got on_error={on_error!r}; want 'skip' or 'raise'")
        self._store, self._encoder, self._labels = store, encoder, labels
        self._mpp, self._replace, self._on_error = mpp, replace, on_error
        self._report = AddReport()
        self._done: dict[str, Path] = {}  # ids that this run added
        texture = encoder.recipe.keys == "texture"
        self._texture = TextureKeys(store, seed=encoder.recipe.seed) if texture else None

    def run(self, slides: Iterable[str | os.PathLike[str]], *, show_progress: bool = True) -> AddReport:
        """Add slides: files, or folders that are searched for slides."""
        jobs = list(self._plan(slides))
        if jobs:
            self._encoder.load()  # weights that do not fit are known before any slide is opened
        with progress("adding", len(jobs), show=show_progress) as bar:
            for job, prepared in self._prepare_ahead(jobs):
                self._add(job, prepared, bar)
        return self._report

    def _plan(self, slides: Iterable[str | os.PathLike[str]]) -> Iterator[_Job]:
        """What is to be done, after leaving out what is there already; everything odd goes to the report."""
        stored = {row.slide_id: row for row in self._store.slides}
        seen: dict[Path, str] = {}
        moved: dict[str, SlideRow] = {}
        for path in self._find(slides):
            if path in seen:
                continue
            row = self._labels.find(path, slide_id_of(path)) if self._labels else None
            slide_id = seen[path] = row.slide_id if row and row.slide_id else slide_id_of(path)
            there = stored.get(slide_id)
            if there is None or (self._replace and is_same(path, there.path)):
                yield _Job(slide_id, path, row, there)
            elif not is_same(path, there.path):
                self._fail(path, _taken(slide_id, path, Path(there.path)))
            else:
                self._report.already.append(slide_id)
                if not Path(there.path).exists():
                    moved[slide_id] = replace(there, path=str(path))
        self._store.relabel(moved)
        self._check_labels(seen, stored)

    def _find(self, slides: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
        for given in slides:
            try:
                found = find_slides(given, on_error=partial(self._fail, Path(given)))
                if not found:
                    raise SlideOpenError(
                        f"{given}: got a folder without slides or images in it; want at least one"
                    )
            except SlideError as error:
                self._fail(Path(given), error)
                continue
            yield from map(absolute, found)

    def _check_labels(self, seen: dict[Path, str], stored: dict[str, SlideRow]) -> None:
        """Rows of the labels file that no slide answers to are most likely typing errors: say so."""
        if self._labels is None:
            return
        known = list(seen.items())
        known += [(Path(row.path), row.slide_id) for row in stored.values()]
        for name in self._labels.unmatched(known):
            self._fail(
                Path(name),
                LabelsError(f"{self._labels.path} names {name}, and no such slide was given or is indexed"),
            )

    def _prepare_ahead(self, jobs: list[_Job]) -> Iterator[tuple[_Job, Future[PreparedSlide]]]:
        """Each job with its mosaic; that of the next slide is chosen while this one is encoded."""
        with ThreadPoolExecutor(1) as preparing:
            waiting = deque[tuple[_Job, Future[PreparedSlide]]]()
            try:
                for job in jobs:
                    waiting.append((job, preparing.submit(self._prepare, job)))
                    if len(waiting) == 2:
                        yield waiting.popleft()
                yield from waiting
            finally:
                for _, future in waiting:
                    future.cancel()

    def _prepare(self, job: _Job) -> PreparedSlide:
        mpp = job.labels.mpp if job.labels and job.labels.mpp else self._mpp
        if mpp is None and job.stored is not None and job.stored.mpp_source == "given":
            mpp = job.stored.mpp
        slide = open_slide(job.path, mpp=mpp)
        try:
            return self._encoder.prepare(slide)
        except BaseException:
            slide.close()
            raise

    def _add(self, job: _Job, preparing: Future[PreparedSlide], bar: Progress) -> None:
        try:
            prepared = preparing.result()
            with prepared.slide:
                if job.slide_id in self._done:
                    raise _taken(job.slide_id, job.path, self._done[job.slide_id])
                codes = self._encoder.encode(prepared)
                row = _row(job, prepared.slide, prepared.mosaic.l0_size, codes)
        except SlideError as error:
            self._fail(job.path, error)
        else:
            keys = codes.keys if self._texture is None else self._texture.of(codes.barcodes)
            self._store.append(row, keys, codes.barcodes, codes.l0_xy, replace=self._replace)
            if self._texture is not None:
                self._texture.grow(len(codes))
            self._done[job.slide_id] = job.path
            if not len(codes):
                self._report.no_tissue.append(job.slide_id)
            else:
                (self._report.replaced if job.stored else self._report.added).append(job.slide_id)
        bar.step(job.slide_id)

    def _fail(self, path: Path, error: SlideError | LabelsError) -> None:
        if self._on_error == "raise":
            raise error
        self._report.failed.append(Skipped(str(path), str(error)))


def absolute(path: str | os.PathLike[str]) -> Path:
    """The path from the root, without `..`; a symbolic link keeps its own name."""
    return Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links


def is_same(path: Path, stored: str) -> bool:
    """Whether a file is the one that was added as `stored`: the same by any name, or moved since."""
    old = Path(stored)
    return path == old or not old.exists() or (path.exists() and path.samefile(old))


def _taken(slide_id: str, path: Path, other: Path) -> SlideError:
    return SlideError(
        f"{path}: its slide id {slide_id!r} is that of {other}: "
        "rename one, or give both ids in a labels file with the columns path and slide_id"
    )


def _row(job: _Job, slide: Slide, patch_l0_px: float, codes: SlideCodes) -> SlideRow:
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
    )
    return job.labels.applied_to(row) if job.labels else row
