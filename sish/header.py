"""The header of an index: its recipe, the encoder's fingerprint and the search parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from reprlib import repr as short
from typing import Any

from sish.calibration import Calibration
from sish.encode import SlideEncoder
from sish.errors import ParameterError
from sish.index.params import SearchParams
from sish.recipe import Recipe, known_fields, odd_header
from sish.rerank import Rerank


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """The facts that an index stores beside its slides."""

    recipe: Recipe
    """How slides become its keys and barcodes."""
    fingerprint: str
    """The fingerprint of the encoder that made its codes."""
    search: SearchParams
    """How it is searched."""
    calibration: Calibration | None = None
    """What was measured of the encoder's features on the archive, if it needs that."""
    measures_threshold: bool = False
    """Whether a threshold that is measured on the archive replaces that of `search` (`sish.thresholds`)."""
    rerank: Rerank | None = None
    """How it keeps vectors beside its barcodes, if it does (`sish.rerank`)."""

    def measured(self, before: SlideEncoder, now: SlideEncoder) -> IndexHeader:
        """Return the header with another calibration of its encoder; a threshold that was given stays."""
        own = self.search.threshold == before.hamming_threshold
        if own and (self.measures_threshold or self.recipe.keys == "paper"):
            search = replace(self.search, threshold=now.hamming_threshold)
        else:
            search = self.search
        return replace(
            self, fingerprint=now.fingerprint, search=search, calibration=now.calibration, rerank=now.rerank
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON. The newer fields are left out at their defaults."""
        plain: dict[str, Any] = {
            "recipe": self.recipe.to_json(),
            "fingerprint": self.fingerprint,
            "search": asdict(self.search),
        }
        if self.calibration is not None:
            plain["calibration"] = self.calibration.to_json()
        if self.measures_threshold:
            plain["measures_threshold"] = True
        if self.rerank is not None:
            plain["rerank"] = self.rerank.to_json()
        return plain

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> IndexHeader:
        """Return the header that an index holds; missing search parameters have their defaults.

        Parameters
        ----------
        stored : mapping
            The header as `to_json` gave it.

        Returns
        -------
        IndexHeader
            The header.

        Raises
        ------
        IndexFormatError
            If something is missing, of another type, or not known to this release.
        """  # noqa: DOC501  odd_header() makes that error
        names = {field.name for field in fields(cls)}
        newer = {"calibration", "measures_threshold", "rerank"}
        header = known_fields(stored, "header", names - newer, names)
        search = known_fields(
            header["search"], "search", needed=set(), known={field.name for field in fields(SearchParams)}
        )
        measured, measures_threshold = header.get("calibration"), header.get("measures_threshold", False)
        if not isinstance(header["fingerprint"], str):
            raise odd_header(f"its fingerprint is {short(header['fingerprint'])}, wanted text")
        if not isinstance(measures_threshold, bool):
            raise odd_header(f"its measures_threshold is {short(measures_threshold)}, wanted true or false")
        try:
            recipe, params = Recipe.from_json(header["recipe"]).check(), SearchParams(**search)
        except ParameterError as error:
            raise odd_header(str(error)) from error
        calibration = None if measured is None else Calibration.from_json(measured)
        rerank = Rerank.from_json(header["rerank"]) if "rerank" in header else None
        return cls(recipe, header["fingerprint"], params, calibration, measures_threshold, rerank)
