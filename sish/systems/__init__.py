"""The systems that find similar images, behind one interface: see :class:`sish.systems.base.System`."""
