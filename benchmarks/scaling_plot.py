"""A picture of step lines as an SVG, written by hand: no library, and the same bytes for the same figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

COLOURS: Final = ("#0b5fff", "#d1495b", "#8a8d91", "#2e933c")
WIDTHS: Final = (2.4, 1.2, 1.2, 1.6)
_INK, _PALE, _GRID, _PAPER = "#1f2328", "#e7ecf3", "#d8dde3", "#ffffff"
_PANEL_WIDTH, _PANEL_HEIGHT, _COLUMNS = 470, 190, 2
_LEFT, _TOP, _RIGHT, _BOTTOM, _HEAD = 40, 30, 14, 30, 64
_MOST_TICKS: Final = 5


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One load: what would just do, and how many pods there were by whom; (seconds, number), each until the next."""

    title: str
    seconds: float
    ideal: Sequence[tuple[float, float]]
    lines: Mapping[str, Sequence[tuple[float, int]]]


def plot(panels: Sequence[Panel]) -> str:
    """The whole picture."""
    rows = -(-len(panels) // _COLUMNS)
    width, height = _COLUMNS * _PANEL_WIDTH + 10, _HEAD + rows * _PANEL_HEIGHT + 6
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="Helvetica, Arial, sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
        f'<text x="{_LEFT}" y="24" font-size="15" font-weight="bold" fill="{_INK}">Worker pods over time</text>',
        *_legend(list(panels[0].lines)),
    ]
    for place, panel in enumerate(panels):
        row, column = divmod(place, _COLUMNS)
        parts.append(f'<g transform="translate({column * _PANEL_WIDTH},{_HEAD + row * _PANEL_HEIGHT})">')
        parts += [*_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(names: Sequence[str]) -> list[str]:
    parts, at = [], _LEFT
    for name, colour, thick in zip(names, COLOURS, WIDTHS, strict=True):
        parts.append(f'<path d="M{at} 46h22" stroke="{colour}" stroke-width="{thick}"/>')
        parts.append(f'<text x="{at + 28}" y="50" fill="{_INK}">{escape(name)}</text>')
        at += 50 + 7 * len(name)
    parts.append(f'<rect x="{at}" y="40" width="22" height="11" fill="{_PALE}"/>')
    parts.append(f'<text x="{at + 28}" y="50" fill="{_INK}">pods that the arrivals would keep busy</text>')
    return parts


def _panel(panel: Panel) -> list[str]:
    wide, high = _PANEL_WIDTH - _LEFT - _RIGHT, _PANEL_HEIGHT - _TOP - _BOTTOM
    end = panel.seconds
    most = max(number for line in panel.lines.values() for _, number in line)
    most = max(most, 2)

    def x(at: float) -> float:
        return _LEFT + wide * at / end

    def y(number: float) -> float:
        return _TOP + high * (1 - min(number, most) / most)

    parts = [f'<text x="{_LEFT}" y="{_TOP - 10}" font-weight="bold" fill="{_INK}">{escape(panel.title)}</text>']
    step = max(1, -(-most // _MOST_TICKS))
    for tick in range(0, most + 1, step):
        parts.append(f'<path d="M{_LEFT} {y(tick):.1f}h{wide}" stroke="{_GRID}" stroke-width="0.6"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="{_INK}">{tick}</text>')
    for part in range(5):
        at = end * part / 4
        label = f"{at / 3600:g} h" if end >= 2 * 3600 else f"{at / 60:.3g} min"
        anchor = "start" if part == 0 else "end" if part == 4 else "middle"
        place = f'x="{x(at):.1f}" y="{_TOP + high + 16}" text-anchor="{anchor}"'
        parts.append(f'<text {place} fill="{_INK}">{label}</text>')
    area = " ".join(f"L{x(at):.1f} {y(number):.1f}" for at, number in panel.ideal)
    parts.append(f'<path d="M{_LEFT} {y(0):.1f} {area} L{x(panel.ideal[-1][0]):.1f} {y(0):.1f}Z" fill="{_PALE}"/>')
    drawn = list(zip(panel.lines.values(), COLOURS, WIDTHS, strict=True))
    for line, colour, thick in [*drawn[1:], drawn[0]]:
        path = f"M{x(line[0][0]):.1f} {y(line[0][1]):.1f}"
        path += "".join(f"H{x(at):.1f}V{y(number):.1f}" for at, number in line[1:] if at <= end) + f"H{x(end):.1f}"
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{thick}"/>')
    return parts
