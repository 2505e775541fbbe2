"""Kernels compile for devices that are not here, fit into their shared memory and spill nothing.

A few of all that are shipped, as one takes a second; `scripts/check_kernels.py --compile` compiles the rest. In a
process of its own, because here kernels are interpreted.
"""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_kernels.py"


@pytest.mark.parametrize(
    ("op", "arch", "only"),
    [("masking", 80, "keep"), ("masking", 90, "pick"), ("masking", 100, "r"), ("contrastive", 90, "softmax tf32x3")],
)
def test_kernels_fit(op, arch, only):
    run = [sys.executable, str(SCRIPT), "--compile", "--op", op, "--arch", str(arch), "--only", only]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'ok': True" in done.stdout
