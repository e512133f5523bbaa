"""The words of an explanation: a few sentences on why a slide is where it is in an answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sish.printing import counted

_TENS = (11, 12, 13)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the sentences tell."""

    ranking: str
    """How the answer was ranked."""
    rank: int | None
    """Place in the answer, None if the slide is not in it."""
    k: int
    """How many hits were wanted."""
    is_placed: bool
    """Whether the ranking placed it, not only the filling of the list."""
    now: int | None
    """Its place in the same search now."""
    later: str
    """What it would be in a longer answer, if it is not in this one; empty if nothing."""
    left_out: str
    """Why it may not be found; empty if it may."""
    is_changed: bool
    """Whether the index was changed since."""
    score: float
    """Its score."""
    threshold: int
    """Threshold in bits."""
    reach: int
    """Largest distance in bits that the score counts."""
    n_bits: int
    """Bits of a barcode."""
    hamming: tuple[int, ...]
    """Distance of each query patch to its nearest match in the slide."""
    counted: tuple[int | None, ...]
    """Distance of the match that the search counted."""
    shares: tuple[float, ...]
    """Share of the score of each query patch."""
    n_slides: int
    """How many slides the search found."""
    bag: tuple[int, tuple[str, float], float] | None
    """Query patch, commonest label with its weight, and uncertainty of the bag that placed it."""
    is_refined: bool = False
    """Whether patches of liked examples count, too."""


def words_of(facts: Facts) -> tuple[str, ...]:
    """Return the sentences."""
    return tuple(_sentences(facts))


def ordinal(number: int) -> str:
    """Return a number as a place, such as 1st."""
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in _TENS else endings.get(number % 10, 'th')}"


def _sentences(facts: Facts) -> Iterator[str]:
    if facts.hamming:
        yield _matches(facts)
        yield _score(facts)
    yield _why(facts)
    if missed := _missed(facts):
        yield missed
    if facts.is_changed:
        yield _changed(facts)


def _matches(facts: Facts) -> str:
    total, near = len(facts.hamming), sum(bits <= facts.threshold for bits in facts.hamming)
    who = f"{near} of {counted(total, 'patch', 'es')} of the query" if total > 1 else "The query's only patch"
    have = "has" if near == 1 or total == 1 else "have"
    has_not = " no" if total == 1 and not near else " a"
    return (
        f"{who} {have}{has_not} match here within {facts.threshold} bits, the threshold; the nearest "
        f"is {counted(min(facts.hamming), 'bit')} away (0 is equal, {facts.n_bits // 2} is unrelated)."
    )


def _score(facts: Facts) -> str:
    if facts.score == 0:
        return "Its score is 0: the search counted no match in it."
    own = sum(facts.shares)
    if facts.is_refined:
        return (
            f"Its score is {facts.score:.3f} (1 is equal, 0 unrelated): {own:.3f} from the query, the rest "
            "from liked examples."
        )
    largest, so_far, number = sorted(facts.shares, reverse=True), 0.0, 0
    while so_far < own / 2:
        so_far, number = so_far + largest[number], number + 1
    many = len(facts.shares) > 1
    half = f"; half of it comes from {counted(number, 'patch', 'es')} of the query" if many else ""
    note = ". Patches that few slides match count more" if many else ""
    note += "" if min(facts.hamming) <= facts.threshold else ". It counts matches beyond the threshold, too"
    return f"Its score is {facts.score:.3f} (1 is equal, 0 unrelated){half}{note}."


def _why(facts: Facts) -> str:
    if facts.rank is None:
        return _not_a_hit(facts)
    place = f"It is placed {ordinal(facts.rank)}"
    if facts.now is None:
        return f"It was placed {ordinal(facts.rank)}, and a search now would not find it among {facts.k}."
    if facts.is_placed and facts.bag is not None:
        row, (label, weight), uncertainty = facts.bag
        whose = "the query" if row < len(facts.hamming) else "the query and its examples"
        return (
            f"{place} because of patch {row + 1} of {whose}: {weight:.0%} of what it found, by weight, is "
            f"{label!r} (uncertainty {uncertainty:.2f} bits). Patches whose matches agree most on a label "
            "place their slides first."
        )
    if facts.is_placed:
        return f"{place} by its score, of {counted(facts.n_slides, 'slide')} that the search found."
    if min(facts.hamming) > facts.threshold:
        return (
            f"It only fills the list, as the {ordinal(facts.rank)}: it is among the nearest, but not similar."
        )
    if facts.ranking == "uncertainty":
        return (
            f"It only fills the list, as the {ordinal(facts.rank)}: the ranking by uncertainty left it out, "
            "and it is next by score."
        )
    return (
        f"It only fills the list, as the {ordinal(facts.rank)}: within its budget the search found it late."
    )


def _not_a_hit(facts: Facts) -> str:
    if facts.left_out:
        return f"It is not in the list because {facts.left_out}."
    if facts.later:
        return f"It is not in the list of {facts.k}: in a longer one it {facts.later}."
    limit = facts.threshold if facts.ranking == "uncertainty" else facts.reach
    if min(facts.hamming) > limit:
        return f"It is not in the list: none of its patches is within {limit} bits of one of the query."
    if facts.score > 0:
        return (
            "It is not in the list because the ranking by uncertainty left it out: the patches that found it "
            "have matches of another label, or matches that are farther away than usual."
        )
    return (
        "It is not in the list because the search did not look at its matches: a larger budget "
        "(search.budget) looks at more."
    )


def _missed(facts: Facts) -> str:
    """Tell of matches that a search with a larger budget would count."""
    pairs = zip(facts.hamming, facts.counted, strict=True)
    missed = sum(bits <= facts.reach and found is None for bits, found in pairs)
    if not missed or facts.left_out or not facts.score:
        return ""
    return (
        f"The score counts no match of {counted(missed, 'patch', 'es')} of the query that "
        f"{'has' if missed == 1 else 'have'} one here: the search looks at a bounded number of patches."
    )


def _changed(facts: Facts) -> str:
    if facts.now == facts.rank:
        return "The index was changed after this search; this is told by what it holds now."
    now = "would not be found" if facts.now is None else f"would be the {ordinal(facts.now)}"
    return f"The index was changed after this search; this is told by what it holds now: it {now}."
