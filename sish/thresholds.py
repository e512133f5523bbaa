"""The threshold of an archive: the distance within which patches count as similar, measured on its patches.

The threshold is the distance that 1 % of pairs of patches of different patients do not exceed; in an archive
of fewer than 2,500 patches so many pairs that a patch has 25 similar ones. It depends on tissue, stain and
encoder: the shipped figure, measured on lymph nodes, accepts most pairs of breast tissue.

The pairs come from a sample: the 1,024 patches of the smallest hash of slide id and row. So the threshold
depends on the patches and patients of the archive alone. The order of adding, commits, merges and shards do
not change it. A commit measures again if a patch of the sample came or went. Half of the sample is new
whenever the archive has doubled. In between, a commit of n patches to an archive of N does so about once in
N / 1,024 n commits, and reads the hashes of N patches then: the cost of adding a patch does not depend on N.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.archives import AnyStore
from sish.index.params import SearchParams
from sish.index.store import SlideRow, State
from sish.index.store.manifest import JSON

_LOG = logging.getLogger(__name__)

FACT = "threshold"
"""The name of the measurement among the facts that the store keeps."""

FEWEST_PATCHES = 200
"""In a smaller archive the threshold is that of the encoder."""

_SAMPLE = 1024  # patches of the sample
_PAIRS = 1 << 15  # pairs that are compared; other samples and pairs give a figure within some 2 bits
_FEWEST_PAIRS = 100  # of different patients, so that 1 % of them is one at least
_PERCENT = 1.0
_FEWEST_SIMILAR = (
    25  # patches on average: chosen on the odd groups of crc5, where 1 % of 840 patches is too few
)
_TOGETHER = 1 << 15  # hashes that are made at a time, so that they stay in the cache
_LARGEST = 2**63 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Search = SearchParams | Mapping[str, Any]
"""All search parameters, or some by name."""

_Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Measured:
    """A measurement of the threshold."""

    bits: int | None
    """The threshold in bits; None if there were not enough pairs of different patients."""
    percent: float
    """Share of the pairs that lie within it, in per cent."""
    pairs: int
    """Pairs of patches of different patients that were compared."""
    patches: int
    """Patches of the archive at that time."""
    last: int
    """The largest hash of the sample: a patch of a larger one changes nothing."""

    @classmethod
    def on(cls, state: State) -> Measured | None:
        """Measure on the patches of a state; None if they are fewer than `FEWEST_PATCHES`."""
        patches = state.n_patches
        if patches < FEWEST_PATCHES:
            return None
        hashes, barcodes, patients = sample_of(state)
        distances = _distances(barcodes, patients)
        enough = len(distances) >= _FEWEST_PAIRS
        last = _LARGEST if len(hashes) < _SAMPLE else int(hashes[-1])
        about = (
            len(hashes) * _LARGEST / max(1, last)
        )  # patches, as the sample tells: the figure depends on it alone
        percent = round(min(100.0, max(_PERCENT, 100 * _FEWEST_SIMILAR / about)), 2)
        bits = int(np.percentile(distances, percent)) if enough else None
        return cls(bits, percent, len(distances), patches, last)

    @classmethod
    def kept_with(cls, facts: Mapping[str, JSON]) -> Measured | None:
        """Return the measurement among a store's facts; None if there is none, or one of another kind."""
        fact = facts.get(FACT)
        try:
            found = cls(**fact) if isinstance(fact, Mapping) else None  # type: ignore[arg-type]
        except TypeError:
            return None
        return found if found is not None and found._is_sound() else None

    def _is_sound(self) -> bool:
        """Return whether all values are of their types and in their ranges."""
        counts = (0 if self.bits is None else self.bits, self.pairs, self.patches, self.last)
        in_range = all(type(it) is int and 0 <= it <= _LARGEST for it in counts)
        return in_range and type(self.percent) is float and _PERCENT <= self.percent <= 100

    def is_of(self, row: SlideRow) -> bool:
        """Return whether the sample holds, or must hold, a patch of this slide."""
        hashes = _patch_hashes(_slide_hashes([row.slide_id]), np.arange(row.n_patches))
        return bool((hashes <= np.uint64(self.last)).any())


@dataclass(frozen=True, slots=True)
class Settings:
    """The search parameters of an index, whose threshold was given or is measured."""

    params: SearchParams
    """The parameters; their threshold is the encoder's while there is no measurement."""
    measures: bool
    """Whether a measured threshold replaces theirs."""

    def with_changes(self, search: Search | None) -> Settings:
        """Return the settings after the changes; a threshold that is given is kept from then on."""
        if search is None:
            return self
        params = self.params.with_changes(search)
        gives = isinstance(search, SearchParams) or "threshold" in search
        return Settings(params, self.measures and not gives)

    def following(self, before: int, now: int) -> Settings:
        """Return the settings once the index's own threshold changed; one that was given is kept."""
        if self.params.threshold != before:
            return self
        return replace(self, params=replace(self.params, threshold=now))

    def of(self, state: State) -> SearchParams:
        """Return the parameters with which a state is searched."""
        found = Measured.kept_with(state.measured) if self.measures else None
        bits = None if found is None else found.bits
        if bits is None:
            return self.params
        return replace(self.params, threshold=bits, reach=self.params.threshold)

    def told(self, state: State) -> str:
        """Return the threshold with which a state is searched, and where it is from, in words."""
        found = Measured.kept_with(state.measured)
        return f"{self.of(state).threshold} bits, {self._source(found)}"

    def _source(self, found: Measured | None) -> str:
        if found is None:
            few = f"the encoder's: fewer than {FEWEST_PATCHES} patches were measured"
            return few if self.measures else "as the index was made or opened"
        if found.bits is None:
            why = f"only {found.pairs} pairs of patches of different patients could be measured"
            return f"the encoder's: {why}" if self.measures else f"as the index was made or opened; {why}"
        share = f"{found.percent:g} % of {found.pairs} pairs of patches of different patients"
        if self.measures:
            return f"which {share} do not exceed"
        return f"as the index was made or opened; {share} do not exceed {found.bits}"


