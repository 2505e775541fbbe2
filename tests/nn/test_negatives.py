"""Who is drawn, and how often."""

import torch

from encdec_train.nn.negatives import draw_negatives
from encdec_train.rng import Rng


def test_negatives_are_uniform_over_the_others():
    rows = 5
    group, real = torch.zeros(rows, dtype=torch.long), torch.ones(rows, dtype=torch.bool)
    key = torch.arange(rows)
    found = draw_negatives(group, real, 20000, Rng(0), "t", key, key)
    for i in range(rows):
        share = found[i].bincount(minlength=rows) / 20000
        expected = torch.full((rows,), 0.25)
        expected[i] = 0.0
        torch.testing.assert_close(share, expected, atol=0.015, rtol=0)


def test_groups_may_come_in_any_order():
    group = torch.tensor([1, 0, 1, 0, 2, 1])
    real = torch.tensor([True, True, True, True, True, False])
    key = torch.arange(6)
    found = draw_negatives(group, real, 9, Rng(0), "t", key, key)
    assert found[:, 0].tolist() == [2, 3, 0, 1, 4, 5]
    assert (found == found[:, :1]).all()
