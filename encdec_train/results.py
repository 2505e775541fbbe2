"""What was measured with this framework: `results/<recipe>.json`. Imports neither torch nor Hydra.

A file holds an entry for each scale that was run: `date`, `commit`, `hardware`, `command` (`encdec-train ...`, with
SEED and DIR for what is set anew elsewhere) and `runs`, one for each seed, with its probes as a run's `summary.json`
has them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from encdec_train import paths

# one-sided 95 % points of Student's t with 1, 2, ... degrees of freedom (any table); beyond them the normal's
STUDENT = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)
NORMAL = 1.645


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A number that a run can be held against, and how it was measured."""

    metric: str  # name of the probe that measures it
    value: float  # mean over the seeds
    protocol: str
    spread: float | None  # standard deviation over the seeds; none: not known
    seeds: int | None  # how many; none: not told
    lower: bool = False  # a lower value is better

    @property
    def tolerance(self) -> float:
        """How far one further run may fall short: the one-sided 95 % prediction bound for normal seeds."""
        if self.spread is None or self.seeds is None or self.seeds < 2:
            return self.spread or 0.0
        point = STUDENT[self.seeds - 2] if self.seeds - 2 < len(STUDENT) else NORMAL
        return point * self.spread * math.sqrt(1 + 1 / self.seeds)

    def met(self, value: float) -> bool:
        """Whether a further run is as good; half a unit of the third decimal is no difference."""
        short = value - self.value if self.lower else self.value - value
        return short <= self.tolerance + 5e-4


def entry(recipe: str, scale: str) -> dict[str, Any] | None:
    """What was measured of a recipe at a scale, or nothing."""
    file = paths.RESULTS / f"{recipe}.json"
    if not file.is_file():
        return None
    found: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")).get(scale)
    return found


def claims(found: dict[str, Any]) -> list[Claim]:
    """The mean over the seeds of every probe of an entry."""
    runs: Sequence[dict[str, Any]] = found["runs"]
    made = []
    for name, first in runs[0]["probes"].items():
        values = [run["probes"][name]["value"] for run in runs]
        made.append(
            Claim(
                metric=name,
                value=mean(values),
                protocol=first["protocol"],
                spread=stdev(values) if len(values) > 1 else None,
                seeds=len(values),
                lower=first.get("lower", False),
            )
        )
    return made
