"""Measure an archive's features again, and encode all of its slides by what was measured.

The calibration of an index is fixed at its first add. It may have been of few slides, and the archive may
have changed since. Barcodes of two calibrations cannot be compared, so a new one needs all slides encoded
again. They are added to an index of their own, which is hidden in the folder of the first, and are taken over
in one commit. Until then nobody sees them. A run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from sish.calibration import ENOUGH, Calibration
from sish.encode import SlideEncoder
from sish.encoders import PREFIXES, TISSUE
from sish.errors import ParameterError, SlideError, StoreError
from sish.header import IndexHeader
from sish.identity import Standing, compare
from sish.index.store import SlideRow, State, Store
from sish.ingest import Ingest, Job
from sish.printing import counted
from sish.rerank import Rerank
from sish.slides.reader_threads import SLIDE_TIMEOUT_S, TimeLimit, checked_timeout
from sish.thresholds import measure_threshold

_LOG = logging.getLogger(__name__)

FOLDER = ".recalibration"
"""The folder within an index that holds what is encoded again."""

_NAMED = 10  # slides that an error names


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """What a recalibration did."""

    slides: int
    """Number of slides that were encoded again; 0 if the calibration is still that of the archive."""
    patches: int
    """Number of patches of the archive that were measured."""
    shipped: int
    """Number of shipped patches that are mixed in."""


def recalibrate(
    store: Store,
    encoder: SlideEncoder,
    *,
    slide_timeout: float = SLIDE_TIMEOUT_S,
    show_progress: bool = True,
) -> Recalibrated:
    """Measure an archive again and encode its slides again; see :meth:`sish.Index.recalibrate`.

    Parameters
    ----------
    store : Store
        The archive, open for writing.
    encoder : SlideEncoder
        Its encoder.
    slide_timeout : float
        Seconds that a slide may take.
    show_progress : bool
        Show progress.

    Returns
    -------
    Recalibrated
        What was done.

    Raises
    ------
    ParameterError
        If there is nothing to measure, or too little.
    """
    checked_timeout(slide_timeout)
    rows = store.slides
    encoder.load()
    if encoder.model.binarisation != "projection" or not rows:
        raise ParameterError(
            f"got {store.path} to recalibrate, and there is nothing to measure: "
            + ("it holds no slide" if not rows else "its encoder's bits do not depend on the archive")
        )
    store.state.check()
    _check_files(rows)
    before = IndexHeader.from_json(store.header)
    with _begun(store, before.measured(encoder, _bare(encoder))) as again:
        found = _encoded_again(
            store, again, encoder, slide_timeout=slide_timeout, show_progress=show_progress
        )
    forget_begun(store.path)
    return found


def _bare(encoder: SlideEncoder) -> SlideEncoder:
    """Return an encoder without what was measured."""
    kept = encoder.rerank
    plain = None if kept is None else Rerank.of(kept.coder.kind, kept.coder.features)
    return encoder.recalibrated(None, plain, None)


def forget_begun(index: Path) -> None:
    """Delete what an interrupted recalibration encoded."""
    if not (index / FOLDER).is_symlink():
        shutil.rmtree(index / FOLDER, ignore_errors=True)


def told_of(state: State, header: IndexHeader) -> str:
    """Return on what the features of an index were measured, in words, and what to do about it."""
    begun = "; a recalibration was begun: run it again, or give it up by sish index compact"
    return _measured_on(state, header) + (begun if (state.folder / FOLDER).exists() else "")


def _measured_on(state: State, header: IndexHeader) -> str:
    found = header.calibration
    if found is None and not state.n_patches:
        return "not measured yet: the first add does, if the encoder needs it"
    if found is None:
        weights = header.recipe.weights
        needs = weights == TISSUE or weights.startswith(PREFIXES)
        return f"not measured: {_AGAIN}" if needs else "the encoder's bits need none"
    told = f"features were measured on {found.patches} patches of the archive"
    if not found.shipped:
        return told
    more = f"; {_AGAIN}" if has_grown(state, found) else ""
    return f"{told}, and {found.shipped} shipped ones are mixed in{more}"


def note_on(state: State, header: IndexHeader, encoder: SlideEncoder) -> str:
    """Return what a user who adds slides should know of the calibration; empty if there is nothing."""
    if header.calibration is None and state.n_patches and encoder.needs_calibration:
        return (
            "the encoder's features were not measured on this archive, so bits keep fewer neighbours: "
            f"{_AGAIN}; or make the index with measure=SLIDES (--measure)"
        )
    if header.calibration is not None and has_grown(state, header.calibration):
        return _measured_on(state, header)
    return ""


def has_grown(state: State, calibration: Calibration) -> bool:
    """Return whether shipped patches are mixed in, and the archive now has enough of its own."""
    return bool(calibration.shipped) and state.n_patches >= ENOUGH


_AGAIN = "sish index recalibrate measures them on the archive, and encodes its slides again"


def _check_files(rows: tuple[SlideRow, ...]) -> None:
    """Refuse slides whose files are gone or are others now (SlideError), before anything is done."""
    _refuse([f"{row.slide_id} ({why})" for row in rows if (why := _wrong_with(row))])


def _wrong_with(row: SlideRow) -> str:
    if not row.path:
        return "was given as vectors"
    try:
        same = compare(Path(row.path), row) is Standing.SAME
    except SlideError as error:
        return str(error)
    return "" if same else f"{row.path} is another file now"


def _refuse(wrong: list[str]) -> None:
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise SlideError(
            f"{len(wrong)} slides cannot be encoded again: {'; '.join(wrong[:_NAMED])}{more}. "
            "The index is as it was. Bring the files back (sish index add NEW_PLACE tells the index of moved "
            "ones), encode changed ones again (sish index add --replace), or remove the slides (sish index "
            "remove); then run it again"
        )


def _begun(store: Store, header: IndexHeader) -> Store:
    """Open what an interrupted recalibration encoded, if it is of this index as it is now; else a new one."""
    place = store.path / FOLDER
    if place.is_symlink():
        raise StoreError(f"{place} is a symbolic link: remove it, and run this again", path=place)
    try:
        begun = Store.open(place, write=True)
    except StoreError:  # none, or a damaged one
        forget_begun(store.path)
        return Store.create(place, header.to_json())
    there = IndexHeader.from_json(begun.header)
    finished = begun.header["fingerprint"] == store.header["fingerprint"]
    bare = replace(
        there,
        calibration=None,
        rerank=header.rerank,
        fingerprint=header.fingerprint,
        search=header.search,
    )
    if finished or bare != header or not len(begun):
        begun.close()
        forget_begun(store.path)
        return Store.create(place, header.to_json())
    return begun


def _encoded_again(
    store: Store, again: Store, encoder: SlideEncoder, *, slide_timeout: float, show_progress: bool
) -> Recalibrated:
    """Add all slides of an index to another one, and take them over."""
    _keep_only(again, {row.slide_id: row for row in store.slides})
    begun = IndexHeader.from_json(again.header)
    coder = encoder.recalibrated(begun.calibration, begun.rerank, None)
    ingest = Ingest(again, coder, slide_timeout=slide_timeout)
    jobs = [
        Job(row.slide_id, Path(row.path), None, row, TimeLimit(slide_timeout, row.path))
        for row in store.slides
        if row.slide_id not in again
    ]
    _LOG.info("%s to encode again, %d were before", counted(len(jobs), "slide"), len(again))
    ingest.measure(jobs, show_progress=show_progress)
    found = ingest.encoder.calibration
    if found is None:
        raise ParameterError(
            f"{store.path} has no two slides with tissue to measure features on; add more slides first"
        )
    if ingest.encoder.fingerprint == store.header["fingerprint"]:
        return Recalibrated(0, found.patches, found.shipped)
    report = ingest.work(jobs, show_progress=show_progress)
    _refuse([failed.reason for failed in report.failed])
    if encoder.recipe.keys == "texture":
        measure_threshold(again)
    before = IndexHeader.from_json(store.header)
    store.replace_all(again.state, before.measured(encoder, ingest.encoder).to_json())
    return Recalibrated(len(store), found.patches, found.shipped)


def _keep_only(again: Store, wanted: dict[str, SlideRow]) -> None:
    """Forget slides that are no longer in the index, or are other files; give the others their labels."""
    stays = {row.slide_id: row for row in again.slides if _is_of(row, wanted.get(row.slide_id))}
    again.remove([row.slide_id for row in again.slides if row.slide_id not in stays])
    again.relabel(
        {
            name: replace(
                wanted[name], n_patches=row.n_patches, patch_l0_px=row.patch_l0_px, status=row.status
            )
            for name, row in stays.items()
        }
    )


def _is_of(row: SlideRow, wanted: SlideRow | None) -> bool:
    """Return whether a slide that was encoded again is still the one of the index."""
    if wanted is None or row.mpp != wanted.mpp:
        return False
    return row.path == wanted.path if wanted.file_digest is None else row.file_digest == wanted.file_digest
