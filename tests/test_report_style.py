"""The style of reports: every text can be read, in light and dark and on paper."""

import re
from importlib import resources

import pytest

STYLE = resources.files("sish").joinpath("report.css").read_text(encoding="utf-8")
GROUNDS = {
    "ink": ("paper", "card"), "soft": ("paper", "card"), "accent": ("paper", "card", "chip"),
    "same-ink": ("same",), "flag-ink": ("flag",), "number-ink": ("number",),
}  # fmt: skip


def colours(mode):
    """The colours of a mode; dark and paper change those of the light one."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    names = ["light", "dark", "paper"]
    assert len(blocks) == len(names)
    chosen = blocks[0] + blocks[names.index(mode)]
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", chosen))


def luminance(colour):
    """Relative luminance (WCAG 2.2) of #rgb or #rrggbb."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", ["light", "dark", "paper"])
def test_contrast_is_at_least_that_of_wcag_aa(mode):
    found = colours(mode)
    for ink, grounds in GROUNDS.items():
        for ground in grounds:
            high, low = sorted((luminance(found[ink]), luminance(found[ground])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (mode, ink, ground)


def test_every_colour_in_use_is_known_and_nothing_is_loaded():
    used = set(re.findall(r"var\(--([a-z-]+)\)", STYLE))
    assert used == set(colours("light"))
    assert "url(" not in STYLE and "@import" not in STYLE
