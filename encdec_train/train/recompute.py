"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174): blocks are computed again in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from encdec_train.step import Parts
from encdec_train.types import Mismatch


def recompute(parts: Parts) -> None:
    """Every block of a part with `blocks` or `stages` keeps only its inputs. Names and weights stay as they are.

    Raises:
        Mismatch: no part has blocks, or some count what they see, which they would do twice.
    """
    found = [
        (f"{noun}.{name}", block)
        for noun in ("encoder", "decoder")
        if noun in parts.student
        for name, part in parts.student[noun].items()  # type: ignore[operator, union-attr]
        for block in getattr(part, "blocks", getattr(part, "stages", ()))
    ]
    if not found:
        raise Mismatch("trainer.recompute: neither encoder nor decoder has blocks")
    for name, block in found:
        if any(isinstance(module, _BatchNorm) for module in block.modules()):
            raise Mismatch(f"trainer.recompute: the batch norms of {name} would count every batch twice")
        _wrap(block)


def _wrap(block: nn.Module) -> None:
    forward = block.forward

    def again(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    block.forward = again  # type: ignore[method-assign]
