"""Sampled surfaces: bodies of unlike proportions, turned about the vertical; which body is the label.

Points are uniform over the area of the unit body, then its axes are stretched, and every point gets some noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from encdec_train.data.config import PointsDataConfig
from encdec_train.registry import sources
from encdec_train.rng import Rng
from encdec_train.types import Mismatch

if TYPE_CHECKING:
    from datasets import Dataset

Body = Callable[[np.ndarray], np.ndarray]  # (...,3) uniform numbers -> (...,3) points


def _circle(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)


def sphere(u: np.ndarray) -> np.ndarray:
    """Of radius 1 (Archimedes: height and angle are uniform)."""
    z, (x, y) = 2 * u[..., 0] - 1, _circle(u[..., 1])
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * x, radius * y, z], -1)


def cylinder(u: np.ndarray) -> np.ndarray:
    """Of radius 1 and height 2: two thirds of the area are the side."""
    x, y = _circle(u[..., 1])
    side = u[..., 0] < 2 / 3
    radius = np.where(side, 1.0, np.sqrt(u[..., 2]))
    z = np.where(side, 2 * u[..., 2] - 1, np.where(u[..., 0] < 5 / 6, 1.0, -1.0))
    return np.stack([radius * x, radius * y, z], -1)


def cone(u: np.ndarray) -> np.ndarray:
    """Of radius 1 and height 2: the side has the square root of 5 times the area of the base."""
    x, y = _circle(u[..., 1])
    radius = np.sqrt(u[..., 2])
    side = u[..., 0] < 5**0.5 / (1 + 5**0.5)
    return np.stack([radius * x, radius * y, np.where(side, 1 - 2 * radius, -1.0)], -1)


def box(u: np.ndarray) -> np.ndarray:
    """The cube of side 2."""
    face = (6 * u[..., 0]).astype(int)
    a, b, c = 2 * u[..., 1] - 1, 2 * u[..., 2] - 1, np.where(face % 2, 1.0, -1.0)
    axis = face // 2
    return np.stack([np.choose(axis, (c, a, b)), np.choose(axis, (b, c, a)), np.choose(axis, (a, b, c))], -1)


def pyramid(u: np.ndarray) -> np.ndarray:
    """Of a square base of side 2 and height 2: each of four sides has the area of sqrt(5)."""
    whole = 4 + 4 * 5**0.5
    base = u[..., 0] < 4 / whole
    side = ((u[..., 0] - 4 / whole) / (5**0.5 / whole)).clip(0, 3.999).astype(int)
    far = np.sqrt(u[..., 1])  # from the tip, 0 to 1
    along, across = far, far * (2 * u[..., 2] - 1)
    x = np.choose(side, (along, -along, across, across))
    y = np.choose(side, (across, across, along, -along))
    slope = np.stack([x, y, 1 - 2 * far], -1)
    floor = np.stack([2 * u[..., 1] - 1, 2 * u[..., 2] - 1, np.full_like(far, -1.0)], -1)
    return np.where(base[..., None], floor, slope)


def ring(u: np.ndarray) -> np.ndarray:
    """A torus of radii 1 and 1/2; the outer half has more area, so some inner angles are mirrored."""
    angle = 2 * np.pi * u[..., 0]
    inner = u[..., 2] > 0.5 + 0.25 * np.cos(angle)
    angle = np.where(inner, np.pi - angle, angle)  # density 1 + cos / 2
    x, y = _circle(u[..., 1])
    radius = 1 + 0.5 * np.cos(angle)
    return np.stack([radius * x, radius * y, 0.5 * np.sin(angle)], -1)


BODIES: dict[str, Body] = {body.__name__: body for body in (sphere, cylinder, cone, box, pyramid, ring)}


@dataclass(kw_only=True)
class SurfacesConfig(PointsDataConfig):
    points: int = 256
    sampled: int = 512  # points of a row, of which each step reads `points`
    seed: int = 0  # of all that is drawn
    rows: int = 1200  # of the training split; a third of that in the test split
    stretch: float = 1.5  # each axis is scaled by 1 / stretch to stretch
    noise: float = 0.05  # deviation of every coordinate, before the body is stretched

    def check(self) -> None:
        if self.rows < 3:
            raise Mismatch(f"data 'surfaces'.rows: {self.rows} is below 3")
        if self.sampled < self.points:
            raise Mismatch(f"data 'surfaces'.sampled: {self.sampled} is below the {self.points} points of an example")
        if self.stretch < 1 or self.noise < 0:
            raise Mismatch(f"data 'surfaces': stretch {self.stretch} is below 1, or noise {self.noise} below 0")


@sources.register("surfaces", SurfacesConfig)
class Surfaces:
    """Rows {points: sampled lists of three numbers, label: which body}."""

    def __init__(self, config: SurfacesConfig) -> None:
        config.check()
        self.config = config

    def __call__(self, split: str) -> Dataset:
        from datasets import Array2D, ClassLabel, Dataset, Features

        train = split == self.config.train
        label = np.arange(self.config.rows if train else self.config.rows // 3) % len(BODIES)  # classes take turns
        points = self.draw(Rng(self.config.seed, int(not train)), label)
        shape = (self.config.sampled, 3)
        features = Features({"points": Array2D(shape, "float32"), "label": ClassLabel(names=list(BODIES))})
        found = Dataset.from_dict({"points": list(points), "label": label}, features=features)
        return found.with_format("numpy", columns=["points"], output_all_columns=True)  # as lists it reads slower

    def draw(self, rng: Rng, label: np.ndarray) -> np.ndarray:
        """float32 (rows,sampled,3)."""
        config = self.config
        row, point, axis = (
            torch.arange(len(label))[:, None, None],
            torch.arange(config.sampled)[:, None],
            torch.arange(3),
        )
        uniform = rng.uniform("surfaces.point", row, point, axis).double().numpy()
        points = np.empty_like(uniform)
        for kind, body in enumerate(BODIES.values()):
            points[label == kind] = body(uniform[label == kind])
        points += config.noise * rng.normal("surfaces.noise", row, point, axis).double().numpy()
        points *= config.stretch ** (2 * rng.uniform("surfaces.stretch", row, axis).double().numpy() - 1)
        x, y = _circle(rng.uniform("surfaces.turn", row[..., 0]).double().numpy())
        turned = np.stack([x * points[..., 0] - y * points[..., 1], y * points[..., 0] + x * points[..., 1]], -1)
        return np.concatenate([turned, points[..., 2:]], -1).astype(np.float32)
