"""Text can be read: contrast of at least 4.5 on the page, of what is drawn at least 3 (WCAG 2.1, 1.4.3 and 1.4.11)."""

import re

import pytest

from encdec_train.report.style import CSS

TEXT = ("ink", "soft", "good", "bad", "blue")
DRAWN = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def palettes():
    """Of the light and of the dark page."""
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.S))
    return {"light": light, "dark": dark}


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*TEXT, *DRAWN])
def test_contrast(scheme, name):
    palette = palettes()[scheme]
    for ground in ("paper", "wash") if name in ("ink", "soft") else ("paper",):
        high, low = sorted((luminance(palette[name]), luminance(palette[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= (4.5 if name in TEXT else 3), ground
