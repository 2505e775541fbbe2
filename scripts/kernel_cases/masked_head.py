"""The chunked head: against all logits, and against those of the predicted rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.kernels.masked_head import masked_head
from kernel_cases.common import Bench, Check, Goal, Inputs


def _inputs(m: int, width: int, ids: int, dtype: torch.dtype, device: torch.device) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    shapes = (m, width), (ids, width), (ids,)
    made = [0.1 * torch.randn(*shape, generator=generator) for shape in shapes]
    targets = torch.randint(ids, (m,), generator=generator).to(device)
    return (*(x.to(device, dtype).requires_grad_() for x in made), targets)


def _ours(rows: Tensor, table: Tensor, bias: Tensor, ids: Tensor) -> Inputs:
    return (masked_head(rows, table, bias, ids, None),)


def _whole(rows: Tensor, table: Tensor, bias: Tensor, ids: Tensor) -> Inputs:
    scores = F.linear(rows, table, bias)
    return (F.cross_entropy(scores.to(torch.promote_types(scores.dtype, torch.float32)), ids, reduction="sum"),)


def checks() -> Iterator[Check]:
    for m, width, ids in ((17, 33, 1000), (5000, 768, 30522)):
        yield Check(
            name=f"m={m} width={width} ids={ids}", inputs=partial(_inputs, m, width, ids), kernel=_ours, twin=_whole
        )


def sides(tokens: int, share: float, width: int, ids: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """Forward and backward, of `tokens` of which a share is predicted; on a GPU in bfloat16."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rows, table, bias, targets = _inputs(tokens, width, ids, dtype, device)
    where = torch.linspace(0, tokens - 1, round(tokens * share), device=device).long()
    hidden = torch.full_like(targets, -100).scatter(0, where, targets[where])

    def full() -> Tensor:
        return F.cross_entropy(F.linear(rows, table, bias).float(), hidden, reduction="sum")

    def gathered() -> Tensor:
        return _whole(rows.index_select(0, where), table, bias, targets[where])[0]

    def ours() -> Tensor:
        return _ours(rows.index_select(0, where), table, bias, targets[where])[0]

    compiled: Callable[..., Any] = torch.compile if device.type == "cuda" else lambda call: call
    calls = {"ours": ours, "full logits": compiled(full), "logits of predicted rows": compiled(gathered)}
    return {name: partial(_trained, call, [rows, table, bias]) for name, call in calls.items()}


def _trained(call: Callable[[], Tensor], leaves: list[Tensor]) -> object:
    return torch.autograd.grad(call(), leaves)


def benches() -> Iterator[Bench]:
    for share in (0.15, 0.3):
        yield Bench(
            name=f"{share:.0%} of 32768 tokens of width 768, 50368 ids",
            prepare=partial(sides, 32768, share, 768, 50368),
            flops=6.0 * share * 32768 * 768 * 50368,
            goals=(
                Goal(against="full logits", times=2.5, memory=1 / 6),
                Goal(against="logits of predicted rows", times=0.95, memory=0.25),
            ),
        )


def tunings() -> Iterator[Any]:
    """No kernel, no tiles."""
    return iter(())
