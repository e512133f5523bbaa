"""Published search systems behind one interface: fit a system on items, then search it.

An :class:`Item` is a slide or image with what is known of it; :func:`read_items` makes items of files,
folders and a labels file. Every system is a :class:`System`: ``fit(items)``, then ``search(item, k)``,
which returns :class:`ItemResults`. The names below are imported from their modules when they are first used,
so that ``import sish.systems`` needs neither torch nor numba.

- :class:`Sish`: the machinery of :class:`sish.Index`, on a database in memory
- :class:`Yottixel`: barcodes of a mosaic, and the median of their smallest distances
- :class:`SlideSimilarity`: the cosines of all patches with all patches
- :class:`Smily`: any region of any slide as the query; refined by region, by example and by concept
- :class:`XrayCodes`: codes that a network learnt from findings, searched in communities
- :class:`LesionSimilarity`: features, texture and outline of skin lesions

>>> from pathlib import Path
>>> from sish import systems
>>> issubclass(systems.Yottixel, systems.System)
True
>>> systems.Item("field-7", Path("field-7.png"), labels=frozenset({"benign"}), mpp=0.5).label
'benign'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
