"""The answers of a report: a card for each query and each hit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from sish.errors import SlideError
from sish.filters import filters_of
from sish.index.store import State
from sish.preview import CLUSTER_COLOURS, OUTLINE_COLOUR
from sish.printing import counted
from sish.report_html import (
    enlargeable_slide,
    escape,
    facts,
    frame,
    image,
    no_picture,
    numbered_frame,
    polygon,
    swatches,
)
from sish.report_pairs import pair_card, pairs_of, patch_name, place_name
from sish.report_pictures import Gallery, Picture, QueryPicture
from sish.results import ExamplePair, Hit, PatchPair, Query, Results
from sish.slides.region import Box, Region

_REGION_COLOUR = "var(--region)"


@dataclass(frozen=True, slots=True)
class Page:
    """What all cards of a page share."""

    gallery: Gallery
    """The pictures."""
    state: State
    """The slides of the index."""
    n_bits: int
    """Number of bits of a barcode."""
    threshold: int
    """The threshold of the index in bits."""


def title(query: Query) -> str:
    """Return the name of a query, with that of its region if it has one."""
    part = query.region_name or ("" if query.region is None else "a region")
    return f"{query.slide_id} ({part})" if part else query.slide_id


def answer_section(results: Results, number: int, page: Page) -> str:
    """Return one query and its hits; `number` counts the answers of the page."""
    query, name = results.query, f"q{number}"
    asked = dict.fromkeys(pair.query_row for hit in results for pair in hit.patches)
    pairs = {pair.query_row: pair for hit in results for pair in hit.patches}
    patches = {row: _query_patch(query, pairs[row], name, page.gallery) for row in asked}
    shown = "".join(patches.values())
    cards = "".join(
        _hit_card(hit, results, name, {row for row in asked if patches[row]}, page) for hit in results
    )
    return (
        f'<section class="answer" id="{name}"><h2>Query: {escape(title(query))}</h2>'
        f'<svg class="shared" width="0" height="0" aria-hidden="true"><defs>{shown}</defs></svg>'
        f"{_query_card(results, name, list(pairs.values()), page)}"
        f"<h2>{counted(len(results), 'most similar slide')}</h2>{_agreement(results)}{cards}</section>"
    )


def _query_patch(query: Query, pair: PatchPair, name: str, gallery: Gallery) -> str:
    """Return the picture of a query's patch under its name; empty if there is none."""
    try:
        picture = gallery.query_patch(query, pair)
    except SlideError:
        return ""  # the query's card tells why
    return image(picture, "patch of the query", patch_name(name, pair))


# ---- the query


def _query_card(results: Results, name: str, pairs: Iterable[PatchPair], page: Page) -> str:
    """Return the card of a query."""
    query = results.query
    try:
        found = page.gallery.query(query)
        look = enlargeable_slide(
            name,
            f"{title(query)} and its mosaic",
            found.picture,
            _query_frames(query, name, pairs, found.picture),
        )
        legend = _legend(found, query)
    except SlideError as error:
        look, legend = no_picture(str(error)), ""
    told = {
        "patient": query.patient,
        "scale": "" if query.mpp is None else f"{query.mpp:.3g} um/px at level 0",
        "region": _region(query),
        "searched for": counted(query.n_patches, "patch", "es"),
        **_asked(results, page.threshold),
    }
    chip = f'<span class="chip">{escape(query.label)}</span>' if query.label else ""
    return (
        f'<div class="card query">{look}<div class="facts"><h3>{escape(title(query))}</h3>'
        f"<div>{chip}</div>{facts(told.items())}{legend}</div></div>"
    )


def _query_frames(query: Query, name: str, pairs: Iterable[PatchPair], picture: Picture) -> str:
    """Return the region that was searched for, and the places of matched patches, shown when linked to."""
    size, side = picture.image.size, query.patch_l0_px or 0.0
    spots = (
        frame(picture.box(pair.query_xy, side), size, "spot", f"{patch_name(name, pair)}-place")
        for pair in pairs
        if pair.query_xy is not None
    )
    if query.region is None:
        return "".join(spots)
    corners = [picture.place(corner) for corner in _box(query.region, query.box).corners.tolist()]
    return polygon(corners, "region") + "".join(spots)


def _box(region: Region, box: Box | None) -> Box:
    """Return what was searched for of a slide, as a box."""
    return Box(*region) if box is None else box


def _region(query: Query) -> str:
    """Return what was searched for of a slide, in words; empty if it was all of it."""
    if query.region is None:
        return ""
    it = _box(query.region, query.box)
    turned = f", turned clockwise by {it.angle:g} degrees" if it.is_turned else ""
    return f"x {it.x:g}, y {it.y:g}, {it.width:g} x {it.height:g} px of level 0{turned}"


