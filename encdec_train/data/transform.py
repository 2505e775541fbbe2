"""The contract of a transform: rows to units. A modality lives in its transform, its embedder and its YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from encdec_train.data.config import DataConfig
from encdec_train.data.example import Row
from encdec_train.rng import Rng
from encdec_train.types import Batch, Plan, Spec, Units


class NoItems(ValueError):
    """Nothing can be made of these rows, though each could be read."""


class Transform:
    """What is per row runs in a worker; what can be batched runs on the training device (`finish`).

    Args:
        config: the registered dataclass.
        data: the data set's own facts.
    """

    def __init__(self, config: Any, data: DataConfig) -> None:
        self.config, self.data = config, data

    def specs(self) -> dict[str, Spec]:
        """The views, as integers known from the configuration alone."""
        raise NotImplementedError

    @property
    def by_row(self) -> bool:
        """Whether every item is one row of the data, in their order; then views of one row can stand side by side."""
        return True

    def of(self, view: str) -> Transform:
        """The transform that makes this view."""
        return self

    def fit(self, rows: Sequence[dict[str, Any]], folder: Path) -> None:
        """Learn what has to be learned from the training rows (a tokenizer), and keep it in `folder`."""

    def items(self, rows: Sequence[dict[str, Any]], *, clean: bool) -> Sequence[Any]:
        """What one example is made of: a row, unless the transform cuts or packs rows.

        `clean`: one item per row, in order, for probes.
        """
        return rows

    def __call__(self, item: Any, sample: int, rng: Rng, *, clean: bool) -> Row:
        """In a worker: one item to unbatched views. `sample` is the item's index and random key.

        `clean`: no augmentation, no packing; what a probe or a user of the encoder sees.
        """
        raise NotImplementedError

    def finish(self, batch: Batch, rng: Rng, *, clean: bool) -> Batch:
        """On the training device, batched: augmentation, normalisation, patches."""
        return batch

    def preprocess(self) -> dict[str, Any]:
        """What somebody needs to feed the encoder: kept as `encoder/preprocess.json`."""
        return {}

    def draw(self, units: Units, plan: Plan, prediction: Tensor) -> Drawing | None:
        """What the model made of a batch, for people: given, hidden and predicted. None = nothing to show."""
        return None

    def show(self, units: Units, plan: Plan) -> Drawing | None:
        """What an encoder sees of a batch before any training, beside the whole. None = nothing to show."""
        return None


@dataclass(frozen=True)
class Drawing:
    """A picture or a text for people."""

    suffix: str  # of its file: "png" or "txt"
    content: bytes