def keep_threshold(store: AnyStore, changed: Iterable[SlideRow]) -> None:
    """Measure the threshold again if the sample changed, and keep it with the archive.

    Parameters
    ----------
    store : Store or RemoteStore
        An archive of texture keys, open for writing.
    changed : iterable of SlideRow
        The slides that were added, removed or given another patient since the last call. A slide that was
        replaced counts twice, with its old row and its new one.
    """
    before = Measured.kept_with(store.state.measured)
    if before is None or any(map(before.is_of, changed)):
        measure_threshold(store)


def measure_threshold(store: AnyStore) -> None:
    """Measure the threshold of an archive that is open for writing, and keep it with the archive."""
    store.measure(threshold_fact)
    found = Measured.kept_with(store.state.measured)
    _LOG.info("measured the threshold: %s", "too few patches" if found is None else f"{found.bits} bits")


def use_measured(store: AnyStore) -> None:
    """Measure the threshold of an archive that is open for writing, and let all searches use it."""
    store.replace_header({**store.header, "measures_threshold": True}, threshold_fact(store.state))


def threshold_fact(state: State) -> dict[str, JSON]:
    """Measure the threshold of a state, and return the fact to keep."""
    found = Measured.on(state)
    return {FACT: None if found is None else asdict(found)}


def sample_of(state: State) -> tuple[_Hashes, NDArray[np.uint8], NDArray[np.int64]]:
    """Return hashes (K,), barcodes (K, B) and numbers of the patients (K,) of the sample, by hash."""
    hashes, barcodes, patients = map(list, zip(*_candidates(state), strict=True))
    together = np.concatenate(hashes)
    best = np.argsort(together)[:_SAMPLE]
    names = np.array([name for part in patients for name in part], dtype=object)
    number = {name: place for place, name in enumerate(set(names[best]))}
    return (
        together[best],
        np.concatenate(barcodes)[best],
        np.array([number[name] for name in names[best]], np.int64),
    )


def _candidates(state: State) -> Iterator[tuple[_Hashes, NDArray[np.uint8], list[str]]]:
    """Yield hashes, barcodes and patients of patches that may be of the sample, a segment at a time."""
    last = np.uint64(_LARGEST)
    for segment in state.segments:
        patches = segment.patches
        slide_hashes = _slide_hashes(slide_id for slide_id, _ in patches.slides.ids_and_paths())
        live = ~segment.removed_mask
        found, rows = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        for start in range(0, len(patches), _TOGETHER):
            slide = patches.slide[start : start + _TOGETHER]
            hashes = _patch_hashes(slide_hashes[slide], patches.row[start : start + _TOGETHER])
            mine = np.flatnonzero((hashes <= last) & live[slide])
            found, rows = np.concatenate([found, hashes[mine]]), np.concatenate([rows, mine + start])
            if len(found) >= _SAMPLE:
                best = np.argsort(found)[:_SAMPLE]
                found, rows = found[best], rows[best]
                last = min(last, found[-1])
        patients = [patches.slides[number].patient for number in patches.slide[rows]]
        yield found, patches.barcodes[rows], patients


def _slide_hashes(slide_ids: Iterable[str]) -> _Hashes:
    """Return a hash of each slide's id, (slides,)."""
    data = b"".join(
        hashlib.blake2b(slide_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for slide_id in slide_ids
    )
    return np.frombuffer(data, "<u8").astype(np.uint64)


def _patch_hashes(slide_hashes: _Hashes, row: NDArray[np.integer[Any]]) -> _Hashes:
    """Return a hash below 2 ** 63 of each patch, from its slide's hash and its row in the slide."""
    # the bits are mixed as the generator splitmix64 mixes its state (Steele et al., OOPSLA 2014)
    mixed = slide_hashes + row.astype(np.uint64) * _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashes: _Hashes = (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)
    return hashes


def _distances(barcodes: NDArray[np.uint8], patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distances of pairs of different patients: each patch with those before it in a ring."""
    size = len(barcodes)
    width = min((size - 1) // 2, _PAIRS // size)
    found = [np.zeros(0, np.int64)]
    for step in range(1, width + 1):
        differ = patients != np.roll(patients, step)
        found.append(np.bitwise_count(barcodes ^ np.roll(barcodes, step, axis=0)).sum(1)[differ])
    return np.concatenate(found)
