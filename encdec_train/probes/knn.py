"""k nearest neighbours by cosine similarity on frozen, pooled vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from encdec_train.registry import probes


@dataclass(kw_only=True)
class KnnConfig:
    k: int = 20
    temperature: float = 0.07  # votes weigh exp(similarity / temperature) (Wu et al. 2018, section 3.4)


@probes.register("knn", KnnConfig)
class Knn:
    """Weighted k-NN accuracy on the test split."""

    metric = "accuracy"
    labelled = True  # needs classes

    def __init__(self, config: KnnConfig) -> None:
        self.config = config

    @property
    def protocol(self) -> str:
        return f"weighted {self.config.k}-NN, cosine, temperature {self.config.temperature}"

    def __call__(self, frozen: Any) -> float:
        x, y = frozen.vectors("train")
        queries, answers = frozen.vectors("test")
        found = self.predict(unit(x), y, unit(queries))
        return float((found == answers).mean())

    def predict(self, x: np.ndarray, y: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Classes (q,) of the queries (q,D), by votes of the rows of x (n,D), in blocks of bounded memory."""
        k = min(self.config.k, len(x))
        out = []
        for start in range(0, len(queries), 1024):
            similar = queries[start : start + 1024] @ x.T
            nearest = np.argpartition(-similar, k - 1, axis=1)[:, :k]
            votes = np.exp(np.take_along_axis(similar, nearest, 1) / self.config.temperature)
            score = np.zeros((len(similar), int(y.max()) + 1))
            np.add.at(score, (np.arange(len(similar))[:, None], y[nearest]), votes)
            out.append(score.argmax(1))
        return np.concatenate(out)


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length one."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
