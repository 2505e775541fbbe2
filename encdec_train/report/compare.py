"""`compare.html`: the curves of several runs over each other, probes side by side, and how their settings differ."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from encdec_train.report.curves import COLOURS, overlay
from encdec_train.report.page import document, wide_table
from encdec_train.report.read import points, read_json, read_lines
from encdec_train.report.table import NOTHING, duration, number, score

CURVES = (  # title, key, and whether the axis begins at zero, for amounts
    ("Loss", ("loss",), False),
    ("Learning rate", ("lr",), True),
    ("Gradient norm", ("gradient_norm",), False),
    ("Samples per second", ("samples_per_s",), True),
)
MANY = 30  # settings that differ, from which on they are folded away


def write_page(out: Path, runs: Sequence[Path], differ: Sequence[tuple[str, Sequence[Any]]]) -> None:
    """Write one page that holds all of it and needs nothing else.

    Args:
        out: where to.
        runs: run directories.
        differ: keys of the configuration and their values, one for each run.
    """
    names = _names(runs)
    summaries = [read_json(run / "summary.json") for run in runs]
    lines = [read_lines(run / "metrics.jsonl") for run in runs]
    curves = [
        overlay(title, {name: points(of, *keys) for name, of in zip(names, lines, strict=True)}, zero=zero)
        for title, keys, zero in CURVES
    ]
    terms: dict[str, None] = {term: None for of in lines for line in of for term in line.get("terms") or {}}
    if len(terms) > 1:
        curves += [
            overlay(term, {name: points(of, "terms", term) for name, of in zip(names, lines, strict=True)})
            for term in terms
        ]
    sections = [
        f"<header><h1>{len(runs)} runs</h1>{_legend(names)}</header>",
        f'<section><h2>Curves</h2><div class="charts">{"".join(curves)}</div></section>',
        f"<section><h2>Results</h2>{wide_table(('', *names), _results(summaries))}</section>",
        f"<section><h2>Settings that differ</h2>{_differ(names, differ)}</section>" if differ else "",
    ]
    out.write_text(document("runs compared", sections), encoding="utf-8")


def _names(runs: Sequence[Path]) -> list[str]:
    """`recipe/name`, numbered where two are the same."""
    found: list[str] = []
    for run in runs:
        name = "/".join(run.resolve().parts[-2:])
        found.append(name if name not in found else f"{name} ({len(found) + 1})")
    return found


def _legend(names: Sequence[str]) -> str:
    items = (
        f'<li><span class="c{i % COLOURS}"><svg viewBox="0 0 20 8"><polyline class="line" points="0,4 20,4"/></svg>'
        f"</span>{escape(name)}</li>"
        for i, name in enumerate(names)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _results(summaries: Sequence[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Rows of a table: verdict, probes beside the untrained encoder, last loss, time, speed."""
    probes = dict.fromkeys(name for summary in summaries for name in summary.get("probes") or {})
    rows = [("verdict", [(summary.get("verdict") or {}).get("verdict") or "-" for summary in summaries])]
    for name in probes:
        found = [(summary.get("probes") or {}).get(name, {}) for summary in summaries]
        rows.append(
            (name, [f"{score(p['value'])} (untrained {score(p.get('untrained'))})" if p else NOTHING for p in found])
        )
    rows.append(("last loss", [number((summary.get("loss") or {}).get("last")) for summary in summaries]))
    rows.append(("time", [duration(summary.get("seconds")) for summary in summaries]))
    speeds = [(summary.get("throughput") or {}).get("samples_per_s") for summary in summaries]
    rows.append(("samples per second", [number(speed, 3) for speed in speeds]))
    return rows


def _differ(names: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]]) -> str:
    table = wide_table(("", *names), rows)
    return table if len(rows) < MANY else f"<details><summary>{len(rows)} settings</summary>{table}</details>"
