"""One vector per row of tokens."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from encdec_train.types import Mismatch, Spec, Tokens, gather_rows


class Pool(Enum):
    """How tokens become one vector."""

    cls = "cls"  # the first token: a class token in the prefix, or [CLS] among the sites
    last = "last"  # the last real site, which has read all others in a causal encoder
    mean = "mean"  # the mean of the real sites, without the prefix


def check_pool(name: str, spec: Spec) -> None:
    """One vector of a row is one of a document.

    Raises:
        Mismatch: rows hold several documents, which would be mixed.
    """
    if spec.docs:
        raise Mismatch(f"{name} reads whole rows, the view packs several documents into one: choose another layout")


def pool(tokens: Tokens, how: Pool) -> Tensor:
    """(B,D) of tokens (B,prefix+N,D)."""
    if how is Pool.cls:
        return tokens.x[:, 0]
    if how is Pool.last:
        if tokens.sites.valid is None:
            return tokens.x[:, -1]
        index = torch.arange(tokens.sites.n, device=tokens.x.device)
        at = torch.where(tokens.sites.valid, index, 0).amax(1, keepdim=True)  # (B,1)
        return gather_rows(tokens.body, at)[:, 0]
    if tokens.sites.valid is None:
        return tokens.body.mean(1)
    real = tokens.sites.valid[..., None].to(tokens.x.dtype)
    return (tokens.body * real).sum(1) / real.sum(1).clamp_min(1)
