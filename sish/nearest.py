"""Find the known names nearest to one that is not known, for error messages."""

from collections.abc import Iterable
from difflib import get_close_matches

_SHOWN = 3
_LONGEST = 200  # characters that are compared: difflib takes seconds for a page of text


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names that look like a word, the nearest first.

    Parameters
    ----------
    word : str
        What was typed; upper and lower case are the same.
    known : iterable of str
        The names that exist.

    Returns
    -------
    list of str
        Similar names, then names that begin with the word.

    Examples
    --------
    >>> nearest("squamus-01", ["squamous-01", "squamous-02", "lung-01"])
    ['squamous-01', 'squamous-02']
    >>> nearest("Squamo", ["squamous", "lung"]), nearest("qwerty", ["squamous", "lung"])
    (['squamous'], [])
    """
    names = {name.lower()[:_LONGEST]: name for name in known}
    asked = word.lower()[:_LONGEST]
    begun = sorted(name for name in names if asked and name.startswith(asked))
    alike = get_close_matches(asked, names, n=_SHOWN)
    return [names[name] for name in dict.fromkeys((*alike, *begun))][:_SHOWN]


def nearest_to(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message: ``; nearest: 'a', 'b'``.

    Parameters
    ----------
    word : str
        What was typed.
    known : iterable of str
        The names that exist.

    Returns
    -------
    str
        Empty if no name is near.

    Examples
    --------
    >>> nearest_to("unii", ["uni", "virchow"])
    "; nearest: 'uni'"
    """
    found = nearest(word, known)
    return f"; nearest: {', '.join(map(repr, found))}" if found else ""
