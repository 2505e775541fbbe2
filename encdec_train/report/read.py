"""The files of a run directory as plain values."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not readable as JSON, line {error.lineno}: {error.msg}") from error
    return found if isinstance(found, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`. A last line without its end is one that a killed run was writing."""
    if not path.is_file():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    try:
        return [json.loads(line) for line in whole if line.strip()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: a line is not readable as JSON: {error.msg}") from error


def points(lines: Iterable[dict[str, Any]], *keys: str) -> list[tuple[float, float]]:
    """Step and the value under `keys`, where a line has it."""
    out = []
    for line in lines:
        value: Any = line
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            out.append((float(line["step"]), float(value)))
    return out
