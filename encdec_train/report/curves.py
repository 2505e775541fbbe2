"""Curves as inline SVG: few ticks, a pale line of what was measured under a smoothed one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from encdec_train.report.table import number

Points = Sequence[tuple[float, float]]

COLOURS = 6  # of curves over each other: classes c0, c1, ...
MOST = 1000  # points of one curve in the page
WIDTH, HEIGHT = 420, 220
NOISY = 40  # points from which on a curve is smoothed
WIDE = 6  # ratio of values from which on the scale is logarithmic, so that a high start hides nothing
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 22  # margins around the plot


def thin(points: Points, most: int = MOST) -> list[tuple[float, float]]:
    """At most `most` finite points, each the mean of its neighbours; the first and the last are kept."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(finite) <= most:
        return finite
    inner, count = finite[1:-1], most - 2
    out = [finite[0]]
    for i in range(count):
        bucket = inner[i * len(inner) // count : (i + 1) * len(inner) // count]
        out.append((sum(x for x, _ in bucket) / len(bucket), sum(y for _, y in bucket) / len(bucket)))
    return [*out, finite[-1]]


def smooth(points: Points, window: int) -> list[tuple[float, float]]:
    """Means over up to `window` neighbours, as many on either side, so that nothing is shifted."""
    out = []
    for i, (x, _) in enumerate(points):
        half = min(window // 2, i, len(points) - 1 - i)
        near = points[i - half : i + half + 1]
        out.append((x, sum(y for _, y in near) / len(near)))
    return out


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers within [low, high], about `count` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high], and two and five times them where that is not too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def chart(title: str, points: Points, *, zero: bool = False, exact: bool = False, stages: Sequence[float] = ()) -> str:
    """A figure of one curve over the steps, or nothing where there are no two finite points.

    Args:
        title: says what is drawn, with its unit.
        points: step and value.
        zero: the axis begins at zero, for amounts.
        exact: what is drawn has no noise (a schedule): it is not smoothed, and its peak is named.
        stages: steps at which a new stage began.
    """
    drawn = thin(points)
    if len(drawn) < 2:
        return ""
    axes = _axes(drawn, zero=zero)
    body = [_grid(axes), *(_stage(step, axes) for step in stages)]
    if len(drawn) >= NOISY and not exact:
        body += [_polyline("raw", drawn, axes), _polyline("line", smooth(drawn, len(drawn) // 20), axes)]
    else:
        body.append(_polyline("line", drawn, axes))
    x, y = axes.place(*drawn[-1])
    body.append(f'<circle class="now" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>')
    lost = len(points) - sum(math.isfinite(y) for _, y in points)
    ends = [f"{number(value)} at step {number(int(step))}" for step, value in (drawn[0], drawn[-1])]
    said = f"{title}: {', '.join(ends)}"
    named = f"at most {number(max(y for _, y in drawn))}" if exact else number(drawn[-1][1])
    note = " · log scale" if axes.log else ""
    note += f" · {lost} values were not finite" if lost else ""
    return (
        f"<figure><figcaption><b>{escape(title)}</b> · {named}{note}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said + note)}">'
        + "".join(body)
        + "</svg></figure>"
    )


def overlay(title: str, series: Mapping[str, Points], *, zero: bool = False) -> str:
    """A figure of one smoothed curve for each run, or nothing where none has two finite points."""
    drawn = {i: thin(points) for i, points in enumerate(series.values())}
    drawn = {i: smooth(points, len(points) // 20) for i, points in drawn.items() if len(points) >= 2}
    if not drawn:
        return ""
    axes = _axes([point for points in drawn.values() for point in points], zero=zero)
    body = [_grid(axes)]
    body += [f'<g class="c{i % COLOURS}">{_polyline("line", points, axes)}</g>' for i, points in drawn.items()]
    ends = [f"{list(series)[i]} {number(points[-1][1])}" for i, points in drawn.items()]
    note = " · log scale" if axes.log else ""
    said = f"{title}: {', '.join(ends)}{note}"
    return (
        f"<figure><figcaption><b>{escape(title)}</b>{note}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">'
        + "".join(body)
        + "</svg></figure>"
    )


@dataclass(frozen=True)
class Axes:
    """Least and greatest step and value; `log`: equal ratios of values are equal heights."""

    x0: float
    x1: float
    y0: float
    y1: float
    log: bool = False

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the figure."""
        y0, y1 = self.y0, self.y1
        if self.log:
            y, y0, y1 = math.log10(y), math.log10(y0), math.log10(y1)
        across = (x - self.x0) / (self.x1 - self.x0 or 1.0)
        up = (y - y0) / (y1 - y0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _axes(points: Points, *, zero: bool) -> Axes:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    if not zero and low > 0 and high > WIDE * low:
        return Axes(min(xs), max(xs), low / 1.1, high * 1.1, log=True)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low = 0.0 if zero and low >= 0 else low - room
    return Axes(min(xs), max(xs), low, high + room)


def _grid(axes: Axes) -> str:
    out = [f'<text x="{LEFT - 7}" y="{HEIGHT - 5}" text-anchor="end">step</text>']
    for value in log_ticks(axes.y0, axes.y1) if axes.log else nice_ticks(axes.y0, axes.y1):
        y = axes.place(axes.x0, value)[1]
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{_label(value)}</text>')
    for value in nice_ticks(axes.x0, axes.x1):
        x = axes.place(value, axes.y0 or axes.y1)[0]
        anchor = "end" if x > WIDTH - RIGHT - 15 else "middle"
        out.append(f'<text x="{x:.1f}" y="{HEIGHT - 5}" text-anchor="{anchor}">{_label(value)}</text>')
    return "".join(out)


def _label(value: float) -> str:
    """Short enough for the margin: 0.5, 20k, 1.5M, 2e-4."""
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.4g}{unit}"
    if 0 < size < 1e-3:
        power = math.floor(math.log10(size) + 1e-9)
        return f"{value / 10.0**power:.3g}e{power}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _polyline(name: str, points: Points, axes: Axes) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (axes.place(*point) for point in points))
    return f'<polyline class="{name}" points="{places}"/>'


def _stage(step: float, axes: Axes) -> str:
    x = axes.place(step, axes.y1)[0]
    return f'<line class="stage" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
