"""Kernels compile for devices that are not here, fit into their shared memory and spill nothing.

A few of all that are shipped, as one takes a second; `scripts/check_kernels.py --compile` compiles the rest. In a
process of its own, because here kernels are interpreted.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from encdec_train.kernels.crosscompile import ARCHITECTURES

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_kernels.py"


@pytest.mark.parametrize(
    ("op", "archs", "only"),
    [
        ("masking", ["80", "90", "100"], "keep 256 with bf16"),
        ("spans", ["90"], "hide 2048"),
        ("blocks", ["90"], "rectangles 4096 varies=True"),
        ("contrastive", ["90"], "softmax tf32x3"),
    ],
)
def test_kernels_fit(op, archs, only):
    run = [sys.executable, str(SCRIPT), "--compile", "--op", op, "--only", only, "--arch", *archs]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'ok': True" in done.stdout


@pytest.mark.parametrize("op", ["blocks", "masking", "spans"])
def test_every_kernel_of_masks_was_compiled(op):
    rows = json.loads((SCRIPT.parents[1] / "results" / "kernels_compile_masking.json").read_text())["rows"]
    kernels = importlib.import_module(f"encdec_train.kernels.{op}_triton")
    shipped = {(arch, job.name) for arch in ARCHITECTURES for job in kernels.jobs(arch)}
    assert shipped <= {(row["arch"], row["name"]) for row in rows if row["ok"]}, "compile anew: results/kernels.md"
