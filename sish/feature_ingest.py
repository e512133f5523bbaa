"""Adding feature files to the store, as `sish.ingest` adds slides."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sish.encode import SlideCodes, SlideEncoder
from sish.errors import EncoderMismatchError, FeatureMismatchError, LabelsError, SlideError, SlideOpenError
from sish.feature_files import FeatureFile, check_fits, choose, find_feature_files, fits, read_features
from sish.identity import file_digest
from sish.index.store import SlideRow
from sish.ingest import Encode, Ingest, Job, row_of
from sish.recipe import Recipe
from sish.results import AddReport
from sish.sampling import evenly

_FILES, _SLIDES = 32, 2_048
_PATCHES = 64


class FeatureIngest(Ingest):
    """Adds feature files to a store that is open for writing; the arguments are those of `Ingest`."""

    feature_encoder: str | None = None
    """Name of the network that made the features, where files and folders do not tell."""

    def run(self, slides: Iterable[str | os.PathLike[str]], *, show_progress: bool = True) -> AddReport:
        """Add files as `Ingest.run` does; EncoderMismatchError if all are of another kind."""
        report = super().run(slides, show_progress=show_progress)
        if self._odd and not (report.added or report.replaced or report.already or report.no_tissue):
            raise self._odd[0]
        return report

    def measure(self, jobs: list[Job], *, show_progress: bool = True) -> None:
        """Measure nothing: :meth:`sish.Index.create_for_features` did."""

    def _fail(self, path: Path, error: SlideError | LabelsError) -> None:
        if isinstance(error, FeatureMismatchError):
            self._odd.append(error)
        super()._fail(path, error)

    def _list(self, given: str | os.PathLike[str]) -> list[Path]:
        return find_feature_files(given, on_error=partial(self._fail, Path(given)))

    def _listed(self, slides: Iterable[str | os.PathLike[str]]) -> list[Job]:
        self._odd: list[FeatureMismatchError] = []
        return super()._listed(slides)

    def _look_at(self, job: Job) -> float | None:
        return self._read(job).mpp

    def _read(self, job: Job) -> FeatureFile:
        """Read a file; FeatureMismatchError for another kind than the index is of."""
        mpp, override_mpp = self._given_for(job)
        file = read_features(job.path, encoder=self.feature_encoder, mpp=mpp, override_mpp=override_mpp)
        check_fits(file, self.encoder.recipe)
        return file

    def _prepare(self, job: Job) -> Encode:
        job = replace(job, file_digest=file_digest(job.path))
        file = self._read(job)
        return partial(self._finish, job, file, feature_codes(file, self.encoder))

    def _finish(self, job: Job, file: FeatureFile, codes: SlideCodes) -> tuple[SlideRow, SlideCodes]:
        self._check_new(job)
        return row_of(job, file, file.l0_size, codes), codes


def feature_codes(file: FeatureFile, encoder: SlideEncoder) -> SlideCodes:
    """Return the codes of the patches that stand for a slide; FeatureMismatchError for another kind."""
    check_fits(file, encoder.recipe)
    if file.l0_xy is None:
        return encoder.codes(None, file.features.reshape(len(file.features), encoder.model.n_features), None)
    rows = choose(file.features, file.l0_xy, encoder.recipe)
    return encoder.codes(None, file.features[rows], file.l0_xy[rows])


def measured_files(
    places: Iterable[str | os.PathLike[str]],
    *,
    feature_encoder: str | None,
    mpp: float | None,
    override_mpp: float | None = None,
) -> tuple[Recipe, NDArray[np.float32], bool]:
    """Return the recipe for features like those of some files, and a sample of them.

    The sample is of 32 files, 64 patches each, or of 2,048 files with a vector each. The recipe is that of
    the commonest kind. Files of another kind, and files that cannot be read, are skipped;
    `Index.add_features` reports them.

    Parameters
    ----------
    places : iterable of path-like
        Files and folders.
    feature_encoder : str or None
        Name of the network that made the features, where files and folders do not tell.
    mpp, override_mpp : float or None
        As of :func:`sish.feature_files.read_features`.

    Returns
    -------
    recipe : Recipe
        How an index of such features is made.
    sample : float32 (M, F)
        Features of the commonest kind.
    is_slide_level : bool
        Whether they are of whole slides, a vector each.

    Raises
    ------
    SlideError
        If no file can be read: the error of the first.
    EncoderMismatchError
        If two kinds are equally common.
    """
    found = [path for place in places for path in find_feature_files(place, on_error=lambda _error: None)]
    read = partial(read_features, encoder=feature_encoder, mpp=mpp, override_mpp=override_mpp)
    files = _sampled(found, _FILES, read)
    is_slide_level = files[0].l0_xy is None
    if is_slide_level and len(found) > _FILES:
        files = _sampled(found, _SLIDES, read)
    return files[0].recipe(), np.concatenate([file.features for file in files]), is_slide_level


def _sampled(found: list[Path], most: int, read: Callable[[Path], FeatureFile]) -> Sequence[FeatureFile]:
    """Return some of the files, those of the commonest kind; the errors are those of `measured_files`."""
    sampled: list[FeatureFile] = []
    failed: SlideError | None = None
    for path in evenly(found, most):
        try:
            file = read(path)
            if file.features.shape[1]:  # a slide without tissue may have features of no length
                sampled.append(file.thinned(_PATCHES))
        except SlideError as error:
            failed = failed or error
    if not sampled:
        raise failed or SlideOpenError("got no file with features; want at least one")
    return _commonest_kind(sampled)


def _commonest_kind(sampled: Sequence[FeatureFile]) -> list[FeatureFile]:
    """Return the files of the commonest kind; EncoderMismatchError where two are equally common."""
    kinds: list[list[FeatureFile]] = []
    for file in sampled:
        alike = [kind for kind in kinds if (kind[0].l0_xy is None) == (file.l0_xy is None)]
        fitting = (kind for kind in alike if fits(file, kind[0].recipe()))
        kind = next(fitting, None)
        if kind is None:
            kinds.append([file])
        else:
            kind.append(file)
    kinds.sort(key=len, reverse=True)
    if len(kinds) > 1 and len(kinds[0]) == len(kinds[1]):
        one, other = (f"{kind[0].path} ({kind[0].name}, {kind[0].side_um:.0f} um)" for kind in kinds[:2])
        raise EncoderMismatchError(
            f"as many files of features are like {one} as like {other}: "
            "keep one index for each encoder and patch size"
        )
    return kinds[0]
