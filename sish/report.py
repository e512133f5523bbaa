"""A search as one self-contained page: the query with its mosaic, each hit, and the patches that matched."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

from PIL import Image

from sish.encode import SlideEncoder
from sish.errors import ParameterError, SlideError
from sish.preview import draw_mosaic
from sish.results import Hit, PatchPair, Query, Results
from sish.slide import Slide, open_slide
from sish.slide_index import Index
from sish.version import __version__

__all__ = ["write_report"]

_THUMBNAIL_PX = 320
_QUERY_PX = 640
_PATCH_PX = 112

_STYLE = """
:root { --ink: #1d2430; --soft: #5d6778; --line: #dfe3ea; --paper: #f6f7f9; --accent: #8b2f6b; }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 40px 0 12px; }
.soft { color: var(--soft); } .note { border-left: 3px solid var(--accent); padding: 4px 12px; background: #fff; }
.card { display: flex; gap: 20px; background: #fff; border: 1px solid var(--line); border-radius: 10px;
        padding: 16px; margin: 12px 0; align-items: flex-start; flex-wrap: wrap; }
.card > img { border-radius: 6px; border: 1px solid var(--line); max-width: 100%; }
.facts { flex: 1 1 260px; min-width: 240px; }
.facts h3 { margin: 0 0 6px; font-size: 17px; overflow-wrap: anywhere; }
.chip { display: inline-block; padding: 1px 10px; border-radius: 999px; background: #f0e3ec; color: var(--accent);
        font-weight: 600; font-size: 13px; margin-right: 6px; }
.chip.right { background: #e0f1e6; color: #1c6b3c; } .chip.flag { background: #fdeccb; color: #7a5200; }
.bar { height: 8px; border-radius: 4px; background: var(--line); margin: 8px 0; max-width: 260px; }
.bar i { display: block; height: 100%; border-radius: 4px; background: var(--accent); }
.pairs { display: flex; gap: 14px; flex-wrap: wrap; margin-top: 12px; }
figure { margin: 0; font-size: 12px; color: var(--soft); text-align: center; }
figure img { display: inline-block; border-radius: 4px; } .gone { display: grid; place-items: center; border-radius: 6px;
        background: var(--line); color: var(--soft); font-size: 13px; padding: 8px; text-align: center; }
footer { margin-top: 48px; font-size: 13px; color: var(--soft); }
"""


def write_report(results: Results | Sequence[Results], path: str | os.PathLike[str], *, index: Index) -> Path:
    """Write searches of an index as one HTML page that needs no other file.

    Parameters
    ----------
    results : Results, or several of them
        Answers of :meth:`sish.Index.search` to queries that are files.
    path : path-like
        The page to write.
    index : Index
        The index that was searched; slides are read again from where they were when they were added.

    Raises
    ------
    ParameterError
        If the page cannot be written.
    """
    asked = [results] if isinstance(results, Results) else list(results)
    with _Gallery(index.encoder) as gallery:
        body = "".join(_section(answer, gallery) for answer in asked)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Similar slides</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main><h1>Similar slides</h1>"
        f'<div class="soft">{len(index)} slides in {escape(index.path.name)}</div>{body}'
        f"<footer>sish {__version__} · encoder {escape(index.fingerprint)} · for research only, not for diagnosis"
        "</footer></main></body></html>"
    )
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ParameterError(f"cannot write the report {path}: {error.strerror}; give another path") from error
    return Path(path)


class _Gallery:
    """Pictures of slides as data URIs; a slide that is gone leaves a grey box that says so."""

    def __init__(self, encoder: SlideEncoder) -> None:
        self._encoder = encoder
        self._open = lru_cache(maxsize=16)(self._open_slide)
        self._opened: list[Slide] = []

    def __enter__(self) -> _Gallery:
        return self

    def __exit__(self, *exc: object) -> None:
        for slide in self._opened:
            slide.close()

    def _open_slide(self, path: str, mpp: float) -> Slide:
        slide = open_slide(path, mpp=mpp)
        self._opened.append(slide)
        return slide

    def query(self, query: Query) -> str:
        """The query's thumbnail with its mosaic."""
        if query.path is None:
            return _gone("an image in memory", _THUMBNAIL_PX)
        try:
            slide = self._open(query.path, query.mpp)
            prepared = self._encoder.prepare(slide, query.region)
            picture = draw_mosaic(slide, prepared.tissue, prepared.mosaic, max_px=_QUERY_PX)
        except SlideError as error:
            return _gone(str(error), _THUMBNAIL_PX)
        return _img(picture, "the query and its mosaic")

    def thumbnail(self, path: str, mpp: float) -> str:
        """A hit's slide, small."""
        try:
            slide = self._open(path, mpp)
            width, height = slide.bounds[2:]
            pixels = slide.overview(max(width, height) * slide.mpp / _THUMBNAIL_PX)
        except SlideError as error:
            return _gone(str(error), _THUMBNAIL_PX)
        return _img(Image.fromarray(pixels), "thumbnail")

    def patch(self, path: str | None, mpp: float, l0_xy: tuple[int, int]) -> str:
        """One patch, as the encoder saw it."""
        if path is None:
            return _gone("in memory", _PATCH_PX)
        recipe = self._encoder.recipe
        try:
            pixels = self._open(path, mpp).read(l0_xy, recipe.patch_px, recipe.mpp)
        except SlideError as error:
            return _gone(str(error), _PATCH_PX)
        return _img(Image.fromarray(pixels).resize((_PATCH_PX, _PATCH_PX)), "patch")


def _section(results: Results, gallery: _Gallery) -> str:
    query = results.query
    place = "" if query.region is None else " · region x {}, y {}, {} x {} px".format(*query.region)
    note = f'<p class="note">{escape(results.note)}</p>' if results.note else ""
    cards = "".join(_card(hit, query, gallery) for hit in results)
    return (
        f'<h2>Query</h2><div class="card">{gallery.query(query)}<div class="facts"><h3>{escape(query.slide_id)}</h3>'
        f'<div class="soft">{query.n_patches} patches · {query.mpp:.3g} um/px{place}</div>'
        f'<div class="soft">ranked by {results.ranking}</div>{note}</div></div>'
        f"<h2>{len(results)} most similar slides</h2>{cards}"
    )


def _card(hit: Hit, query: Query, gallery: _Gallery) -> str:
    chips = f'<span class="chip">{escape(hit.label)}</span>' if hit.label else ""
    if hit.below_threshold:
        chips += '<span class="chip flag">below the threshold: nearest, not similar</span>'
    certainty = "" if hit.uncertainty is None else f" · uncertainty {hit.uncertainty:.2f} bits"
    pairs = "".join(_pair(pair, hit, query, gallery) for pair in hit.patches)
    return (
        f'<div class="card">{gallery.thumbnail(hit.path, hit.mpp)}<div class="facts">'
        f"<h3>{hit.rank}. {escape(hit.slide_id)}</h3><div>{chips}</div>"
        f'<div class="bar"><i style="width:{100 * hit.score:.0f}%"></i></div>'
        f'<div class="soft">score {hit.score:.3f}{certainty} · patient {escape(hit.patient)}</div>'
        f'<div class="pairs">{pairs}</div></div></div>'
    )


def _pair(pair: PatchPair, hit: Hit, query: Query, gallery: _Gallery) -> str:
    pictures = gallery.patch(query.path, query.mpp, pair.query_xy) + gallery.patch(hit.path, hit.mpp, pair.xy)
    return f"<figure>{pictures}<br>query | hit · {pair.hamming} bits apart</figure>"


def _img(picture: Image.Image, alt: str) -> str:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{alt}" width="{picture.width}" height="{picture.height}" src="data:image/jpeg;base64,{data}">'


def _gone(why: str, size: int) -> str:
    return f'<span class="gone" style="width:{size}px;min-height:{size // 2}px" title="{escape(why)}">no picture</span>'
