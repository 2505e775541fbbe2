"""The nearest of K cluster centres of what another path gives the same sites; the centres are fitted before a stage.

HuBERT (Hsu et al. 2021, arXiv:2106.07447, section 2.1 and 4.2): k-means of MFCC first, then of hidden states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from encdec_train.registry import targets
from encdec_train.step import Step
from encdec_train.types import Goal, Mismatch, Path, Plan, Reading, Spec


@dataclass(kw_only=True)
class ClustersConfig:
    path: str = "teacher"  # that is clustered
    clusters: int = 100  # K
    layer: int | None = None  # hidden state of the path's encoder, -1 = the last; none: its output
    frames: int = 200_000  # the centres are fitted to at most so many sites, of the first rows

    def emits(self, spec: Spec) -> list[int]:
        return [] if self.layer is None else [self.layer]

    def spec(self, sites: Spec, reading: Reading) -> Spec:
        name, read = "target 'clusters'", reading.spec
        if self.clusters < 2:
            raise Mismatch(f"{name}.clusters: {self.clusters} is below 2")
        if sites.length and read.length and sites.length != read.length:
            raise Mismatch(f"{name}: path '{self.path}' gives {read.length} sites a row, the view has {sites.length}")
        return replace(sites, kind="ids", width=self.clusters, raw=None)


@targets.register("clusters", ClustersConfig)
class Clusters(nn.Module):
    """(M,) int64 clusters at the plan's `where`."""

    centres: Tensor

    def __init__(self, config: ClustersConfig, sites: Spec, reading: Reading) -> None:
        super().__init__()
        self.config, self.reading = config, reading
        self.register_buffer("centres", torch.zeros(config.clusters, reading.spec.width))

    def vectors(self, step: Step) -> Tensor:
        """(B*N,D) of every site."""
        tokens = step.read(self.reading)
        if self.config.layer is None:
            return tokens.body.flatten(0, 1).float()
        assert tokens.layers is not None
        layer = self.config.layer % len(self.reading.spec.layers)
        return tokens.layers[layer][:, tokens.prefix :].flatten(0, 1).float()

    def fit(self, steps: Iterator[Step]) -> None:
        """Mini-batch k-means (scikit-learn), the same for the same seed."""
        from sklearn.cluster import MiniBatchKMeans

        found, count, seed = [], 0, 0
        for step in steps:
            real = step.read(self.reading).sites.real().flatten()
            found.append(self.vectors(step)[real].cpu().numpy())
            count, seed = count + len(found[-1]), int(step.rng.seed) & 0xFFFFFFFF
            if count >= self.config.frames:
                break
        rows = np.concatenate(found)[: self.config.frames]
        if len(rows) < self.config.clusters:
            raise ValueError(f"target 'clusters': {len(rows)} sites cannot be put into {self.config.clusters} clusters")
        model = MiniBatchKMeans(self.config.clusters, batch_size=10_000, n_init=5, random_state=seed).fit(rows)
        self.centres.copy_(torch.from_numpy(model.cluster_centers_))

    @torch.no_grad()
    def forward(self, step: Step, path: Path, plan: Plan) -> Goal:
        rows = self.vectors(step)
        rows = rows if plan.where is None else rows[plan.where]
        # |x - c|^2 without |x|^2, which is the same for every centre
        distance = self.centres.square().sum(1) - 2 * rows @ self.centres.T
        return Goal(values=distance.argmin(1), weight=plan.weight)
