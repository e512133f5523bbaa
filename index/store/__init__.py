"""The folder of an index on disk: immutable segments behind one manifest that is replaced atomically."""

from sish.index.store.manifest import FORMAT_VERSION
from sish.index.store.slide_row import INDEXED, NO_TISSUE, SlideRow
from sish.index.store.snapshot import Snapshot, slide_snapshot
from sish.index.store.state import State
from sish.index.store.store import Store, StoreInfo

__all__ = [
    "FORMAT_VERSION",
    "INDEXED",
    "NO_TISSUE",
    "SlideRow",
    "Snapshot",
    "State",
    "Store",
    "StoreInfo",
    "slide_snapshot",
]
