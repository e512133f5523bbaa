"""What changes of an index would do: told without writing anything, by the code that does them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, TypeVar

from sish.errors import UnknownSlideError
from sish.feature_ingest import FeatureIngest
from sish.index.store import SlideRow, State
from sish.index_base import IndexBase
from sish.ingest import Ingest
from sish.labels import Labels, read_labels
from sish.nearest import nearest_to
from sish.plans import AddPlan
from sish.queries import check_takes_pixels
from sish.results import RelabelReport
from sish.shards import Shard
from sish.slides.reader_threads import SLIDE_TIMEOUT_S
from sish.vectors import SlideIds, as_id_list

_Ingest = TypeVar("_Ingest", bound=Ingest)


class IndexPlans(IndexBase):
    """The methods of an index that tell what a change would do. They take no lock."""

    def plan_add(
        self,
        slides: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        labels: str | os.PathLike[str] | None = None,
        mpp: float | None = None,
        override_mpp: float | None = None,
        replace: bool = False,
        slide_timeout: float = SLIDE_TIMEOUT_S,
        shard: Shard | str | None = None,
        show_progress: bool = True,
    ) -> AddPlan:
        """Return what :meth:`add` would do with the same arguments; files are opened, nothing is written.

        Parameters
        ----------
        slides, labels, mpp, override_mpp, replace, slide_timeout, shard, show_progress
            As of :meth:`add`.

        Returns
        -------
        AddPlan
            What would be done with each slide.

        Raises
        ------
        LabelsError
            If the labels file cannot be read.
        ParameterError
            As of :meth:`add`.
        """
        check_takes_pixels(self.encoder, self.path)
        return self._planner(
            Ingest, labels, mpp=mpp, override_mpp=override_mpp, replace=replace,
            slide_timeout=slide_timeout, shard=shard,
        ).plan(listed(slides), show_progress=show_progress)  # fmt: skip

    def plan_add_features(
        self,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        labels: str | os.PathLike[str] | None = None,
        mpp: float | None = None,
        override_mpp: float | None = None,
        feature_encoder: str | None = None,
        replace: bool = False,
        slide_timeout: float = SLIDE_TIMEOUT_S,
        shard: Shard | str | None = None,
        show_progress: bool = True,
    ) -> AddPlan:
        """Return what :meth:`add_features` would do with the same arguments; nothing is written.

        Parameters
        ----------
        files, labels, mpp, override_mpp, feature_encoder, replace, slide_timeout, shard, show_progress
            As of :meth:`add_features`.

        Returns
        -------
        AddPlan
            What would be done with each file.

        Raises
        ------
        LabelsError
            If the labels file cannot be read.
        ParameterError
            As of :meth:`add`.
        """
        ingest = self._planner(
            FeatureIngest, labels, mpp=mpp, override_mpp=override_mpp, replace=replace,
            slide_timeout=slide_timeout, shard=shard,
        )  # fmt: skip
        ingest.feature_encoder = feature_encoder
        return ingest.plan(listed(files), show_progress=show_progress)

    def _planner(
        self,
        kind: type[_Ingest],
        labels: str | os.PathLike[str] | None,
        *,
        shard: Shard | str | None,
        **options: Any,
    ) -> _Ingest:
        """Return an ingest of the state of now, to plan with."""
        rows = None if labels is None else read_labels(labels)
        state = self._store.current()
        return kind(
            self._store,
            self._encoder_of(state),
            labels=rows,
            shard=Shard.parse(shard) if isinstance(shard, str) else shard,
            **options,
        )

    def plan_remove(self, slide_ids: SlideIds) -> tuple[SlideRow, ...]:
        """Return the slides that :meth:`remove` would remove; nothing is written.

        Parameters
        ----------
        slide_ids : str or int, or iterable of them
            One id, or several.

        Returns
        -------
        tuple of SlideRow
            The slides, each once.

        Raises
        ------
        UnknownSlideError
            If an id is not in the index.
        """
        state = self._store.current()
        return tuple(row for row in map(state.row, self._there(slide_ids)) if row is not None)

    def _there(self, slide_ids: SlideIds) -> list[str]:
        """Return ids, each once; UnknownSlideError if the index lacks one."""
        ids = list(dict.fromkeys(as_id_list(slide_ids)))
        state = self._store.current()
        missing = sorted(slide_id for slide_id in set(ids) if not state.has(slide_id))
        if missing:
            names = ", ".join(map(repr, missing[:5]))
            near = nearest_to(missing[0], (name for name, _ in state.ids_and_paths()))
            raise UnknownSlideError(
                f"{self.path} holds no slide {names}{near}: sish index list shows its slide ids",
                path=str(self.path),
                slide_id=missing[0],
            )
        return ids

    def plan_relabel(self, labels: str | os.PathLike[str]) -> RelabelReport:
        """Return the report that :meth:`relabel` would give; nothing is written.

        Parameters
        ----------
        labels : path-like
            A file as of :meth:`add`.

        Returns
        -------
        RelabelReport
            Which slides would change, and which rows name no slide.
        """
        return relabelled(self._store.current(), read_labels(labels))[1]


def listed(given: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """Return one path, or several, as a list."""
    return [given] if isinstance(given, str | os.PathLike) else list(given)


def relabelled(state: State, labels: Labels) -> tuple[list[tuple[SlideRow, SlideRow]], RelabelReport]:
    """Return the rows that labels change, before and after, and the report of the change."""
    changed = list[tuple[SlideRow, SlideRow]]()
    for slide_id, path in state.ids_and_paths():
        told = labels.find(path, slide_id)
        row = state.row(slide_id) if told else None
        if told and row is not None and (new := told.applied_to(row)) != row:
            changed.append((row, new))
    unknown = labels.unmatched((path, name) for name, path in state.ids_and_paths())
    ids = tuple(new.slide_id for _, new in changed)
    return changed, RelabelReport(ids, tuple(unknown), labels.notes)
