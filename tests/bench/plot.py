"""A plot of a few series over sizes, both axes logarithmic, as SVG."""

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _TOP = 520, 360, 60, 50
_COLOURS = ("#1b6ca8", "#c8553d", "#588157", "#8e5ea2", "#b8860b", "#2a9d8f", "#6d6875", "#333333")


class Series(NamedTuple):
    """A name with its unit, and a value for each size, or for the first ones."""

    name: str
    values: Sequence[float]


def plot(title: str, sizes: Sequence[int], series: Sequence[Series]) -> str:
    """The SVG's text."""
    values = [value for each in series for value in each.values]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    first, last = math.log10(sizes[0]), math.log10(sizes[-1])

    def x(size: float) -> float:
        return _LEFT + _WIDTH * (math.log10(size) - first) / (last - first)

    def y(value: float) -> float:
        return _TOP + _HEIGHT * (high - math.log10(value)) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 260}" height="{_TOP + _HEIGHT + 50}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="25" font-size="16">{escape(title)}</text>',
    ]
    for power in range(low, high + 1):
        at = y(10**power)
        parts.append(f'<line x1="{_LEFT}" y1="{at:.1f}" x2="{_LEFT + _WIDTH}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:,g}</text>')
    for size in sizes:
        at = x(size)
        parts.append(f'<line x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{_TOP + _HEIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{_TOP + _HEIGHT + 20}" text-anchor="middle">{size:,}</text>')
    for number, each in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [
            (x(size), y(value)) for size, value in zip(sizes, each.values, strict=False)
        ]  # a series may end early
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places]
        at = _TOP + 14 + 20 * number
        parts.append(f'<rect x="{_LEFT + _WIDTH + 20}" y="{at - 9}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + _WIDTH + 38}" y="{at + 2}">{escape(each.name)}</text>')
    return "\n".join([*parts, "</svg>\n"])
