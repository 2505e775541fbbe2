"""Signs of a collapse: how different the representations and the targets of different samples are, codes in use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encdec_train.step import Step
from encdec_train.types import Path, Tokens

Spread = dict[str, Tensor]  # path or path.codes -> ()
Entropy = dict[str, tuple[Tensor, Tensor]]  # part -> (), ()


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


@contextmanager
def watched(parts: nn.Module) -> Iterator[Entropy]:
    """What is computed while this lasts: `entropy` of what each module that `assigns` gives, by its part's name."""
    found: Entropy = {}

    def watch(name: str, module: nn.Module) -> Any:
        def look(_: nn.Module, given: tuple[Tensor, ...], chances: Tensor) -> None:
            found[name] = entropy(chances, *given[1:])

        return module.register_forward_hook(look)

    modules = [(name, module) for name, module in parts.named_modules() if getattr(module, "assigns", False)]
    handles = [watch(".".join(name.split(".")[1:3]), module) for name, module in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def entropy(chances: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(M,K) distributions -> (), (): entropy of their mean, and their mean entropy, as shares of log K.

    The first less the second is what a row tells of which row it is; it is 0 if all are alike, be they one choice or
    none (Caron et al. 2021, arXiv:2104.14294, section 5.3). Rows of weight 0 are fillers.
    """
    real = torch.ones_like(chances[:, 0]) if weight is None else (weight > 0).to(chances.dtype)  # (M,)
    share = real / real.sum().clamp_min(1)
    most = math.log(max(chances.shape[1], 2))
    return torch.special.entr(share @ chances).sum() / most, share @ torch.special.entr(chances).sum(-1) / most
