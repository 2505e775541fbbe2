"""How far what an objective restores is from what it was given, as clouds of vectors.

The Frechet distance of two normal distributions (Dowson and Landau 1982), fitted to vectors of the test rows and of the
same rows with the objective's predictions in their places, as in Heusel et al. 2017 (arXiv:1706.08500), section 4. The
vectors are of this run's own encoder, so that numbers of two runs are no comparison: it is no FID.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from encdec_train.probes.held_out import restored
from encdec_train.probes.probe import ProbeConfig
from encdec_train.registry import probes
from encdec_train.types import Mismatch


@dataclass(kw_only=True)
class FrechetConfig(ProbeConfig):
    objective: str = "main"  # one that predicts values of the view


@probes.register("frechet", FrechetConfig)
class Frechet:
    """Distance of restored test rows from the true ones; 0 if their vectors have the same mean and covariance."""

    metric = "frechet"
    labelled = False
    lower = True  # is better

    def __init__(self, config: FrechetConfig) -> None:
        self.config = config

    @property
    def protocol(self) -> str:
        path = self.config.path or "evaluate.path"
        return (
            f"Frechet distance of test rows restored by objective '{self.config.objective}' from the true ones, pooled "
            f"vectors of the run's own encoder ({path}); no FID"
        )

    @torch.no_grad()
    def __call__(self, frozen: Any) -> float:
        objective = self.objective(frozen)
        view, found = objective.path.view, []
        for step, _ in frozen.steps("test"):
            made = restored(step, objective)[1]
            other = step.fork({view: replace(step.units(view), values=made)})
            found.append(frozen.pooled(other.tokens(frozen.path)))
        return frechet(frozen.features("test"), np.concatenate(found))

    def objective(self, frozen: Any) -> Any:
        """The part.

        Raises:
            Mismatch: there is none that the encoder could read the predictions of.
        """
        name = self.config.objective
        part = frozen.parts.get("objective", name) if name in frozen.config.objective else None
        if part is None or not hasattr(part, "predict") or part.path.view != frozen.path.view:
            raise Mismatch(f"probe 'frechet': no objective '{name}' predicts view '{frozen.path.view}'")
        return part


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Of the rows (n,D) and (m,D)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    one, other = (np.atleast_2d(np.cov(z, rowvar=False)) for z in (x, y))
    values, vectors = np.linalg.eigh(one)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    between = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(0)).sum()  # trace of the root of one @ other
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(one) + np.trace(other) - 2 * between)
