"""Run recipes at scale=rung on two CPU cores, each the command that a user types, and keep what was measured.

    python scripts/rungs.py --data DIR [--recipes cpc mocov2] [--seeds 0 1 2] [--threads 1] [--runs runs]
    python scripts/rungs.py --print > results/rungs.md

DIR holds a folder for each data set, named in `RUNGS`. After every run results/<recipe>.json has it under `rung`, and
the recipe's own `rung:`, which `verify` holds runs against, says its mean and spread over the seeds. A further call
with other seeds adds them. Minutes are those of the whole command; where other work shares the machine, those of the
processor say more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from demo_table import RESULTS, one

from encdec_train.paths import RECIPES
from encdec_train.results import Claim, claims
from encdec_train.train.rundir import commit

POINTS = 20  # of a curve


@dataclass(frozen=True, kw_only=True)
class Rung:
    folder: str  # beneath DIR
    data: str
    metric: str  # the probe that the recipe promises
    more: tuple[str, ...] = ()  # further words of the command


CIFAR10 = "CIFAR-10"
DIGITS = "Free Spoken Digit Dataset, its own test split"
RUNGS = {
    "mocov2": Rung(folder="cifar10", data=CIFAR10, metric="knn"),
    "crossmae": Rung(folder="cifar10", data=CIFAR10, metric="linear"),
    "vq_vae": Rung(folder="cifar10", data=CIFAR10, metric="held_out"),
    "cpc": Rung(folder="fsdd", data=DIGITS, metric="linear"),
    "wav2vec2": Rung(folder="fsdd", data=DIGITS, metric="linear"),
    "audio_mae": Rung(folder="fsdd", data=DIGITS, metric="linear"),
    "patchtst": Rung(
        folder="etth1/ETTh1.csv",
        data="ETTh1, all after the first twelve months held out",
        metric="held_out",
        more=("probe=[held_out_r2,etth_forecast]",),
    ),
    "gpt2": Rung(folder="books", data="passages of mlschmitt/classic-books-markdown", metric="held_out"),
    "transformer_nmt": Rung(
        folder="multi30k",
        data="Multi30k, English to German, test2016",
        metric="held_out",
        more=("probe=[held_out,generate]",),
    ),
    "siglip": Rung(folder="emoji", data="names of googlefonts/noto-emoji, a tenth held out", metric="retrieval"),
}


def measured(recipe: str, seed: int, root: Path, threads: int, overrides: list[str]) -> dict[str, Any]:
    """One run, with about `POINTS` points of its curve, the last among them."""
    found = one(recipe, seed, root, threads, overrides)
    text = (root / recipe / f"s{seed}" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    chosen = lines[:: -(-len(lines) // POINTS)]
    chosen += [] if chosen[-1] is lines[-1] else [lines[-1]]
    return {
        **found,
        "minutes": round(found["seconds"] / 60, 1),
        "processor_minutes": round(found["processor_seconds"] / 60, 1),
        "curve": [[line["step"], round(line["loss"], 4)] for line in chosen],
    }


def promised(recipe: str, entry: dict[str, Any]) -> Claim:
    """The number of an entry that the recipe promises."""
    return next(claim for claim in claims(entry) if claim.metric == RUNGS[recipe].metric)


def contract(recipe: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The recipe's `rung:` of what was measured."""
    claim, runs = promised(recipe, entry), entry["runs"]
    return {
        "data": RUNGS[recipe].data,
        "rows": runs[0]["rows"],
        "metric": claim.metric,
        "value": round(claim.value, 4),
        **({} if claim.spread is None else {"spread": round(claim.spread, 4)}),
        "seeds": claim.seeds,
        **({"lower": True} if claim.lower else {}),
        "protocol": claim.protocol,
        "hardware": entry["hardware"],
        **{key: round(mean(run[key] for run in runs), 1) for key in ("minutes", "processor_minutes")},
        "commit": entry["commit"],
    }


def keep(recipe: str, entry: dict[str, Any]) -> None:
    """Write the entry, and the block that ends the recipe."""
    file = RESULTS / f"{recipe}.json"
    found = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**found, "rung": entry}, indent=1) + "\n")
    sentence = RECIPES / f"{recipe}.yaml"
    above = sentence.read_text().split("\nrung:\n")[0].rstrip("\n")
    block = yaml.safe_dump({"rung": contract(recipe, entry)}, sort_keys=False, width=1000)
    sentence.write_text(f"{above}\n{block}")


