"""The model card, filled from the run."""

from __future__ import annotations

from typing import Any

USE = {
    "hf": """from transformers import {name}

model = {name}.from_pretrained("{folder}")  # preprocessing: AutoTokenizer, AutoImageProcessor, AutoFeatureExtractor""",
    "timm": """import timm

model = timm.create_model("local-dir:{folder}", pretrained=True, num_classes=0)""",
    "safetensors": """from pathlib import Path
from encdec_train.export.encoder import load

encoder = load(Path("{folder}"))  # tokens = encoder({{"{view}": units}})""",
    "onnx": """import onnxruntime

session = onnxruntime.InferenceSession("{folder}/model.onnx")
states, vector = session.run(None, {{"{name}": ...}})  # preprocess.json has the inputs, their types and shapes""",
}


def card(
    target: str, name: str, folder: str, config: dict[str, Any], summary: dict[str, Any], env: dict[str, Any]
) -> str:
    """README.md of an exported model.

    Args:
        target: hf, timm, safetensors or onnx.
        name: of the class, the architecture, the view that is read or the graph's first input.
        folder: what the model is called.
        config: of the run as plain values.
        summary: of the run; empty where it has not finished.
        env: of the run.
    """
    paper = config["paper"]
    tags = [config["recipe_name"] or "custom", "pretraining", "encdec-train"]
    lines = ["---", "library_name: " + {"hf": "transformers"}.get(target, target), f"tags: [{', '.join(tags)}]", "---"]
    lines += [f"# {config['recipe_name'] or 'custom'}, scale={config['scale']}", ""]
    if paper["title"]:
        lines += [f"Pretrained after *{paper['title']}* (arXiv:{paper['arxiv']}) with encdec-train.", ""]
    lines += ["```python", USE[target].format(name=name, folder=folder, view=name), "```", "", "## Training", ""]
    lines += [f"- {line}" for line in _training(config, summary, env)]
    if summary.get("probes"):
        lines += ["", "## Measured", "", "| probe | trained | untrained | protocol |", "| --- | --- | --- | --- |"]
        for probe, found in summary["probes"].items():
            values = f"{found['value']:.4f} | {found['untrained']:.4f}"
            lines.append(f"| {probe} ({found['metric']}) | {values} | {found['protocol']} |")
    verdict = summary.get("verdict")
    if verdict:
        lines += ["", f"Verdict: {verdict['verdict']}, held against {verdict['against']}."]
        lines += [f"- {reason}" for reason in verdict["why"]]
    lines += ["", "A decoder or head that only pretraining needed is left out."]
    return "\n".join(lines) + "\n"


def _training(config: dict[str, Any], summary: dict[str, Any], env: dict[str, Any]) -> list[str]:
    data = config["data"]
    said = [f"data: {data['path'] or data['part']}", f"batch: {config['loader']['batch']} rows"]
    if summary:
        said += [f"steps: {summary['steps']:,}, samples: {summary['samples']:,}, seconds: {summary['seconds']:,}"]
        said += [f"loss: {summary['loss']['first']:.4g} at first, {summary['loss']['last']:.4g} at last"]
    else:
        said += ["not finished when it was exported"]
    said += [f"seed: {config['seed']}"]
    said += [f"command: `{env['command']}`", f"commit: {env['commit']}", f"torch: {env['packages']['torch']}"]
    return said
