"""A slide encoder that is watched: it encodes the same pixels once, and tells what it saw in each image."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sish.encode import PreparedSlide, SlideCodes, SlideEncoder
from sish.encoders import Encoding, PatchEncoder
from sish.slides.reader_threads import TimeLimit

__all__ = ["Look", "Memory", "Seen", "Watched"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What an encoder made of one patch, or of several."""

    codes: NDArray[np.uint8] | None
    """Grids of codes, uint8 (N, h, w); None where they were not asked for, or there are none."""
    features: NDArray[np.float32]
    """Features, float32 (N, F)."""


class Memory:
    """An encoder that encodes the same pixels once."""

    def __init__(self, encoder: PatchEncoder) -> None:
        """Nothing is known of any pixels yet."""
        self.encoder = encoder
        self.seconds = 0.0
        """What encoding took, or would have taken for pixels that were known."""
        self.spent = 0.0
        """What it did take."""
        self.looked: list[Seen] = []
        """What was asked since the list was emptied, a patch each."""
        self._known: dict[tuple[bytes, bool], tuple[Seen, float]] = {}

    def __getattr__(self, name: str) -> Any:
        """Everything else is the encoder's."""
        return getattr(self.encoder, name)

    def encode(self, images: NDArray[np.uint8]) -> Encoding:
        """As the encoder's; patches uint8 (N, H, W, 3)."""
        if not len(images):
            return self.encoder.encode(images)
        found = [self._one(image, wants_codes=True) for image in images]
        codes = [one.codes for one in found if one.codes is not None]
        return Seen(np.concatenate(codes) if codes else None, np.concatenate([one.features for one in found]))

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As the encoder's."""
        if not len(images):
            return self.encoder.features(images)
        return np.concatenate([self._one(image, wants_codes=False).features for image in images])

    def _one(self, image: NDArray[np.uint8], *, wants_codes: bool) -> Seen:
        """What is known of one patch, (H, W, 3); who has its codes has its features too."""
        name = hashlib.blake2b(image.tobytes() + str(image.shape).encode(), digest_size=16).digest()
        known = self._known.get((name, True)) or self._known.get((name, wants_codes))
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
    """What the encoder saw in an image, all patches together."""

    features: NDArray[np.float64]
    """Their mean features, (F,)."""
    codes: NDArray[np.float64] | None
    """How often each code is there, (K,); None where the encoder was not asked for codes, or has none."""


class Watched(SlideEncoder):
    """A slide encoder that keeps what it saw in each image, beside making keys and barcodes of it."""

    looks: dict[str, Look]
    """By the image's file."""

    @classmethod
    def of(cls, encoder: SlideEncoder, memory: Memory | None, looks: dict[str, Look]) -> Watched:
        """The same encoder, watched; with a memory that others filled, if there is one."""
        encoder.load()
        own = cls(
            encoder.recipe, calibration=encoder.calibration, device=encoder.device, workers=encoder.workers
        )
        own.__dict__["_model"] = memory or Memory(encoder.__dict__["_model"])
        own.looks = looks
        return own

    @property
    def memory(self) -> Memory:
        """The encoder behind it."""
        found: Memory = self.__dict__["_model"]
        return found

    def encode(self, prepared: PreparedSlide, limit: TimeLimit | None = None) -> SlideCodes:
        """As the encoder's."""
        self.memory.looked.clear()
        codes = super().encode(prepared, limit)
        seen = self.memory.looked
        if seen:
            features = np.stack([one.features[0] for one in seen]).mean(axis=0, dtype=np.float64)
            self.looks.setdefault(str(prepared.slide.path), Look(features, self._counted(seen)))
        return codes

    def _counted(self, seen: Sequence[Seen]) -> NDArray[np.float64] | None:
        codebook = self.memory.codebook
        grids = [one.codes.ravel() for one in seen if one.codes is not None]
        if codebook is None or not grids:
            return None
        codes = np.concatenate(grids)
        return np.bincount(codes, minlength=len(codebook)).astype(np.float64)
