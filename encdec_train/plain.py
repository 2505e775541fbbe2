"""Resolved configurations as plain values, compared. Imports neither torch nor Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Difference = tuple[str, Any, Any]  # dotted key, here, there


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()  # stands for the value of a key that one side lacks


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys to leaves. A list is a leaf, and so is an empty dict."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            found.update(flatten(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[Difference]:
    """Leaves that differ, in the order of the keys here, then those only there."""
    mine, theirs = flatten(here), flatten(there)
    keys = [*mine, *(key for key in theirs if key not in mine)]
    pairs = ((key, mine.get(key, ABSENT), theirs.get(key, ABSENT)) for key in keys)
    return [(key, one, other) for key, one, other in pairs if one != other and not _nothing(one, other)]


def _nothing(one: Any, other: Any) -> bool:
    """Whether both say that there is nothing: an empty dict, and no such key."""
    return all(value is ABSENT or value == {} for value in (one, other))
