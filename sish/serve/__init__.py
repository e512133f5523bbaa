"""A web page to look at the slides of an index and to ask for similar ones: ``sish serve``.

The server is Starlette on uvicorn (the extra ``serve``). It only calls what the library offers to all; the
page is plain HTML, CSS and modules of JavaScript in ``page/``, with OpenSeadragon for deep zoom.

- :mod:`sish.serve.server` runs it, :mod:`sish.serve.app` has the routes
- :mod:`sish.serve.guard` decides who may come in
- :mod:`sish.serve.catalogue` lists slides, :mod:`sish.serve.shown_slide` makes tiles of them
- :mod:`sish.serve.searches` runs searches that can be watched and cancelled
"""
