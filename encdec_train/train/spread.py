"""How different the representations of different samples are, and how many codes are in use: signs of a collapse."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.step import Step
from encdec_train.types import Path, Tokens

Spread = dict[str, Tensor]  # path or path.codes -> ()


def line_due(done: int, steps: int, every: int) -> bool:
    """Whether metrics are written after this step: the first, every so many, the last."""
    return done == 1 or done % every == 0 or done == steps


@torch.no_grad()
def spread(step: Step, names: dict[Path, str]) -> Spread:
    """Of every encoded path that gets a gradient, over the rows of this step; `names` of paths without bottlenecks."""
    found: Spread = {}
    for path, tokens in step.trained().items():
        name = names.get(path)
        if name is not None and tokens.x.shape[0] > 1:
            found[name] = deviation(tokens)
            if tokens.codes is not None:
                found[f"{name}.codes"] = torch.tensor(tokens.codes.unique().numel())
    return found


def deviation(tokens: Tokens) -> Tensor:
    """(): root mean square distance of the rows' mean directions from their own mean: 0 if all agree, at most 1."""
    real = tokens.sites.real()[..., None].float()
    pooled = (tokens.body.float() * real).sum(1) / real.sum(1).clamp_min(1)  # (B,D)
    return (1 - F.normalize(pooled, dim=-1).mean(0).square().sum()).clamp_min(0).sqrt()
