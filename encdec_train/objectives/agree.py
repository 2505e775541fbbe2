"""Agree: pooled, projected vectors of some paths are held against each other.

NT-Xent, InfoNCE, BYOL, VICReg, Barlow Twins, SwAV, DINO and CLIP are losses in this wiring.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from encdec_train.nn.pool import Pool, check_pool, pool
from encdec_train.registry import objectives
from encdec_train.step import Step
from encdec_train.types import Path, Term
from encdec_train.wiring import Wiring


@dataclass(kw_only=True)
class AgreeConfig:
    left: list[str] = field(default_factory=lambda: ["main"])  # paths
    right: list[str] = field(default_factory=list)  # paths; empty: the left ones among themselves
    left_heads: list[str] = field(default_factory=lambda: ["main"])  # one after the other
    right_heads: list[str] | None = None  # none: as on the left
    pool: Pool = Pool.mean
    loss: str = "main"
    weight: float = 1.0

    def check(self, wiring: Wiring, where: str) -> None:
        """Every vector of both sides through its heads to one loss, as specs."""
        if not wiring.has_paths(where, [*self.left, *self.right]):
            return
        loss = wiring.find(where, "loss", self.loss)
        right = self.left_heads if self.right_heads is None else self.right_heads
        widths: set[int] = set()
        for name, heads in [*((n, self.left_heads) for n in self.left), *((n, right) for n in self.right)]:
            found = wiring.outputs[f"path.{name}"]
            check_pool(f"its path '{name}'", found)
            spec = replace(found, rows="one")
            out = wiring.heads(where, name, heads, spec, None)
            if out is None or loss is None:
                return
            loss.check(out, None)
            wiring.accept(f"loss.{self.loss}", (replace(out, crops=1),), out)
            widths.add(out.width)
        if len(widths) > 1:
            wiring.problem(where, f"its two sides have widths {', '.join(map(str, sorted(widths)))}")


@objectives.register("agree", AgreeConfig)
class Agree(nn.Module):
    """Vectors (B,C), one for each crop of each path, on two sides; the loss sees both lists and who is whose partner.

    A partner is another crop, another draw or another view of the same sample: what a vector of the left is to agree
    with on the right. The same crop is no partner of itself, whatever the corruption or teacher it went through.
    """

    phase = "main"

    def __init__(self, config: AgreeConfig, name: str, paths: dict[str, Path]) -> None:
        super().__init__()
        self.config, self.name = config, name
        self.left = [paths[path] for path in config.left]
        self.right = [paths[path] for path in config.right]

    def vectors(self, step: Step, paths: list[Path], heads: Sequence[str]) -> list[Tensor]:
        found: list[Tensor] = []
        for path in paths:
            projected = step.project(pool(step.tokens(path), self.config.pool), heads, path.teacher)
            found += projected.chunk(step.units(path.view).crops)
        return found

    def partners(self, step: Step) -> list[tuple[int, int]]:
        """Pairs (left, right) of indices that are to agree; without a right side, of the left ones, i < j."""

        def crops(paths: list[Path]) -> list[tuple[str, int, int]]:
            return [(path.view, path.draw, crop) for path in paths for crop in range(step.units(path.view).crops)]

        left = crops(self.left)
        if not self.right:
            return [(i, j) for i in range(len(left)) for j in range(i + 1, len(left))]
        right = crops(self.right)
        return [(i, j) for i, one in enumerate(left) for j, other in enumerate(right) if one != other]

    def sides(self, step: Step) -> tuple[list[Tensor], list[Tensor]]:
        """The vectors of both sides; one list twice where there is no right side."""
        left = self.vectors(step, self.left, self.config.left_heads)
        if not self.right:
            return left, left
        heads = self.config.left_heads if self.config.right_heads is None else self.config.right_heads
        return left, self.vectors(step, self.right, heads)

    def trivial(self, steps: Iterable[Step], rows: int) -> tuple[str, float] | None:
        """The loss of a representation that is the same for every sample, in batches of `rows`.

        A loss whose best constant score is another, because it learns a bias, knows its own.
        """
        step = next(iter(steps))
        own = getattr(step.part("loss", self.config.loss), "trivial", None)
        if own is not None:
            name, value = own(rows)
            return name, float(value)
        left, right = self.sides(step)
        same = right is left
        left = [torch.ones_like(v[:1]).expand(rows, -1) for v in left]
        right = left if same else [torch.ones_like(v[:1]).expand(rows, -1) for v in right]
        loss = copy.deepcopy(step.part("loss", self.config.loss))  # what it remembers of batches stays untouched
        return "collapsed", float(loss(left, right, pairs=self.partners(step)).mean)

    def forward(self, step: Step) -> dict[str, Term]:
        left, right = self.sides(step)
        term = step.part("loss", self.config.loss)(left, right, pairs=self.partners(step))
        return {self.name: Term(term.sum, term.count, self.config.weight)}
