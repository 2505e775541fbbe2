"""Agree: pooled, projected vectors of some paths are held against each other.

NT-Xent, InfoNCE, BYOL, VICReg, Barlow Twins, SwAV, DINO and CLIP are losses in this wiring.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from encdec_train.nn.pool import Pool, pool
from encdec_train.registry import objectives
from encdec_train.step import Step
from encdec_train.types import Path, Term


@dataclass(kw_only=True)
class AgreeConfig:
    left: list[str] = field(default_factory=lambda: ["main"])  # paths
    right: list[str] = field(default_factory=list)  # paths; empty: the left ones among themselves
    left_head: str = "main"
    right_head: str | None = None  # none: as on the left
    pool: Pool = Pool.mean
    loss: str = "main"
    weight: float = 1.0


@objectives.register("agree", AgreeConfig)
class Agree(nn.Module):
    """Vectors (B,C), one for each crop of each path, on two sides; the loss sees both lists."""

    phase = "main"

    def __init__(self, config: AgreeConfig, name: str, paths: dict[str, Path]) -> None:
        super().__init__()
        self.config, self.name = config, name
        self.left = [paths[path] for path in config.left]
        self.right = [paths[path] for path in config.right]

    def vectors(self, step: Step, paths: list[Path], head: str) -> list[Tensor]:
        found: list[Tensor] = []
        for path in paths:
            pooled = pool(step.tokens(path), self.config.pool)
            projected = step.part("head", head, path.teacher)(pooled)
            found += projected.chunk(step.units(path.view).crops)
        return found

    def forward(self, step: Step) -> dict[str, Term]:
        left = self.vectors(step, self.left, self.config.left_head)
        right = left
        if self.right:
            right = self.vectors(step, self.right, self.config.right_head or self.config.left_head)
        term = step.part("loss", self.config.loss)(left, right, same=not self.right)
        return {self.name: Term(term.sum, term.count, self.config.weight)}
