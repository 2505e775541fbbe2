"""Contrastive sums: against torch over all pairs at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.kernels.backend import Backend, using
from encdec_train.kernels.contrastive import log_sum_exp, softplus_sum
from kernel_cases.common import Bench, Check, Goal, Inputs, Tuning


def _inputs(n: int, m: int, width: int, dtype: torch.dtype, device: torch.device) -> Inputs:
    """Unit vectors, scale, bias."""
    generator = torch.Generator().manual_seed(0)
    sides = (F.normalize(torch.randn(rows, width, generator=generator), dim=-1) for rows in (n, m))
    numbers = (torch.tensor(x) for x in (14.0, -3.0))
    return tuple(x.to(device, dtype).requires_grad_() for x in (*sides, *numbers))


def _call(kind: str, backend: Backend, left: Tensor, right: Tensor, scale: Tensor, bias: Tensor) -> Inputs:
    with using(backend=backend):
        if kind == "softplus":
            return (softplus_sum(left, right, scale, bias),)
        return log_sum_exp(left, right, scale, 1 if kind == "self" else None, both=kind == "both")


def checks() -> Iterator[Check]:
    for kind in ("rows", "both", "self", "softplus"):
        for n, m, width in ((1, 17, 32), (130, 63, 65), (1000, 1000, 512), (4096, 4100, 768)):
            yield Check(
                name=f"{kind} n={n} m={m} width={width}",
                inputs=partial(_inputs, n, m, width),
                kernel=partial(_call, kind, Backend.triton),
                twin=partial(_call, kind, Backend.reference),
                dtypes=(torch.float32,),
            )


def _both_ways(n: int, width: int, device: torch.device) -> dict[str, Callable[[], object]]:
    left, right, scale, _ = _inputs(n, n, width, torch.float32, device)
    own = torch.arange(n, device=device)

    def whole() -> Tensor:
        scores = scale * left @ right.T
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2

    def ours() -> Tensor:
        rows, columns = log_sum_exp(left, right, scale, both=True)
        return ((rows + columns) / 2 - (left * right).sum(-1) * scale).mean()

    sides = {"ours": ours, "all scores, compiled": torch.compile(whole)}
    return {name: partial(_trained, call, [left, right, scale]) for name, call in sides.items()}


def _trained(call: Callable[[], Tensor], leaves: list[Tensor]) -> object:
    return torch.autograd.grad(call(), leaves)


def benches() -> Iterator[Bench]:
    for n in (8192, 32768):
        yield Bench(
            name=f"both ways, forward and backward, {n} pairs of width 512",
            prepare=partial(_both_ways, n, 512),
            flops=6.0 * n * n * 512,
            goals=(Goal(against="all scores, compiled", times=1.0, memory=0.2),),
        )


def _tiles(names: tuple[str, ...], *choices: tuple[int, ...]) -> list[dict[str, int]]:
    return [dict(zip((*names, "num_warps", "num_stages"), choice, strict=True)) for choice in choices]


def tunings() -> Iterator[Tuning]:
    forward = [(m, n, k, w, s) for m, n, k, w in ((64, 32, 16, 4), (64, 64, 32, 4), (128, 64, 32, 8)) for s in (2, 3)]
    backward = [(32, 32, 16, 128, 8, 2), (64, 32, 32, 128, 8, 2), (64, 64, 32, 128, 8, 2), (64, 32, 32, 256, 8, 2)]
    for width in (128, 256, 512, 768):
        yield Tuning(
            op="contrastive",
            dtype=torch.float32,
            size=width,
            length=0,
            candidates={
                "forward": _tiles(("BM", "BN", "BK"), *forward),
                "backward": _tiles(("BM", "BN", "BK", "BD"), *backward),
            },
            prepare=lambda device, width=width: _both_ways(8192, width, device)["ours"],
        )
