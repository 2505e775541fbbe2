"""`encdec-train doctor`: what this machine has, what will fall back and why, and what is installed wrongly."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import pkgutil
import platform
import re
import shutil
import tomllib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement

from encdec_train.paths import PACKAGE
from encdec_train.train.callbacks.wandb import mode
from encdec_train.train.rundir import commit
from encdec_train.types import Mismatch

Rows = list[tuple[str, str]]


def doctor_command(arguments: Sequence[str]) -> int:
    """`encdec-train doctor [--json]`. Exit code 2 where something is wrong."""
    strange = [argument for argument in arguments if argument != "--json"]
    if strange:
        raise Mismatch(f"usage: encdec-train doctor [--json]; given: {' '.join(strange)}")
    found = examine()
    print(json.dumps(found, indent=1) if arguments else as_text(found))
    return 2 if found["problems"] else 0


def examine() -> dict[str, Any]:
    """Everything, as plain values: sections of rows, and sentences for what is wrong."""
    wanted, extras = requirements()
    problems = [sentence for requirement in wanted if (sentence := unmet(requirement))]
    agreement, differing = twins(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    problems += differing
    return {
        "sections": {
            "versions": [*_own(), *((r.name, installed(r.name) or "not installed") for r in wanted)],
            "extras": [(name, _extra(found)) for name, found in extras.items()],
            "machine": machine(),
            "devices": devices(),
            "kernels": kernel_rows(),
            "kernels against torch": agreement,
            "data": data(),
        },
        "fallbacks": fallbacks(),
        "problems": problems,
    }


def requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """What the package needs here, and what its extras need; of the checkout, else of what was installed."""
    project = PACKAGE.parent / "pyproject.toml"
    if project.is_file():
        declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        lines, optional = declared["dependencies"], declared["optional-dependencies"]
    else:
        lines, optional = [], {}
        for line in requires("encdec-train") or []:
            extra = re.search(r"extra == ['\"](\w+)['\"]", line)
            (optional.setdefault(extra.group(1), []) if extra else lines).append(line.split("; extra")[0])
    needed = [Requirement(line) for line in lines]
    return [r for r in needed if r.marker is None or r.marker.evaluate()], {
        name: [Requirement(line) for line in found] for name, found in optional.items()
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def unmet(requirement: Requirement) -> str | None:
    """A sentence for a dependency that is missing, or of a version that was not allowed; a preview counts as such."""
    own = installed(requirement.name)
    if own is None:
        return f"{requirement.name} is not installed; pip install '{requirement}'"
    if not requirement.specifier.contains(own, prereleases=False):
        return f"{requirement.name} is {own}, needed is {requirement.specifier}; pip install '{requirement}'"
    return None


def _own() -> Rows:
    own = installed("encdec-train") or "not installed, runs from a checkout"
    return [("encdec-train", own), ("commit", commit() or "none"), ("python", platform.python_version())]


def _extra(needed: Sequence[Requirement]) -> str:
    missing = [requirement.name for requirement in needed if unmet(requirement)]
    if missing:
        return f"lacks {', '.join(missing)}"
    return ", ".join(f"{requirement.name} {installed(requirement.name)}" for requirement in needed)


def machine() -> Rows:
    """Processor, threads and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = f"{torch.get_num_threads()} of torch, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}"
    rows = [
        ("platform", platform.platform()),
        ("cores", f"{cores} of {os.cpu_count()} for this process, {torch.backends.cpu.get_cpu_capability()}"),
        ("threads", threads),
    ]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        kib = {key: int(n) for key, n in re.findall(r"^(\w+):\s+(\d+) kB", meminfo.read_text(), re.M)}
        rows.append(("memory", f"{size(kib['MemAvailable'] * 1024)} of {size(kib['MemTotal'] * 1024)} free"))
    return rows


def devices() -> Rows:
    """What trains: CUDA devices with their memory, else the processor."""
    rows: Rows = [("CUDA of torch", str(torch.version.cuda or "none"))]
    for i in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(i)
        free, whole = torch.cuda.mem_get_info(i)
        memory = f"{size(free)} of {size(whole)} free"
        bf16 = "bf16" if facts.major >= 8 else "no bf16"
        rows.append((f"cuda:{i}", f"{facts.name}, compute capability {facts.major}.{facts.minor}, {bf16}, {memory}"))
    rows.append(("trainer.accelerator=auto", "cuda" if torch.cuda.is_available() else "cpu"))
    return rows


