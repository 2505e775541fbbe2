"""A masked language model of small parts, for comparisons with those of other libraries."""

from __future__ import annotations

import torch

from encdec_train.corruptions.token_mask import TokenMask, TokenMaskConfig
from encdec_train.embedders.ids import Ids, IdsConfig
from encdec_train.encoders.transformer import Transformer, TransformerConfig
from encdec_train.heads.tied import Tied, TiedConfig
from encdec_train.losses.cross_entropy import CrossEntropy, CrossEntropyConfig
from encdec_train.objectives.predict import Predict, PredictConfig
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.targets.values import Values, ValuesConfig
from encdec_train.types import Path, Plan, Units
from tests.texts import documents, packed, padded, unpack, view

MAIN = Path(view="text", corruption="main")
LENGTH = 40
LENGTHS = [12, 33, 7, 20, 18, 3, 40]
ROWS = [[0, 3, 5], [1, 2], [6], [4]]


def make(embedder: IdsConfig, encoder: TransformerConfig, head: TiedConfig) -> Parts:
    """Random weights everywhere: no zeros and ones, so that every weight matters."""
    torch.manual_seed(0)
    text = view(LENGTH, LENGTH)
    table, sites = Ids(embedder, text, mask=False), embedder.spec(text)
    found = Parts(
        {
            "embedder": {"main": table},
            "encoder": {"main": Transformer(encoder, sites)},
            "corruption": {"main": TokenMask(TokenMaskConfig(ratio=0.3), sites)},
            "head": {"main": Tied(head, encoder.spec(sites), text, table)},
            "target": {"main": Values(ValuesConfig(), sites)},
            "loss": {"main": CrossEntropy(CrossEntropyConfig(), text)},
            "objective": {"main": Predict(PredictConfig(decoder=None), "main", {"main": MAIN})},
        }
    )
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return found.eval()


def labels(plan: Plan, clean: Units) -> torch.Tensor:
    assert plan.mask is not None
    return clean.values.masked_fill(~plan.mask, -100)


def compare(ours: Parts, theirs: torch.nn.Module, *, in_rows: bool) -> None:
    """The same states and the same loss, with documents padded here as there, or packed here."""
    docs = documents(LENGTHS)
    alone = padded(docs)
    units = packed(docs, ROWS, LENGTH) if in_rows else alone
    step = Step({"text": units}, ours, Rng(0, 3))
    plan = step.plan(MAIN)
    ids, answers = plan.inputs.values, labels(plan, units)
    if in_rows:
        ids, answers = (_padded(unpack(values, units, ROWS), fill) for values, fill in ((ids, 0), (answers, -100)))
    real = alone.sites.real()
    expected = theirs(input_ids=ids, attention_mask=real.long(), labels=answers, output_hidden_states=True)
    last = expected.hidden_states[-1]
    states = step.encode(MAIN).x
    found = unpack(states, units, ROWS) if in_rows else {i: row[real[i]] for i, row in enumerate(states)}
    for i, rows in found.items():
        torch.testing.assert_close(rows, last[i, : len(rows)], atol=1e-5, rtol=1e-5)
    term = ours.get("objective", "main")(step)["main"]
    torch.testing.assert_close(term.mean, expected.loss, atol=1e-5, rtol=1e-5)


def _padded(rows: dict[int, torch.Tensor], fill: int) -> torch.Tensor:
    out = torch.full((len(rows), max(map(len, rows.values()))), fill)
    for i, row in rows.items():
        out[i, : len(row)] = row
    return out


def gradients(ours: Parts, theirs: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Takes ours on its parameters, and gives theirs by name."""
    units = padded(documents(LENGTHS))
    step = Step({"text": units}, ours, Rng(0, 3))
    plan = step.plan(MAIN)
    real = units.sites.real().long()
    theirs(input_ids=plan.inputs.values, attention_mask=real, labels=labels(plan, units)).loss.backward()
    ours.get("objective", "main")(step)["main"].mean.backward()
    return {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