def _legend(found: QueryPicture, query: Query) -> str:
    """Return the meaning of the colours of the query's picture."""
    clusters, counts = np.unique(found.cluster, return_counts=True)
    rows = [
        (_css(CLUSTER_COLOURS[cluster % len(CLUSTER_COLOURS)]), counted(count, "patch", "es"))
        for cluster, count in zip(clusters.tolist(), counts.tolist(), strict=True)
    ]
    rows.append((_css(OUTLINE_COLOUR), "outline of the tissue"))
    if query.region is not None:
        rows.append((_REGION_COLOUR, "region that was searched for"))
    return f'<p class="soft">Boxes of one colour have similar colours of tissue:</p>{swatches(rows)}'


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({} {} {})".format(*colour)


def _asked(results: Results, threshold: int) -> dict[str, str]:
    """Return how an answer was searched for, in words; only its ranking if it does not tell."""
    told, asked = {"ranked": results.headline.removeprefix("ranked ")}, results.asked
    if asked is None:
        return told
    own = asked.params.threshold
    return {
        **told,
        "hits wanted": f"{asked.k}",
        "threshold": f"{own} bits, given for this search" if own != threshold else "",
        "budget": f"{asked.params.budget} patches for each patch of the query",
        "own patient": "not left out" if asked.patient is None else f"{asked.patient} was left out",
        "only": "; ".join(f"{it.column}: {', '.join(map(str, it.given))}" for it in filters_of(asked.where)),
    }


# ---- the hits


def _agreement(results: Results) -> str:
    """Return how many hits have the label of the query, if it has one."""
    label = results.query.label
    if not label or not len(results):
        return ""
    same = sum(hit.label == label for hit in results)
    return f'<p class="soft">{same} of {len(results)} have the label of the query, {escape(label)}.</p>'


def _hit_card(hit: Hit, results: Results, name: str, shown: set[int], page: Page) -> str:
    """Return one hit with its facts and pairs; `shown` holds the query's patches that have a picture."""
    query, own = results.query, f"{name}h{hit.rank}"
    try:
        picture = page.gallery.thumbnail(hit)
        look = enlargeable_slide(own, f"{hit.rank}. {hit.slide_id}", picture, _hit_frames(hit, own, picture))
    except SlideError as error:
        look = no_picture(str(error))
    pairs = pairs_of(hit, name, shown, page.gallery)
    cards = "".join(pair_card(it, own, _threshold(results, page)) for it in pairs)
    return (
        f'<article class="card" id="{own}">{look}<div class="facts">'
        f"<h3>{hit.rank}. {escape(hit.slide_id)}</h3><div>{''.join(_chips(hit, query))}</div>"
        f'<div class="bar" aria-hidden="true"><i style="width:{100 * hit.score:.0f}%"></i></div>'
        f"{_score(hit, query)}{facts(_told(hit, page))}"
        f'<ol class="pairs" aria-label="matched patches">{cards}</ol></div></article>'
    )


def _threshold(results: Results, page: Page) -> int:
    return page.threshold if results.asked is None else results.asked.params.threshold


def _hit_frames(hit: Hit, own: str, picture: Picture) -> str:
    """Return the matched places of a hit; pairs of the same place share a frame."""
    pairs: tuple[PatchPair | ExamplePair, ...] = (*hit.patches, *hit.examples)
    places: dict[tuple[int, int], list[int]] = {}
    for number, pair in enumerate(pairs, 1):
        if pair.xy is not None:
            places.setdefault(pair.xy, []).append(number)
    side = hit.patch_l0_px or 0.0
    return "".join(
        numbered_frame(
            picture.box(xy, side),
            picture.image.size,
            numbers,
            place_name(own, xy),
            f"{own}-match{numbers[0]}",
        )
        for xy, numbers in places.items()
    )


def _chips(hit: Hit, query: Query) -> Iterator[str]:
    """Yield the label of a hit, with whether it is the query's, and what its place in the list means."""
    if hit.label:
        kind = "" if not query.label else " same" if hit.label == query.label else " other"
        yield f'<span class="chip{kind}">{escape(hit.label)}</span>'
        if query.label:
            same = "as the query" if hit.label == query.label else "not as the query"
            yield f'<span class="soft">{same}</span> '
    if not hit.placed and not hit.below_threshold:
        yield '<span class="chip flag">by similarity, to fill the list</span>'
    if hit.below_threshold:
        yield '<span class="chip flag">below the threshold: nearest, not similar</span>'


def _score(hit: Hit, query: Query) -> str:
    """Return the score of a hit, and what it is made of."""
    certainty = "" if hit.uncertainty is None else f" · uncertainty {hit.uncertainty:.2f} bits"
    return (
        f"<p><b>score {hit.score:.3f}</b> · {hit.n_matched} of {query.n_patches} patches matched, "
        f"median distance {hit.median_distance:g} bits{certainty}</p>"
    )


def _told(hit: Hit, page: Page) -> list[tuple[str, str]]:
    """Return the facts on a hit's slide; metadata may have any names, so they are no keys here."""
    row = page.state.row(hit.slide_id)
    has_size = row is not None and row.width > 0 and row.height > 0
    told = {
        "patient": hit.patient,
        "site": (row.site or "") if row is not None else "",
        "scale": "" if hit.mpp is None else f"{hit.mpp:.3g} um/px at level 0",
        "size": f"{row.width} x {row.height} px" if row is not None and has_size else "",
    }
    return [*told.items(), *hit.metadata.items()]
