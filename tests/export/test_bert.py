"""BERT against transformers: the same weights, the same text, the same masks, padded and packed."""

from __future__ import annotations

import pytest
import torch

from encdec_train.corruptions.token_mask import TokenMask, TokenMaskConfig
from encdec_train.embedders.ids import Ids, IdsConfig, IdsPosition
from encdec_train.encoders.transformer import Transformer, TransformerConfig
from encdec_train.export.hf.bert import config_to_hf, from_hf, to_hf
from encdec_train.heads.tied import Tied, TiedConfig
from encdec_train.losses.cross_entropy import CrossEntropy, CrossEntropyConfig
from encdec_train.nn.norm import Norm
from encdec_train.objectives.predict import Predict, PredictConfig
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.targets.values import Values, ValuesConfig
from encdec_train.types import Mismatch, Path, Plan, Units
from tests.texts import WORDS, documents, packed, padded, unpack, view

transformers = pytest.importorskip("transformers")

WIDTH, LENGTH = 32, 40
MAIN = Path(view="text", corruption="main")
EMBEDDER = IdsConfig(width=WIDTH, position=IdsPosition.learned, positions=LENGTH, types=2, norm=Norm.layer)
ENCODER = TransformerConfig(
    width=WIDTH, depth=3, heads=4, hidden=48, eps=1e-12, norm_first=False, final_norm=False, init_std=0.3
)
HEAD = TiedConfig(transform=True, bias=True)
LENGTHS = [12, 33, 7, 20, 18, 3, 40]
ROWS = [[0, 3, 5], [1, 2], [6], [4]]


def parts() -> Parts:
    torch.manual_seed(0)
    text = view(LENGTH, LENGTH)
    embedder = Ids(EMBEDDER, text, mask=False)
    sites = EMBEDDER.spec(text)
    built = {
        "embedder": {"main": embedder},
        "encoder": {"main": Transformer(ENCODER, sites)},
        "corruption": {"main": TokenMask(TokenMaskConfig(ratio=0.3), sites)},
        "head": {"main": Tied(HEAD, ENCODER.spec(sites), text, embedder)},
        "target": {"main": Values(ValuesConfig(), sites)},
        "loss": {"main": CrossEntropy(CrossEntropyConfig(), text)},
        "objective": {"main": Predict(PredictConfig(decoder=None), "main", {"main": MAIN})},
    }
    found = Parts(built)
    for parameter in found.parameters():  # no zeros and ones, so that every weight matters
        torch.nn.init.normal_(parameter, std=0.3)
    return found.eval()


def theirs(ours: Parts) -> torch.nn.Module:
    config = config_to_hf(EMBEDDER, ENCODER, HEAD, WORDS, LENGTH)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**config)).eval()
    missing, unknown = model.load_state_dict(to_hf(ours.student.state_dict()), strict=False)
    assert not unknown
    assert all("position_ids" in name for name in missing)
    return model


def labels(plan: Plan, clean: Units) -> torch.Tensor:
    assert plan.mask is not None
    return clean.values.masked_fill(~plan.mask, -100)


def test_padded_states_and_loss_are_theirs() -> None:
    ours = parts()
    units = padded(documents(LENGTHS))
    step = Step({"text": units}, ours, Rng(0, 3))
    plan, real = step.plan(MAIN), units.sites.real()
    expected = theirs(ours)(
        input_ids=plan.inputs.values,
        attention_mask=real.long(),
        labels=labels(plan, units),
        output_hidden_states=True,
    )
    states = step.encode(MAIN).x
    torch.testing.assert_close(states[real], expected.hidden_states[-1][real], atol=1e-5, rtol=1e-5)
    term = ours.get("objective", "main")(step)["main"]
    assert term.count == plan.mask.sum()
    torch.testing.assert_close(term.mean, expected.loss, atol=1e-5, rtol=1e-5)


def test_packed_states_and_loss_are_theirs() -> None:
    ours = parts()
    docs = documents(LENGTHS)
    units = packed(docs, ROWS, LENGTH)
    step = Step({"text": units}, ours, Rng(0, 3))
    plan = step.plan(MAIN)
    alone = padded(docs)
    read = unpack(plan.inputs.values, units, ROWS)
    wanted = unpack(labels(plan, units), units, ROWS)
    ids, answers = torch.zeros_like(alone.values), torch.full_like(alone.values, -100)
    for key in read:
        ids[key, : len(read[key])], answers[key, : len(read[key])] = read[key], wanted[key]
    expected = theirs(ours)(
        input_ids=ids, attention_mask=alone.sites.real().long(), labels=answers, output_hidden_states=True
    )
    for key, states in unpack(step.encode(MAIN).x, units, ROWS).items():
        torch.testing.assert_close(states, expected.hidden_states[-1][key, : len(states)], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.get("objective", "main")(step)["main"].mean, expected.loss, atol=1e-5, rtol=1e-5)


def test_gradients_are_theirs() -> None:
    """The tied table gets its gradient from both of its uses."""
    ours = parts()
    units = padded(documents(LENGTHS))
    step = Step({"text": units}, ours, Rng(0, 3))
    plan, model = step.plan(MAIN), theirs(ours)
    model(
        input_ids=plan.inputs.values, attention_mask=units.sites.real().long(), labels=labels(plan, units)
    ).loss.backward()
    ours.get("objective", "main")(step)["main"].mean.backward()
    expected = from_hf({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, parameter in ours.student.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4)


def test_there_and_back() -> None:
    state = parts().student.state_dict()
    back = from_hf(to_hf(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_what_bert_cannot_say() -> None:
    with pytest.raises(Mismatch, match="norm_first=True"):
        config_to_hf(EMBEDDER, TransformerConfig(width=WIDTH, heads=4, eps=1e-12), HEAD, WORDS, LENGTH)
