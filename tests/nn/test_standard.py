"""Standardising by all rows seen so far."""

import torch

from encdec_train.nn.standard import Standard


def test_the_moments_are_those_of_all_real_rows():
    part, seen = Standard(3), []
    for _ in range(4):
        x, real = 5 + 2 * torch.randn(2, 6, 3), torch.rand(2, 6) < 0.7
        part(x, real)
        seen.append(x[real])
    rows, given = torch.cat(seen).double(), torch.randn(2, 6, 3)
    there = (given - rows.mean(0)) / rows.std(0, unbiased=False)
    found = part.eval()(given, torch.ones(2, 6, dtype=torch.bool))
    torch.testing.assert_close(found, there.float(), atol=1e-5, rtol=1e-5)


def test_nothing_is_learned_in_eval_mode_or_without_gradient():
    part, x, real = Standard(3), torch.randn(2, 6, 3), torch.ones(2, 6, dtype=torch.bool)
    with torch.no_grad():
        assert torch.equal(part(x, real), x)
    assert torch.equal(part.eval()(x, real), x) and not part.moments.any()
