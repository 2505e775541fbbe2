"""What a model of ids made of a batch, as text for people."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor

from encdec_train.types import Plan, Units


def written(tokenizer: Tokenizer, units: Units, plan: Plan, prediction: Tensor) -> str:
    """Three lines for each row: what was given, what was to be predicted, and the likeliest prediction of each.

    Args:
        tokenizer: turns ids into pieces.
        units: the clean view.
        plan: what was decided about it.
        prediction: (M,V) scores at the plan's `where`.
    """
    n, guesses = plan.sites.n, prediction.argmax(-1).cpu()
    where = torch.arange(len(guesses)) if plan.where is None else plan.where.cpu()
    weighed = torch.ones(len(where), dtype=torch.bool) if plan.weight is None else plan.weight.cpu() > 0
    truth = (plan.targets or units).values.flatten().cpu()[where]
    given, real = plan.inputs.values.cpu(), plan.sites.real().cpu()
    lines = []
    for row in range(len(given)):
        here = (where // n == row) & weighed
        lines += [
            f"given     {_line(tokenizer, given[row][real[row]])}",
            f"hidden    {_line(tokenizer, truth[here])}",
            f"predicted {_line(tokenizer, guesses[here])}",
            "",
        ]
    return "\n".join(lines)


def _line(tokenizer: Tokenizer, ids: Tensor) -> str:
    return " ".join(tokenizer.id_to_token(i) or f"<{i}>" for i in ids.tolist())
