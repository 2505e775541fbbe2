"""How far training moved each layer, and how alike the layers are.

Linear centred kernel alignment (Kornblith et al. 2019, arXiv:1905.00414, section 3): 1 for vectors that differ by a
rotation and a scale, 0 for those that have nothing in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from encdec_train.probes.probe import Measured, ProbeConfig
from encdec_train.registry import probes


@dataclass(kw_only=True)
class CkaConfig(ProbeConfig):
    pass


@probes.register("cka", CkaConfig)
class Cka:
    """The mean over the layers of their likeness to themselves before training; 1 for an encoder that learned nothing.

    `layers` has it for each layer, `between` the likeness of every layer to every other.
    """

    metric = "cka"
    labelled = False
    protocol = "linear CKA of pooled vectors of test rows, each layer with itself before training, mean over the layers"

    def __init__(self, config: CkaConfig) -> None:
        self.config = config

    def __call__(self, frozen: Any) -> Measured:
        mine, before = frozen.layers("test"), frozen.untrained().layers("test")
        moved = [linear_cka(x, y) for x, y in zip(mine, before, strict=True)]
        between = [[linear_cka(x, y) for y in mine] for x in mine]
        return Measured(float(np.mean(moved)), {"layers": moved, "between": between})


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Of the rows (n,D) and (n,E); 0 where one of them is constant."""
    x, y = (z.astype(np.float64) - z.mean(0, dtype=np.float64) for z in (x, y))
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / scale) if scale > 0 else 0.0
