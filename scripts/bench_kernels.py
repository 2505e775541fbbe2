"""How fast are the kernels? Each beside what people use, on the same inputs, in turns, in one run.

python scripts/bench_kernels.py --json results/kernels_bench.json

Names the kernel that each side spent most of its time in: torch chooses among several. A goal is met or not met; no
figure is kept without the versions and clocks that it was measured with.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from kernel_cases import common

RUNS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", nargs="*", help="operations; none given: all")
    parser.add_argument("--only", default="", help="benches whose name holds this")
    parser.add_argument("--runs", type=int, default=RUNS, help="of each side")
    parser.add_argument("--json", type=Path, help="where results are kept")
    arguments = parser.parse_args()
    device = common.cuda("bench_kernels")
    rows = []
    for name in arguments.op or common.operations():
        for bench in common.cases(name).benches():
            if arguments.only in bench.name:
                rows.append({"op": name} | compared(bench, device, arguments.runs))
                print(rows[-1], flush=True)
    found = {"environment": common.environment(), "peaks": peaks(device), "rows": rows}
    common.write(arguments.json, found)


def compared(bench: common.Bench, device: torch.device, runs: int) -> dict[str, Any]:
    """Milliseconds, peak memory and kernel of every side, and which goals are met."""
    sides = bench.prepare(device)
    for call in sides.values():
        for _ in range(3):
            call()
    sweep = torch.empty(256 * 2**20, dtype=torch.int8, device=device)  # empties the L2 cache
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(runs):
        for side, call in sides.items():
            sweep.zero_()
            times[side].append(milliseconds(call))
    rows: dict[str, Any] = {}
    for side, call in sides.items():
        taken = sorted(times[side])
        rows[side] = {
            "ms": statistics.median(taken),
            "p10": taken[len(taken) // 10],
            "p90": taken[len(taken) * 9 // 10],
            "memory_mib": memory(call),
            "kernel": busiest(call),
        }
        if bench.flops:
            rows[side]["tflops"] = bench.flops / rows[side]["ms"] / 1e9
    return {"bench": bench.name, "sides": rows, "goals": [judged(goal, rows) for goal in bench.goals]}


def milliseconds(call: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def memory(call: Callable[[], object]) -> float:
    """MiB that one call needs beyond what its inputs take."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def busiest(call: Callable[[], object]) -> str:
    """The kernel that took most of the time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    rows = sorted(profile.key_averages(), key=lambda row: row.device_time_total)
    return rows[-1].key if rows else "none seen"


def judged(goal: common.Goal, rows: dict[str, Any]) -> dict[str, Any]:
    ours, theirs = rows["ours"], rows[goal.against]
    found: dict[str, Any] = {"against": goal.against}
    if goal.times is not None:
        found |= {"times": theirs["ms"] / ours["ms"], "goal_times": goal.times}
    if goal.memory is not None:
        found |= {"memory": ours["memory_mib"] / max(theirs["memory_mib"], 1e-9), "goal_memory": goal.memory}
    fast = goal.times is None or found["times"] >= goal.times
    small = goal.memory is None or found["memory"] <= goal.memory
    return found | {"met": fast and small}


def peaks(device: torch.device) -> dict[str, float]:
    """What this device reaches today: TFLOP/s of a large bfloat16 product, GB/s of a copy."""
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(2**30, device=device, dtype=torch.int8)
    target = torch.empty_like(source)
    product = statistics.median(milliseconds(lambda: a @ b) for _ in range(10))
    copy = statistics.median(milliseconds(lambda: target.copy_(source)) for _ in range(10))
    return {"gemm_tflops": 2 * 8192**3 / product / 1e9, "copy_gb_s": 2 * 2**30 / copy / 1e6}


if __name__ == "__main__":
    main()
