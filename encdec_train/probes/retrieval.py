"""How often a vector finds its partner: the first of all test rows, by cosine similarity.

Recall at 1, as for Flickr30k and COCO (Karpathy and Fei-Fei 2015, arXiv:1412.2306, section 4.1), from left to right and
from right to left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.registry import probes
from encdec_train.types import Mismatch


@dataclass(kw_only=True)
class RetrievalConfig:
    objective: str = "main"  # one that compares two sides: its first left and its first right path, through its heads


@probes.register("retrieval", RetrievalConfig)
class Retrieval:
    """Recall at 1 among all test rows, the mean of both directions; chance is one in the number of rows."""

    metric = "recall@1"
    labelled = False

    def __init__(self, config: RetrievalConfig) -> None:
        self.config = config

    @property
    def protocol(self) -> str:
        return f"cosine among all test rows, mean of both directions, objective '{self.config.objective}'"

    @torch.no_grad()
    def __call__(self, frozen: Any) -> float:
        objective = frozen.config.objective.get(self.config.objective)
        if objective is None or not getattr(objective, "right", None):
            raise Mismatch(f"probe 'retrieval': there is no objective '{self.config.objective}' with two sides")
        part = frozen.parts.get("objective", self.config.objective)
        sides = [part.sides(step) for step, _ in frozen.steps("test")]
        left, right = (torch.cat([side[i][0].float() for side in sides]) for i in (0, 1))
        return recall(left, right)


def recall(left: Tensor, right: Tensor) -> float:
    """Share of rows of (n,C) whose nearest on the other side is their partner."""
    similar = F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T
    own = torch.arange(len(similar), device=similar.device)
    hits = (similar.argmax(1) == own).double() + (similar.argmax(0) == own).double()
    return float(hits.mean() / 2)
