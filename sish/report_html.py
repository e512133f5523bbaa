"""The elements of a report: escaped text, pictures with their data, frames on them, and enlarged views.

A picture is an SVG image, so that frames and numbers lie on it at its own pixels. Its data are in the page
once, under a name. Other places show them again by this name. An enlarged view is a popover of HTML, which a
button opens and Escape closes without a script.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Iterator, Sequence

from PIL import Image

from sish.printing import printable
from sish.report_pictures import Picture, Square

_QUALITY = 80
_TAG_PX = 18  # height of a number on a picture of 512 px


def escape(name: str) -> str:
    """Return a name for HTML text and attributes; invisible characters are written as escapes."""
    return html.escape(printable(name))


def image(picture: Image.Image, alt: str, name: str = "") -> str:
    """Return a picture as an SVG image with its data, to be put into an SVG; `name` is its id."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    own = f' id="{name}"' if name else ""
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<image{own} role="img" aria-label="{escape(alt)}" {size} href="data:image/jpeg;base64,{data}"/>'


def svg(size: tuple[int, int], body: str) -> str:
    """Return an SVG of so many pixels."""
    width, height = size
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">{body}</svg>'


def again(name: str, alt: str) -> str:
    """Return an element that shows a named part of an SVG of this page again."""
    return f'<use href="#{name}" role="img" aria-label="{escape(alt)}"/>'


def frame(box: Square, within: tuple[int, int], kind: str, name: str = "") -> str:
    """Return a frame on a picture, cut off at its edges; `kind` is its class and `name` its id."""
    x, y, width, height = box
    left, top = max(0.0, x), max(0.0, y)
    right, bottom = min(within[0], x + width), min(within[1], y + height)
    place = f'x="{left:.2f}" y="{top:.2f}" width="{right - left:.2f}" height="{bottom - top:.2f}"'
    own = f' id="{name}"' if name else ""
    return f'<g class="{kind}"{own}><rect class="halo" {place}/><rect {place}/></g>'


def polygon(corners: Iterable[tuple[float, float]], kind: str) -> str:
    """Return a frame of any corners on a picture; `kind` is its class."""
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y in corners)
    return f'<g class="{kind}"><polygon class="halo" points="{points}"/><polygon points="{points}"/></g>'


def numbered_frame(
    box: Square, within: tuple[int, int], numbers: Sequence[int], name: str, target: str
) -> str:
    """Return a frame with the numbers of the pairs that have it, which links to the first of them."""
    x, y, width, _ = box
    text = ", ".join(map(str, numbers))
    left = min(max(2.0, x + 3), within[0] - 0.7 * _TAG_PX * len(text))
    is_roomy = width > 2 * _TAG_PX
    base = y + 1.1 * _TAG_PX if is_roomy or y < 1.2 * _TAG_PX else y - 4  # inside a frame, else above it
    tag = f'<text class="tag" x="{left:.1f}" y="{base:.1f}">{text}</text>'
    where = f"place of match {text}"
    marked = frame(box, within, "match")
    return f'<a id="{name}" href="#{target}" aria-label="{where}">{marked}{tag}</a>'


def enlargeable(name: str, what: str, pictures: str, views: str, caption: str) -> str:
    """Return pictures under a button, and the larger views that it opens."""
    spoken = escape(what)
    return (
        f'<div class="look"><button class="cover" popovertarget="{name}" title="enlarge" '
        f'aria-label="enlarge {spoken}"></button>{pictures}</div>'
        f'<div popover class="zoom" id="{name}" role="dialog" aria-label="{spoken}">'
        f'<div class="views">{views}</div><p>{caption} '
        f'<button popovertarget="{name}" popovertargetaction="hide" autofocus>close</button></p></div>'
    )


def enlargeable_slide(name: str, what: str, picture: Picture, frames: str) -> str:
    """Return the picture of a slide with its frames and its scale bar."""
    size = picture.image.size
    drawn = f'<g id="{name}-picture">{image(picture.with_scale_bar(), what)}{frames}</g>'
    caption = f"{escape(what)}, {picture.mpp:.3g} um/px at level 0"
    view = svg(size, again(f"{name}-picture", what))
    return enlargeable(f"{name}-zoom", what, svg(size, drawn), view, caption)


def no_picture(why: str) -> str:
    """Return the card in place of a picture, with the reason."""
    return f'<div class="gone"><b>No picture</b><br>{escape(why)}</div>'


def facts(told: Iterable[tuple[str, str]]) -> str:
    """Return names and values, which are escaped here, as a list; empty values are left out."""
    lines = (f"<div><dt>{escape(it)}</dt><dd>{escape(value)}</dd></div>" for it, value in told if value)
    return f"<dl>{''.join(lines)}</dl>"


def swatches(colours: Iterable[tuple[str, str]]) -> str:
    """Return a legend of CSS colours and their meanings."""
    return f'<ul class="legend">{"".join(_swatches(colours))}</ul>'


def _swatches(colours: Iterable[tuple[str, str]]) -> Iterator[str]:
    for colour, meaning in colours:
        yield f'<li><i style="border-color:{colour}"></i>{escape(meaning)}</li>'