def kernel_rows() -> Rows:
    """What each operation that has a kernel of its own runs on this device, and why."""
    if importlib.util.find_spec("encdec_train.kernels.backend") is None:
        return []
    package = importlib.import_module("encdec_train.kernels")
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report = importlib.import_module("encdec_train.kernels.backend").report(device)
    return [(row.op, f"{row.path}: {row.why}") for row in report]


def twins(device: torch.device) -> tuple[Rows, list[str]]:
    """Kernels on small inputs beside torch, where they run; and a sentence for each that gives something else."""
    from encdec_train.kernels.backend import Backend, machine_refuses, using

    refused = machine_refuses(device)
    if refused:
        return [("all", f"not compared: {refused}")], []
    rows: Rows = []
    problems = []
    for name, (call, tolerance) in {"attention": (_attend, 1e-2), "masking.keep": (_keep, 0.0)}.items():
        with using(backend=Backend.triton, strict=True):
            found = call(device)
        with using(backend=Backend.reference):
            expected = call(device)
        worst = float((found - expected).abs().max())
        rows.append((name, f"differs by at most {worst:.2g}"))
        if not worst <= tolerance:
            problems.append(f"kernel {name} differs from torch by {worst:.2g}; kernels.backend=reference does without")
    return rows, problems


def _attend(device: torch.device) -> torch.Tensor:
    """(1,2,48,32): places of a padded row."""
    from encdec_train.nn.attention import attention
    from encdec_train.types import Attend, Sites

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 48, 32, generator=generator).to(device) for _ in range(3))
    place = torch.arange(48, device=device)[None]
    sites = Sites(sample=place, place=place, valid=place < 40)
    return attention(q, k, v, query=sites, key=sites, attend=Attend(causal=True))[:, :, :40]


def _keep(device: torch.device) -> torch.Tensor:
    """(2,48) int64: sites that are kept, and those that are not."""
    from encdec_train.kernels.masking import keep
    from encdec_train.rng import Rng

    place = torch.arange(48, device=device).expand(2, -1)
    step = torch.zeros((), dtype=torch.int64, device=device)
    return torch.cat(
        keep(place // 48 + torch.arange(2, device=device)[:, None], place, Rng(0, step), "a", 12, 36)[:2], 1
    )


def data() -> Rows:
    """Where data are kept, and what is reached over a network."""
    from datasets import config

    cache = Path(config.HF_DATASETS_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    state = "" if cache.is_dir() else ", made when needed"
    state += "" if os.access(existing, os.W_OK) else ", not writable"
    return [
        ("cache", f"{cache} ({size(shutil.disk_usage(existing).free)} free{state})"),
        ("hub", "offline" if config.HF_HUB_OFFLINE else "asked when a hub name is given"),
        ("wandb", f"{mode()}, if logged to"),
    ]


def fallbacks() -> list[str]:
    """What will not be as fast or as precise as it could be, and why."""
    found = []
    if not torch.cuda.is_available():
        why = "torch has no CUDA" if torch.version.cuda is None else "there is no CUDA device"
        found.append(f"training runs on the processor: {why}")
    elif torch.cuda.get_device_capability()[0] < 8:
        found.append("trainer.precision=bf16 is emulated: the device has no bf16")
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++")):
        found.append("trainer.compile=true fails on the processor: there is no C++ compiler")
    return found


def size(count: float) -> str:
    """`23.4 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def as_text(found: dict[str, Any]) -> str:
    """For a terminal."""
    lines = []
    for title, rows in found["sections"].items():
        if rows:
            width = max(len(name) for name, _ in rows)
            lines += [title, *(f"  {name:<{width}}  {value}" for name, value in rows), ""]
    for title in ("fallbacks", "problems"):
        lines += [f"{title}: none"] if not found[title] else [title, *(f"  {sentence}" for sentence in found[title])]
    return "\n".join(lines)
