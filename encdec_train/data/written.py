"""What a model of ids is given and made of a batch, as text for people."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor

from encdec_train.types import Plan, Units


def written(tokenizer: Tokenizer, units: Units, plan: Plan, prediction: Tensor | None = None) -> str:
    """Lines for each row: what was given, what was to be predicted, and the likeliest prediction of each.

    Args:
        tokenizer: turns ids into pieces.
        units: the clean view.
        plan: what was decided about it; where nothing is to be predicted, there is only the first line.
        prediction: (M,V) scores at the plan's `where`; none: nothing was predicted yet.
    """
    given, real = plan.inputs.values.cpu(), plan.sites.real().cpu()
    guesses = None if prediction is None else prediction.argmax(-1).cpu()
    asks = guesses is not None or any(said is not None for said in (plan.where, plan.mask, plan.targets, plan.weight))
    where = torch.arange(plan.sites.sample.numel() if asks else 0) if plan.where is None else plan.where.cpu()
    truth = (plan.targets or units).values.flatten().cpu()[where]
    weighed = torch.ones(len(where), dtype=torch.bool) if plan.weight is None else plan.weight.cpu() > 0
    lines = []
    for row in range(len(given)):
        here = (where // plan.sites.n == row) & weighed
        lines.append(f"given     {_line(tokenizer, given[row][real[row]])}")
        if len(where):
            lines.append(f"hidden    {_line(tokenizer, truth[here])}")
        if guesses is not None:
            lines.append(f"predicted {_line(tokenizer, guesses[here])}")
        lines.append("")
    return "\n".join(lines)


def _line(tokenizer: Tokenizer, ids: Tensor) -> str:
    return " ".join(tokenizer.id_to_token(i) or f"<{i}>" for i in ids.tolist())
