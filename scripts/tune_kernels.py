"""Choose tile sizes on this device and write them into encdec_train/kernels/configs/.

python scripts/tune_kernels.py --op attention

One kernel of an operation after the other tries its candidates while the others keep theirs. A choice is no proof:
run scripts/check_kernels.py afterwards.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import torch
import triton
from kernel_cases import common

from encdec_train.kernels import backend

RUNS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", nargs="*", help="operations; none given: all")
    arguments = parser.parse_args()
    device = common.cuda("tune_kernels")
    for name in arguments.op or common.operations():
        for tuning in getattr(common.cases(name), "tunings", lambda: ())():
            row = chosen(tuning, device)
            print(row, flush=True)
            write(tuning.op, row)


def chosen(tuning: common.Tuning, device: torch.device) -> dict[str, Any]:
    """The row of the table that was fastest here."""
    call = tuning.prepare(device)
    tiles = dict(backend.launch(tuning.op, device, tuning.dtype, tuning.size, tuning.length))
    for kernel, candidates in tuning.candidates.items():
        times = {}
        for i, candidate in enumerate(candidates):
            with backend.pinned(tuning.op, tiles | {kernel: candidate}):
                times[i] = timed(call)
        tiles[kernel] = candidates[min(times, key=lambda i: times[i])]
    dtype = str(tuning.dtype).removeprefix("torch.")
    where = {"arch": backend.architecture(device), "dtype": dtype, "size": tuning.size, "length": tuning.length}
    return where | {"kernels": tiles}


def timed(call: Callable[[], object]) -> float:
    """Median milliseconds; infinite for tiles that do not fit this device."""
    try:
        call()
    except triton.runtime.errors.OutOfResources:
        return float("inf")
    times = []
    for _ in range(RUNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def write(op: str, row: dict[str, Any]) -> None:
    """Put a row in the place of the one for the same case."""
    path = backend.CONFIGS / f"{op}.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    same = [name for name in row if name != "kernels"]
    rows = [old for old in table["rows"] if any(old[name] != row[name] for name in same)] + [row]
    table["rows"] = sorted(rows, key=lambda old: [old[name] for name in same])
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
