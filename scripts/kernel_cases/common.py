"""The nouns of the kernel scripts, and what they share."""

from __future__ import annotations

import importlib
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Inputs = tuple[Tensor, ...]
Tiles = dict[str, dict[str, int]]  # kernel -> tile sizes, num_warps, num_stages
ALL = (torch.float32, torch.float16, torch.bfloat16)
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One input of an operation, for the kernel and for its twin; gradients of what requires one are compared too."""

    name: str
    inputs: Callable[[torch.dtype, torch.device], Inputs]  # the same numbers, rounded to the dtype, every time
    kernel: Callable[..., Inputs]  # inputs -> outputs
    twin: Callable[..., Inputs]  # the same in torch, in any dtype: float64 is the truth, the same dtype the yardstick
    dtypes: tuple[torch.dtype, ...] = ALL
    table: str = ""  # of choices of tiles; empty: that of the operation's name
    size: int = 0  # which of its rows it may be given; 0: those of all sizes
    exact: bool = False  # equal bit for bit (masks), not within twice the twin's error


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Ours is to be `times` as fast as `against`, or to take at most `memory` times its peak memory."""

    against: str
    times: float | None = None
    memory: float | None = None


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Sides that do the same work on the same inputs, timed in turns; `ours` is one of them."""

    name: str
    prepare: Callable[[torch.device], dict[str, Callable[[], object]]]  # side -> one call of it
    goals: tuple[Goal, ...] = ()
    flops: float = 0.0  # of one call, for the rate; 0: not told


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A row of an operation's table: the candidates of each kernel and a call that runs them all."""

    op: str
    dtype: torch.dtype
    size: int
    length: int
    candidates: dict[str, list[dict[str, int]]] = field(default_factory=dict)  # kernel -> tile sizes and warps
    prepare: Callable[[torch.device], Callable[[], object]]  # a call that reads the table as it then is


def operations() -> list[str]:
    """The operations that have a file here."""
    here = Path(__file__).parent.glob("*.py")
    return sorted(path.stem for path in here if path.stem not in ("__init__", "common"))


def cases(op: str) -> Any:
    """The file of an operation: `checks()`, `benches()`, `tunings()`."""
    return importlib.import_module(f"kernel_cases.{op}")


def cuda(script: str, instead: str = "") -> torch.device:
    """The device, or one sentence and exit code 2."""
    if not torch.cuda.is_available():
        print(f"{script} needs a CUDA device, and this machine has none{instead}", file=sys.stderr)
        sys.exit(2)
    return torch.device("cuda")


def environment() -> dict[str, Any]:
    """What a measurement depends on."""
    import triton

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": _said("git", "rev-parse", "--short", "HEAD"),
    }
    if torch.cuda.is_available():
        fields = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit"
        found |= {
            "device": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nvidia_smi": dict(
                zip(
                    fields.split(","),
                    _said("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader").split(", "),
                    strict=False,
                )
            ),
        }
    return found


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout.strip()


def write(path: Path | None, found: dict[str, Any]) -> None:
    """Results as JSON, where they are asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"written to {path}")
