"""A report as tests read it: its elements, its text and its pictures, by the standard library's parser."""

import base64
import io
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
from PIL import Image

_VOID = {"meta", "br"}


class ReportPage(HTMLParser):
    """The elements of a page in order, as (tag, attributes, ids of the elements around it)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], tuple[str, ...]]] = []
        self.texts: list[tuple[str, str]] = []  # the tag around it, and the text
        self._around: list[tuple[str, str]] = []
        self.feed(text)
        assert not self._around, "every element is closed"

    def handle_starttag(self, tag, attrs):
        own = {name: value or "" for name, value in attrs}
        self.elements.append((tag, own, tuple(name for _, name in self._around if name)))
        if tag not in _VOID:
            self._around.append((tag, own.get("id", "")))

    def handle_startendtag(self, tag, attrs):
        self.elements.append(
            (
                tag,
                {name: value or "" for name, value in attrs},
                tuple(name for _, name in self._around if name),
            )
        )

    def handle_endtag(self, tag):
        assert self._around.pop()[0] == tag

    def handle_data(self, data):
        self.texts.append((self._around[-1][0] if self._around else "", data))

    def all(self, tag, within=""):
        """The attributes of all elements of a kind, or of those within the element of an id."""
        return [own for it, own, around in self.elements if it == tag and (not within or within in around)]

    @property
    def text(self):
        """Everything that a reader sees, and no style."""
        return " ".join(text for tag, text in self.texts if tag not in ("style", "title"))

    def value(self, name):
        """The values that lists of facts give to a name."""
        words = [(tag, text) for tag, text in self.texts if tag in ("dt", "dd")]
        return [after for (tag, text), (_, after) in pairwise(words) if (tag, text) == ("dt", name)]

    def corners(self, within, kind="region"):
        """The corners (x, y) of the polygon of a kind."""
        (own,) = [self.elements[place + 2][1] for place, (tag, it, around) in enumerate(self.elements)
                  if tag == "g" and it.get("class") == kind and within in around]  # fmt: skip
        return [tuple(map(float, point.split(","))) for point in own["points"].split()]

    def frames(self, within, kind="match"):
        """The frames of a kind as (id around it, x, y, width, height), without their halos."""
        found = []
        for place, (tag, own, around) in enumerate(self.elements):
            if tag == "g" and own.get("class") == kind and within in around:
                rect = self.elements[place + 2][1]
                box = tuple(float(rect[name]) for name in ("x", "y", "width", "height"))
                found.append((own.get("id") or around[-1], *box))
        return found


def pixels(image):
    """The pixels of an image element, uint8 (H, W, 3)."""
    kind, data = image["href"].split(",", 1)
    assert kind == "data:image/jpeg;base64"
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert found.shape == (int(image["height"]), int(image["width"]), 3)
    return found
