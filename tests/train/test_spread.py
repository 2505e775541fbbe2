"""Entropies of a teacher's distributions, against closed forms and scipy."""

import math

import pytest
import torch
from scipy.stats import entropy as reference
from torch import nn

from encdec_train.train.spread import entropy, watched


@pytest.mark.parametrize(
    ("chances", "mean", "rows"),
    [
        (torch.eye(8), 1.0, 0.0),  # each row has its own
        (torch.eye(8)[:4], math.log(4) / math.log(8), 0.0),
        (torch.eye(8)[[3, 3, 3]], 0.0, 0.0),  # one for all
        (torch.full((5, 8), 1 / 8), 1.0, 1.0),  # none for all
    ],
)
def test_what_rows_tell(chances, mean, rows):
    found = entropy(chances)
    assert found[0].item() == pytest.approx(mean, abs=1e-6) and found[1].item() == pytest.approx(rows, abs=1e-6)


def test_fillers_count_for_nothing():
    chances = torch.randn(7, 5).softmax(-1)
    weight = torch.tensor([1.0, 0.5, 0, 2, 0, 1, 0])
    real = chances[weight > 0].numpy()
    mean, rows = entropy(chances, weight)
    assert mean.item() == pytest.approx(reference(real.mean(0), base=5), abs=1e-6)
    assert rows.item() == pytest.approx(reference(real, base=5, axis=1).mean(), abs=1e-6)


def test_only_what_assigns_is_watched():
    class Assigns(nn.Module):
        assigns = True

        def forward(self, scores, weight=None):
            return scores.softmax(-1)

    parts = nn.ModuleDict(
        {"student": nn.ModuleDict({"loss": nn.ModuleDict({"main": Assigns(), "other": nn.Softmax(-1)})})}
    )
    loss = parts["student"]["loss"]
    with watched(parts) as found:
        loss["main"](torch.eye(3)), loss["other"](torch.eye(3))
    assert list(found) == ["loss.main"] and found["loss.main"] == entropy(torch.eye(3).softmax(-1))
    with watched(parts) as later:
        pass
    loss["main"](torch.eye(3))
    assert later == {}
