"""The frozen encoder as probes see it: rows in, vectors or tokens out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch

from encdec_train.config import TrainConfig
from encdec_train.data.loader import StepDataset, clean_batches
from encdec_train.data.transform import Transform
from encdec_train.nn.pool import Pool, pool
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.types import Batch, Path, Tokens

Labelled = tuple[np.ndarray, np.ndarray]  # (n,D) float32 vectors and (n,) int64 labels


class Frozen:
    """An encoder in eval mode, and the labelled rows of both splits.

    Args:
        path: the path that is read; its corruption is left out, and its bottleneck unless `evaluate.bottleneck`.
        paths: all paths by name.
        rows: raw rows by split, "train" and "test".
        folder: the run's, for what a probe keeps; none: nothing is kept.
    """

    def __init__(
        self,
        config: TrainConfig,
        parts: Parts,
        transform: Transform,
        path: Path,
        paths: dict[str, Path],
        rows: dict[str, Sequence[dict[str, Any]]],
        device: torch.device,
        folder: FilePath | None = None,
    ) -> None:
        self.config, self.parts, self.transform, self.device = config, parts, transform, device
        self.folder = folder
        bottleneck = path.bottleneck if config.evaluate.bottleneck else None
        self.path = replace(path, corruption=None, reply=False, bottleneck=bottleneck)
        self.rows, self.paths = rows, paths
        self.derive = {view: paths[name] for view, name in config.derive.items()}
        self._vectors: dict[str, Labelled] = {}
        self.label = config.data.label if _has_column(rows["train"], config.data.label) else None

    @torch.no_grad()
    def steps(self, split: str) -> Iterator[tuple[Step, Batch]]:
        """Clean batches of a split, finished, on the device, each in a step of its own."""
        config = self.config
        rows = self.rows[split]
        items = self.transform.items(rows, clean=True)
        dataset = StepDataset(items, self.transform, config.seed, clean=True, label=self.label, rows=rows)
        training = self.parts.training
        self.parts.eval()
        try:
            for start, batch in enumerate(clean_batches(dataset, config.evaluate.batch, config.evaluate.rows)):
                rng = Rng(config.seed, start)
                moved = {view: to_device(units, self.device) for view, units in batch.items()}
                finished = self.transform.finish(moved, rng, clean=True)
                yield Step(finished, self.parts, rng, self.derive), finished
        finally:
            self.parts.train(training)

    def tokens(self, split: str) -> Iterator[tuple[Tokens, Batch]]:
        """Encoded clean batches of a split."""
        for step, batch in self.steps(split):
            with torch.no_grad():
                yield step.tokens(self.path), batch

    def vectors(self, split: str) -> Labelled:
        """Pooled vectors and labels of a split; computed once."""
        if split not in self._vectors:
            how = Pool(self.config.evaluate.pool)
            found, labels = [], []
            for tokens, batch in self.tokens(split):
                found.append(pool(tokens, how).float().cpu().numpy())
                labels.append(batch["label"].values[:, 0].cpu().numpy())
            self._vectors[split] = np.concatenate(found), np.concatenate(labels)
        return self._vectors[split]


def _has_column(rows: Any, name: str | None) -> bool:
    return name is not None and name in rows.column_names


def to_device(value: Any, device: torch.device) -> Any:
    """Nested nouns on a device."""
    from encdec_train.types import map_tensors

    return map_tensors(value, lambda tensor: tensor.to(device, non_blocking=True))
