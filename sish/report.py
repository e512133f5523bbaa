"""Write a search as one self-contained page: the query's mosaic, the hits, and the patches that matched."""

from __future__ import annotations

import base64
import html
import io
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from itertools import chain
from pathlib import Path

from PIL import Image

from sish.encode import SlideEncoder
from sish.errors import SlideError, SlideOpenError
from sish.identity import file_digest
from sish.outputs import check_output, write_output
from sish.preview import draw_mosaic
from sish.printing import counted, printable
from sish.results import SCORE, Hit, PatchPair, Query, Results
from sish.slide_index import Index
from sish.slides.mosaic import read_patch
from sish.slides.slide import Slide, open_slide
from sish.version import __version__

_THUMBNAIL_PX = 320
_QUERY_PX = 640
_PATCH_PX = 112
_PAGES = (".html", ".htm")
_OPEN_SLIDES = 16
_IN_MEMORY = "given as pixels in memory or as vectors"
"""Number of slides held open at a time; a plain image is held with all its pixels."""


def write_report(results: Results | Sequence[Results], path: str | os.PathLike[str], *, index: Index) -> Path:
    """Write searches of an index as one HTML page that needs no other file.

    Parameters
    ----------
    results : Results, or several of them
        Answers of :meth:`sish.Index.search` to queries that are files.
    path : path-like
        The page to write. It may replace a page, never a query, an indexed slide or a file of an index.
    index : Index
        The index that was searched; slides are read again from where they were when they were added.

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
    """
    asked = [results] if isinstance(results, Results) else list(results)
    queries = [answer.query.path for answer in asked if answer.query.path is not None]
    check_report(path, queries, index)
    with _Gallery(index.encoder, {row.path: row.file_digest for row in index.slides if row.path}) as gallery:
        body = "".join(_section(answer, gallery) for answer in asked)
    style = resources.files("sish").joinpath("report.css").read_text(encoding="utf-8")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Similar slides</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head><body><main><h1>Similar slides</h1>"
        f'<div class="soft">{counted(len(index), "slide")} in {escape(index.path.name)}</div>'
        f"{_head(asked)}{body}"
        f"<footer>sish {__version__} · encoder {escape(index.fingerprint)} · "
        "for research only, not for diagnosis</footer></main></body></html>"
    )
    return write_output(path, page.encode(), replaces=_PAGES)


def check_report(path: str | os.PathLike[str], queries: Sequence[str], index: Index) -> None:
    """Refuse a path that :func:`write_report` would refuse (ParameterError), before anything is searched."""
    recipe = index.recipe
    weights = (recipe.weights, recipe.network_weights)
    slides = (row.path for row in index.slides if row.path)
    check_output(path, inputs=chain(queries, weights, slides), replaces=_PAGES)


def _head(asked: Sequence[Results]) -> str:
    """Return the notes: how the answers were ranked, and the meaning of their scores."""
    rising = {"uncertainty": "; scores may rise further down"}
    lines = [*dict.fromkeys(answer.headline + rising.get(answer.ranking, "") for answer in asked), SCORE]
    return "".join(f'<p class="note">{escape(line)}</p>' for line in lines)


