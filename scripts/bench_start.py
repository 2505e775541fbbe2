"""What a command costs before it does anything: whole processes, beside `python -c "import torch"`, in turns.

python scripts/bench_start.py --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "import torch": ["-c", "import torch"],
    "list": ["-m", "encdec_train.cli", "list"],
    "--help": ["-m", "encdec_train.cli", "--help"],
    "show +recipe=mae_vit": ["-m", "encdec_train.cli", "show", "+recipe=mae_vit"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if number:
                seconds[name].append(time.perf_counter() - started)
    base = seconds["import torch"]
    report = {
        name: {
            "median_seconds": round(statistics.median(values), 3),
            "over_import_torch": round(statistics.median(a / b for a, b in zip(values, base, strict=True)), 2),
        }
        for name, values in seconds.items()
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
