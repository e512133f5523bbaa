"""Rows of slides that no file is behind."""

from typing import Any

from sish.index.store import NO_TISSUE, SlideRow


def slide_row(slide_id: str, n_patches: int = 1, **changes: Any) -> SlideRow:
    """A row whose patient is the slide itself; any field may be another."""
    usual = {
        "path": f"/{slide_id}.svs",
        "patch_l0_px": 256.0,
        "mpp": 1.0,
        "mpp_source": "given",
        "width": 9,
        "height": 9,
        "label": None,
        "patient": slide_id,
        "site": None,
        "status": "indexed" if n_patches else NO_TISSUE,
    }
    return SlideRow(slide_id=slide_id, n_patches=n_patches, **usual | changes)
