"""What every system is given: an image or a slide, with what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Item"]


@dataclass(frozen=True, slots=True)
class Item:
    """An image or slide that can be searched for, or found."""

    item_id: str
    """Its name, unique in its data set."""
    path: Path
    """Its file."""
    labels: frozenset[str] = frozenset()
    """What is known to be in it: one label, or several findings; none where nothing is known."""
    group: str = ""
    """Patient, lesion or source tile: a query never finds items of its own group. Empty: it is its own."""
    mpp: float | None = None
    """Micrometres per pixel, where the file does not tell."""
    mask: Path | None = None
    """Picture of what matters in it (not 0 is inside), for systems that look at shapes."""
    override_mpp: float | None = None
    """Micrometres per pixel, whatever the file tells."""

    @property
    def label(self) -> str:
        """Its labels as one word, joined by a bar; empty where it has none."""
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
        }
