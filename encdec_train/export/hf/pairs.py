"""The mapping that every file here shares: one of our tensors is one or several of theirs along the first axis.

Ours keep queries, keys and values in one matrix; theirs keep them apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Pairs = dict[str, tuple[str, ...]]  # our name: theirs, one after the other along the first axis


def split(pairs: Pairs, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under their names."""
    out: dict[str, Tensor] = {}
    for ours, theirs in pairs.items():
        pieces = (piece.contiguous() for piece in state[ours].chunk(len(theirs)))
        out.update(zip(theirs, pieces, strict=True))
    return out


def join(pairs: Pairs, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under our names."""
    return {ours: torch.cat([state[name] for name in theirs]) for ours, theirs in pairs.items()}


def affine(ours: str, *theirs: str) -> Pairs:
    """Weight and bias of one layer."""
    return {f"{ours}.{kind}": tuple(f"{name}.{kind}" for name in theirs) for kind in ("weight", "bias")}


def layers(ours: str, theirs: str, names: Mapping[str, tuple[str, ...]]) -> Pairs:
    """Weights and biases of the layers of one block."""
    found: Pairs = {}
    for name, parts in names.items():
        found.update(affine(f"{ours}.{name}", *(f"{theirs}.{part}" for part in parts)))
    return found


def depth(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered modules lie under `prefix`."""
    return len({name.removeprefix(prefix).split(".", 1)[0] for name in state if name.startswith(prefix)})
