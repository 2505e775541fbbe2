"""Run every recipe at demo scale over three seeds, one after the other, and keep what was measured.

    python scripts/demo_table.py --output results/demo.json [--recipes mae_vit bert] [--seeds 0 1 2]

Each run is the command that a user types, in a process of its own. Writes JSON and prints the README's table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from encdec_train.paths import RECIPES
from encdec_train.train.rundir import commit


def one(recipe: str, seed: int, root: Path) -> dict[str, Any]:
    """Run one demo and read its summary."""
    command = ["-m", "encdec_train.cli", f"+recipe={recipe}", f"seed={seed}", f"run.root={root}", f"run.name=s{seed}"]
    started = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    summary = json.loads((root / recipe / f"s{seed}" / "summary.json").read_text())
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "loss": summary["loss"],
        "trivial_loss": summary.get("trivial_loss"),
        "probes": summary["probes"],
        "samples_per_s": summary["throughput"]["samples_per_s"],
    }


def row(recipe: str, runs: list[dict[str, Any]]) -> str:
    """One line of the table: every seed's figures, in the order of the seeds."""
    probes = []
    for name in runs[0]["probes"]:
        pairs = [f"{run['probes'][name]['untrained']:.3f} → {run['probes'][name]['value']:.3f}" for run in runs]
        probes.append(f"{name}: " + ", ".join(pairs))
    seconds = ", ".join(f"{run['seconds']:.0f}" for run in runs)
    losses = ", ".join(f"{run['loss']['first']:.3g} → {run['loss']['last']:.3g}" for run in runs)
    return f"| `{recipe}` | {seconds} | {losses} | {'<br>'.join(probes)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=sorted(path.stem for path in RECIPES.glob("*.yaml")))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    found: dict[str, Any] = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for recipe in arguments.recipes:
            runs = [one(recipe, seed, Path(folder)) for seed in arguments.seeds]
            found[recipe] = {
                "date": time.strftime("%Y-%m-%d"),
                "commit": commit(),
                "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
                "command": f"encdec-train +recipe={recipe} seed=SEED",
                "runs": runs,
            }
            arguments.output.parent.mkdir(exist_ok=True)
            arguments.output.write_text(json.dumps(found, indent=1) + "\n")
            print(row(recipe, runs), flush=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"peak memory of the largest run: {peak} MiB")


if __name__ == "__main__":
    main()
