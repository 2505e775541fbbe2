"""All rates at once against torch's SGD one by one; the test split is not looked at for the choice."""

import math

import pytest
import torch
import torch.nn.functional as F

from encdec_train.probes.linear_sgd import LinearSgd, LinearSgdConfig
from encdec_train.probes.probe import shuffled
from tests.probes.frozen import clusters, frozen


def test_each_rate_is_torchs_sgd():
    x, y = (torch.from_numpy(z) for z in clusters(70))
    rates = [0.01, 0.3]
    found = LinearSgd(LinearSgdConfig(epochs=3, batch=32)).fit(x, y, rates, seed=5)
    for rate, weights in zip(rates, found, strict=True):
        layer = torch.nn.Linear(x.shape[1], 4)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5 * (1 + math.cos(math.pi * t / 9)))
        for rows, _ in shuffled(5, "linear_sgd", len(x), 32, 3):
            optimizer.zero_grad()
            F.cross_entropy(layer(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
        torch.testing.assert_close(weights, torch.cat([layer.weight.T, layer.bias[None]]).detach())


def test_every_epoch_is_a_permutation():
    drawn = [rows for rows, _ in shuffled(0, "x", 10, 4, 2)]
    first, second = torch.cat(drawn[:3]), torch.cat(drawn[3:])
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(10))
    assert not torch.equal(first, second)


def test_the_rate_is_chosen_without_the_test_split():
    train, (queries, answers) = clusters(300, distance=2), clusters(200, distance=2, seed=1)
    probe = LinearSgd(LinearSgdConfig(rates=[0.0, 0.1], epochs=20))
    right, wrong = (probe(frozen(train, (queries, y))) for y in (answers, (answers + 1) % 4))
    assert right.more == wrong.more and right.more["rate"] == 0.1
    assert right.value > 0.9 and wrong.value < 0.1
    assert right.more["held_out"][1] == pytest.approx(right.value, abs=0.1)
