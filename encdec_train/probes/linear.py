"""Logistic regression on frozen, pooled vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from encdec_train.registry import probes


@dataclass(kw_only=True)
class LinearProbeConfig:
    c: float = 1.0  # inverse strength of the L2 penalty
    max_iter: int = 500  # of L-BFGS


@probes.register("linear", LinearProbeConfig)
class LinearProbe:
    """Accuracy on the test split of a linear classifier fitted on the training split."""

    metric = "accuracy"
    labelled = True  # needs classes

    def __init__(self, config: LinearProbeConfig) -> None:
        self.config = config

    @property
    def protocol(self) -> str:
        return f"logistic regression on standardised vectors, C={self.config.c}"

    def __call__(self, frozen: Any) -> float:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), LogisticRegression(C=self.config.c, max_iter=self.config.max_iter))
        model.fit(*frozen.vectors("train"))
        return float(model.score(*frozen.vectors("test")))
