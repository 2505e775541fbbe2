"""The quantiser and its negatives against their definitions."""

import math

import pytest
import torch

from encdec_train.kernels.masking import negatives
from encdec_train.rng import Rng
from encdec_train.step import Parts, Step
from encdec_train.targets.quantized import Diversity, Quantized, QuantizedConfig
from encdec_train.types import Mismatch, Path, Plan, Sites, Spec, Units

PATH = Path(corruption="main")
N, F = 30, 6
SPEC = Spec(kind="vectors", width=8, length=N, features=F)


class Whole(torch.nn.Module):
    """An embedder whose content is the values themselves."""

    def sites(self, units):
        return units.sites

    def features(self, units, sites, keep):
        return units.values


def make(config, hidden, *, first=0, step=0, train=True, features=None):
    """The goal of rows with `hidden` (B,C) frames (-1 = filler), and the step."""
    rows = len(hidden)
    torch.manual_seed(0)
    part = Quantized(config, SPEC).train(train)
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(8, N, F, generator=generator)[first : first + rows] if features is None else features
    place = torch.arange(N).expand(rows, -1)
    sites = Sites(sample=(first + torch.arange(rows))[:, None].expand(-1, N), place=place)
    units = Units(values=values, sites=sites)
    hidden = torch.tensor(hidden)
    where = (hidden.clamp_min(0) + torch.arange(rows)[:, None] * N).flatten()
    plan = Plan(inputs=units, sites=sites, where=where, weight=(hidden >= 0).flatten().float())
    parts = Parts({"embedder": {"main": Whole()}, "target": {"main": part}})
    run = Step({"main": units}, parts, Rng(0, step))
    run.plan = lambda path: plan
    return part(run, PATH, plan), run, part


HIDDEN = [[1, 2, 3, 7, 8, 9, -1, -1], [0, 5, 6, -1, -1, -1, -1, -1], [4, 11, 12, 13, 20, 21, 22, 29]]


