"""How well the similarity of vectors follows people's judgement of two sentences, or of two of anything.

The Spearman correlation of cosines with scores, over all pairs of the test split, as in Gao et al. 2021 (SimCSE,
arXiv:2104.08821, section 6.1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from encdec_train.probes.probe import Measured, ProbeConfig
from encdec_train.registry import probes
from encdec_train.types import Mismatch


@dataclass(kw_only=True)
class StsConfig(ProbeConfig):
    columns: list[str] = field(default_factory=lambda: ["sentence1", "sentence2"])  # the two sides; `label`: the score


@probes.register("sts", StsConfig)
class Sts:
    """Spearman correlation of cosine similarity with the scores of pairs."""

    metric = "spearman"
    labelled = True  # needs scores

    def __init__(self, config: StsConfig) -> None:
        self.config = config
        if len(config.columns) != 2:
            raise Mismatch(f"probe 'sts'.columns: {config.columns} are not two")

    @property
    def protocol(self) -> str:
        return "Spearman correlation of the cosine of pooled vectors with the score of pairs of the test split"

    def __call__(self, frozen: Any) -> Measured:
        from scipy.stats import pearsonr, spearmanr

        left, right = (frozen.of(self.config, column=column) for column in self.config.columns)
        similar, scores = cosines(left.features("test"), right.features("test")), left.numbers("test")[:, 0]
        found = spearmanr(similar, scores).statistic
        return Measured(float(found), {"pearson": float(pearsonr(similar, scores).statistic), "pairs": len(scores)})


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n,) cosines of the rows of (n,D) and (n,D)."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: np.ndarray = (left * right).sum(1) / np.maximum(lengths, 1e-12)
    return found
