"""Does a step cost the same at the end of a run as at its beginning? Time and memory by stretch of a long run.

python scripts/bench_flat.py --steps 10000
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from encdec_train import launch
from encdec_train.train import run as training
from encdec_train.train import stages


def resident_mib() -> float:
    """Memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


class Watch(Callback):
    """Seconds and memory of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.memory: list[float] = []
        self.at = 0.0

    def on_train_batch_end(self, *_: Any) -> None:
        import time

        now = time.perf_counter()
        if self.at:
            self.seconds.append(now - self.at)
            self.memory.append(resident_mib())
        self.at = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    arguments = parser.parse_args()
    watch = Watch()
    make = stages.make_trainer
    stages.make_trainer = lambda config, folder, callbacks: make(config, folder, [*callbacks, watch])
    with tempfile.TemporaryDirectory() as folder:
        config = launch.compose(
            [
                "+recipe=mae_vit",
                f"run.root={folder}",
                f"stage.main.steps={arguments.steps}",
                "encoder=vit_tiny",
                "decoder.width=32",
                "loader.batch=8",
                "probe=null",
            ]
        )
        training.train(config)
    size = max(1, len(watch.seconds) // 10)
    report = [
        {
            "steps": f"{start + 10}-{start + size + 9}",
            "median_ms": round(1000 * statistics.median(watch.seconds[start : start + size]), 3),
            "memory_mib": round(watch.memory[min(start + size, len(watch.memory)) - 1], 1),
        }
        for start in range(8, len(watch.seconds) - size + 1, size)
    ]
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
