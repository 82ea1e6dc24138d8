"""The darkest cell of a table of shares can be read on either scheme: axe-core cannot tell, since it does not know color-mix."""

import re
from importlib.resources import files

import pytest

STYLE = files("csasn.report").joinpath("templates/style.css").read_text(encoding="utf-8")
MIXED = re.search(r"color-mix\(in srgb, var\(--heat\) calc\(var\(--share\) \* (\d+)%\), var\(--card\)\)", STYLE)
ENOUGH = 4.5  # WCAG 2, 1.4.3


def colours(scheme):
    """Red, green and blue of each variable of a scheme, 0 to 1."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    text = light if scheme == "light" else light + dark
    return {name: [int(hexed[i : i + 2], 16) / 255 for i in (0, 2, 4)] for name, hexed in re.findall(r"--(\w+): #(\w{6});", text)}


def luminance(colour):
    """Relative luminance (WCAG 2)."""
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_cell_of_any_share_has_enough_contrast(scheme, share):
    known, part = colours(scheme), share * int(MIXED[1]) / 100
    cell = [heat * part + card * (1 - part) for heat, card in zip(known["heat"], known["card"], strict=True)]
    light, dark = sorted((luminance(known["ink"]), luminance(cell)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= ENOUGH
