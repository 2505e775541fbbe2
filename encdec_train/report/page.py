"""`report.html`: one page that holds a whole run and needs nothing else, neither network nor script."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from encdec_train.report import portrait
from encdec_train.report.curves import chart
from encdec_train.report.images import Pictures
from encdec_train.report.read import points, read_json, read_lines
from encdec_train.report.style import CSS
from encdec_train.report.table import duration, gain, number, score

MINUS = "\N{MINUS SIGN}"
NUMERIC = ' class="n"'
TEXT_LIMIT = 20_000  # characters of one sample file


def write_report(run: Path) -> Path:
    """Write `report.html` into a run directory from what lies there; what is missing is left out.

    Reads `summary.json`, `metrics.jsonl`, `environment.json`, `config.yaml`, `samples/` and `portrait/`.

    Returns:
        The page's path.

    Raises:
        ValueError: the folder is no run, or one of its files is broken; it is named.
    """
    if not (run / "config.yaml").is_file():
        raise ValueError(f"{run}: not a run directory (it has no config.yaml)")
    summary = read_json(run / "summary.json")
    lines = read_lines(run / "metrics.jsonl")
    untrained, trained = (read_json(run / "portrait" / f"{when}.json") for when in ("untrained", "trained"))
    pictures = Pictures()
    sections = [
        _head(summary, run, lines),
        _section("Probes", _probes(summary.get("probes") or {})),
        _section("Verdict", _held(summary.get("verdict"))),
        _section("Curves", _curves(lines)),
        _section("What it sees and predicts", _samples(run / "samples", pictures)),
        _section("Nearest neighbours", _neighbours(run / "portrait", pictures)),
        _section("Map of the vectors", portrait.maps(untrained, trained)),
        _section("Layers", portrait.layers(untrained, trained)),
        _section("Parameters", _parameters(summary.get("parameters") or summary.get("params") or {})),
        _section("Against the paper", _contract(summary.get("contract") or {})),
        _section("Changed from the recipe", _changed(summary.get("changed"))),
        _section("Configuration", _configuration((run / "config.yaml").read_text(encoding="utf-8"))),
        _section("Environment", _environment(read_json(run / "environment.json"))),
        f"<footer>{escape(str(summary.get('run') or run))}</footer>",
    ]
    page = document(str(summary.get("recipe") or run.name), sections)
    out, partial = run / "report.html", run / "report.html.partial"
    partial.write_text(page, encoding="utf-8")
    partial.replace(out)
    return out


def document(title: str, sections: Iterable[str]) -> str:
    """A whole page of the sections that are not empty."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body></html>\n"
    )


def report_command(arguments: Sequence[str]) -> int:
    """`encdec-train report RUN`."""
    if len(arguments) != 1:
        raise ValueError(f"usage: encdec-train report RUN; given: {' '.join(arguments) or 'nothing'}")
    print(write_report(Path(arguments[0])))
    return 0


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>" if body else ""


def _head(summary: dict[str, Any], run: Path, lines: list[dict[str, Any]]) -> str:
    """Name, state, verdict, and the few numbers that one looks for first."""
    state = str(summary.get("status") or ("not finished" if lines else "no metrics yet"))
    kind = {"finished": "good", "failed": "bad"}.get(state, "")
    scale = f'<p class="soft">scale={escape(str(summary["scale"]))}</p>' if summary.get("scale") else ""
    verdict = _verdict(summary["verdict"]) if summary.get("verdict") else ""
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in _facts(summary, lines)
    )
    return (
        f"<header><h1>{escape(str(summary.get('recipe') or run.name))} "
        f'<span class="state {kind}">{escape(state)}</span></h1>'
        f'{scale}{verdict}<dl class="facts">{facts}</dl></header>'
    )


def _verdict(verdict: dict[str, Any]) -> str:
    """One sentence."""
    kind = {"met": "good", "below": "bad"}.get(verdict["verdict"], "")
    word = f'<span class="state {kind}">{escape(verdict["verdict"])}</span>'
    return f"<p>Verdict {word} held against {escape(verdict['against'])}</p>"


def _held(verdict: dict[str, Any] | None) -> str:
    """Each number beside the one that is promised, what differs from the recipe, and what may explain a shortfall."""
    if not verdict:
        return ""
    rows = [
        f'<tr><th scope="row">{escape(found["metric"])}</th><td class="n">{score(found["value"])}</td>'
        f'<td class="n">{score(found["promised"])}</td><td class="n">{score(found["tolerance"])}</td>'
        f"<td>{escape(found['protocol'])}</td></tr>"
        for found in verdict["numbers"]
    ]
    names = ("metric", "here", "promised", "tolerance", "protocol")
    head = "".join(f'<th scope="col"{NUMERIC if name in names[1:4] else ""}>{name}</th>' for name in names)
    lists = [("Differs from what it is held against", "why"), ("May explain a shortfall", "remarks")]
    said = "".join(
        f'<p class="soft">{title}</p><ul>{"".join(f"<li>{escape(line)}</li>" for line in verdict[key])}</ul>'
        for title, key in lists
        if verdict[key]
    )
    return f'<table class="probes"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>{said}'