def test_negatives_are_others_of_the_same_utterance():
    config = QuantizedConfig(groups=2, entries=50, code_width=8, width=4, negatives=40, dropout=0.0)
    goal, _, _ = make(config, HIDDEN)
    real = torch.tensor(HIDDEN).flatten() >= 0
    own = torch.arange(24)[:, None]
    assert goal.negatives.shape == (24, 40)
    drawn = goal.negatives[real]
    kept = drawn != own[real]
    assert torch.equal(drawn // 8, (own[real] // 8).expand_as(drawn))  # eight rows to an utterance
    assert real[drawn][kept].all()
    assert torch.equal(goal.negatives[~real], own[~real].expand(-1, 40))


def test_negatives_are_uniform_over_the_others():
    rows = 5
    utterance, real = torch.zeros(rows, dtype=torch.long), torch.ones(rows, dtype=torch.bool)
    key = torch.arange(rows)
    found = negatives(utterance, real, 20000, Rng(0), "t", key, key)
    for i in range(rows):
        share = found[i].bincount(minlength=rows) / 20000
        expected = torch.full((rows,), 0.25)
        expected[i] = 0.0
        torch.testing.assert_close(share, expected, atol=0.015, rtol=0)


def test_utterances_may_come_in_any_order():
    utterance = torch.tensor([1, 0, 1, 0, 2, 1])
    real = torch.tensor([True, True, True, True, True, False])
    key = torch.arange(6)
    found = negatives(utterance, real, 9, Rng(0), "t", key, key)
    assert found[:, 0].tolist() == [2, 3, 0, 1, 4, 5]
    assert (found == found[:, :1]).all()


def test_equal_codes_are_no_negatives():
    """All frames alike: every code is the same, so nothing is left to be told apart."""
    config = QuantizedConfig(groups=2, entries=5, code_width=8, width=4, negatives=6, dropout=0.0)
    goal, _, _ = make(config, [[1, 2, 3]], train=False, features=torch.ones(1, N, F))
    assert torch.equal(goal.negatives, torch.arange(3)[:, None].expand(-1, 6))


@pytest.mark.parametrize("train", [True, False])
def test_a_row_alone_gets_what_it_gets_in_a_batch(train):
    config = QuantizedConfig(groups=2, entries=9, code_width=8, width=4, negatives=6, dropout=0.0)
    together, _, _ = make(config, HIDDEN, step=3, train=train)
    for i in range(3):
        alone, _, _ = make(config, HIDDEN[i : i + 1], first=i, step=3, train=train)
        real = torch.tensor(HIDDEN[i]) >= 0
        torch.testing.assert_close(alone.values, together.values[8 * i : 8 * i + 8])
        assert torch.equal(alone.negatives[real] + 8 * i, together.negatives[8 * i : 8 * i + 8][real])


def test_a_code_is_one_entry_of_each_group():
    config = QuantizedConfig(groups=2, entries=5, code_width=8, width=4, dropout=0.0)
    for train in (True, False):
        _, run, part = make(config, HIDDEN, train=train)
        key = torch.arange(24)
        choice = part.choose(torch.randn(24, 2, 5), run.rng, "t", key, key)
        assert torch.equal(choice.sum(-1), torch.ones(24, 2)) and torch.equal(choice.amax(-1), torch.ones(24, 2))


def test_training_draws_entries_by_their_chance():
    """Gumbel's trick: the hard choice follows softmax(logits) at any temperature (equation 1)."""
    part = Quantized(QuantizedConfig(groups=1, entries=3, code_width=8), SPEC).train()
    logits = torch.tensor([0.0, 1.0, -1.0])
    key = torch.arange(40000)
    choice = part.choose(logits.expand(40000, 1, 3), Rng(0), "t", key, key)
    torch.testing.assert_close(choice.mean((0, 1)), logits.softmax(0), atol=0.01, rtol=0)


def test_gradients_pass_straight_through():
    part = Quantized(QuantizedConfig(groups=1, entries=3, code_width=8), SPEC).train()
    logits, key = torch.randn(4, 1, 3, requires_grad=True), torch.arange(4)
    weights = torch.randn(4, 1, 3)
    (part.choose(logits, Rng(0), "t", key, key) * weights).sum().backward()
    again = logits.detach().clone().requires_grad_()
    noise = Rng(0).gumbel("t.gumbel", key[:, None, None], key[:, None, None], torch.zeros(1, 1).long(), torch.arange(3))
    (((again + noise) / 2.0).softmax(-1) * weights).sum().backward()
    torch.testing.assert_close(logits.grad, again.grad)


def test_temperature_falls_to_its_floor():
    part = Quantized(QuantizedConfig(), SPEC)
    assert part.temperature(Rng(0, 0)) == 2.0
    assert part.temperature(Rng(0, 100_000)) == pytest.approx(2.0 * math.exp(-0.5), rel=1e-4)
    assert part.temperature(Rng(0, 400_000)) == 0.5
    assert part.temperature(Rng(0, torch.tensor(100_000))).item() == pytest.approx(2.0 * math.exp(-0.5), rel=1e-3)


def test_diversity_by_equation_4_and_by_perplexity():
    hidden = [[1, 2, 3, 7, -1, -1]]
    for kind in Diversity:
        config = QuantizedConfig(groups=2, entries=5, code_width=8, width=4, diversity=kind, dropout=0.0)
        _, run, part = make(config, hidden)
        chance = part.logits(run.batch["main"].values[0, hidden[0][:4]]).unflatten(-1, (2, 5)).softmax(-1).mean(0)
        entropy = -(chance * chance.log()).sum(-1)
        expected = -entropy.sum() / 10 if kind is Diversity.entropy else (10 - entropy.exp().sum()) / 10
        term = run.aux["quantized.diversity"]
        torch.testing.assert_close(term.mean, expected)
        assert term.weight == 0.1 and term.count == 4


def test_one_hidden_frame_or_none_gives_finite_gradients():
    config = QuantizedConfig(groups=2, entries=5, code_width=8, width=4, dropout=0.0)
    for hidden in ([[3, -1]], [[-1, -1]]):
        goal, run, part = make(config, hidden)
        assert torch.equal(goal.negatives, torch.arange(2)[:, None].expand(-1, 100))
        term = run.aux["quantized.diversity"]
        (goal.values.sum() + term.mean).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in part.parameters())


@pytest.mark.parametrize(
    "config, text",
    [
        ({"groups": 3}, "code_width 256"),
        ({"entries": 0}, "entries"),
        ({"temperature_min": 3.0}, "temperature_min"),
        ({"temperature_decay": 1.1}, "temperature_decay"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_out_of_range(config, text):
    with pytest.raises(Mismatch, match=text):
        QuantizedConfig(**config).spec(SPEC)