class _Gallery:
    """Pictures of slides as data URIs; a grey box with the reason stands for a slide that is gone."""

    def __init__(self, encoder: SlideEncoder, digests: Mapping[str, str | None]) -> None:
        self._encoder = encoder
        self._digests = digests  # of the indexed files, by path: another file there now is not shown
        self._slides: OrderedDict[tuple[str, float], Slide] = OrderedDict()

    def __enter__(self) -> _Gallery:
        return self

    def __exit__(self, *exc: object) -> None:
        while self._slides:
            self._slides.popitem()[1].close()

    def _open(self, path: str, mpp: float | None) -> Slide:
        """Return a slide at the scale at which it was encoded; close the least recently used ones."""
        if not path or mpp is None:
            raise SlideOpenError(_IN_MEMORY)
        slide = self._slides.pop((path, mpp), None) or open_slide(path, override_mpp=mpp)
        self._slides[path, mpp] = slide
        if len(self._slides) > _OPEN_SLIDES:
            self._slides.popitem(last=False)[1].close()
        return slide

    def query(self, query: Query) -> str:
        """Return the query's thumbnail with its mosaic."""
        if query.path is None:
            return _gone(_IN_MEMORY, _THUMBNAIL_PX)
        try:
            slide = self._open(query.path, query.mpp)
            prepared = self._encoder.prepare(slide, query.box or query.region)
            picture = draw_mosaic(slide, prepared.tissue, prepared.mosaic, max_px=_QUERY_PX)
        except SlideError as error:
            return _gone(str(error), _THUMBNAIL_PX)
        return _img(picture, "the query and its mosaic")

    def _open_indexed(self, path: str, mpp: float | None) -> Slide:
        """Return the slide of a hit; SlideOpenError if its file is another one now."""
        digest = self._digests.get(path)
        if (path, mpp) not in self._slides and digest is not None and file_digest(path) != digest:
            raise SlideOpenError(f"{path}: is another file now than when it was added", path=path)
        return self._open(path, mpp)

    def thumbnail(self, path: str, mpp: float | None) -> str:
        """Return a hit's slide, small."""
        try:
            slide = self._open_indexed(path, mpp)
            width, height = slide.bounds[2:]
            pixels = slide.overview(max(width, height) * slide.mpp / _THUMBNAIL_PX)
        except SlideError as error:
            return _gone(str(error), _THUMBNAIL_PX)
        return _img(Image.fromarray(pixels), "thumbnail")

    def query_patch(self, query: Query, pair: PatchPair) -> str:
        """Return the query's patch of a pair, as the encoder saw it."""
        return self._patch(self._open, query.path or "", query.mpp, pair.query_xy)

    def hit_patch(self, hit: Hit, pair: PatchPair) -> str:
        """Return the hit's patch of a pair, as the encoder saw it."""
        return self._patch(self._open_indexed, hit.path, hit.mpp, pair.xy)

    def _patch(
        self,
        opening: Callable[[str, float | None], Slide],
        path: str,
        mpp: float | None,
        l0_xy: tuple[int, int] | None,
    ) -> str:
        """Return a patch of a slide."""
        recipe = self._encoder.recipe
        if l0_xy is None:
            return _gone("its place is not known", _PATCH_PX)
        try:
            slide, step_px = opening(path, mpp), self._encoder.step_px
            pixels = read_patch(slide, l0_xy, recipe.patch_px, recipe.mpp, step_px=step_px)
        except SlideError as error:
            return _gone(str(error), _PATCH_PX)
        return _img(Image.fromarray(pixels).resize((_PATCH_PX, _PATCH_PX)), "patch")


def _section(results: Results, gallery: _Gallery) -> str:
    """Return one query and its hits."""
    query = results.query
    scale = "" if query.mpp is None else f" · {query.mpp:.3g} um/px"
    place = "" if query.region is None else " · region x {}, y {}, {} x {} px".format(*query.region)
    place += "" if query.region_name is None else f" ({escape(query.region_name)})"
    cards = "".join(_card(hit, query, gallery) for hit in results)
    return (
        f'<h2>Query</h2><div class="card">{gallery.query(query)}'
        f'<div class="facts"><h3>{escape(query.slide_id)}</h3>'
        f'<div class="soft">{counted(query.n_patches, "patch", "es")}{scale}{place}</div>'
        f'<div class="soft">{escape(results.headline)}</div></div></div>'
        f"<h2>{len(results)} most similar slides</h2>{cards}"
    )


def _card(hit: Hit, query: Query, gallery: _Gallery) -> str:
    """Return one hit with its facts and pairs."""
    chips = f'<span class="chip">{escape(hit.label)}</span>' if hit.label else ""
    if not hit.placed and not hit.below_threshold:
        chips += '<span class="chip flag">by similarity, to fill the list</span>'
    if hit.below_threshold:
        chips += '<span class="chip flag">below the threshold: nearest, not similar</span>'
    certainty = "" if hit.uncertainty is None else f" · uncertainty {hit.uncertainty:.2f} bits"
    pairs = "".join(_pair(pair, hit, query, gallery) for pair in hit.patches)
    return (
        f'<div class="card">{gallery.thumbnail(hit.path, hit.mpp)}<div class="facts">'
        f"<h3>{hit.rank}. {escape(hit.slide_id)}</h3><div>{chips}</div>"
        f'<div class="bar"><i style="width:{100 * hit.score:.0f}%"></i></div>'
        f'<div class="soft">score {hit.score:.3f} · {hit.n_matched} of {query.n_patches} patches matched, '
        f"median distance {hit.median_distance:g} bits{certainty} · patient {escape(hit.patient)}</div>"
        f'<div class="pairs">{pairs}</div></div></div>'
    )


def _pair(pair: PatchPair, hit: Hit, query: Query, gallery: _Gallery) -> str:
    """Return two patches that matched."""
    pictures = gallery.query_patch(query, pair) + gallery.hit_patch(hit, pair)
    return f"<figure>{pictures}<br>query | hit · {pair.hamming} bits apart</figure>"


def escape(name: str) -> str:
    """Return a name for HTML text and attributes; invisible characters are written as escapes."""
    return html.escape(printable(name))


def _img(picture: Image.Image, alt: str) -> str:
    """Return a picture as an element with its data."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img alt="{alt}" {size} src="data:image/jpeg;base64,{data}">'


def _gone(why: str, size: int) -> str:
    """Return the grey box in place of a picture, with the reason."""
    style = f"width:{size}px;min-height:{size // 2}px"
    return f'<span class="gone" style="{style}" title="{escape(why)}">no picture</span>'
