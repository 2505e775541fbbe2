"""`encdec-train show`: what a sentence would build, without data and without memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from encdec_train.build import Dry, Wiring, check, dry_run, make_transform
from encdec_train.config import NAMED, TrainConfig
from encdec_train.launch import compose
from encdec_train.optim.schedule import peak_rate
from encdec_train.registry import Registry
from encdec_train.types import Path, Spec


def show_command(arguments: Sequence[str]) -> int:
    """`show +recipe=NAME [overrides] [--json]`."""
    overrides = [argument for argument in arguments if argument != "--json"]
    config = compose(overrides)
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    facts = describe(config, wiring, dry_run(config, wiring))
    print(json.dumps(facts, indent=1) if "--json" in arguments else as_text(facts))
    return 0


def describe(config: TrainConfig, wiring: Wiring, dry: Dry) -> dict[str, Any]:
    """Everything that is known before the first sample, as plain values."""
    paper = config.paper
    counted = {k: v for k, v in dry.parameters.items() if not paper.parts or k in paper.parts}
    return {
        "recipe": config.name,
        "scale": config.scale.name,
        "data": {"set": config.data.path or Registry.all["data"].name(config.data), "views": _views(wiring)},
        "paths": {name: _chain(wiring, name, path) for name, path in wiring.paths.items()},
        "parts": {
            f"{noun}.{name}": {
                "part": Registry.all[noun].name(part),
                "parameters": dry.parameters.get(f"{noun}.{name}", 0),
            }
            for noun in NAMED
            for name, part in getattr(config, noun).items()
        },
        "parameters": sum(dry.parameters.values()),
        "gigaflops_per_row": round(dry.flops / dry.rows / 1e9, 4),
        "training": {
            "stages": {name: stage.steps for name, stage in config.stage.items()},
            "batch": config.loader.batch,
            "peak_learning_rate": peak_rate(config.optim, config.loader.batch),
        },
        "paper": {
            "title": paper.title,
            "arxiv": paper.arxiv,
            "metric": paper.metric,
            "value": paper.value,
            "params": paper.params,
            "params_here": sum(counted.values()),
            "params_of": paper.parts or "all parts",
        },
    }


def _views(wiring: Wiring) -> dict[str, str]:
    return {name: shape(spec) for name, spec in wiring.views.items()}


def shape(spec: Spec) -> str:
    """One line for a spec, in the legend of `types`."""
    length = str(spec.length) if spec.length else "N"
    if spec.rows == "one":
        length = "1"
    rows = f"{spec.crops}*B" if spec.crops > 1 else "B"
    if spec.kind == "ids":
        return f"({rows},{length}) ids of {spec.width}"
    prefix = f"{spec.prefix}+" if spec.prefix else ""
    lattice = f" on {'x'.join(map(str, spec.grid))}" if spec.grid else ""
    return f"({rows},{prefix}{length},{spec.width}){lattice}"


def _chain(wiring: Wiring, name: str, path: Path) -> list[str]:
    """The path site by site."""
    lines = [f"view {path.view}: {shape(wiring.views[path.view])}"]
    lines.append(f"embedder {path.embedder}: {shape(wiring.outputs[f'embedder.{path.embedder}'])}")
    for noun, part in (("corruption", path.corruption), ("encoder", path.encoder), ("bottleneck", path.bottleneck)):
        if part is not None:
            lines.append(f"{noun} {part}: {shape(wiring.outputs[f'{noun}.{part}'])}")
    return lines


def as_text(facts: dict[str, Any]) -> str:
    """For a terminal."""
    paper = facts["paper"]
    lines = [f"{facts['recipe']} at scale={facts['scale']}, data {facts['data']['set']}", ""]
    for name, chain in facts["paths"].items():
        lines += [f"path {name}", *(f"  {line}" for line in chain)]
    lines += ["", "parts"]
    for name, part in facts["parts"].items():
        count = f"{part['parameters']:>14,}" if part["parameters"] else " " * 14
        lines.append(f"  {name:<24}{part['part']:<20}{count}")
    lines += [
        f"  {'all':<44}{facts['parameters']:>14,}",
        "",
        f"{facts['gigaflops_per_row']} GFLOPs a row, forward and backward",
    ]
    training = facts["training"]
    stages = ", ".join(f"{name} {steps:,} steps" for name, steps in training["stages"].items())
    rate = training["peak_learning_rate"]
    lines.append(f"{stages} of {training['batch']:,} rows, peak learning rate {rate:g}")
    if paper["title"]:
        lines += ["", f"{paper['title']} (arXiv:{paper['arxiv']})"]
        if paper["value"] is not None:
            lines.append(f"  {paper['metric']} {paper['value']}")
        if paper["params"]:
            published = f"{paper['params']:,.0f} parameters published for {_of(paper['params_of'])}"
            lines.append(f"  {published}; here {paper['params_here']:,}")
    return "\n".join(lines)


def _of(parts: str | list[str]) -> str:
    return parts if isinstance(parts, str) else " + ".join(parts)
