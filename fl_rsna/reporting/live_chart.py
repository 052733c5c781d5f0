"""Curves of a running run as inline SVG, light enough to be sent anew with every round; colours are the page's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 26, 28  # margins
DOTTED = 60  # rounds at most whose points are drawn

Curve = Sequence[tuple[int, float]]  # round, value


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Where values lie: rounds from 0 to `last`, values from `low` to `high`."""

    last: int
    low: float
    high: float

    def x(self, round_: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * round_ / max(1, self.last)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, share))


def chart(curves: Mapping[str, Curve], *, last: int, low: float, high: float | None, title: str) -> Markup:
    """Named curves over rounds; under the pointer, every value of a round. `high` None is above the largest value."""
    values = [value for curve in curves.values() for _, value in curve]
    top = high if high is not None else 1.08 * max(values, default=1.0) or 1.0
    plot = Plot(last=max(1, last), low=min([low, *values]), high=top)
    rounds = sorted({round_ for curve in curves.values() for round_, _ in curve})
    drawn = [*_axes(plot), *(_line(plot, curve, number) for number, curve in enumerate(curves.values()))]
    drawn += [_slot(plot, round_, curves) for round_ in rounds]
    said = f"{title}; " + "; ".join(f"{name} {curve[-1][1]:.3f}" for name, curve in curves.items() if curve)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, said) + Markup(
        "{}</svg>"
    ).format(Markup("").join(drawn))


def sparkline(values: Sequence[float]) -> Markup:
    """A line without axes, from its lowest to its highest value."""
    if len(values) < 2:
        return Markup("")
    low, span = min(values), (max(values) - min(values)) or 1.0
    points = " ".join(
        f"{2 + 76 * i / (len(values) - 1):.1f},{16 - 14 * (value - low) / span:.1f}" for i, value in enumerate(values)
    )
    return Markup('<svg class="spark" viewBox="0 0 80 18" aria-hidden="true"><polyline points="{}"/></svg>').format(
        points
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers between two values."""
    step = (high - low) / count
    power = 10.0 ** math.floor(math.log10(step))
    step = power * next(nice for nice in (1, 2, 5, 10) if power * nice >= step * 0.999)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _axes(plot: Plot) -> list[Markup]:
    found = []
    for value in ticks(plot.low, plot.high):
        y = plot.y(value)
        found.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)
        )
        found.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{:g}</text>').format(
                LEFT - 6, y + 4, round(value, 6)
            )
        )
    for value in ticks(0, plot.last, 8):
        if value == int(value):
            found.append(
                Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                    plot.x(value), HEIGHT - 8, int(value)
                )
            )
    return found


def _line(plot: Plot, curve: Curve, number: int) -> Markup:
    points = " ".join(f"{plot.x(round_):.1f},{plot.y(value):.1f}" for round_, value in curve)
    dots = [
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(plot.x(round_), plot.y(value))
        for round_, value in (curve if len(curve) <= DOTTED else curve[-1:])
    ]
    return Markup('<g class="curve c{}"><polyline points="{}"/>{}</g>').format(number, points, Markup("").join(dots))


def _slot(plot: Plot, round_: int, curves: Mapping[str, Curve]) -> Markup:
    """The part of the plot that belongs to a round, and what it says under the pointer."""
    width = (WIDTH - LEFT - RIGHT) / plot.last
    x = plot.x(round_)
    values = [f"{name} {value:.3f}" for name, curve in curves.items() for at, value in curve if at == round_]
    return Markup(
        '<g class="slot"><rect x="{:.1f}" y="0" width="{:.1f}" height="{}"/>'
        '<line x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/><text x="{}" y="14">{}</text></g>'
    ).format(
        x - width / 2, width, HEIGHT, x, x, TOP, HEIGHT - BOTTOM, LEFT, escape(" · ".join([f"round {round_}", *values]))
    )
