"""The index of an archive: add slides, search for similar ones.

>>> import sish, tempfile
>>> from sish.demo.synthetic import write_slides
>>> folder = tempfile.mkdtemp()
>>> labels = write_slides(f"{folder}/slides", n_slides=2)
>>> index = sish.Index.create(f"{folder}/archive.sish")
>>> index.add(f"{folder}/slides", labels=labels, show_progress=False).summary()
'2 added'
>>> [hit.rank for hit in index.search(index.slides[0].path, k=2)]
[1, 2]
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sish.encode import SlideEncoder
from sish.encoders import TISSUE, PatchEncoder, name_of
from sish.errors import IndexExistsError, IndexNotFoundError, ParameterError, UnknownSlideError
from sish.feature_ingest import FeatureIngest, measured_files
from sish.header import IndexHeader
from sish.index.params import SearchParams
from sish.index.repair import RepairReport, repair
from sish.index.store import FORMAT_VERSION, SlideRow, Snapshot, State, Store, StoreInfo
from sish.ingest import Ingest, OnError
from sish.labels import read_labels
from sish.nearest import nearest_to
from sish.queries import Question, check_takes_pixels
from sish.recalibration import Recalibrated, forget_begun, note_on, recalibrate
from sish.recalibration import told_of as told_of_calibration
from sish.recall import Recall, noted, told_of, tune
from sish.recipe import Recipe
from sish.results import AddReport, RelabelReport, Results
from sish.sampling import measured_encoder
from sish.searchers import convert, searcher_of, stored_tree
from sish.slides.mosaic import Region
from sish.slides.reader_threads import SLIDE_TIMEOUT_S
from sish.thresholds import Settings, keep_threshold, measure_threshold, use_measured
from sish.view import RankingName, View

if TYPE_CHECKING:
    from sish.queries import Queryable

    Search = SearchParams | Mapping[str, Any]


class Index:
    """An archive of slides that can be searched; a folder on disk.

    Make one with :meth:`create`, or open one with :meth:`open`. Many processes may search while one adds.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     index = Index.create(f"{folder}/archive.sish")
    ...     len(index), index.recipe.patch_px, Index.open(index.path).params.budget
    (0, 256, 4000)
    """

    def __init__(
        self,
        store: Store,
        *,
        weights: str | os.PathLike[str] | None = None,
        encoder: str | PatchEncoder | None = None,
        device: str = "cpu",
        search: Search | None = None,
        verify: bool = False,
    ) -> None:
        """Use :meth:`create` or :meth:`open`."""
        header = IndexHeader.from_json(store.header)
        given = _one_encoder(weights, encoder)
        recipe = header.recipe if given is None else replace(header.recipe, weights=name_of(given))
        self._encoder = SlideEncoder(
            recipe, header.fingerprint, encoder=given, calibration=header.calibration, device=device
        )
        self._given = given
        self._header, self._read = header, store.state.manifest.header
        self._settings = Settings(header.search, header.measures_threshold).with_changes(search)
        self._store = store
        self._verify = verify
        self._view: tuple[State, SearchParams, View] | None = None
        self._view_lock = threading.RLock()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        recipe: Recipe | None = None,
        encoder: str | PatchEncoder | None = None,
        search: Search | None = None,
        measure: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
        mpp: float | None = None,
        override_mpp: float | None = None,
        like: str | os.PathLike[str] | Index | None = None,
        device: str = "cpu",
    ) -> Index:
        """Make an empty index.

        Parameters
        ----------
        path : path-like
            Folder to make; it may exist if it is empty.
        recipe : Recipe, optional
            How slides become keys and barcodes. Default: encoder ``tissue``, patches of 256 px at 1.0 um/px.
        encoder : str or PatchEncoder, optional
            The encoder, by name or as an object (:class:`sish.encoders.PatchEncoder`), in place of the
            recipe's weights. Where the recipe has the default patch size or scale, the encoder's own is used.
            Give an object to :meth:`open` again.
        search : SearchParams or mapping, optional
            Budget and threshold of the search; a mapping changes some of the defaults. Default: 4,000 patches
            a query patch (with ``keys="paper"`` the paper's 15,000 keys, the query's own first), and the
            threshold that is measured on the archive once it has 200 patches (:mod:`sish.thresholds`). Until
            then, and with ``keys="paper"``, it is the encoder's own.
        measure : path-like or iterable of path-like, optional
            Slides, or folders of slides, that the encoder's features are measured on (:mod:`sish.sampling`).
            Default: the first :meth:`add` measures its own slides. Encoders whose bits do not depend on the
            archive are not measured.
        mpp : float, optional
            Scale in um per pixel of the measured slides whose files do not tell it.
        override_mpp : float, optional
            Scale in um per pixel of all measured slides, whatever their files tell.
        like : path-like or Index, optional
            An index whose recipe, calibration and search parameters the new one has, so that both make the
            same barcodes: for shards of one archive. An encoder that was given as an object is given again.
        device : str
            Where the encoder runs, as torch names it.

        Returns
        -------
        Index
            The index, without slides.

        Raises
        ------
        StoreError
            If there is something at ``path`` already, or it cannot be written.
        ParameterError
            If both a recipe's weights and an encoder are given, the object is no encoder, or `like` is given
            beside a recipe or slides to measure, or is an index that needs a calibration and has none.
        """
        if like is not None:
            if recipe is not None or measure is not None:
                raise ParameterError(
                    "got like= beside recipe= or measure=; an index like another has its own"
                )
            return cls._like(path, like, encoder=encoder, search=search, device=device)
        coder = SlideEncoder(recipe, encoder=encoder, device=device)
        if coder.lacks_encoder:
            raise ParameterError(f"got weights={coder.recipe.weights!r} without the object; give encoder=")
        if measure is not None and coder.needs_calibration:
            coder = measured_encoder(coder, measure, mpp=mpp, override_mpp=override_mpp)
        with Store.create(path, _header_of(coder, search)) as store:
            return cls(store, encoder=encoder, device=device)

    @classmethod
    def _like(
        cls,
        path: str | os.PathLike[str],
        like: str | os.PathLike[str] | Index,
        *,
        encoder: str | PatchEncoder | None,
        search: Search | None,
        device: str,
    ) -> Index:
        """Make an empty index with the recipe, the calibration and the search parameters of another."""
        if isinstance(like, Index) and encoder is None:
            other = like
        else:
            place = like.path if isinstance(like, Index) else like
            other = cls.open(place, encoder=encoder, device=device)
        if encoder is not None:
            other.encoder.load()  # refused if it is not that of the index
        if other.encoder.needs_calibration:
            raise ParameterError(
                f"{other.path} was not measured, so there is no calibration to share: add slides to it "
                "first, or measure those that it holds (sish index recalibrate)"
            )
        settings = Settings(other._header.search, other._header.measures_threshold).with_changes(search)
        header = replace(other._header, search=settings.params, measures_threshold=settings.measures)
        with Store.create(path, header.to_json()) as store:
            return cls(store, encoder=other._given, device=device)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] | None = None,
        encoder: str | PatchEncoder | None = None,
        device: str = "cpu",
        search: Search | None = None,
        verify: bool = False,
    ) -> Index:
        """Open an index to search it or to add to it.

        Parameters
        ----------
        path : path-like
            The index's folder.
        weights : path-like, optional
            The file of the weights that made the index, if it was moved.
        encoder : str or PatchEncoder, optional
            The encoder that made the index, if it was given as an object. Without it, a search by the id of
            an indexed slide works, and a search by pixels is refused.
        device : str
            Where the encoder runs, as torch names it.
        search : SearchParams or mapping, optional
            Parameters for all searches of this object. ``{"budget": 1000}`` changes one, SearchParams sets
            all. The index on the disk keeps its own.
        verify : bool
            Compare all patches with their checksums before the first search; this reads the whole index. An
            index of up to 64 MB, about 400,000 patches, is always compared.

        Returns
        -------
        Index
            The index.

        Raises
        ------
        StoreError
            If there is no index, or its manifest is damaged. If something else is damaged, the index opens.
            Then a search raises IndexCorruptError, and :attr:`slides`, :meth:`info` and :meth:`repair` work.
        ParameterError
            If there is no such search parameter, or its value is out of range.
        """
        return cls(
            Store.open(path), weights=weights, encoder=encoder, device=device, search=search, verify=verify
        )

    def __repr__(self) -> str:
        """Return its path, number of slides and encoder."""
        return f"<Index {str(self.path)!r}: {len(self)} slides, encoder {self.fingerprint}>"

    def __len__(self) -> int:
        """Return the number of slides."""
        return self._store.current().n_slides

    def __contains__(self, slide_id: object) -> bool:
        """Return whether a slide of this id is in it."""
        return isinstance(slide_id, str) and self._store.current().has(slide_id)

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._store.path

    @property
    def recipe(self) -> Recipe:
        """How slides become keys and barcodes."""
        return self._encoder.recipe

    @property
    def encoder(self) -> SlideEncoder:
        """The encoder of its slides, by the calibration that they have now."""
        return self._encoder_of(self._store.current())

    @encoder.setter
    def encoder(self, encoder: SlideEncoder) -> None:
        self._encoder = encoder

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the encoder that makes its codes, calibration included."""
        self._encoder_of(self._store.current())
        return self._header.fingerprint

    @property
    def calibration_source(self) -> str:
        """On what the encoder's features were measured, and what to do about it, in words."""
        state = self._store.current()
        return told_of_calibration(state, IndexHeader.from_json(state.header))

    @property
    def params(self) -> SearchParams:
        """The search parameters. Assign SearchParams, or a mapping that changes some of them.

        The next search uses them; the index on the disk keeps its own. Anything else is a ParameterError.
        The threshold is the one that was measured on the archive (:mod:`sish.thresholds`), unless one was
        given when the index was made or opened, or is assigned here.
        """
        state = self._store.current()
        return self._settings_of(state).of(state)

    @params.setter
    def params(self, search: Search) -> None:
        self._settings = self._settings.with_changes(search)

    @property
    def threshold_source(self) -> str:
        """The threshold of a search, and where it is from, in words."""
        state = self._store.current()
        return self._settings_of(state).told(state)

    @property
    def slides(self) -> tuple[SlideRow, ...]:
        """Its slides in the order in which they were added; those of a damaged segment if they are known."""
        return self._store.current().slides

    @property
    def damage(self) -> tuple[str, ...]:
        """The damaged segments that opening found, a line each; :func:`sish.verify` reads every byte."""
        return tuple(part.reason for part in self._store.current().damaged)

    @classmethod
    def open_or_create(
        cls,
        path: str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] | None = None,
        encoder: str | PatchEncoder | None = None,
        measure: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
        mpp: float | None = None,
        override_mpp: float | None = None,
        device: str = "cpu",
    ) -> Index:
        """Open the index (:meth:`open`), or make one with its encoder's own recipe (:meth:`create`)."""
        given = _one_encoder(weights, encoder)
        return open_or_make(
            lambda: cls.open(path, encoder=given, device=device),
            lambda: cls.create(
                path,
                encoder=TISSUE if given is None else given,
                measure=measure,
                mpp=mpp,
                override_mpp=override_mpp,
                device=device,
            ),
        )

    @classmethod
    def create_for_features(
        cls,
        path: str | os.PathLike[str],
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        feature_encoder: str | None = None,
        mpp: float | None = None,
        override_mpp: float | None = None,
        search: Search | None = None,
    ) -> Index:
        """Make an empty index for features that TRIDENT or CLAM computed: :mod:`sish.feature_files`.

        Parameters
        ----------
        path : path-like
            Folder to make; it may exist if it is empty.
        files : path-like or iterable of path-like
            Feature files, or folders of them, that will be added: up to 32 are measured (encoder, length and
            patch size of most of them; mean and spread of their features).
        feature_encoder : str, optional
            Name of the network that made them, where files and folders do not tell.
        mpp : float, optional
            Micrometres per level-0 pixel of slides whose files do not tell it.
        override_mpp : float, optional
            Micrometres per level-0 pixel of all slides, whatever their files tell.
        search : SearchParams or mapping, optional
            As of :meth:`create`.

        Returns
        -------
        Index
            The index, without slides.

        Raises
        ------
        SlideError
            If no file can be read.
        EncoderMismatchError
            If two kinds of files are equally common. Otherwise the commonest kind makes the index.
        StoreError
            If there is something at ``path`` already, or it cannot be written.
        """
        given = [files] if isinstance(files, str | os.PathLike) else list(files)
        recipe, features = measured_files(
            given, feature_encoder=feature_encoder, mpp=mpp, override_mpp=override_mpp
        )
        coder = SlideEncoder(recipe).measured_on(features)
        with Store.create(path, _header_of(coder, search)) as store:
            return cls(store)

    # ---- changing it

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
        """
        check_takes_pixels(self.encoder, self.path)
        given = [slides] if isinstance(slides, str | os.PathLike) else list(slides)
        rows = None if labels is None else read_labels(labels)
        with Store.open(self.path, write=True) as store:
            ingest = Ingest(
                store,
                self._encoder_of(store.state),
                labels=rows,
                mpp=mpp,
                override_mpp=override_mpp,
                replace=replace,
                on_error=on_error,
                slide_timeout=slide_timeout,
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
        labels, mpp, override_mpp, replace, on_error, slide_timeout, show_progress
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
        given = [files] if isinstance(files, str | os.PathLike) else list(files)
        rows = None if labels is None else read_labels(labels)
        with Store.open(self.path, write=True) as store:
            ingest = FeatureIngest(
                store,
                self._encoder_of(store.state),
                labels=rows,
                mpp=mpp,
                override_mpp=override_mpp,
                replace=replace,
                on_error=on_error,
                slide_timeout=slide_timeout,
            )
            ingest.feature_encoder = feature_encoder
            return ingest.run(given, show_progress=show_progress)

    def remove(self, slide_ids: str | Iterable[str]) -> int:
        """Remove slides by id. The next :meth:`compact` frees their space.

        Parameters
        ----------
        slide_ids : str or iterable of str
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
        ids = [slide_ids] if isinstance(slide_ids, str) else list(slide_ids)
        state = self._store.current()
        missing = sorted(slide_id for slide_id in set(ids) if not state.has(slide_id))
        if missing:
            names = ", ".join(map(repr, missing[:5]))
            near = nearest_to(missing[0], (name for name, _ in state.ids_and_paths()))
            raise UnknownSlideError(
                f"{self.path} holds no slide {names}{near}: sish index list shows its slide ids",
                path=self.path,
                slide_id=missing[0],
            )
        with Store.open(self.path, write=True) as store:
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
        with Store.open(self.path, write=True) as store:
            state = store.state
            told = {name: it for name, path in state.ids_and_paths() if (it := rows.find(path, name))}
            old = {name: row for name in told if (row := state.row(name)) is not None}
            new = {name: told[name].applied_to(row) for name, row in old.items()}
            changed = {name: row for name, row in new.items() if row != old[name]}
            store.relabel(changed)
            self._keep_threshold(
                store, [row for name, row in changed.items() if row.patient != old[name].patient]
            )
            unknown = rows.unmatched((path, name) for name, path in state.ids_and_paths())
        return RelabelReport(tuple(changed), tuple(unknown), rows.notes)

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
        with Store.open(self.path, write=True) as store:
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
        with Store.open(self.path, write=True) as store:
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
        with Store.open(self.path, write=True) as store:
            old = store.state.format_version < FORMAT_VERSION
            if old:
                convert(store)
        return old

    def info(self) -> StoreInfo:
        """Return counts and sizes."""
        self._store.refresh()
        return self._store.info()

    @property
    def recall_source(self) -> str:
        """The share of the nearest patches that a search finds, and how it was measured, in words."""
        return told_of(self._store.current())

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
        with Store.open(self.path, write=True) as store:
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

        Returns
        -------
        RepairReport
            The damage, and what was done.

        Raises
        ------
        StoreError
            If the manifest is damaged, another process writes, or the folder cannot be written.
        """
        report = repair(self.path, drop=drop, seed=self.recipe.seed)
        if report.kept_in is not None and self.recipe.keys == "texture":
            with Store.open(self.path, write=True) as store:
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
        with Store.open(self.path, write=True) as store:
            use_measured(store)
        self._settings = replace(self._settings, measures=True)
        return self.params.threshold

    def _keep_threshold(self, store: Store, changed: Iterable[SlideRow]) -> None:
        """Measure the threshold again if these slides are of its sample; the paper's keys keep theirs."""
        if self.recipe.keys == "texture":
            keep_threshold(store, changed)

    # ---- searching it

    def search(
        self,
        query: Queryable,
        *,
        k: int = 5,
        mpp: float | None = None,
        override_mpp: float | None = None,
        region: Region | None = None,
        ranking: RankingName = "auto",
        exclude_patient: bool = False,
        patient: str | None = None,
        where: Mapping[str, str] | None = None,
        search: Search | None = None,
    ) -> Results:
        """Find the slides that look most like a slide, a region of one, or an image.

        Parameters
        ----------
        query : path-like, Slide, uint8 array (H, W, 3), or PIL image
            The slide to search for. The id of an indexed slide gives the same answer as its file, which is
            not read. A path that ends with ``.h5`` is a file of features (:meth:`add_features`).
        k : int
            Number of hits wanted. The answer is shorter only if fewer slides may be found. Hits that the
            ranking did not place have ``placed`` false; those beyond the threshold have ``below_threshold``.
        mpp : float, optional
            Scale of the query in um per pixel, if its file does not tell it; always needed for arrays. If the
            file has a scale of its own, the answer's note says so.
        override_mpp : float, optional
            Scale of the query in um per pixel, whatever its file tells.
        region : (x, y, width, height), optional
            The part of the query to search for, in level-0 pixels.
        ranking : {"auto", "uncertainty", "similarity"}
            ``uncertainty`` is the published ranking, which needs labels; ``similarity`` needs none. See
            :mod:`sish.ranking`. ``auto`` is ``uncertainty`` if every slide has a label, else ``similarity``,
            and the note says why. Both rankings compute the score of a hit in the same way (:class:`Hit`), so
            it may rise down a list ranked by uncertainty.
        exclude_patient : bool
            Leave out every slide of the query's own patient.
        patient : str, optional
            The query's patient. Default: the patient of the same file in the index, else the query's id.
        where : mapping, optional
            Find only slides whose ``label``, ``site``, ``patient`` or metadata column has this value.
        search : SearchParams or mapping, optional
            Search parameters for this query alone, as for :meth:`open`. In an archive too small for a texture
            tree (up to 4,000 patches), the query is compared with all patches, whatever the budget.

        Returns
        -------
        Results
            The hits, best first.

        Raises
        ------
        QueryError
            If the query has no tissue, is both an id and another slide's file, or cannot be answered by this
            index.
        ParameterError
            If ``k``, the ranking or a search parameter is out of range.
        EncoderMismatchError
            If the weights at hand are not the ones that the index was made with.
        SlideError
            If the query cannot be read.
        """
        question = Question(query, mpp=mpp, override_mpp=override_mpp, region=region, patient=patient)
        state = self._current()
        changed = self._settings_of(state).with_changes(search)
        asked, codes = question.encoded(state, self._encoder_of(state))
        results = self._view_of(state).search(
            asked,
            codes,
            k=k,
            ranking=ranking,
            exclude_patient=exclude_patient,
            where=where,
            search=changed.of(state),
        )
        return noted(question.noted(results), state, changed.of(state))

    def search_many(self, queries: Iterable[Queryable], **options: Any) -> Iterator[Results]:
        """Yield the answer of :meth:`search` to each of several queries, with the same options."""
        for query in queries:
            yield self.search(query, **options)

    def view(self) -> View:
        """Return the current state, ready to be searched; it is made again only after a change."""
        return self.state_and_view()[1]

    def state_and_view(self) -> tuple[State, View]:
        """Return the current state of the index and the view of this state, for answers that need both."""
        state = self._current()
        return state, self._view_of(state)

    def snapshot(self) -> Snapshot:
        """Return all patches that are in the index now, as arrays in key order."""
        return self._current().snapshot()

    def _current(self) -> State:
        """Return the committed state for one answer, checked."""
        state = self._store.current()
        state.check(every_byte=self._verify)
        return state

    def _encoder_of(self, state: State) -> SlideEncoder:
        """Return the encoder of a state's codes: a first add or a recalibration may have changed it."""
        with self._view_lock:
            stored = state.manifest.header
            if stored != self._read:
                header, before = IndexHeader.from_json(stored), self._header
                self._settings = self._settings.following(before.search.threshold, header.search.threshold)
                if header.fingerprint != before.fingerprint:
                    self._encoder = self._encoder.recalibrated(header.calibration, header.fingerprint)
                self._header, self._read = header, stored
            return self._encoder

    def _settings_of(self, state: State) -> Settings:
        """Return the search parameters of a state."""
        self._encoder_of(state)
        return self._settings

    def _view_of(self, state: State) -> View:
        """Return the view of a state; the last one is kept."""
        with self._view_lock:
            params = self._settings_of(state).of(state)
            if self._view is None or self._view[0] is not state or self._view[1] != params:
                searcher = searcher_of(state, self.recipe.keys, params)
                self._view = state, params, View.of(searcher)
            return self._view[2]


def open_or_make(open_index: Callable[[], Index], make: Callable[[], Index]) -> Index:
    """Return the index that is there, else a new one; if two processes make one at once, one opens it."""
    try:
        return open_index()
    except IndexNotFoundError:
        try:
            return make()
        except IndexExistsError:
            return open_index()


def _one_encoder(
    weights: str | os.PathLike[str] | None, encoder: str | PatchEncoder | None
) -> str | PatchEncoder | None:
    """Return the encoder that was given either way; ParameterError for both."""
    if weights is not None and encoder is not None:
        raise ParameterError(f"got weights={str(weights)!r} and encoder=; give one of the two")
    return encoder if weights is None else str(weights)


def _header_of(encoder: SlideEncoder, search: Search | None) -> dict[str, Any]:
    """Return the header of a new index: its search parameters suit its encoder, unless others are given."""
    params = SearchParams(threshold=encoder.hamming_threshold, visit_query_key=True)
    settings = Settings(params, measures=encoder.recipe.keys == "texture").with_changes(search)
    return IndexHeader(
        encoder.recipe, encoder.fingerprint, settings.params, encoder.calibration, settings.measures
    ).to_json()
