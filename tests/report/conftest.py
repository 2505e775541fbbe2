"""A run directory as training leaves it, with invented numbers."""

import json
import math

import numpy as np
import pytest

from encdec_train.data.pictures import panels_png


def invent(folder, lines=400):
    """Fill `folder` with a finished run of two stages."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with (folder / "metrics.jsonl").open("w") as file:
        for i in range(lines):
            loss = 0.4 + 0.6 * math.exp(-i / 60) + 0.02 * rng.normal()
            line = {
                "step": 10 * i + 1,
                "stage": "first" if i < lines // 2 else "second",
                "loss": loss,
                "terms": {"pixels": 0.8 * loss, "diversity <b>": 0.2 * loss},
                "lr": 1.5e-4 * min(1, i / 40) * (0.5 + 0.5 * math.cos(math.pi * i / lines)),
                "samples_per_s": 1800 + 60 * rng.normal(),
                "data_wait": 0.03 + 0.01 * rng.random(),
                "gradient_norm": 1.0 + 0.1 * rng.normal(),
            }
            file.write(json.dumps(line) + "\n")
        file.write('{"step": 99999, "lo')  # killed while writing
    summary = {
        "recipe": "mae_vit",
        "scale": "demo",
        "status": "finished",
        "run": "runs/mae_vit/20261121-012345-abcdef",
        "steps": 4000,
        "samples": 512000,
        "seconds": 62.3,
        "loss": {"first": 1.02, "last": 0.4012},
        "parameters": {"embedder.main": 4608, "encoder.main": 447360, "decoder.main": 110336},
        "probes": {
            "knn": {
                "metric": "accuracy",
                "value": 0.931,
                "untrained": 0.571,
                "protocol": "weighted 20-NN, cosine, temperature 0.07",
            },
            "linear": {
                "metric": "accuracy",
                "value": 0.91,
                "untrained": 0.925,
                "protocol": "logistic regression on standardised vectors, C=1.0",
            },
        },
        "throughput": {"samples_per_s": 1832.2, "data_wait": 0.031},
        "contract": {
            "paper": {"title": "Masked Autoencoders", "metric": "top-1", "value": 83.6, "table": None},
            "rung": {"metric": None},
        },
        "verdict": None,
        "changed": [["encoder.main.depth", 6, 4], ["stage.main.steps", 4000, 900]],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "environment.json").write_text(
        json.dumps({"command": "encdec-train +recipe=mae_vit", "gpu": None, "packages": {"torch": "2.13.0"}})
    )
    (folder / "config.yaml").write_text("seed: 0\nrecipe_name: mae_vit\nnote: <script>alert(1)</script>\n")
    (folder / "samples").mkdir()
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 32)] * 2), -1)
    pictures = np.stack([np.concatenate([grid, np.full((32, 32, 1), i / 8)], -1) for i in range(8)])
    masked = np.where(rng.random((8, 8, 8, 1)).repeat(4, 1).repeat(4, 2) < 0.75, 0.5, pictures)
    noisy = pictures + 0.05 * rng.normal(size=pictures.shape)
    (folder / "samples" / "main.png").write_bytes(panels_png(pictures, masked, noisy))
    for step in (0, 90):
        before = folder / "samples" / f"step-{step:08d}"
        before.mkdir()
        (before / "main.png").write_bytes(panels_png(pictures, masked, noisy.clip(0, 0.5)))
    (folder / "portrait").mkdir()
    for when, shift in (("untrained", 0.0), ("trained", 4.0)):
        labels = rng.integers(0, 3, 60)
        points = rng.normal(size=(60, 2)) + shift * np.stack([labels, labels % 2], 1)
        found = {"method": "t-SNE of 60 test rows", "points": points.tolist(), "labels": labels.tolist(), "names": None}
        scores = {"protocol": "20-NN", "scores": [0.3 + shift / 10, 0.4 + shift / 10]}
        (folder / "portrait" / f"{when}.json").write_text(json.dumps({"map": found, "layers": scores}))
        (folder / "portrait" / f"neighbours-{when}.png").write_bytes(panels_png(pictures, noisy))
    (folder / "samples" / "text.txt").write_text("the [MASK] sat on the <mat>\n")
    (folder / "samples" / "pairs.json").write_text(
        json.dumps([{"original": "a cat", "masked": "a _", "predicted": "a dog"}])
    )
    return folder


@pytest.fixture
def run(tmp_path):
    return invent(tmp_path / "run")
