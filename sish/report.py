"""Write a search as one self-contained page: the query's mosaic, the hits, and the patches that matched."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib import resources
from itertools import chain
from pathlib import Path

from sish.encoders import FEATURES
from sish.outputs import check_output, write_output
from sish.printing import counted
from sish.report_cards import Page, answer_section, title
from sish.report_html import escape, facts
from sish.report_pictures import Gallery
from sish.results import SCORE, Results
from sish.slide_index import Index
from sish.version import __version__

_PAGES = (".html", ".htm")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_RESEARCH = "for research only, not for diagnosis"


def write_report(
    results: Results | Sequence[Results],
    path: str | os.PathLike[str],
    *,
    index: Index,
    at: datetime | None = None,
) -> Path:
    """Write searches of an index as one HTML page that needs no other file.

    Parameters
    ----------
    results : Results, or several of them
        Answers of :meth:`sish.Index.search` to queries that are files.
    path : path-like
        The page to write. It may replace a page, never a query, an indexed slide or a file of an index.
    index : Index
        The index that was searched; slides are read again from where they were when they were added.
    at : datetime, optional
        The time that the page tells; without a time zone it is local time. Default: now.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ParameterError
        If the page would replace a file of another kind, or lies inside an index.
    OutputError
        If it cannot be written.

    Notes
    -----
    The page has no scripts, and its content security policy allows only its own style and pictures.
    """
    asked = [results] if isinstance(results, Results) else list(results)
    queries = [answer.query.path for answer in asked if answer.query.path is not None]
    check_report(path, queries, index)
    return write_output(path, _page(asked, index, at or datetime.now()).encode(), replaces=_PAGES)


def check_report(path: str | os.PathLike[str], queries: Sequence[str], index: Index) -> None:
    """Refuse a path that :func:`write_report` would refuse (ParameterError), before anything is searched."""
    recipe = index.recipe
    weights = (recipe.weights, recipe.network_weights)
    slides = (row.path for row in index.slides if row.path)
    check_output(path, inputs=chain(queries, weights, slides), replaces=_PAGES)


def _page(asked: Sequence[Results], index: Index, at: datetime) -> str:
    """Return the page."""
    state, view = index.state_and_view()
    n_bits = view.searcher.n_bits
    with Gallery(index.encoder, state.row) as gallery:
        page = Page(gallery, state, n_bits, index.params.threshold)
        body = "".join(answer_section(answer, number, page) for number, answer in enumerate(asked, 1))
    style = resources.files("sish").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Similar slides</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<style>{style}</style></head><body><main><header><h1>Similar slides</h1>"
        f'<p class="soft">{counted(len(index), "slide")} in {escape(index.path.name)} · {_RESEARCH}</p>'
        f"{''.join(_notes(asked))}{_contents(asked)}</header>"
        f'<div class="columns"><section><h2>How to read this</h2>{_how_to_read(asked, n_bits)}</section>'
        f"<section><h2>This search</h2>{_settings(index, at)}</section></div>"
        f"{body}<footer>sish {__version__} · {_RESEARCH}</footer></main></body></html>"
    )


def _notes(asked: Sequence[Results]) -> Iterator[str]:
    """Yield how the answers were ranked, each line once."""
    for line in dict.fromkeys(answer.headline for answer in asked):
        yield f'<p class="note">{escape(line)}</p>'


def _contents(asked: Sequence[Results]) -> str:
    """Return links to the answers, if there are several."""
    if len(asked) < 2:
        return ""
    names = (escape(title(answer.query)) for answer in asked)
    links = (f'<li><a href="#q{number}">{name}</a></li>' for number, name in enumerate(names, 1))
    return f'<nav aria-label="queries"><ol>{"".join(links)}</ol></nav>'


def _how_to_read(asked: Sequence[Results], n_bits: int) -> str:
    """Return what the figures of the page mean."""
    meaning = {
        "score": SCORE.removeprefix("score: "),
        "matched, median": "how many patches of the query have a match in the slide within the "
        "threshold, and the median distance of these matches",
        "bits": f"in how many of the {n_bits} bits of their barcodes two patches differ: 0 is equal, and "
        "up to the threshold they count as similar",
    }
    if any(answer.ranking == "uncertainty" for answer in asked):
        meaning["uncertainty"] = (
            "how mixed the labels are among the matches of a patch of the query: 0 is one label alone; the "
            "least comes first, so scores may rise further down"
        )
    return facts(meaning.items())


def _settings(index: Index, at: datetime) -> str:
    """Return when the page was written, and how the archive is made and searched."""
    recipe = index.recipe
    is_pixels = not recipe.weights.startswith(FEATURES)
    return facts(
        {
            "written": _moment(at),
            "program": f"sish {__version__}",
            "archive": f"{index.path.name}, {counted(len(index), 'slide')}",
            "encoder": index.fingerprint,
            "patches": f"{recipe.patch_px} px at {recipe.mpp:g} um/px" if is_pixels else recipe.weights,
            "threshold": index.threshold_source,
            "ranked again": index.rerank_source if index.rerank else "",
            "recall": index.recall_source,
        }.items()
    )


def _moment(at: datetime) -> str:
    """Return a time to the minute, with its offset from UTC: ``2026-11-26 09:05 (UTC+01:00)``."""
    told = (at if at.tzinfo else at.astimezone()).isoformat(" ", "minutes")
    return f"{told[:16]} (UTC{told[16:]})"
