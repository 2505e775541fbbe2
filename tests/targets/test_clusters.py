"""Cluster targets: the nearest centre by brute force, fitted the same for the same seed."""

from types import SimpleNamespace

import pytest
import torch

from encdec_train.rng import Rng
from encdec_train.targets.clusters import Clusters, ClustersConfig
from encdec_train.types import Layer, Mismatch, Path, Plan, Reading, Sites, Spec, Tokens

SPEC = Spec(kind="vectors", width=3, length=50, layers=(Layer(3),) * 2)
READING = Reading(path=Path(), spec=SPEC)


def tokens(seed=0, valid=None):
    torch.manual_seed(seed)
    middle = torch.tensor([[4.0, 0, 0], [0, 4, 0], [0, 0, 4]])[torch.arange(100) % 3].view(2, 50, 3)
    x = middle + 0.1 * torch.randn(2, 50, 3)
    sites = Sites(sample=torch.zeros(2, 50).long(), place=torch.arange(50).expand(2, 50), valid=valid)
    return Tokens(x=x, sites=sites, layers={0: x + 1, 1: x + 2})


def step_with(found):
    return SimpleNamespace(read=lambda _: found, rng=Rng(5, 0))


def test_centres_are_found_and_told_apart():
    part = Clusters(ClustersConfig(clusters=3), SPEC, READING)
    found = tokens()
    part.fit(iter([step_with(found)]))
    where = torch.tensor([0, 3, 1, 2, 99])
    goal = part(step_with(found), Path(), Plan(inputs=None, sites=found.sites, where=where))
    distance = torch.cdist(found.x.flatten(0, 1), part.centres)[where]
    assert torch.equal(goal.values, distance.argmin(1))
    a, b, c, d, e = goal.values.tolist()
    assert a == b == e and len({a, c, d}) == 3
    assert distance.min(1).values.max() < 0.5


def test_the_same_seed_gives_the_same_centres():
    one, two = (Clusters(ClustersConfig(clusters=3), SPEC, READING) for _ in range(2))
    for part in (one, two):
        part.fit(iter([step_with(tokens()), step_with(tokens(1))]))
    assert torch.equal(one.centres, two.centres)


def test_a_hidden_state_is_clustered():
    part = Clusters(ClustersConfig(clusters=3, layer=-1), SPEC, READING)
    assert part.config.emits(SPEC) == [-1]
    assert torch.equal(part.vectors(step_with(tokens())), tokens().layers[1].flatten(0, 1))


def test_padding_is_not_fitted():
    valid = torch.zeros(2, 50, dtype=torch.bool)
    valid[:, :1] = True
    part = Clusters(ClustersConfig(clusters=3), SPEC, READING)
    with pytest.raises(ValueError, match="2 sites cannot be put into 3 clusters"):
        part.fit(iter([step_with(tokens(valid=valid))]))


def test_what_does_not_fit_is_named():
    with pytest.raises(Mismatch, match="gives 50 sites a row, the view has 49"):
        ClustersConfig().spec(Spec(kind="vectors", width=3, length=49), READING)
    with pytest.raises(Mismatch, match="clusters: 1 is below 2"):
        ClustersConfig(clusters=1).spec(SPEC, READING)
