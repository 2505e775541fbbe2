"""How near the vectors of what is to agree are to each other.

Wang and Isola 2020 (arXiv:2005.10242), section 4.1: the mean squared distance of positive pairs. The lower, the nearer;
of directions that have nothing to do with each other it is 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from encdec_train.probes.probe import ProbeConfig
from encdec_train.registry import probes
from encdec_train.types import Mismatch


@dataclass(kw_only=True)
class AlignmentConfig(ProbeConfig):
    objective: str = "main"  # one that compares vectors: it knows who is whose partner


@probes.register("alignment", AlignmentConfig)
class Alignment:
    """Of the partners of an objective, through its heads, on test rows as training would see them."""

    metric = "alignment"
    labelled = False
    lower = True  # is better

    def __init__(self, config: AlignmentConfig) -> None:
        self.config = config

    @property
    def protocol(self) -> str:
        return f"mean squared distance of partners of objective '{self.config.objective}', test rows, length one"

    @torch.no_grad()
    def __call__(self, frozen: Any) -> float:
        if self.config.objective not in frozen.config.objective:
            raise Mismatch(f"probe 'alignment': there is no objective '{self.config.objective}'")
        part = frozen.parts.get("objective", self.config.objective)
        if not hasattr(part, "partners"):
            raise Mismatch(f"probe 'alignment': objective '{self.config.objective}' compares no vectors")
        total, count = 0.0, 0
        for step, _ in frozen.steps("test", draw=0):
            left, right = ([F.normalize(vectors.double(), dim=-1) for vectors in side] for side in part.sides(step))
            for i, j in part.partners(step):
                total += float((left[i] - right[j]).square().sum())
                count += len(left[i])
        return total / count
