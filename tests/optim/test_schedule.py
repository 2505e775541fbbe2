"""What changes with the step: weight decay from one value to another, and what decays."""

import math

import pytest
import torch

from encdec_train.optim.schedule import OptimConfig, decay
from encdec_train.train.run import train
from encdec_train.types import Mismatch
from tests.runs import small


def test_weight_decay_follows_half_a_cosine():
    config = OptimConfig(weight_decay=0.04, weight_decay_end=0.4)
    found = [decay(config, step, 8) for step in range(9)]
    assert found == pytest.approx([0.4 + 0.5 * (0.04 - 0.4) * (1 + math.cos(math.pi * step / 8)) for step in range(9)])
    assert found[0] == 0.04 and found[8] == pytest.approx(0.4)
    assert decay(OptimConfig(weight_decay=0.04), 5, 8) == 0.04


@pytest.mark.parametrize(("first", "last"), [(0.0, 0.1), (0.1, -0.1)])
def test_what_is_no_decay_is_named(first, last):
    with pytest.raises(Mismatch, match="weight_decay_end"):
        OptimConfig(weight_decay=first, weight_decay_end=last)


def test_matrices_decay_and_vectors_do_not(tmp_path):
    train(small("mae_vit", tmp_path, "probe=null", "optim.weight_decay_end=0.4", steps=3))
    folder = sorted((tmp_path / "mae_vit" / "run" / "checkpoints").glob("00-*"))[-1]
    (state,) = torch.load(folder / "optim.pt", weights_only=True)
    groups = state["param_groups"]
    expected = decay(OptimConfig(weight_decay=0.05, weight_decay_end=0.4), 2, 3)
    assert [group["weight_decay"] for group in groups] == pytest.approx([expected, 0.0])
