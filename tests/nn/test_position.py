"""Positions from coordinates."""

import torch
import torch.nn.functional as F

from encdec_train.nn.position import PointPosition


def test_a_point_position_is_two_layers():
    part, coords = PointPosition(3, 8, 6), torch.randn(2, 5, 3)
    wanted = F.gelu(coords @ part.up.weight.T + part.up.bias) @ part.down.weight.T + part.down.bias
    assert torch.allclose(part(coords), wanted, atol=1e-6)
