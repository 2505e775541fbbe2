"""Run recipes at demo scale over three seeds, each the command that a user types, and keep what was measured.

    python scripts/demo_table.py [--recipes mae_vit bert] [--seeds 0 1 2] [--threads 2]
    python scripts/demo_table.py --print > results/demo.md

Writes results/<recipe>.json after each recipe. Seconds are those of the whole command; where other work shares the
machine, seconds of processor time say more.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encdec_train.build import check, dry_run, make_transform
from encdec_train.launch import compose
from encdec_train.paths import RECIPES
from encdec_train.train.rundir import commit

RESULTS = Path(__file__).parents[1] / "results"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))


def one(recipe: str, seed: int, root: Path, threads: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run one recipe, a demo if the overrides do not say otherwise, and read its summary."""
    own = [f"+recipe={recipe}", *overrides, f"seed={seed}", f"run.root={root}", f"run.name=s{seed}"]
    command = ["-m", "encdec_train.cli", *own]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((root / recipe / f"s{seed}" / "summary.json").read_text())
    return {
        "seed": seed,
        "rows": summary["rows"],
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "loss": summary["loss"],
        "trivial": summary["trivial"],
        "probes": summary["probes"],
        "samples_per_s": summary["throughput"]["samples_per_s"],
    }


def parameters(recipe: str) -> dict[str, Any]:
    """At paper scale on the meta device, beside the published count."""
    config = compose([f"+recipe={recipe}", "scale=paper"])
    counts = dry_run(config, check(config, make_transform(config).specs())).parameters
    chosen = [count for part, count in counts.items() if not config.paper.parts or part in config.paper.parts]
    return {"here": sum(chosen), "published": config.paper.params}


def millions(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count / 1e3:,.0f} k"


def row(recipe: str, kept: dict[str, Any]) -> str:
    """One line of the table: every seed's figures, in the order of the seeds."""
    runs = kept["runs"]
    probes = []
    for name, first in runs[0]["probes"].items():
        pairs = [f"{run['probes'][name]['untrained']:.3g} → {run['probes'][name]['value']:.3g}" for run in runs]
        probes.append(f"{name} ({first['metric']}): " + ", ".join(pairs))
    losses = []
    terms = [run["loss"].get("terms", {"loss": run["loss"]["last"]}) for run in runs]  # older files have the sum only
    for name in terms[0]:
        values = ", ".join(f"{term[name]:.3g}" for term in terms if name in term)
        trivial = runs[0].get("trivial", {}).get(name)
        losses.append(f"{name}: {values}" + (f" ({trivial['predictor']}: {trivial['loss']:.3g})" if trivial else ""))
    if "processor_seconds" in runs[0]:
        seconds = ", ".join(f"{run['processor_seconds']:.0f}" for run in runs)
    else:
        seconds = ", ".join(f"{run['seconds']:.0f}" for run in runs) + " by the clock"
    counts = kept["parameters"]
    size = f"{millions(counts['here'])} / {millions(counts['published'])}"
    return f"| `{recipe}` | {seconds} | {'<br>'.join(losses)} | {'<br>'.join(probes)} | {size} |"


HEAD = """# What the demos measured

Each recipe at `scale=demo`, seeds 0, 1 and 2, each run the whole command in a process of its own. Written by
`python scripts/demo_table.py --print` from `results/<recipe>.json`, which name date, commit and hardware of each.
Seconds are those of the processor, on one thread unless the file says otherwise; the machine was shared. Settings were
chosen while looking at these probes on these data: the table shows that the sentences learn, it is no benchmark.

| recipe | processor seconds | last loss of each term (trivial predictor) | probe: untrained → trained | parameters at paper scale: here / published |
|---|---|---|---|---|"""  # noqa: E501


def print_table() -> None:
    print(HEAD)
    kept = {name: RESULTS / f"{name}.json" for name in NAMES}
    for name, file in kept.items():
        if file.is_file():
            print(row(name, json.loads(file.read_text())["demo"]))
    missing = [f"`{name}`" for name, file in kept.items() if not file.is_file()]
    if missing:
        print(f"\nNot measured by the script yet: {', '.join(missing)}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=NAMES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--print", action="store_true")
    arguments = parser.parse_args()
    if arguments.print:
        print_table()
        return
    RESULTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for recipe in arguments.recipes:
            file = RESULTS / f"{recipe}.json"
            found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
            found["demo"] = {
                "date": time.strftime("%Y-%m-%d"),
                "commit": commit(),
                "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}, {arguments.threads} threads",
                "command": f"encdec-train +recipe={recipe} seed=SEED",
                "runs": [one(recipe, seed, Path(folder), arguments.threads) for seed in arguments.seeds],
                "parameters": parameters(recipe),
            }
            file.write_text(json.dumps(found, indent=1) + "\n")
            print(row(recipe, found["demo"]), flush=True)


if __name__ == "__main__":
    main()
