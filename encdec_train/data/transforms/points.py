"""Point clouds: points of a surface, normalised, moved a little and cut into overlapping groups on the training device.

Pang et al. 2022, "Masked Autoencoders for Point Cloud Self-supervised Learning" (Point-MAE, arXiv:2203.06604),
section 3.1: the middles of the groups are far from each other (farthest point sampling), a group is what lies
nearest to its middle, and its points are told from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encdec_train.data.config import DataConfig, PointsDataConfig
from encdec_train.data.example import Example, Row
from encdec_train.data.transform import Drawing, Transform
from encdec_train.nn.points import farthest_points, neighbours
from encdec_train.registry import transforms
from encdec_train.rng import Rng
from encdec_train.types import Batch, Mismatch, Plan, Sites, Spec, Units, gather_rows

DIMS = 3


@dataclass(kw_only=True)
class PointsTransformConfig:
    groups: int = 64  # N, middles
    members: int = 32  # G, points of a group
    stretch: float = 1.0  # each axis of a training cloud is scaled by 1 / stretch to stretch; 1: not
    shift: float = 0.0  # it is moved by at most this much along each axis; a cloud has radius 1


@transforms.register("points", PointsTransformConfig)
class PointsTransform(Transform):
    """view `points`: N groups of G points about their middles (N,G*3), which are the coordinates."""

    config: PointsTransformConfig
    data: PointsDataConfig

    def __init__(self, config: PointsTransformConfig, data: DataConfig) -> None:
        if not isinstance(data, PointsDataConfig):
            raise Mismatch(f"transform 'points' needs clouds of points, data gives {type(data).__name__}")
        if not 1 <= max(config.groups, config.members) <= data.points or min(config.groups, config.members) < 1:
            raise Mismatch(
                f"transform 'points': {config.groups} groups of {config.members} from clouds of {data.points} points"
            )
        if config.stretch < 1 or config.shift < 0:
            raise Mismatch(f"transform 'points': stretch {config.stretch} is below 1, or shift {config.shift} below 0")
        super().__init__(config, data)

    def specs(self) -> dict[str, Spec]:
        config = self.config
        return {"points": Spec(kind="values", width=config.members * DIMS, length=config.groups, coords=DIMS)}

    def __call__(self, item: Any, sample: int, rng: Rng, *, clean: bool) -> Row:
        column = self.data.column or "points"
        points = np.asarray(item[column], dtype=np.float32)
        if points.ndim != 2 or points.shape[1] != DIMS or len(points) < self.data.points:
            raise ValueError(
                f"a cloud of shape {points.shape} has not {self.data.points} points in space (data.points)"
            )
        if not np.isfinite(points).all():
            raise ValueError("a cloud holds points that are not finite")
        spare = len(points) > self.data.points
        if spare:  # the same points for probes, others at every step of training
            draw = Rng(0, 0) if clean else rng
            order = draw.order(f"points.{sample}", torch.arange(len(points)))
            points = points[order[: self.data.points].numpy()]
        return {"points": Example(values=torch.from_numpy(normalize(points)), sample=sample)}

    def finish(self, batch: Batch, rng: Rng, *, clean: bool) -> Batch:
        units = batch["points"]
        points, keys = units.values, units.sites.sample[:, :1]
        if not clean:
            points = self.move(points, keys, rng)
        return {**batch, "points": self.grouped(points, self.start(points, keys, rng, clean=clean), keys)}

    def move(self, points: Tensor, keys: Tensor, rng: Rng) -> Tensor:
        """(B,P,3): every axis stretched and shifted; uniform, as `PointcloudScaleAndTranslate` in the authors' code."""
        axis = torch.arange(DIMS, device=points.device)
        low, high = 1 / self.config.stretch, self.config.stretch
        scale = low + (high - low) * rng.uniform("points.stretch", keys, axis)  # (B,3)
        shift = self.config.shift * (2 * rng.uniform("points.shift", keys, axis) - 1)
        return points * scale[:, None] + shift[:, None]

    def start(self, points: Tensor, keys: Tensor, rng: Rng, *, clean: bool) -> Tensor:
        """(B,) the first middle: any point; for probes the outermost, which no draw decides."""
        if clean:
            return points.square().sum(-1).argmax(1)
        return rng.integers("points.start", points.shape[1], keys[:, 0])

    def grouped(self, points: Tensor, start: Tensor, keys: Tensor) -> Units:
        """(B,P,3) -> units of (B,N,G*3)."""
        groups, rows = self.config.groups, len(points)
        centres = gather_rows(points, farthest_points(points, groups, start))  # (B,N,3)
        members = neighbours(points, centres, self.config.members)  # (B,N,G)
        around = gather_rows(points, members.flatten(1)).unflatten(1, members.shape[1:]) - centres[:, :, None]
        sites = Sites(
            sample=keys.expand(rows, groups),
            place=torch.arange(groups, device=points.device).expand(rows, groups),
            coords=centres,
            members=members,
        )
        return Units(values=around.flatten(2), sites=sites)

    def show(self, units: Units, plan: Plan) -> Drawing | None:
        """Clouds, and what is left of them."""
        from encdec_train.data.pictures import hidden, panels_png
        from encdec_train.data.plots import points

        assert units.sites.coords is not None
        groups = units.values.unflatten(2, (-1, DIMS)) + units.sites.coords[:, :, None]
        clouds, unseen = groups.float().cpu().numpy(), hidden(plan)
        whole = points(clouds, np.ones(clouds.shape[:2], bool))
        return Drawing("png", panels_png(whole, *([] if unseen is None else [points(clouds, ~unseen.numpy())])))

    def preprocess(self) -> dict[str, Any]:
        config = self.config
        return {"kind": "points", "points": self.data.points, "groups": config.groups, "members": config.members}


def normalize(points: np.ndarray) -> np.ndarray:
    """(P,3): the mean to the origin, the outermost point to distance 1."""
    centred = points - points.mean(0)
    found: np.ndarray = centred / max(float(np.sqrt((centred**2).sum(1).max())), 1e-12)
    return found
