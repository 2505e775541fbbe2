"""SLURM: which job this is, whether it was requeued, and how it asks to be."""

from __future__ import annotations

import os
import subprocess


def job() -> str | None:
    """The name of this job, the same after a requeue; none outside of SLURM."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How often this job was requeued."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def requeue() -> None:
    """Put this job back into the queue, once for all of its tasks. SLURM ends its processes.

    Raises:
        RuntimeError: SLURM refuses.
    """
    if os.environ.get("SLURM_PROCID", "0") != "0":
        return
    name = job()
    assert name is not None, "not in a SLURM job"
    done = subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"scontrol requeue {name}: {done.stderr.strip() or done.stdout.strip()}")
