"""The table at the end of a run: what was learned, how fast, where it lies, what other scales would be."""

from __future__ import annotations

import math
import sys
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

NOTHING = "\N{EN DASH}"  # stands for a number that is not there


def print_table(summary: dict[str, Any], console: Console | None = None) -> None:
    """Print a finished run.

    Args:
        summary: the run's `summary.json`. What is missing is left out.
        console: where to; none: standard output. Where that is no terminal the table is plain text.
    """
    console = console or Console(file=sys.stdout)
    plain = not console.is_terminal
    if plain:
        console = Console(file=console.file, width=max(console.width, 120), color_system=None)
    console.print(f"\n[bold]{escape(_title(summary))}[/bold]", highlight=False)
    probes = summary.get("probes") or {}
    if probes:
        console.print(Padding(_probe_table(probes, plain=plain), (0, 0, 0, 2 if plain else 1)))
    for name, line in _facts(summary):
        console.print(f"  {name:<9} {escape(line)}", highlight=False, soft_wrap=True)


def number(value: Any, digits: int = 4) -> str:
    """A count with separators, a measure with `digits` significant digits; a dash for what is not there."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15 and (isinstance(value, int) or abs(value) >= 10**digits):
        return f"{int(value):,}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def duration(seconds: float | None) -> str:
    """`8.3 s`, `2 min 05 s`, `3 h 20 min`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def score(value: Any) -> str:
    """Three decimals, so that scores stand under each other."""
    return f"{value:.3f}" if isinstance(value, int | float) else NOTHING


def gain(value: Any, untrained: Any) -> str:
    """The signed difference, of three decimals."""
    if not isinstance(value, int | float) or not isinstance(untrained, int | float):
        return NOTHING
    return f"{value - untrained:+.3f}"


def probe_line(name: str, probe: dict[str, Any]) -> str:
    """One probe as plain text, and below it what it found besides: single numbers, and lists of them."""
    more = [f"  {key}: {_told(value)}" for key, value in (probe.get("more") or {}).items()]
    untrained = f", untrained {probe['untrained']:.4f}" if probe.get("untrained") is not None else ""
    head = f"{name}: {probe['metric']} {probe['value']:.4f}{untrained} ({probe['protocol']})"
    return "\n".join([head, *more])


def _told(value: Any) -> str:
    if isinstance(value, list):
        nested = any(isinstance(item, list) for item in value)
        return ("\n    " if nested else "") + ("\n    " if nested else " ").join(map(_told, value))
    return number(value)


def _title(summary: dict[str, Any]) -> str:
    said = [str(summary.get("recipe") or "run")]
    if summary.get("scale"):
        said.append(f"scale={summary['scale']}")
    if summary.get("status"):
        said.append(str(summary["status"]))
    return " · ".join(said)


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines below the probes: a word and what it says."""
    loss, speed, verdict = (summary.get(key) or {} for key in ("loss", "throughput", "verdict"))
    done = [f"{number(summary[key])} {key}" for key in ("steps", "samples") if summary.get(key) is not None]
    if summary.get("seconds") is not None:
        done.append(duration(summary["seconds"]))
    rates = [
        f"{number(speed[key], 3)} {label}"
        for key, label in (("samples_per_s", "samples/s"), ("tokens_per_s", "tokens/s"))
        if speed.get(key) is not None
    ]
    lines = [
        ("loss", f"{number(loss.get('first'))} → {number(loss.get('last'))}" if loss else ""),
        ("training", ", ".join(done)),
        ("speed", ", ".join(rates)),
        ("verdict", f"{verdict['verdict']} (held against {verdict['against']})" if verdict else ""),
        ("run", str(summary.get("run") or "")),
        ("larger", "; ".join(line for line in summary.get("scales") or [] if line.startswith("scale="))),
    ]
    return [(name, line) for name, line in lines if line]


def _probe_table(probes: dict[str, dict[str, Any]], *, plain: bool) -> Table:
    table = Table(box=None if plain else SIMPLE_HEAD, padding=(0, 2, 0, 0) if plain else (0, 1), header_style="")
    table.add_column("probe")
    table.add_column("metric")
    for name in ("trained", "untrained", "gain"):
        table.add_column(name, justify="right")
    table.add_column("protocol", overflow="fold")
    for name, probe in probes.items():
        value, untrained = probe.get("value"), probe.get("untrained")
        change = gain(value, untrained)
        better = change.startswith("-" if probe.get("lower") else "+") and change.strip("+-0.")
        style = "" if plain else "green" if better else "yellow"
        table.add_row(
            escape(name),
            escape(str(probe.get("metric") or "")),
            score(value),
            score(untrained),
            f"[{style}]{change}[/{style}]" if style else change,
            escape(str(probe.get("protocol") or "")),
        )
    return table
