"""Watch a slide encoder: encode the same pixels once, and keep what the encoder saw in each image."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.barcoder import Barcoder
from sish.encode import PreparedSlide, SlideCodes, SlideEncoder
from sish.encoders import Encoding, MeasuredEncoder, name_of
from sish.index.projection import project
from sish.progress import OnProgress, silent
from sish.slides.reader_threads import TimeLimit


@dataclass(frozen=True, slots=True)
class Seen:
    """Codes and features of one or several patches."""

    codes: NDArray[np.uint8] | None
    """Grids of codes, uint8 (N, h, w); None if they were not asked for, or the encoder has none."""
    features: NDArray[np.float32]
    """Features, float32 (N, F)."""


class Memory:
    """An encoder that encodes the same pixels once."""

    def __init__(self, encoder: MeasuredEncoder) -> None:
        """Begin without known pixels."""
        self.encoder = encoder
        self.seconds = 0.0
        """Seconds that encoding took, or would have taken for known pixels."""
        self.spent = 0.0
        """Seconds that encoding did take."""
        self.looked: list[Seen] = []
        """Each patch that was asked for since the list was emptied."""
        self._known: dict[tuple[bytes, bool], tuple[Seen, float]] = {}

    def __getattr__(self, name: str) -> Any:
        """Pass on every other attribute of the encoder."""
        return getattr(self.encoder, name)

    def encode(self, images: NDArray[np.uint8]) -> Encoding:
        """Encode patches uint8 (N, H, W, 3) as the encoder does."""
        if not len(images):
            return self.encoder.encode(images)
        found = [self._one(image, wants_codes=True) for image in images]
        codes = [one.codes for one in found if one.codes is not None]
        return Seen(np.concatenate(codes) if codes else None, np.concatenate([one.features for one in found]))

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return features as the encoder does."""
        if not len(images):
            return self.encoder.features(images)
        return np.concatenate([self._one(image, wants_codes=False).features for image in images])

    def _one(self, image: NDArray[np.uint8], *, wants_codes: bool) -> Seen:
        """Return what is known of one patch, (H, W, 3); an entry with codes has the features, too."""
        name = hashlib.blake2b(image.tobytes() + str(image.shape).encode(), digest_size=16).digest()
        known = self._known.get((name, wants_codes)) or self._known.get((name, True))
        if known is None:
            start = time.perf_counter()
            seen = self._encoded(image, wants_codes)
            known = self._known[name, wants_codes] = seen, time.perf_counter() - start
            self.spent += known[1]
        self.looked.append(known[0])
        self.seconds += known[1]
        return known[0]

    def _encoded(self, image: NDArray[np.uint8], wants_codes: bool) -> Seen:
        if not wants_codes:
            return Seen(None, self.encoder.features(image[None]))
        encoded = self.encoder.encode(image[None])
        return Seen(encoded.codes, encoded.features)


@dataclass(frozen=True, slots=True)
class Look:
    """What the encoder saw in the patches of an image."""

    features: NDArray[np.float64]
    """Mean of the patches' features, centred and scaled as for barcodes, (P,) with P of at least F."""
    codes: NDArray[np.float64] | None
    """Count of each code, (K,); None if the encoder was not asked for codes, or has none."""


class Watched(SlideEncoder):
    """A slide encoder that also keeps what it saw in each image."""

    memory: Memory
    """The encoder behind it."""
    looks: dict[str, Look]
    """What it saw, by the image's file."""

    @classmethod
    def of(cls, encoder: SlideEncoder, memory: Memory | None, looks: dict[str, Look]) -> Watched:
        """Watch an encoder, with a memory that others filled if one is given."""
        remembering = memory or Memory(encoder.model)
        own = cls(
            replace(encoder.recipe, weights=name_of(remembering)),
            encoder=remembering,
            calibration=encoder.calibration,
            rerank=encoder.rerank,
            device=encoder.device,
            workers=encoder.workers,
        )
        own.memory, own.looks = remembering, looks
        return own

    def encode(
        self,
        prepared: PreparedSlide,
        limit: TimeLimit | None = None,
        on_progress: OnProgress = silent,
    ) -> SlideCodes:
        """Encode a slide as the encoder does, and keep what it saw."""
        self.memory.looked.clear()
        codes = super().encode(prepared, limit, on_progress)
        seen = self.memory.looked
        if seen:
            patches = self._before_bits(np.stack([one.features[0] for one in seen]))
            features = patches.mean(axis=0, dtype=np.float64)
            self.looks.setdefault(str(prepared.slide.path), Look(features, self._counted(seen)))
        return codes

    def _before_bits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features (N, F) centred and scaled as for barcodes, whose signs are then the bits."""
        known = Barcoder.of(self.model, self.calibration)
        if known.binarisation != "projection":
            return features
        size = 1 << (features.shape[1] - 1).bit_length()  # all numbers are kept, so cosines are exact
        return project(features, centre=known.centre, spread=known.spread, parts=known.parts, bits=size)

    def _counted(self, seen: Sequence[Seen]) -> NDArray[np.float64] | None:
        codebook = self.memory.codebook
        grids = [one.codes.ravel() for one in seen if one.codes is not None]
        if codebook is None or not grids:
            return None
        codes = np.concatenate(grids)
        return np.bincount(codes, minlength=len(codebook)).astype(np.float64)