def _facts(summary: dict[str, Any], lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    loss = summary.get("loss") or ({"first": lines[0].get("loss"), "last": lines[-1].get("loss")} if lines else {})
    steps = summary.get("steps") or (lines[-1].get("step") if lines else None)
    speed = summary.get("throughput") or {}
    found = [
        ("loss, first to last", f"{number(loss['first'])} → {number(loss['last'])}" if loss else None),
        ("steps", number(steps) if steps is not None else None),
        ("samples", number(summary["samples"]) if summary.get("samples") is not None else None),
        ("training time", duration(summary["seconds"]) if summary.get("seconds") is not None else None),
        ("samples per second", number(speed["samples_per_s"], 3) if speed.get("samples_per_s") else None),
        ("tokens per second", number(speed["tokens_per_s"], 3) if speed.get("tokens_per_s") else None),
    ]
    return [(name, value) for name, value in found if value is not None]


def _probes(probes: dict[str, dict[str, Any]]) -> str:
    """Each probe beside the same probe of the encoder before training."""
    if not probes:
        return ""
    rows = []
    for name, probe in probes.items():
        change = gain(probe.get("value"), probe.get("untrained"))
        sign = change[0] if change.strip("+-0.") and change[0] in "+-" else ""
        kind = {"": "", "-" if probe.get("lower") else "+": "up"}.get(sign, "down")
        metric = f' <span class="soft">{escape(str(probe["metric"]))}</span>' if probe.get("metric") else ""
        rows.append(
            f'<tr><th scope="row">{escape(name)}{metric}</th><td class="n">{score(probe.get("value"))}</td>'
            f'<td class="n">{score(probe.get("untrained"))}</td>'
            f'<td class="n {kind}">{change.replace("-", MINUS)}</td>'
            f"<td>{escape(str(probe.get('protocol') or ''))}</td></tr>"
        )
    names = ("probe", "trained", "untrained", "gain", "protocol")
    head = "".join(f'<th scope="col"{NUMERIC if name in names[1:4] else ""}>{name}</th>' for name in names)
    return f'<table class="probes"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _curves(lines: list[dict[str, Any]]) -> str:
    """Loss, its terms if there are several, rate, gradient, throughput and waiting."""
    stages = [b["step"] for a, b in pairwise(lines) if a.get("stage") != b.get("stage")]
    terms: dict[str, None] = {name: None for line in lines for name in line.get("terms") or {}}
    drawn = [chart("Loss", points(lines, "loss"), stages=stages)]
    if len(terms) > 1:
        drawn += [chart(name, points(lines, "terms", name), stages=stages) for name in terms]
    probes: dict[str, None] = {name: None for line in lines for name in line.get("probes") or {}}
    drawn += [chart(f"Probe {name}", points(lines, "probes", name), stages=stages) for name in probes]
    drawn += [
        chart("Learning rate", points(lines, "lr"), zero=True, exact=True, stages=stages),
        chart("Gradient norm", points(lines, "gradient_norm"), zero=True, stages=stages),
        chart("Samples per second", points(lines, "samples_per_s"), zero=True, stages=stages),
        chart("Real tokens or patches per second", points(lines, "tokens_per_s"), zero=True, stages=stages),
        chart("Use of the device's peak (MFU)", points(lines, "mfu"), zero=True, stages=stages),
        chart("Memory, MiB", points(lines, "memory_mib"), zero=True, stages=stages),
        chart("Waiting for data, share of the time", points(lines, "data_wait"), zero=True, stages=stages),
    ]
    figures = "".join(figure for figure in drawn if figure)
    return f'<div class="charts">{figures}</div>' if figures else ""


SAMPLE = "For each sample: the original, what the encoder saw, the prediction in the hidden places"
NEIGHBOURS = "A test row on the left, then the test rows whose vectors are most alike"


def _samples(folder: Path, pictures: Pictures) -> str:
    """One figure for each file of the end, and for the steps before it what fits, folded away."""
    if not folder.is_dir():
        return ""
    found = [_figure(file, file.stem, SAMPLE, pictures) for file in sorted(folder.iterdir()) if file.is_file()]
    steps = sorted(step for step in folder.iterdir() if step.is_dir())
    for step in steps:
        done = int(step.name.rpartition("-")[2])
        when = f"After step {done:,}" if done else "Before the first step"
        figures = [_figure(file, f"{file.stem}, {when.lower()}", SAMPLE, pictures) for file in sorted(step.iterdir())]
        if any(figures):
            found.append(f"<details><summary>{when}</summary>{''.join(figures)}</details>")
    return _figures(found)


def _neighbours(folder: Path, pictures: Pictures) -> str:
    """After training, and folded away before it."""
    if not folder.is_dir():
        return ""
    files = {file.stem: file for file in sorted(folder.glob("neighbours-*"))}
    found = []
    if "neighbours-trained" in files:
        found.append(_figure(files["neighbours-trained"], "After training", NEIGHBOURS, pictures))
    if "neighbours-untrained" in files:
        before = _figure(files["neighbours-untrained"], "Before training", NEIGHBOURS, pictures)
        found.append(f"<details><summary>Before training</summary>{before}</details>" if before else "")
    return _figures(found)


def _figures(found: Sequence[str]) -> str:
    return f'<div class="samples">{"".join(found)}</div>' if any(found) else ""


def _figure(file: Path, title: str, what: str, pictures: Pictures) -> str:
    """A picture, a list of tables or a text; nothing where there is no room left for another picture."""
    caption = f"<figcaption><b>{escape(title)}</b></figcaption>"
    if file.suffix == ".png":
        source = pictures.source(file)
        caption = f"<figcaption><b>{escape(title)}</b> · {what}.</figcaption>"
        return f'<figure>{caption}<img src="{source}" alt="{what}"></figure>' if source else ""
    if file.suffix == ".json":
        return f"<figure>{caption}{_triples(file)}</figure>"
    if file.suffix == ".txt":
        text = escape(file.read_text(encoding="utf-8", errors="replace")[:TEXT_LIMIT])
        return f"<figure>{caption}<pre>{text}</pre></figure>"
    return ""


def _triples(file: Path) -> str:
    """A JSON list of objects of strings, such as original, masked and predicted: a table for each."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: not readable as JSON, line {error.lineno}: {error.msg}") from error
    return "".join(_table(item.items()) for item in found if isinstance(item, dict))


def _parameters(counts: dict[str, Any]) -> str:
    whole = {name: count for name, count in counts.items() if isinstance(count, int)}
    if not whole:
        return ""
    return _table([*((name, number(count)) for name, count in whole.items()), ("all", number(sum(whole.values())))])


def _contract(contract: dict[str, Any]) -> str:
    """What the paper reports, and what was measured on the rung; nothing where neither is known."""
    tables = []
    for name, caption in (("paper", "Published"), ("rung", "Measured with this framework, scale=rung")):
        known = {
            key: value for key, value in (contract.get(name) or {}).items() if value not in (None, [], {}, "", False)
        }
        if known:
            tables.append(f'<p class="soft">{caption}</p>{_table(known.items())}')
    return "".join(tables)


def _changed(changed: Sequence[Sequence[Any]] | None) -> str:
    """What the run has other than its recipe at this scale, where that is known."""
    if changed is None:
        return ""
    if not changed:
        return "<p>Nothing.</p>"
    return wide_table(("setting", "here", "in the recipe"), [(key, values) for key, *values in changed])


def wide_table(names: Sequence[str], rows: Iterable[tuple[str, Sequence[Any]]]) -> str:
    """A table that scrolls by itself where it is too wide, with keys too; the first column names the rows."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{escape(key)}</th>{"".join(f"<td>{escape(_said(value))}</td>" for value in values)}</tr>'
        for key, values in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0" role="region" aria-label="table">{table}</div>'


def _environment(environment: dict[str, Any]) -> str:
    if not environment:
        return ""
    packages = environment.get("packages")
    rows = [(key, value) for key, value in environment.items() if key != "packages" and value is not None]
    if isinstance(packages, dict):
        rows.append(("packages", ", ".join(f"{name} {version}" for name, version in packages.items())))
    return _table(rows)


def _configuration(text: str) -> str:
    count = len(re.findall(r"\n", text))
    return f"<details><summary>config.yaml, {count} lines, resolved</summary><pre>{escape(text)}</pre></details>"


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    cells = "".join(
        f"<tr><td>{escape(str(key).replace('_', ' '))}</td><td>{escape(_said(value))}</td></tr>" for key, value in rows
    )
    return f'<table class="plain"><tbody>{cells}</tbody></table>'


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,.0f}" if isinstance(value, float) and value >= 1e6 else str(value)
