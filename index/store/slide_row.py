"""The facts on one slide that an index keeps beside its patches."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from reprlib import repr as short

INDEXED = "indexed"
"""Status of a slide whose patches are stored."""
NO_TISSUE = "no tissue"
"""Status of a slide in which no tissue was found: a recorded outcome, with no patches."""


@dataclass(frozen=True, slots=True)
class SlideRow:
    """The facts on one slide that the index keeps beside its patches."""

    slide_id: str
    """Its name within the index."""
    path: str
    """Where it was when it was added; empty for a slide that was given as vectors."""
    n_patches: int
    """How many patches stand for it; 0 for a slide without tissue."""
    patch_l0_px: float
    """Side of its patches in level-0 pixels; 0 for a slide whose patches have no places."""
    mpp: float
    """Micrometres per level-0 pixel; 0 where it is not known."""
    mpp_source: str
    """Where the mpp comes from (the user, a vendor's field, ...)."""
    width: int
    """Width of level 0 in pixels."""
    height: int
    """Height of level 0 in pixels."""
    label: str | None
    """Its diagnosis, or its site to be found again, where known."""
    patient: str
    """Its patient; the slide's own id where no patient is known."""
    site: str | None
    """Anatomic site or hospital, where known."""
    status: str = INDEXED
    """`INDEXED` or `NO_TISSUE`."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Everything else that the labels file said of it."""
    file_digest: str | None = None
    """Which file it was made from (`sish.identity`); None in rows that are older than the field."""

    @property
    def has_places(self) -> bool:
        """Whether the places of its patches are known."""
        return self.patch_l0_px > 0


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(it, str) for pair in value.items() for it in pair)


_FIELDS: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("slide_id", "path", "mpp_source", "patient", "status"), ("text", _is_text)),
    **dict.fromkeys(("label", "site", "file_digest"), ("text or nothing", _is_text_or_none)),
    **dict.fromkeys(("n_patches", "width", "height"), ("a whole number of at least 0", _is_count)),
    **dict.fromkeys(("patch_l0_px", "mpp"), ("a number of at least 0", _is_length)),
    "metadata": ("texts by name", _is_texts),
}


def wrong_field(row: SlideRow) -> str | None:
    """Find the first field of a row that has a wrong type or value.

    Parameters
    ----------
    row : SlideRow
        The row.

    Returns
    -------
    str or None
        The field and what was wanted; None if all fields are right.

    Examples
    --------
    >>> row = SlideRow("a", "/a.svs", True, 256.0, 0.5, "given", 9, 9, None, "a", None)
    >>> wrong_field(row)
    'n_patches True, wanted a whole number of at least 0'
    """
    for name, (wanted, fits) in _FIELDS.items():
        if not fits(value := getattr(row, name)):
            return f"{name} {short(value)}, wanted {wanted}"
    return None
