"""Normalisation layers by name."""

import torch

from encdec_train.nn.norm import Norm, make_norm


def test_batch_norm_treats_every_token_of_a_batch_the_same():
    norm, x = make_norm(Norm.batch, 5, 1e-5), torch.randn(3, 7, 5) * 4 + 2
    flat = x.view(-1, 5)
    wanted = (flat - flat.mean(0)) / (flat.var(0, unbiased=False) + 1e-5).sqrt()
    assert torch.allclose(norm(x), wanted.view_as(x), atol=1e-5)
    moved = 0.1 * flat.mean(0)
    assert torch.allclose(norm.eval()(x), (x - moved) / (0.9 + 0.1 * flat.var(0) + 1e-5).sqrt(), atol=1e-5)
