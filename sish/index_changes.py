"""What changes an index: slides, labels, thresholds and repair."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

from numpy.typing import ArrayLike

from sish.archives import AnyStore
from sish.errors import ParameterError, StoreError
from sish.feature_ingest import FeatureIngest
from sish.header import IndexHeader
from sish.index.postgres.addresses import Address
from sish.index.repair import RepairReport, repair
from sish.index.store import FORMAT_VERSION, SlideRow, Store
from sish.index_base import asked_again
from sish.index_plans import IndexPlans, listed, relabelled
from sish.ingest import Ingest, OnError
from sish.labels import read_labels
from sish.queries import check_takes_pixels
from sish.recalibration import Recalibrated, forget_begun, note_on, recalibrate
from sish.recall import Recall, tune
from sish.results import AddReport, RelabelReport
from sish.searchers import convert, stored_tree
from sish.shards import Shard
from sish.slides.reader_threads import SLIDE_TIMEOUT_S
from sish.thresholds import keep_threshold, measure_threshold, use_measured
from sish.transfer import PushReport, pull, push
from sish.vector_ingest import add_vector_slides, check_mosaic, check_width
from sish.vectors import Scales, SlideIds, Told, VectorSlide, slides_of


class IndexChanges(IndexPlans):
    """The methods of an index that write to it. Each takes the writer's lock; readers go on."""

    def add(
        self,
        slides: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        labels: str | os.PathLike[str] | None = None,
        mpp: float | None = None,
        override_mpp: float | None = None,
        replace: bool = False,
        on_error: OnError = "skip",
        slide_timeout: float = SLIDE_TIMEOUT_S,
        shard: Shard | str | None = None,
        show_progress: bool = True,
    ) -> AddReport:
        """Add slides. They are committed every two seconds, so an interrupted add goes on where it stopped.

        A crash costs the slide at hand and at most two seconds of work before it. The first add of slides
        with tissue measures the encoder's features first, if it needs that, on up to 2,000 patches
        (:mod:`sish.sampling`). What was measured is committed with the first slides and stays, until
        :meth:`recalibrate`; a crash before that costs the measuring too.

        Parameters
        ----------
        slides : path-like or iterable of path-like
            Files, or folders that are searched for slides.
        labels : path-like, optional
            CSV with a header: ``path`` or ``slide_id``, and any of ``label``, ``patient``, ``site``, ``mpp``,
            ``override_mpp``; other columns are kept as metadata.
        mpp : float, optional
            Scale in um per pixel of slides whose files do not tell it; a row of ``labels`` comes first. The
            report lists the slides that have their own scale (``own_scale``).
        override_mpp : float, optional
            Scale in um per pixel of all slides, whatever their files tell; a row of ``labels`` comes first.
        replace : bool
            Encode slides again that are in the index already. Default: keep their codes and report them.
        on_error : {"skip", "raise"}
            Report a slide that fails and go on, or stop with its error.
        slide_timeout : float
            Seconds that a slide may take. A slide that takes longer fails, and the add goes on, even if its
            decoder never returns. 0: no limit. Default: half an hour, longer than the largest slides take.
        shard : Shard or str, optional
            Add only the slides of this shard of them, such as ``"3/8"`` (:mod:`sish.shards`). Give `slides`
            and `labels` of the whole archive. The index is the shard's own, made by :meth:`create` with
            ``like``; :func:`sish.merge` makes one index of all shards.
        show_progress : bool
            Show progress: a bar on a terminal, plain lines elsewhere.

        Returns
        -------
        AddReport
            What was done with each slide.

        Raises
        ------
        LabelsError
            If the labels file cannot be read.
        StoreError
            If another process writes to the index (IndexLockedError), or it cannot be written.
        EncoderMismatchError
            If the weights at hand are not those of the index.
        ParameterError
            If there is no such shard, the index is of another one, or its encoder must be measured first.
        """
        check_takes_pixels(self.encoder, self.path)
        given = listed(slides)
        rows = None if labels is None else read_labels(labels)
        with self._store.writer() as store:
            ingest = Ingest(
                store,
                self._encoder_of(store.state),
                labels=rows,
                mpp=mpp,
                override_mpp=override_mpp,
                replace=replace,
                on_error=on_error,
                slide_timeout=slide_timeout,
                shard=Shard.parse(shard) if isinstance(shard, str) else shard,
            )
            report = ingest.run(given, show_progress=show_progress)
            if report.added or report.replaced:
                header = IndexHeader.from_json(store.header)
                report.notes += filter(None, [note_on(store.state, header, ingest.encoder)])
        return report

    def add_features(
        self,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        labels: str | os.PathLike[str] | None = None,
        mpp: float | None = None,
        override_mpp: float | None = None,
        feature_encoder: str | None = None,
        replace: bool = False,
        on_error: OnError = "skip",
        slide_timeout: float = SLIDE_TIMEOUT_S,
        shard: Shard | str | None = None,
        show_progress: bool = True,
    ) -> AddReport:
        """Add slides by features that TRIDENT or CLAM computed; as :meth:`add`, without pixels.

        :meth:`create_for_features` makes an index for them. A mosaic of each slide is kept, chosen by the
        features: :mod:`sish.feature_files`.

        Parameters
        ----------
        files : path-like or iterable of path-like
            Feature files (``.h5``), or folders that are searched for them.
        feature_encoder : str, optional
            Name of the network that made them, where files and folders do not tell.
        labels, mpp, override_mpp, replace, on_error, slide_timeout, shard, show_progress
            As of :meth:`add`; the scales are of level 0.

        Returns
        -------
        AddReport
            What was done.

        Raises
        ------
        EncoderMismatchError
            If all files are of another encoder, length or patch size than the index. A single file of another
            kind is reported as failed, as a broken file is.
        """
        given = listed(files)
        rows = None if labels is None else read_labels(labels)
        with self._store.writer() as store:
            ingest = FeatureIngest(
                store,
                self._encoder_of(store.state),
                labels=rows,
                mpp=mpp,
                override_mpp=override_mpp,
                replace=replace,
                on_error=on_error,
                slide_timeout=slide_timeout,
                shard=Shard.parse(shard) if isinstance(shard, str) else shard,
            )
            ingest.feature_encoder = feature_encoder
            return ingest.run(given, show_progress=show_progress)

    def add_vectors(
        self,
        vectors: ArrayLike,
        slide_ids: ArrayLike,
        *,
        labels: Told = None,
        patients: Told = None,
        sites: Told = None,
        l0_xy: ArrayLike | None = None,
        mpp: Scales = None,
        patch_l0_px: float | None = None,
        mosaic: bool = False,
        replace: bool = False,
        on_error: OnError = "skip",
        show_progress: bool = True,
    ) -> AddReport:
        """Add slides whose features are at hand as an array; :meth:`sish.Index.from_vectors` makes the index.

        Parameters
        ----------
        vectors : float (N, F)
            A vector for each patch, or one for each slide, in any order. F is that of the index.
        slide_ids : str or int (N,)
            The slide of each vector. The rows of a slide keep their order.
        labels : mapping, Series or DataFrame, optional
            Labels by slide id. A pandas DataFrame has a row for each slide, whose id is its column
            ``slide_id``, else its index; a column ``mpp`` tells scales where `mpp` is not given. Other
            columns than these, ``label``, ``patient`` and ``site`` are metadata.
        patients, sites : mapping or Series, optional
            Patients and sites by slide id.
        l0_xy : int (N, 2), optional
            Top left corners of the patches in level-0 pixels, x first. Without them the pairs of a hit have
            no places, only the numbers of rows (:class:`sish.results.PatchPair`).
        mpp : float, mapping or Series, optional
            Micrometres per level-0 pixel, of all slides or by slide id.
        patch_l0_px : float, optional
            Side of a patch in level-0 pixels. Default: the step of each slide's grid.
        mosaic : bool
            Keep only the patches that stand for each slide, as :meth:`add_features` does; it needs `l0_xy`.
            Default: keep all.
        replace : bool
            Make the codes of slides anew that are in the index with other vectors.
        on_error : {"skip", "raise"}
            Report such a slide and go on, or stop with the error.
        show_progress : bool
            As of :meth:`add`.

        Returns
        -------
        AddReport
            What was done with each slide.

        Raises
        ------
        ParameterError
            If the arrays do not fit each other, or hold NaN or infinity.
        EncoderMismatchError
            If the vectors are longer or shorter than those of the index.
        LabelsError
            If what is told of the slides cannot be read, or names none of them.
        StoreError
            As of :meth:`add`.
        """
        slides, notes = slides_of(
            vectors,
            slide_ids,
            labels=labels,
            patients=patients,
            sites=sites,
            l0_xy=l0_xy,
            mpp=mpp,
            patch_l0_px=patch_l0_px,
        )
        return self._add_slides(
            slides, notes, mosaic=mosaic, replace=replace, on_error=on_error, show_progress=show_progress
        )

    def _add_slides(
        self,
        slides: Sequence[VectorSlide],
        notes: Sequence[str],
        *,
        mosaic: bool = False,
        replace: bool = False,
        on_error: OnError = "skip",
        show_progress: bool = True,
    ) -> AddReport:
        """Add slides of vectors, sorted by slide already."""
        check_mosaic(slides, mosaic=mosaic)
        with self._store.writer() as store:
            encoder = self._encoder_of(store.state)
            for slide in slides[:1]:
                check_width(slide.vectors, encoder)
            report = add_vector_slides(
                store,
                encoder,
                slides,
                n_slides=len(slides),
                mosaic=mosaic,
                replace=replace,
                on_error=on_error,
                show_progress=show_progress,
            )
        report.notes += notes
        return report

    def remove(self, slide_ids: SlideIds) -> int:
        """Remove slides by id. The next :meth:`compact` frees their space.

        Parameters
        ----------
        slide_ids : str or int, or iterable of them
            One id, or several.

        Returns
        -------
        int
            The number of slides that were removed.

        Raises
        ------
        UnknownSlideError
            If an id is not in the index; nothing is removed then.
        """
        ids = self._there(slide_ids)
        with self._store.writer() as store:
            doomed = [row for row in map(store.state.row, ids) if row is not None]
            count = store.remove(ids)
            self._keep_threshold(store, doomed)
            return count

    def relabel(self, labels: str | os.PathLike[str]) -> RelabelReport:
        """Give indexed slides new labels, patients, sites and metadata; their codes stay as they are.

        An empty field of the file keeps the old value. A new ``mpp`` or ``override_mpp`` has no effect here,
        because it needs new codes: add the slide with ``replace=True``.

        Parameters
        ----------
        labels : path-like
            A file as of :meth:`add`.

        Returns
        -------
        RelabelReport
            Which slides changed, and which rows name no slide.
        """
        rows = read_labels(labels)
        with self._store.writer() as store:
            changed, report = relabelled(store.state, rows)
            others = [new for old, new in changed if new.patient != old.patient]
            store.relabel({new.slide_id: new for _, new in changed})
            self._keep_threshold(store, others)
        return report

    def compact(self, *, recalibrate: bool = False) -> None:
        """Rewrite everything as one segment, without what was removed.

        Parameters
        ----------
        recalibrate : bool
            Also measure the encoder's features again, and encode all slides again (:meth:`recalibrate`).
            Without it, a recalibration that was interrupted is given up.
        """
        if recalibrate:
            self.recalibrate()
        with self._store.writer() as store:
            if isinstance(store, Store):
                forget_begun(store.path)
            store.compact()

    def recalibrate(
        self, *, slide_timeout: float = SLIDE_TIMEOUT_S, show_progress: bool = True
    ) -> Recalibrated:
        """Measure the encoder's features on the slides that are in the index now, and encode them again.

        The calibration of an index is that of its first add. Measure again if that was of few slides, or if
        the archive has changed much. The slides are read from their files again, with the scales that were
        given for them. Labels, ids and order stay. The new barcodes replace the old ones in one commit:
        readers see the old ones until then. A run that was interrupted goes on where it stopped. If the same
        features are measured as before, nothing is encoded.

        Parameters
        ----------
        slide_timeout, show_progress
            As of :meth:`add`.

        Returns
        -------
        Recalibrated
            What was done.

        Raises
        ------
        SlideError
            If the file of a slide is gone, was changed or cannot be read; the index is as it was.
        ParameterError
            If the encoder's bits do not depend on the archive, or there are too few slides to measure.
        QueryError
            If the index holds features, or the encoder was given as an object and is not given now.
        StoreError
            If another process writes to the index, or it cannot be written.
        """
        check_takes_pixels(self.encoder, self.path)
        with self._folder("recalibrated") as store:
            return recalibrate(
                store,
                self._encoder_of(store.state),
                slide_timeout=slide_timeout,
                show_progress=show_progress,
            )

    def convert(self) -> bool:
        """Rewrite an index of an older format in the newest one; its slides and answers stay.

        An older index is searched and added to as it is. Converting makes it faster to open and to change.

        Returns
        -------
        bool
            Whether there was anything to do.
        """
        with self._folder("converted") as store:
            old = store.state.format_version < FORMAT_VERSION
            if old:
                convert(store)
        return old

    @asked_again
    def push(
        self,
        to: str | Address,
        *,
        replace: bool = False,
        partitions: int | None = None,
        servers: Iterable[str] = (),
        readers: Iterable[str] = (),
    ) -> PushReport:
        """Add the slides of this index to an archive in PostgreSQL; it is made if it is not there.

        All slides get there in one transaction, or none. See :mod:`sish.transfer`.

        Parameters
        ----------
        to : str or Address
            ``postgresql://USER@HOST:PORT/DATABASE?archive=NAME``.
        replace : bool
            Replace slides that are there with other codes. Default: refuse them.
        partitions : int, optional
            Number of partitions, by ranges of keys, of the table of patches of a new archive. Default: one on
            each server.
        servers : iterable of str
            Foreign servers (postgres_fdw) of the archive's server that hold partitions of a new archive, too:
            the archive's own server has the first partition, these have the next ones, and so on in turn.
        readers : iterable of str
            Roles of the server that may read the archive from now on.

        Returns
        -------
        PushReport
            What was done with each slide.

        Raises
        ------
        EncoderMismatchError
            If the archive was made with another recipe, encoder or calibration.
        SlideExistsError
            If a slide is there with other codes, and `replace` is off.
        StoreError
            If the archive cannot be reached or written.
        """
        return push(
            self._current(),
            to,
            replace=replace,
            partitions=partitions,
            servers=[*servers],
            readers=[*readers],
        )

    @asked_again
    def pull(self, folder: str | os.PathLike[str]) -> None:
        """Copy an archive in PostgreSQL into a folder, or bring the folder of an earlier pull up to date.

        Parameters
        ----------
        folder : path-like
            The folder; its slides are replaced by those of the archive.

        Raises
        ------
        ParameterError
            If this index is in a folder itself.
        EncoderMismatchError
            If the folder holds an index of another recipe, encoder or calibration.
        StoreError
            If the archive cannot be reached, or the folder cannot be written.
        """
        if not isinstance(self.path, Address):
            raise ParameterError(
                f"{self.path} is a folder already: copy it, or pull from an archive in PostgreSQL"
            )
        pull(self.path, self._current(), folder)

    def tune(self, recall: float = 0.95) -> Recall:
        """Set the index's budget to the least that finds this share of the ten nearest patches.

        The budgets 4,000, 8,000, 16,000, ... are measured on the archive's own patches (:mod:`sish.recall`).

        Parameters
        ----------
        recall : float
            The share that is wanted, above 0 and at most 1.

        Returns
        -------
        Recall
            What was measured at the budget that was set.

        Raises
        ------
        ParameterError
            If the share is out of range, or the index has no texture tree.
        """
        with self._store.writer() as store:
            store.state.check(every_byte=self._verify)
            found = tune(store, stored_tree(store), recall)
        self._settings = self._settings.with_changes({"budget": found.budget})
        return found

    def repair(self, *, drop: bool = False) -> RepairReport:
        """Read every byte, report the damage, and repair the texture tree if it is damaged.

        The tree is learnt again from the patches, so no slide is lost. A damaged segment stays until it is
        dropped. Until then a search raises IndexCorruptError, because an answer would silently lack slides.

        Parameters
        ----------
        drop : bool
            Continue without the damaged segments. Their files are moved into the folder ``damaged`` within
            the index, beside a table of the slides to add again, which :meth:`add` takes as ``labels``.
            Slides of vectors have no path in it; :meth:`add_vectors` takes it as pandas reads it.

        Returns
        -------
        RepairReport
            The damage, and what was done.

        Raises
        ------
        StoreError
            If the manifest is damaged, another process writes, or the folder cannot be written.
        """
        path = self._folder("repaired", write=False).path
        report = repair(path, drop=drop, seed=self.recipe.seed)
        if report.kept_in is not None and self.recipe.keys == "texture":
            with self._store.writer() as store:
                measure_threshold(store)
        return report

    def measure_threshold(self) -> int:
        """Let all searches use the threshold that is measured on the archive (:mod:`sish.thresholds`).

        New indexes do so from the start. Those of older releases, and those that were made with a threshold,
        keep theirs until this is called.

        Returns
        -------
        int
            The threshold in bits; that of before while fewer than 200 patches are there to be measured.

        Raises
        ------
        ParameterError
            If the index has the paper's keys, which keep the threshold of their encoder.
        """
        if self.recipe.keys != "texture":
            raise ParameterError(
                f"{self.path} has the paper's keys, which keep their threshold of {self.params.threshold} "
                'bits: give another to a search (search={"threshold": BITS}, --search.threshold)'
            )
        with self._store.writer() as store:
            use_measured(store)
        self._settings = replace(self._settings, measures=True)
        return self.params.threshold

    def _folder(self, done: str, *, write: bool = True) -> Store:
        """Return the store in a folder; StoreError for one in PostgreSQL, which cannot be changed so."""
        if not isinstance(self._store, Store):
            raise StoreError(
                f"{self.path} is in PostgreSQL, and only a folder can be {done}: sish index pull makes one, "
                "and sish index push makes an archive of that"
            )
        return self._store.writer() if write else self._store

    def _keep_threshold(self, store: AnyStore, changed: Iterable[SlideRow]) -> None:
        """Measure the threshold again if these slides are of its sample; the paper's keys keep theirs."""
        if self.recipe.keys == "texture":
            keep_threshold(store, changed)
