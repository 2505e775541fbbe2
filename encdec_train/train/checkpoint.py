"""Checkpoints: written beside, hashed, synced and renamed, so that a whole one is always there.

A checkpoint is a folder: `model.safetensors` (all parts and teachers), `optim.pt` (tensors only, read with
weights_only), `state.json` (where the run is) and `manifest.json` (the hash of each of them).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from encdec_train.types import Halted, map_tensors

MANIFEST = "manifest.json"
FILES = ("model.safetensors", "optim.pt", "state.json")  # that a manifest names
PIN = "pinned"  # an empty file


class BrokenCheckpoint(ValueError):
    """A checkpoint that is not what was written."""


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds."""

    weights: dict[str, Tensor]  # of all parts and teachers
    optimizers: list[dict[str, Any]]
    state: dict[str, Any]  # where the run is


def snapshot(
    parts: nn.Module, optimizers: list[torch.optim.Optimizer], state: dict[str, Any], *, copied: bool = False
) -> Snapshot:
    """The run as it is, in host memory; with `copied` nothing of it changes while training goes on."""

    def to_host(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        if tensor.device.type == "cpu":
            return tensor.clone() if copied else tensor
        pinned = torch.empty_like(tensor, device="cpu", pin_memory=True)
        return pinned.copy_(tensor, non_blocking=True)

    weights = map_tensors(dict(parts.state_dict()), to_host)
    states = map_tensors([optimizer.state_dict() for optimizer in optimizers], to_host)
    if torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()  # the copies are whole
    return Snapshot(weights, states, state)


def save(folder: Path, found: Snapshot) -> Path:
    """Write one checkpoint under `folder`.

    Raises:
        Halted: it cannot be written. Those before it are as they were.
    """
    state = found.state
    name = f"{state['stage_index']:02d}-{state['step']:08d}"
    work, final = folder / f".{name}.tmp", folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.tmp"):
            shutil.rmtree(leftover)
        work.mkdir()
        _write(work, found)
        if final.exists():  # a broken one of this step, passed over by a resume
            final.rename(folder / f".{name}.old.tmp")
        work.rename(final)
        sync(folder)
    except (OSError, SafetensorError, RuntimeError) as error:  # safetensors and torch wrap what the disk says
        free = shutil.disk_usage(folder).free / 1e6
        shutil.rmtree(work, ignore_errors=True)
        left = names(folder)
        whole = f"the newest is {left[-1]}" if left else "there is none before it"
        said = f"the checkpoint cannot be written, {free:.1f} MB were free ({_first_lines(error)})"
        raise Halted(f"{final}: {said}; {whole}") from error
    return final


def _write(work: Path, found: Snapshot) -> None:
    save_file({name: value.contiguous() for name, value in found.weights.items()}, work / "model.safetensors")
    torch.save(found.optimizers, work / "optim.pt")
    (work / "state.json").write_text(json.dumps(found.state, indent=1))
    hashes = {path.name: digest(path) for path in sorted(work.iterdir())}
    (work / MANIFEST).write_text(json.dumps(hashes, indent=1))
    for path in work.iterdir():
        sync(path)
    sync(work)


def prune(folder: Path, *, keep: int, every: int | None = None, best: bool = False) -> None:
    """Drop all but the newest `keep`, those of a multiple of `every` steps, the best one, and what is pinned."""
    found = names(folder)
    kept = set(found[-keep:])
    if every is not None:
        kept |= {name for name in found if read_state(folder / name)["step"] % every == 0}
    if best:
        kept.add(max(found, key=lambda name: read_state(folder / name).get("score", -math.inf)))
    for name in found:
        if name not in kept and not (folder / name / PIN).exists():
            shutil.rmtree(folder / name)


def pin(checkpoint: Path) -> None:
    """Keep it for good, because a step after it is to be looked at again."""
    (checkpoint / PIN).touch()


def names(folder: Path) -> list[str]:
    """Names of the checkpoints under `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def newest(folder: Path) -> tuple[Path, list[str]]:
    """The newest whole checkpoint, and a sentence for each broken one that was passed over.

    Raises:
        BrokenCheckpoint: there is none.
    """
    broken: list[str] = []
    for name in reversed(names(folder)):
        try:
            verify(folder / name)
            return folder / name, broken
        except BrokenCheckpoint as error:
            broken.append(str(error))
    detail = f" ({'; '.join(broken)})" if broken else ""
    raise BrokenCheckpoint(f"{folder.parent}: no checkpoint to go on from{detail}")


def verify(checkpoint: Path) -> None:
    """Compare every file with the manifest."""
    manifest = checkpoint / MANIFEST
    hashes = _read_json(manifest)
    missing = [name for name in FILES if name not in hashes]
    if missing:
        raise BrokenCheckpoint(f"{manifest}: does not name {missing[0]}")
    for name, expected in hashes.items():
        path = checkpoint / Path(name).name  # of this folder, whatever a stranger wrote
        if not path.is_file():
            raise BrokenCheckpoint(f"{path}: missing")
        if digest(path) != expected:
            raise BrokenCheckpoint(f"{path}: changed since it was written")


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Where the run is: stage, step, samples, seconds.

    Raises:
        BrokenCheckpoint: it does not say.
    """
    path = checkpoint / "state.json"
    state = _read_json(path)
    for key in ("stage_index", "step"):
        if not isinstance(state.get(key), int) or state[key] < 0:
            raise BrokenCheckpoint(f"{path}: {key} is not a number of steps or stages")
    if not all(isinstance(state.get(key, 0), int) for key in ("shift", "skipped", "unread")):
        raise BrokenCheckpoint(f"{path}: shift, skipped and unread are not all numbers")
    return state


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenCheckpoint(f"{path}: not readable ({error})") from error
    if not isinstance(found, dict):
        raise BrokenCheckpoint(f"{path}: not readable (it holds no names)")
    return found


def load_parts(checkpoint: Path, parts: nn.Module) -> None:
    """All weights; a missing or unexpected one is an error.

    Raises:
        BrokenCheckpoint: these are weights of other parts, or none.
    """
    path = checkpoint / "model.safetensors"
    try:
        parts.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise BrokenCheckpoint(f"{path}: not the weights of this run ({_first_lines(error)})") from error


def load_optimizers(checkpoint: Path, optimizers: list[torch.optim.Optimizer]) -> None:
    """Their state; nothing but tensors and plain values is read.

    Raises:
        BrokenCheckpoint: it is the state of other optimisers, or none.
    """
    path = checkpoint / "optim.pt"
    try:
        states = torch.load(path, map_location="cpu", weights_only=True)
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(state)
    except Exception as error:  # a stranger's file may fail in any way; none of them is ours
        raise BrokenCheckpoint(f"{path}: not the optimisers of this run ({_first_lines(error)})") from error


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one move."""
    work = path.with_name(f".{path.name}.tmp")
    work.write_text(text, encoding="utf-8")
    sync(work)
    work.replace(path)
    sync(path.parent)
