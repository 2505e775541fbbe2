"""What the encoder makes of test rows, before training and after it: a map coloured by class, and a bar per layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

from encdec_train.report.table import score

COLOURS = 10  # of classes: m0 to m9; rows of further classes are pale
SIDE = 360  # of the map
EDGE = 8  # around its points
DOT = 2.4
BAR, STEP, TOP, LEFT = 9, 34, 14, 34  # of the chart of layers: height of a bar, of a layer, of the first, of the names
LENGTH = 300  # of a bar of 1


def maps(untrained: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    """Both maps side by side with one legend; nothing where there is none."""
    drawn = [
        (title, found["map"])
        for title, found in (("Before training", untrained), ("After training", trained))
        if "map" in found
    ]
    if not drawn:
        return ""
    labels = [label for _, found in drawn for label in found["labels"] or []]
    colours = {label: i for i, (label, _) in enumerate(Counter(labels).most_common(COLOURS))}
    names = drawn[0][1]["names"]
    figures = "".join(_map(title, found, colours, names) for title, found in drawn)
    legend = "".join(
        f'<li><svg viewBox="0 0 10 10"><circle class="m{i}" cx="5" cy="5" r="4"/></svg>'
        f"{escape(_name(label, names))}</li>"
        for label, i in sorted(colours.items())
    )
    others = "<li>pale: other classes</li>" if len(set(labels)) > COLOURS else ""
    return (
        f'<p class="soft">{escape(drawn[-1][1]["method"])}; distances between far points mean little.</p>'
        f'<div class="charts">{figures}</div>' + (f'<ul class="classes">{legend}{others}</ul>' if legend else "")
    )


def _map(title: str, found: Mapping[str, Any], colours: Mapping[int, int], names: Sequence[str] | None) -> str:
    points, labels = _fitted(found["points"]), found["labels"] or [None] * len(found["points"])
    dots = "".join(
        f'<circle class="{f"m{colours[label]}" if label in colours else "pale"}" cx="{x:.1f}" cy="{y:.1f}" r="{DOT}"/>'
        for (x, y), label in zip(points, labels, strict=True)
    )
    middles = ""
    for label in colours:
        mine = [point for point, other in zip(points, labels, strict=True) if other == label]
        if mine:
            x, y = (median(axis) for axis in zip(*mine, strict=True))
            middles += f'<text class="middle" x="{x:.1f}" y="{y + 4:.1f}">{escape(_name(label, names)[:12])}</text>'
    said = f"{title}: {len(points)} points of {len(set(labels))} classes" if found["labels"] else title
    return (
        f"<figure><figcaption><b>{title}</b></figcaption>"
        f'<svg viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="{escape(said)}">{dots}{middles}</svg></figure>'
    )


def _fitted(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Into the square, with the same scale for both axes."""
    xs, ys = zip(*points, strict=True)
    span = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    scale = (SIDE - 2 * EDGE) / span
    left, top = ((SIDE - scale * (max(axis) + min(axis))) / 2 for axis in (xs, ys))
    return [(left + scale * x, top + scale * y) for x, y in points]


def _name(label: int, names: Sequence[str] | None) -> str:
    return str(label) if names is None else str(names[label])


def layers(untrained: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    """A bar of each layer's score and, paler, of the same layer before training; nothing where there are none."""
    found = trained.get("layers")
    if not found:
        return ""
    before = (untrained.get("layers") or {}).get("scores") or []
    rows = []
    for i, value in enumerate(found["scores"]):
        y = TOP + STEP * i
        rows.append(f'<text x="{LEFT - 8}" y="{y + 9}" text-anchor="end">{i + 1}</text>')
        rows.append(_bar("now", value, y))
        if i < len(before):
            rows.append(_bar("before", before[i], y + BAR + 2))
    height = TOP + STEP * len(found["scores"])
    pairs = [f"{i + 1}: {score(value)}" for i, value in enumerate(found["scores"])]
    return (
        f"<figure><figcaption><b>Accuracy by layer, first to last</b> \u00b7 {escape(found['protocol'])}; "
        "pale: before training.</figcaption>"
        f'<svg class="layers" viewBox="0 0 {LEFT + LENGTH + 46} {height}" role="img" '
        f'aria-label="{escape("Accuracy by layer, " + ", ".join(pairs))}">{"".join(rows)}</svg></figure>'
    )


def _bar(kind: str, value: float, y: float) -> str:
    width = LENGTH * (value if math.isfinite(value) else 0.0)
    return (
        f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}"/>'
        f'<text x="{LEFT + width + 6:.1f}" y="{y + 9}">{score(value)}</text>'
    )
