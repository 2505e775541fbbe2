"""The sentence `simcse`: twins that differ by their dropout alone, and what each stage trains."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from encdec_train.build import check, dry_run, make_parts, make_transform
from encdec_train.data.example import Example, collate
from encdec_train.launch import compose
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.train.module import PretrainModule
from encdec_train.types import Units, Vocabulary


def rows(words: Vocabulary) -> Units:
    examples = []
    for key, n in enumerate((9, 4, 12, 7)):
        body = torch.randint(words.specials, words.size, (n,), generator=torch.Generator().manual_seed(key))
        ids = torch.cat([torch.tensor([words.bos]), body, torch.tensor([words.eos])])
        fixed = (ids == words.bos) | (ids == words.eos)
        examples.append({"text": Example(values=ids, sample=key, fixed=fixed, max_len=24)})
    return collate(examples)["text"]


def sentence() -> tuple[Units, Parts, PretrainModule]:
    config = compose(["+recipe=simcse"])
    transform = make_transform(config)
    wiring = check(config, transform.specs())
    parts, stage = make_parts(config, wiring), config.stage["contrast"]
    module = PretrainModule(
        config,
        wiring,
        parts,
        transform,
        dry=dry_run(config, wiring),
        stage=stage,
        optim=config.optim,
        index=1,
        steps=stage.steps,
    )
    return rows(transform.vocabulary), parts, module


def drawn(module: PretrainModule, number: int, units: Units) -> list[torch.Tensor]:
    """Both sides of a step, dropout as in training."""
    module.seed(number)
    return vectors(module.make_step(number, {"text": units}))


def vectors(step: Step) -> list[torch.Tensor]:
    left, right = step.part("objective", "main").sides(step)
    return [left[0], right[0]]


def test_twins_differ_by_dropout_alone_and_come_again() -> None:
    units, parts, module = sentence()
    parts.train()
    one, two = drawn(module, 3, units)
    assert not torch.allclose(one, two, atol=1e-3)
    again = drawn(module, 3, units)
    assert torch.equal(one, again[0]) and torch.equal(two, again[1])
    assert not torch.equal(one, drawn(module, 4, units)[0])
    parts.eval()
    one, two = drawn(module, 3, units)
    assert torch.equal(one, two)


def test_the_loss_is_equation_1() -> None:
    units, parts, _ = sentence()
    step = Step({"text": units}, parts.train(), Rng(0, 0))
    one, two = (F.normalize(side, dim=1) for side in vectors(step))
    expected = F.cross_entropy(one @ two.T / 0.05, torch.arange(4))
    torch.testing.assert_close(step.part("objective", "main")(step)["main"].mean, expected)


def test_a_vector_is_the_hyperbolic_tangent_of_a_linear_layer_on_cls() -> None:
    units, parts, _ = sentence()
    step = Step({"text": units}, parts.eval(), Rng(0, 0))
    objective, head = step.part("objective", "main"), parts.get("head", "main")
    cls = step.encode(objective.left[0]).x[:, 0]
    torch.testing.assert_close(vectors(step)[0], torch.tanh(head.linears[0](cls)))
