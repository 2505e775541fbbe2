"""What saving, writing metrics and waiting for data take of a step.

python scripts/bench_cost.py [saving] [logging] [waiting]

saving   steps that wait for a checkpoint, in the background and in the foreground, as a share of the default interval
logging  steps that write a line of metrics, at the default interval, and those between
waiting  the share of the time in which demos wait for data, as their metrics say, with one worker

Writes results/cost.json and results/cost.md; what is not measured now stays.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from encdec_train.build import check, dry_run, make_transform
from encdec_train.config import CheckpointConfig, TrainerConfig
from encdec_train.data.open import open_rows
from encdec_train.launch import compose
from encdec_train.train import rundir, stages
from encdec_train.train.assembly import Run, assemble
from encdec_train.train.callbacks.metrics import read_metrics
from encdec_train.train.callbacks.saver import Saver
from encdec_train.train.checkpoint import Snapshot

RESULTS = Path(__file__).resolve().parent.parent / "results"
MODELS = {  # parameters are counted
    "mae_vit, demo": ["+recipe=mae_vit"],
    "mae_vit, wide": ["+recipe=mae_vit", "encoder.width=768", "encoder.depth=7", "encoder.heads=12", "loader.batch=16"],
}
DEMOS = ["mae_vit", "simclr_resnet", "bert", "t5", "gpt2", "wav2vec2", "graphmae", "patchtst"]
Row = dict[str, Any]


class Timed(Saver):
    """Keeps when each step ended, which steps ended while a checkpoint was being written, and how long that took."""

    last: Timed

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.ends: list[float] = []
        self.beside: list[bool] = []
        self.written: list[float] = []
        self.waited: list[float] = []
        Timed.last = self

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.ends.append(time.perf_counter())
        before = self.seconds
        super().on_train_batch_end(trainer, pl_module)
        self.waited.append(self.seconds - before)
        self.beside.append(self.writing.pending is not None)

    def _write(self, found: Snapshot) -> None:
        started = time.perf_counter()
        super()._write(found)
        self.written.append(time.perf_counter() - started)

    def steps(self, *, beside: bool) -> list[float]:
        """Seconds of steps without what they waited for checkpoints."""
        both = zip(self.ends[1:], self.ends, self.waited, self.beside, strict=False)
        return [end - start - waited for end, start, waited, busy in both if busy is beside][5:]


def train(overrides: Sequence[str]) -> tuple[Run, Timed, list[Row]]:
    """A run, its saver and its lines of metrics."""
    config = compose([*overrides, "probe=null", "data.limit=512", "trainer.threads=1", "guard.spike=null"])
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".cost-") as name:
        folder = Path(name)
        transform = make_transform(config)
        wiring = check(config, transform.specs())
        run = assemble(config, transform, wiring, dry_run(config, wiring), open_rows(config.data), folder)
        stages.Saver = Timed  # type: ignore[misc]
        stages.train_stages(run, None, time.perf_counter())
        return run, Timed.last, read_metrics(folder / "metrics.jsonl")


def saving(steps: int) -> list[Row]:
    every = CheckpointConfig().every
    found = []
    for name, sentence in MODELS.items():
        row: Row = {"model": name, "every": every}
        for key, way in (("background", "true"), ("foreground", "false")):
            given = [f"trainer.max_steps={steps}", f"checkpoint.every={steps // 5}", f"checkpoint.background={way}"]
            run, saver, _ = train([*sentence, *given])
            waits = [seconds for seconds in saver.waited if seconds]
            alone, busy = statistics.median(saver.steps(beside=False)), saver.steps(beside=True)
            slower = sum(seconds - alone for seconds in busy) / len(waits) if key == "background" else 0.0
            row |= {
                "parameters": sum(p.numel() for p in run.parts.student.parameters()),
                "rows": run.config.loader.batch,
                "step_ms": round(1000 * alone, 2),
                f"{key}_waits_ms": round(1000 * statistics.median(waits), 2),
                f"{key}_writes_ms": round(1000 * statistics.median(saver.written), 2),
                f"{key}_slows_ms": round(1000 * slower, 2),
                f"{key}_share": round((statistics.median(waits) + max(slower, 0.0)) / (every * alone), 5),
            }
        found.append(row)
        print(json.dumps(row), flush=True)
    return found


def logging(steps: int) -> list[Row]:
    every = TrainerConfig().log_every
    found = []
    for name in DEMOS[:3]:
        _, saver, _ = train([f"+recipe={name}", f"trainer.max_steps={steps}"])
        seconds = [end - start for start, end in zip(saver.ends, saver.ends[1:], strict=False)]
        due = [second for number, second in enumerate(seconds, 2) if number % every == 0]
        other = [second for number, second in enumerate(seconds, 2) if number % every]
        without, line = statistics.median(other), statistics.median(due) - statistics.median(other)
        row = {"recipe": name, "every": every, "lines": len(due), "step_ms": round(1000 * without, 3)}
        row |= {"line_ms": round(1000 * line, 3), "share": round(line / (every * without), 4)}
        found.append(row)
        print(json.dumps(row), flush=True)
    return found


def waiting(steps: int) -> list[Row]:
    found = []
    for name in DEMOS:
        _, saver, lines = train([f"+recipe={name}", f"trainer.max_steps={steps}", "loader.workers=1"])
        waits = [line["data_wait"] for line in lines[1:]]
        row = {"recipe": name, "step_ms": round(1000 * statistics.median(saver.steps(beside=False)), 2)}
        row |= {"lines": len(waits), "data_wait": round(statistics.median(waits), 4)}
        found.append(row)
        print(json.dumps(row), flush=True)
    return found


PARTS: dict[str, tuple[Callable[[int], list[Row]], int]] = {  # and steps of each run
    "saving": (saving, 100),
    "logging": (logging, 300),
    "waiting": (waiting, 120),
}


def write(found: dict[str, Any]) -> None:
    path = RESULTS / "cost.json"
    whole = {**(json.loads(path.read_text()) if path.exists() else {}), **found}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    lines = [
        "# What saving, metrics and data cost",
        "",
        "Made by `python scripts/bench_cost.py`; details in cost.json.",
    ]
    if "saving" in whole:
        lines += ["", *_saving(whole["saving"]["rows"])]
    if "logging" in whole:
        lines += ["", "| recipe | step | a line of metrics | every | share |", "| --- | --- | --- | --- | --- |"]
        for row in whole["logging"]["rows"]:
            cells = [row["recipe"], f"{row['step_ms']} ms", f"{row['line_ms']} ms", row["every"], f"{row['share']:.2%}"]
            lines.append(_line(cells))
    if "waiting" in whole:
        lines += ["", "| recipe, one worker | step | waits for data |", "| --- | --- | --- |"]
        for row in whole["waiting"]["rows"]:
            lines.append(_line([row["recipe"], f"{row['step_ms']} ms", f"{row['data_wait']:.2%}"]))
    facts = sorted({(part["date"], part["commit"][:8], part["hardware"]) for part in whole.values()})
    lines += ["", *(f"{date}, {commit}, {hardware}, shared with other jobs." for date, commit, hardware in facts), ""]
    (RESULTS / "cost.md").write_text("\n".join(lines))


def _saving(rows: list[Row]) -> list[str]:
    lines = ["| model | step | checkpoint | steps wait | is written in | slows steps by | share of 1,000 steps |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        for way in ("background", "foreground"):
            times = [f"{row[f'{way}_{what}_ms']} ms" for what in ("waits", "writes", "slows")]
            size = f"{row['model']}, {row['parameters'] / 1e6:.1f}M parameters, {row['rows']} rows"
            lines.append(_line([size, f"{row['step_ms']} ms", way, *times, f"{row[f'{way}_share']:.2%}"]))
    return lines


def _line(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="saving, logging, waiting; none: all")
    parser.add_argument("--steps", type=int, help="of each run")
    given = parser.parse_args()
    for name in given.parts or PARTS:
        work, steps = PARTS[name]
        facts = {"date": time.strftime("%Y-%m-%d"), "commit": rundir.commit() or "-"}
        facts["hardware"] = f"{platform.machine()}, {os.cpu_count()} cores, one thread, torch {torch.__version__}"
        write({name: {"rows": work(given.steps or steps), **facts}})


if __name__ == "__main__":
    main()
