"""One vector per row of tokens."""

from __future__ import annotations

from enum import Enum

from torch import Tensor

from encdec_train.types import Tokens


class Pool(Enum):
    """How tokens become one vector."""

    cls = "cls"  # the first token: a class token in the prefix, or [CLS] among the sites
    mean = "mean"  # the mean of the real sites, without the prefix


def pool(tokens: Tokens, how: Pool) -> Tensor:
    """(B,D) of tokens (B,prefix+N,D)."""
    if how is Pool.cls:
        return tokens.x[:, 0]
    if tokens.sites.valid is None:
        return tokens.body.mean(1)
    real = tokens.sites.valid[..., None].to(tokens.x.dtype)
    return (tokens.body * real).sum(1) / real.sum(1).clamp_min(1)
