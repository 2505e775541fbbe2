"""How many dimensions the vectors of an encoder really use.

Garrido et al. 2023, "RankMe" (arXiv:2210.02885), equation 1: the exponential of the entropy of the singular values,
which was found to follow how well linear probes do, without labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from encdec_train.probes.probe import Measured, ProbeConfig
from encdec_train.registry import probes

EPS = 1e-7


@dataclass(kw_only=True)
class RankMeConfig(ProbeConfig):
    pass


@probes.register("rank_me", RankMeConfig)
class RankMe:
    """Effective rank of the training rows' vectors; `width` is the most that it can be."""

    metric = "rank"
    labelled = False
    protocol = "RankMe of the pooled vectors of training rows, not centred"

    def __init__(self, config: RankMeConfig) -> None:
        self.config = config

    def __call__(self, frozen: Any) -> Measured:
        x = frozen.features("train")
        return Measured(effective_rank(x), {"width": x.shape[1], "rows": len(x)})


def effective_rank(x: np.ndarray) -> float:
    """Of the rows (n,D): exp of the entropy of their singular values' shares."""
    values = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    shares = values / values.sum() + EPS
    return float(np.exp(-(shares * np.log(shares)).sum()))
