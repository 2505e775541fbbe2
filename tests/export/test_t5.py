"""T5 against transformers: the same weights, the same text, the same spans."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from encdec_train.corruptions.span_corruption import SpanCorruption, SpanCorruptionConfig
from encdec_train.data.example import Example, collate
from encdec_train.decoders.seq2seq import Seq2Seq, Seq2SeqConfig
from encdec_train.embedders.ids import Ids, IdsConfig
from encdec_train.encoders.transformer import Transformer, TransformerConfig
from encdec_train.export.hf.t5 import config_to_hf, from_hf, to_hf
from encdec_train.heads.tied import Tied, TiedConfig
from encdec_train.losses.cross_entropy import CrossEntropy, CrossEntropyConfig
from encdec_train.nn.mlp import Activation
from encdec_train.nn.norm import Norm
from encdec_train.objectives.predict import Predict, PredictConfig
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.targets.values import Values, ValuesConfig
from encdec_train.types import Mismatch, Path, Spec, Units, Vocabulary

transformers = pytest.importorskip("transformers")

WORDS = Vocabulary(size=300, pad=0, eos=3, sentinel=104, sentinels=100, specials=105)
VIEW = Spec(kind="ids", width=WORDS.size, vocabulary=WORDS)
WIDTH = 32
STACK = {
    "width": WIDTH,
    "depth": 2,
    "heads": 4,
    "head_width": 6,
    "hidden": 40,
    "norm": Norm.rms,
    "activation": Activation.relu,
    "bias": False,
    "scale": False,
    "relative": True,
    "buckets": 8,
    "max_distance": 20,
}
MAIN = Path(view="text", corruption="main")
REPLY = replace(MAIN, reply=True, encoder=None)
LENGTHS = [[40, 12, 30], [64, 25], [90], [17, 17, 17]]


def stacks(**changes) -> tuple[TransformerConfig, Seq2SeqConfig]:
    words = {**STACK, **changes}
    return TransformerConfig(**words), Seq2SeqConfig(**{**words, "depth": 3})


def parts(**changes) -> Parts:
    encoder, decoder = stacks(**changes)
    vectors = Spec(kind="vectors", width=WIDTH, raw=VIEW)
    embedder = Ids(IdsConfig(width=WIDTH, init_std=1.0), VIEW, mask=False)
    predict = PredictConfig(inputs="reply", decoder="main")
    return Parts(
        {
            "embedder": {"main": embedder},
            "corruption": {"main": SpanCorruption(SpanCorruptionConfig(), vectors)},
            "encoder": {"main": Transformer(encoder, vectors)},
            "decoder": {"main": Seq2Seq(decoder, vectors, vectors, vectors)},
            "head": {"main": Tied(TiedConfig(scale=True), vectors, VIEW, embedder)},
            "target": {"main": Values(ValuesConfig(), vectors)},
            "loss": {"main": CrossEntropy(CrossEntropyConfig(), VIEW)},
            "objective": {"main": Predict(predict, "main", {"main": MAIN, "reply": REPLY})},
        }
    ).eval()


def reference(**changes):
    encoder, decoder = stacks(**changes)
    torch.manual_seed(1)
    config = transformers.T5Config(**config_to_hf(encoder, decoder, WORDS))
    model = transformers.T5ForConditionalGeneration(config).eval()
    for parameter in model.parameters():  # norms too
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def document(key: int, length: int) -> Tensor:
    return WORDS.specials + (torch.arange(length) * (key + 3) * 7) % (WORDS.size - WORDS.specials)


def padded() -> Units:
    lengths = [n for row in LENGTHS for n in row]
    return collate([{"text": Example(values=document(i, n), sample=i)} for i, n in enumerate(lengths)])["text"]


def packed(n: int = 100) -> Units:
    """The same documents, several in a row."""
    rows, key = [], 0
    for lengths in LENGTHS:
        keys = range(key, key + len(lengths))
        key += len(lengths)
        fill = n - sum(lengths)
        blank = torch.zeros(fill, dtype=torch.int64)
        row = Example(
            values=torch.cat([*map(document, keys, lengths), blank]),
            sample=torch.cat([*map(_full, lengths, keys), blank]),
            place=torch.cat([*map(torch.arange, lengths), blank]),
            doc=torch.cat([*map(_full, lengths, range(len(lengths))), blank - 1]),
            segments=[*lengths, fill],
            max_len=90,
        )
        rows.append({"text": row})
    return collate(rows)["text"]


def _full(length: int, value: int) -> Tensor:
    return torch.full((length,), value, dtype=torch.int64)


def run(model: Parts, units: Units) -> tuple[Tensor, Tensor, Tensor, Step]:
    """(T,D) encoder outputs and (M,V) scores of what is real, the loss, and the step."""
    step = Step({"text": units}, model, Rng(0, 5))
    objective = step.part("objective", "main")
    scores, plan, _ = objective.predict(step)
    memory = step.encode(MAIN)
    real = memory.sites.real()
    weight = plan.weight.bool() if plan.weight is not None else slice(None)
    return memory.body[real], scores[weight], objective(step)["main"].mean, step


@pytest.fixture(scope="module", params=[False, True], ids=["relu", "gated"])
def models(request: pytest.FixtureRequest):
    changes = {"gated": True, "activation": Activation.gelu_tanh} if request.param else {}
    theirs, ours = reference(**changes), parts(**changes)
    ours.student.load_state_dict(from_hf(theirs.state_dict()))
    return theirs, ours


@torch.no_grad()
def test_equals_transformers(models) -> None:
    theirs, ours = models
    memory, scores, loss, step = run(ours, padded())
    source, target = step.plan(MAIN).inputs, step.plan(REPLY).targets
    real = target.sites.real()
    out = theirs(
        input_ids=source.values,
        attention_mask=source.sites.real().long(),
        labels=target.values.masked_fill(~real, -100),
    )
    torch.testing.assert_close(memory, out.encoder_last_hidden_state[source.sites.real()], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores, out.logits[real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, out.loss, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("bounds", [True, False], ids=["segments", "dense"])
def test_packed_equals_padded(models, bounds: bool) -> None:
    """Documents in one row give what each gives alone, so packed rows equal transformers too."""
    _, ours = models
    units = packed()
    if not bounds:
        units = replace(units, sites=replace(units.sites, cu_seqlens=None))
    for mine, other in zip(run(ours, units)[:3], run(ours, padded())[:3], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_there_and_back(models) -> None:
    theirs, ours = models
    state = ours.student.state_dict()
    back = to_hf(state)
    assert back.keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(back[name], value), name
    for name, value in from_hf(back).items():
        assert torch.equal(state[name], value), name
    theirs.load_state_dict(back)


def test_gradients_reach_every_weight() -> None:
    model = parts().train()
    run(model, packed())[2].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"bias": True}, "bias=True"),
        ({"norm": Norm.layer}, "norm"),
        ({"activation": Activation.gelu}, "gelu"),
    ],
)
def test_what_t5_cannot_say_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(Mismatch, match=words):
        config_to_hf(*stacks(**changes), WORDS)
