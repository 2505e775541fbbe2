"""The sentence `tsdae`: what the decoder can know of the source, and how much of it is deleted."""

from __future__ import annotations

import torch

from encdec_train.build import check, make_parts, make_transform
from encdec_train.data.example import Example, collate
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Step
from encdec_train.types import Units, Vocabulary


def rows(words: Vocabulary, lengths: tuple[int, ...] = (20, 10, 40)) -> Units:
    examples = []
    for key, n in enumerate(lengths):
        body = torch.randint(words.specials, words.size, (n,), generator=torch.Generator().manual_seed(key))
        ids = torch.cat([torch.tensor([words.bos]), body, torch.tensor([words.eos])])
        fixed = (ids == words.bos) | (ids == words.eos)
        examples.append({"text": Example(values=ids, sample=key, fixed=fixed, max_len=48)})
    return collate(examples)["text"]


def test_the_decoder_reads_one_vector_and_the_past() -> None:
    config = compose(["+recipe=tsdae", "corruption.main.delete=0.6"])
    transform = make_transform(config)
    parts = make_parts(config, check(config, transform.specs())).eval()
    step = Step({"text": rows(transform.vocabulary)}, parts, Rng(0, 0))
    objective = step.part("objective", "main")
    memory = step.tokens(objective.memory)
    assert memory.x.shape == (3, 1, config.encoder["main"].width)
    assert memory.sites.n == 1 and memory.sites.valid is None
    assert torch.equal(memory.x[:, 0], step.encode(objective.memory).x[:, 0])
    assert step.plan(objective.memory).inputs.sites.real().sum(1).tolist() == [8 + 2, 4 + 2, 16 + 2]

    _, plan, _ = objective.predict(step)
    assert plan.targets is step.units("text")
    given = step.encode(objective.inputs)
    x = given.x.detach().clone().requires_grad_()
    decoder = step.part("decoder", "main")
    out = decoder(memory, type(given)(x=x, sites=given.sites), plan).x
    out[0, 5].sum().backward()
    assert x.grad[0, :6].abs().sum(-1).gt(0).all() and not x.grad[0, 6:].any() and not x.grad[1:].any()


def test_the_decoder_shares_the_table() -> None:
    config = compose(["+recipe=tsdae"])
    parts = make_parts(config, check(config, make_transform(config).specs()))
    assert parts.get("embedder", "reply").table is parts.get("embedder", "main").table
