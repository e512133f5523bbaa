"""``Item``: an image or slide, with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """An image or slide that can be searched for, or found.

    >>> Item("p7", Path("p7.png"), frozenset({"nevus", "melanoma"})).label
    'melanoma|nevus'
    """

    item_id: str
    """Its name, unique in its data set."""
    path: Path
    """Its file."""
    labels: frozenset[str] = frozenset()
    """Its label, or its findings; empty if nothing is known."""
    group: str = ""
    """Patient, lesion or source tile: a query never finds items of its own group. Empty: it has none."""
    mpp: float | None = None
    """Micrometres per pixel, used if the file does not tell."""
    mask: Path | None = None
    """File of its mask (inside is not 0), for systems that compare shapes."""
    override_mpp: float | None = None
    """Micrometres per pixel, used whatever the file tells."""
    site: str = ""
    """Anatomic site or hospital; empty if not known."""

    @property
    def label(self) -> str:
        """Its labels in alphabetical order, joined by a bar; empty if it has none."""
        return "|".join(sorted(self.labels))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "item_id": self.item_id,
            "path": str(self.path),
            "labels": sorted(self.labels),
            "group": self.group,
            "mpp": self.mpp,
            "mask": None if self.mask is None else str(self.mask),
            "override_mpp": self.override_mpp,
            "site": self.site,
        }
