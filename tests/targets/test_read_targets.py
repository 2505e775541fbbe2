"""Targets that read another path: a teacher's features, a quantiser's codes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from encdec_train.rng import Rng
from encdec_train.targets.codes import Codes, CodesConfig
from encdec_train.targets.features import Features, FeaturesConfig, Normal
from encdec_train.types import Layer, Mismatch, Path, Plan, Reading, Sites, Spec, Tokens

SPEC = Spec(kind="vectors", width=4, length=6, layers=(Layer(4),) * 3, codes=9)
READING = Reading(path=Path(teacher="ema"), spec=SPEC)
SITES = Sites(sample=torch.arange(2)[:, None].expand(2, 6), place=torch.arange(6).expand(2, 6))
WHERE = torch.tensor([1, 5, 8])
PLAN = Plan(inputs=None, sites=SITES, where=WHERE, weight=torch.ones(3))


def tokens(prefix=1):
    torch.manual_seed(3)
    layers = {i: torch.randn(2, prefix + 6, 4) for i in range(3)}
    return Tokens(
        x=torch.randn(2, prefix + 6, 4),
        sites=SITES,
        prefix=prefix,
        layers=layers,
        codes=torch.randint(0, 9, (2, 6, 2)),
    )


def step_with(found, head=None):
    return SimpleNamespace(
        read=lambda reading: found,
        project=lambda x, heads, teacher: head(x) if heads else x,
    )


def rows(x):
    return x[:, 1:].flatten(0, 1)[WHERE]


def test_the_output_at_the_predicted_rows():
    found = tokens()
    goal = Features(FeaturesConfig(), SPEC, READING)(step_with(found), Path(), PLAN)
    assert torch.equal(goal.values, rows(found.x)) and goal.weight is PLAN.weight


def test_heads_read_the_rows():
    head, found = nn.Linear(4, 3), tokens()
    goal = Features(FeaturesConfig(heads=["main"]), SPEC, READING)(step_with(found, head), Path(), PLAN)
    torch.testing.assert_close(goal.values, head(rows(found.x)))
    assert not goal.values.requires_grad


@pytest.mark.parametrize("normal", list(Normal))
def test_the_mean_of_the_last_layers(normal):
    found = tokens()
    config = FeaturesConfig(top=2, normal=normal)
    goal = Features(config, SPEC, READING)(step_with(found), Path(), PLAN)
    axis = {Normal.layer: 2, Normal.instance: 1}.get(normal)
    layers = []
    for i in (1, 2):
        x = found.layers[i][:, 1:].double()
        if axis is not None:
            x = (x - x.mean(axis, keepdim=True)) / (x.var(axis, unbiased=False, keepdim=True) + 1e-5).sqrt()
        layers.append(x)
    expected = ((layers[0] + layers[1]) / 2).flatten(0, 1)[WHERE]
    torch.testing.assert_close(goal.values.double(), expected, rtol=1e-5, atol=1e-5)
    assert config.emits(SPEC) == [-2, -1]


def test_with_a_gradient_what_is_read_learns():
    source = tokens()
    found = replace(source, x=source.x.requires_grad_())
    reading = replace(READING, path=Path(encoder=None))
    step = SimpleNamespace(tokens=lambda path: found, project=lambda x, heads, teacher: x)
    goal = Features(FeaturesConfig(gradient=True), SPEC, reading)(step, Path(), PLAN)
    assert torch.equal(goal.values, rows(found.x)) and goal.values.requires_grad


@pytest.mark.parametrize("across", [False, True])
def test_negatives_are_rows_of_other_sites(across):
    """Sites 1, 2 and 5 of the first row, 8 and 9 of the second; 2 and 8 twice; the last row is a filler at site 11."""
    where = torch.tensor([1, 2, 2, 5, 8, 8, 9, 11])
    weight = torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 0])
    plan = replace(PLAN, where=where, weight=weight)
    step = SimpleNamespace(read=lambda reading: tokens(), project=lambda x, heads, teacher: x, rng=Rng(0))
    config = FeaturesConfig(negatives=200, across=across)
    goal = Features(config, SPEC, READING)(step, Path(), plan)
    assert config.spec(SPEC, READING).negatives == 200
    drawn = [set(where[chosen].tolist()) for chosen in goal.negatives]
    first, second = {1, 2, 5}, {8, 9}
    for site, found in zip(where[:-1].tolist(), drawn[:-1], strict=True):
        assert found == ((first | second) if across else first if site < 6 else second) - {site}
    assert drawn[-1] == {11}  # its own: none


def test_codes_at_the_predicted_rows():
    found = tokens()
    goal = Codes(CodesConfig(book=1), SPEC, READING)(step_with(found), Path(), PLAN)
    assert torch.equal(goal.values, found.codes[..., 1].flatten()[WHERE])
    assert CodesConfig().spec(SPEC, READING).width == 9


@pytest.mark.parametrize(
    "config,changes,said",
    [
        (FeaturesConfig(), {"rows": "kept"}, "gives kept sites, all are needed"),
        (FeaturesConfig(top=2, heads=["main"]), {}, "heads read the output"),
        (FeaturesConfig(gradient=True), {}, "a teacher's, which learns nothing"),
        (FeaturesConfig(negatives=-1), {}, "negatives: -1 is below 0"),
        (CodesConfig(), {"codes": 0}, "ends in no quantiser"),
        (CodesConfig(), {"length": 3}, "gives 3 codes a row, the view has 6"),
    ],
)
def test_what_does_not_fit_is_named(config, changes, said):
    with pytest.raises(Mismatch, match=said):
        config.spec(SPEC, replace(READING, spec=replace(SPEC, **changes)))
