"""Several data sets at once."""

from __future__ import annotations

from typing import Any

from encdec_train.data.mixture import MixtureConfig
from encdec_train.registry import sources


@sources.register("mixture", MixtureConfig)
class MixtureSource:
    """The sets of `data.mix`, by their weights; `open_rows` opens each as if it stood alone."""

    def __init__(self, config: MixtureConfig) -> None:
        self.config = config

    def __call__(self, split: str) -> Any:
        from encdec_train.data.open import open_rows

        return open_rows(self.config)[split]