def run(recipe: str, seeds: list[int], data: Path, root: Path, threads: int) -> None:
    """Run the seeds and add them to what was measured with the same command."""
    rung, file = RUNGS[recipe], RESULTS / f"{recipe}.json"
    words = ["scale=rung", f"data.path={data / rung.folder}", *rung.more]
    entry: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}, {threads} thread{'s' * (threads > 1)}",
        "command": " ".join(["encdec-train", f"+recipe={recipe}", *words, "seed=SEED"]).replace(str(data), "DIR"),
        "runs": [],
    }
    before = json.loads(file.read_text()).get("rung") if file.is_file() else None
    if before is not None and before["command"] == entry["command"]:
        entry["runs"] = [old for old in before["runs"] if old["seed"] not in seeds]
    for seed in seeds:
        entry["runs"].append(measured(recipe, seed, root, threads, words))
        entry["runs"].sort(key=lambda found: found["seed"])
        keep(recipe, entry)
        print(row(recipe, entry), flush=True)


def row(recipe: str, entry: dict[str, Any]) -> str:
    """One line of the table."""
    runs, own = entry["runs"], RUNGS[recipe].metric
    probes = []
    for claim in sorted(claims(entry), key=lambda claim: claim.metric != own):
        before = mean(run["probes"][claim.metric]["untrained"] for run in runs)
        spread = "" if claim.spread is None else f" ± {claim.spread:.3f}"
        metric = runs[0]["probes"][claim.metric]["metric"]
        probes.append(f"{claim.metric} ({metric}): {before:.3f} → {claim.value:.3f}{spread}")
    loss = runs[0]["loss"]
    losses = []
    for name, last in loss["terms"].items():
        trivial = runs[0]["trivial"].get(name)
        losses.append(f"{name}: {last:.3g}" + (f" ({trivial['predictor']}: {trivial['loss']:.3g})" if trivial else ""))
    counts = runs[0]["rows"]
    minutes = [", ".join(str(run[key]) for run in runs) for key in ("minutes", "processor_minutes")]
    where = f"{RUNGS[recipe].data} ({counts['train']:,} + {counts['test']:,} rows)"
    told = ["<br>".join(probes), "<br>".join(losses), ", ".join(str(run["seed"]) for run in runs), *minutes]
    return f"| `{recipe}` | {where} | {' | '.join(told)} |"


HEAD = """# What the rungs measured

Recipes at `scale=rung` on two CPU cores, each run the whole command in a process of its own, on one thread. Written by
`python scripts/rungs.py --print` from `results/<recipe>.json`, which have date, commit, command and the curve of each run.
A probe's value is the mean over the seeds, beside that of the untrained encoder, with the standard deviation where there
are several seeds; the first one named is what the recipe promises. Up to twenty other processes shared the two cores, so
that minutes by the clock say little. Sizes, steps and rates are ours, mostly the demos'; where they were tried out
(`siglip`, `mocov2`: on a tenth of the training rows that was held out; `patchtst`: by the loss in training), no test row
was read. The sets are small and the runs short: these numbers tell that a sentence works on real data, not what its
method can reach.

| recipe | data | probe: untrained → trained | last loss of the first seed (trivial predictor) | seeds | minutes by the clock | minutes of the processor |
|---|---|---|---|---|---|---|"""  # noqa: E501


def print_table() -> None:
    print(HEAD)
    for recipe in sorted(RUNGS):
        file = RESULTS / f"{recipe}.json"
        entry = json.loads(file.read_text()).get("rung") if file.is_file() else None
        if entry is not None:
            print(row(recipe, entry))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--recipes", nargs="+", choices=RUNGS, default=list(RUNGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/rungs"), help="where the run directories go")
    parser.add_argument("--print", action="store_true")
    arguments = parser.parse_args()
    if arguments.print:
        print_table()
        return
    if arguments.data is None:
        parser.error("--data is wanted")
    for recipe in arguments.recipes:
        run(recipe, arguments.seeds, arguments.data.resolve(), arguments.runs.resolve(), arguments.threads)


if __name__ == "__main__":
    main()
