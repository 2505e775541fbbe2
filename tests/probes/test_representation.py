"""Effective rank, uniformity, alignment and CKA against closed forms and other definitions."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from encdec_train.probes.alignment import Alignment, AlignmentConfig
from encdec_train.probes.cka import Cka, CkaConfig, linear_cka
from encdec_train.probes.per_layer import PerLayer, PerLayerConfig
from encdec_train.probes.rank_me import RankMe, RankMeConfig, effective_rank
from encdec_train.probes.uniformity import uniformity
from encdec_train.types import Mismatch
from tests.probes.frozen import clusters, frozen


def noise(rows, width, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def test_effective_rank():
    assert effective_rank(np.eye(6, dtype=np.float32)) == pytest.approx(6, rel=1e-4)
    assert effective_rank(np.outer(np.arange(1.0, 9), np.ones(5))) == pytest.approx(1, abs=1e-4)
    p = np.array([3, 1, 1]) / 5
    assert effective_rank(np.diag([3.0, 1, 1])) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-5)
    found = RankMe(RankMeConfig())(frozen((noise(500, 8), np.zeros(500)), None))
    assert 7.9 < found.value <= 8.001 and found.more == {"width": 8, "rows": 500}


def test_uniformity_is_that_of_all_pairs():
    x = torch.from_numpy(noise(1500, 3))
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    expected = torch.pdist(unit).square().mul(-2).exp().mean().log()
    assert uniformity(x, 2.0) == pytest.approx(float(expected), rel=1e-9)
    assert uniformity(torch.ones(10, 3), 2.0) == pytest.approx(0, abs=1e-9)


def test_alignment_is_over_partners():
    left = [torch.tensor([[2.0, 0.0], [0.0, 1.0]])]
    right = [torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, -5.0]])]
    part = SimpleNamespace(sides=lambda step: (left, right), partners=lambda step: [(0, 0), (0, 1)])
    eyes = SimpleNamespace(
        config=SimpleNamespace(objective={"main": None}),
        parts=SimpleNamespace(get=lambda noun, name: part),
        steps=lambda split, draw: [(None, {})],
    )
    assert Alignment(AlignmentConfig())(eyes) == pytest.approx((0 + 2 + 4 + 4) / 4)
    with pytest.raises(Mismatch, match="no objective 'other'"):
        Alignment(AlignmentConfig(objective="other"))(eyes)


def test_cka_is_that_of_gram_matrices():
    x, y = noise(40, 6), noise(40, 9, 1)
    y[:, :6] += x
    centre = np.eye(40) - 1 / 40
    one, other = (centre @ (z @ z.T) @ centre for z in (x.astype(float), y.astype(float)))
    expected = (one * other).sum() / np.sqrt((one * one).sum() * (other * other).sum())
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-9)
    turned = np.linalg.qr(noise(6, 6, 2))[0]
    assert linear_cka(x, 3 * x @ turned + 5) == pytest.approx(1, rel=1e-6)
    assert linear_cka(x, np.ones_like(x)) == 0


def test_cka_of_layers():
    layers, before = [noise(30, 4), noise(30, 4, 1)], [noise(30, 4), noise(30, 4, 2)]
    eyes = SimpleNamespace(layers=lambda split: layers, untrained=lambda: SimpleNamespace(layers=lambda split: before))
    found = Cka(CkaConfig())(eyes)
    assert found.more["layers"] == [pytest.approx(1), linear_cka(layers[1], before[1])]
    assert found.value == pytest.approx(np.mean(found.more["layers"]))
    assert found.more["between"][0][1] == found.more["between"][1][0] == linear_cka(*layers)


def test_the_layer_is_chosen_on_training_rows():
    (x, y), (queries, answers) = clusters(300, distance=2), clusters(100, distance=2, seed=1)
    layers = {"train": [noise(300, 8), x, noise(300, 8, 1)], "test": [queries, queries, noise(100, 8)]}
    found = PerLayer(PerLayerConfig())(frozen((x, y), (queries, answers), layers=lambda split: layers[split]))
    assert found.more["layer"] == 1 and found.value == found.more["layers"][1] > 0.9
    assert found.more["layers"][2] < 0.5
