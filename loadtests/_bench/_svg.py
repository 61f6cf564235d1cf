"""Charts as SVG: panels of lines or bars, side by side, with one legend.

Written by hand because that is all a bench draws: under 200 lines here against a
plotting library of 50 MB in everybody's environment. A browser shows the
file, and so does a README.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Told apart by the colour-blind as well (Okabe and Ito, 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
_WIDTH, _HEIGHT = 320, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 30, 40
_LEGEND = 34


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    width: float = 1.8


@dataclass(frozen=True)
class Lines:
    """A panel: y on a logarithmic scale (and above 0), x as the ticks say: (value, text).

    The first line lies on top."""

    title: str
    x_label: str
    y_label: str
    ticks: Sequence[tuple[float, str]]
    lines: Sequence[Line]

    def names(self) -> list[str]:
        return [line.name for line in self.lines]

    def draw(self, colours: dict[str, str]) -> list[str]:
        values = [y for line in self.lines for _, y in line.points]
        low, high = _decades(values)
        left, right = self.ticks[0][0], self.ticks[-1][0]

        def x(value: float) -> float:
            return _LEFT + (value - left) / ((right - left) or 1) * (_WIDTH - _LEFT - _RIGHT)

        def y(value: float) -> float:
            share = (math.log10(value) - low) / (high - low)
            return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

        drawn = _frame(self.title, self.x_label, self.y_label)
        for power in range(low, high + 1):
            drawn.append(_rule(y(10.0**power)))
            drawn.append(_text(_LEFT - 6, y(10.0**power) + 4, f"{10.0**power:g}", "end"))
        for value, text in self.ticks:
            drawn.append(_text(x(value), _HEIGHT - _BOTTOM + 14, text, "middle"))
        for line in reversed(self.lines):
            path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line.points)
            dash = ' stroke-dasharray="4 3"' if line.dashed else ""
            drawn.append(
                f'<polyline points="{path}" fill="none" stroke="{colours[line.name]}"'
                f' stroke-width="{line.width}"{dash}/>'
            )
        return drawn


@dataclass(frozen=True)
class Bar:
    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bars:
    """A panel: horizontal bars from 0, each with the range of its value."""

    title: str
    label: str
    bars: Sequence[Bar]

    def names(self) -> list[str]:
        return [bar.name for bar in self.bars]

    def draw(self, colours: dict[str, str]) -> list[str]:
        most = max(bar.high for bar in self.bars) or 1
        room = _HEIGHT - _TOP - _BOTTOM
        pitch = room / len(self.bars)
        thick = min(18.0, pitch * 0.7)

        def x(value: float) -> float:
            # The text of a value stands right of its bar.
            return _LEFT + value / most * (_WIDTH - _LEFT - _RIGHT - 44)

        drawn = _frame(self.title, self.label, "")
        for place, bar in enumerate(self.bars):
            middle = _TOP + pitch * (place + 0.5)
            drawn.append(
                f'<rect x="{_LEFT}" y="{middle - thick / 2:.1f}" height="{thick:.1f}"'
                f' width="{x(bar.value) - _LEFT:.1f}" fill="{colours[bar.name]}"/>'
            )
            drawn.append(
                f'<path d="M{x(bar.low):.1f} {middle:.1f}H{x(bar.high):.1f}"'
                ' stroke="#222" stroke-width="1"/>'
            )
            drawn.append(_text(_LEFT - 6, middle + 4, bar.name, "end"))
            drawn.append(_text(x(bar.high) + 4, middle + 4, short(bar.value), "start"))
        return drawn


Panel = Lines | Bars


def page(title: str, panels: Sequence[Panel], columns: int) -> str:
    """A whole SVG document. Each name has one colour in all panels."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.names()))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    width = columns * _WIDTH
    height = math.ceil(len(panels) / columns) * _HEIGHT + 2 * _LEGEND
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}" font-family="system-ui, sans-serif"'
        ' font-size="11" fill="#222">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
    ]
    at = 12
    for name in names:
        drawn.append(f'<rect x="{at}" y="40" width="12" height="12" fill="{colours[name]}"/>')
        drawn.append(_text(at + 17, 50, name, "start"))
        at += 17 + 7 * len(name) + 16
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        drawn.append(f'<g transform="translate({column * _WIDTH} {row * _HEIGHT + 2 * _LEGEND})">')
        drawn += panel.draw(colours)
        drawn.append("</g>")
    return "\n".join([*drawn, "</svg>", ""])


def short(value: float) -> str:
    """Three digits: 1234567 is 1.23M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low = math.floor(math.log10(min(values)))
    high = math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _frame(title: str, x_label: str, y_label: str) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    middle = (_TOP + bottom) / 2
    return [
        f'<text x="{_LEFT}" y="{_TOP - 10}" font-size="12" font-weight="600">'
        f"{escape(title)}</text>",
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#888"/>',
        _text((_LEFT + right) / 2, bottom + 30, x_label, "middle"),
        f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]


def _rule(y: float) -> str:
    return f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#e4e4ea"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
