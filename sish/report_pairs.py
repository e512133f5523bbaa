"""The pairs of patches that made a slide a hit, as a report shows them beside each other."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sish.errors import SlideError
from sish.report_html import again, enlargeable, escape, image, svg
from sish.report_pictures import PATCH_PX, Gallery
from sish.results import ExamplePair, Hit, PatchPair

_SIZE = (PATCH_PX, PATCH_PX)
_NO_PICTURE = '<span class="gone">no picture</span>'


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair with its pictures, which are elements to be put into an SVG; empty where there is none."""

    number: int
    """Its number among the pairs of its hit, from 1."""
    pair: PatchPair | ExamplePair
    """The pair."""
    found_by: str
    """Name of the patch that found the hit's, in words."""
    link: str
    """Id of that patch's place on the query's picture; empty if it is not there."""
    left: str
    """The patch that found the hit's."""
    right: str
    """The hit's patch."""


def patch_name(name: str, pair: PatchPair) -> str:
    """Return the id of a query's patch; `name` is the query's."""
    return f"{name}-patch{pair.query_row}"


def place_name(own: str, l0_xy: tuple[int, int]) -> str:
    """Return the id of the frame at a place of a hit; `own` is the hit's."""
    return "{}-place{}-{}".format(own, *l0_xy)


def pairs_of(hit: Hit, name: str, shown: Collection[int], gallery: Gallery) -> list[ShownPair]:
    """Return the pairs of a hit: those of the query's patches, then those of liked examples.

    Parameters
    ----------
    hit : Hit
        The hit.
    name : str
        Id of the query on the page.
    shown : collection of int
        Numbers of the query's patches that the page has pictures of.
    gallery : Gallery
        The pictures.

    Returns
    -------
    list of ShownPair
        The pairs, numbered.
    """
    asked = [_of_query(number, pair, hit, name, shown, gallery) for number, pair in enumerate(hit.patches, 1)]
    liked = enumerate(hit.examples, len(asked) + 1)
    return asked + [_of_example(number, pair, hit, gallery) for number, pair in liked]


def _of_query(
    number: int, pair: PatchPair, hit: Hit, name: str, shown: Collection[int], gallery: Gallery
) -> ShownPair:
    """Return the pair of a query's patch."""
    words, picture = f"query patch {pair.query_row}", patch_name(name, pair)
    is_shown = pair.query_row in shown
    return ShownPair(
        number,
        pair,
        words,
        link=f"{picture}-place" if is_shown else "",
        left=again(picture, words) if is_shown else "",
        right=_hit_patch(pair, hit, gallery),
    )


def _of_example(number: int, pair: ExamplePair, hit: Hit, gallery: Gallery) -> ShownPair:
    """Return the pair of a liked example's patch."""
    words = f"patch {pair.example_row} of {pair.slide_id}, marked as relevant"
    try:
        left = image(gallery.example_patch(pair), words)
    except SlideError:
        left = ""
    return ShownPair(number, pair, words, link="", left=left, right=_hit_patch(pair, hit, gallery))


def _hit_patch(pair: PatchPair | ExamplePair, hit: Hit, gallery: Gallery) -> str:
    """Return the hit's patch of a pair."""
    try:
        return image(gallery.hit_patch(hit, pair), f"patch {pair.row} of {hit.slide_id}")
    except SlideError:
        return ""  # the hit's card tells why


def pair_card(it: ShownPair, own: str, threshold: int) -> str:
    """Return two patches that matched, with their distance; `own` is the id of the hit."""
    far = f"<b>{it.pair.hamming} bits</b>"
    far += f", {100 * it.pair.hamming / threshold:.0f} % of the threshold" if threshold else ""
    found_by = escape(it.found_by)
    found_by = f'<a href="#{it.link}">{found_by}</a>' if it.link else found_by
    number = f'<b class="number">{it.number}</b>'
    if it.right and it.pair.xy is not None:
        number = f'<a class="number" href="#{place_name(own, it.pair.xy)}">{it.number}</a>'
    return (
        f'<li class="pair" id="{own}-match{it.number}">{_pictures(it, own)}'
        f"<p>{number} {far}<br>{found_by}, hit patch {it.pair.row}</p></li>"
    )


def _pictures(it: ShownPair, own: str) -> str:
    """Return both patches side by side; nothing if neither has a picture."""
    if not it.left and not it.right:
        return ""
    what = f"match {it.number}: {it.found_by}, and hit patch {it.pair.row}"
    kept = f"{own}-patch{it.number}"
    sides = {f"{kept}-left": it.left, f"{kept}-right": it.right}
    small = (
        svg(_SIZE, f'<g id="{side}">{body}</g>') if body else _NO_PICTURE for side, body in sides.items()
    )
    large = (svg(_SIZE, again(side, what)) for side, body in sides.items() if body)
    caption = f"{escape(what)}, {it.pair.hamming} bits apart"
    return enlargeable(f"{kept}-zoom", what, "".join(small), "".join(large), caption)
