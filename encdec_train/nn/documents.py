"""Documents as numbers, so that a prediction is told from others of its own."""

from __future__ import annotations

from torch import Tensor

from encdec_train.types import Sites


def documents(sites: Sites, where: Tensor) -> Tensor:
    """(M,) int64: a number for the document that each row at `where` stands in, below B*N."""
    row = where // sites.n
    if sites.doc is None:
        return row
    return row * sites.n + sites.doc.flatten()[where].clamp_min(0)
