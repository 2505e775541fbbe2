"""Normalisation layers, by name and of maps."""

import torch

from encdec_train.nn.norm import MapBatchNorm, Norm, make_norm


def test_batch_norm_treats_every_token_of_a_batch_the_same():
    norm, x = make_norm(Norm.batch, 5, 1e-5), torch.randn(3, 7, 5) * 4 + 2
    flat = x.view(-1, 5)
    wanted = (flat - flat.mean(0)) / (flat.var(0, unbiased=False) + 1e-5).sqrt()
    assert torch.allclose(norm(x), wanted.view_as(x), atol=1e-5)
    moved = 0.1 * flat.mean(0)
    assert torch.allclose(norm.eval()(x), (x - moved) / (0.9 + 0.1 * flat.var(0) + 1e-5).sqrt(), atol=1e-5)


def hollow_maps():
    torch.manual_seed(0)
    real = torch.rand(4, 1, 6, 5) > 0.5
    return torch.randn(4, 3, 6, 5) * 2 + 1, real


def test_map_norm_equals_one_over_the_gathered_real_cells():
    """torch's own norm over the real cells side by side: outputs, gradients, running moments, and later evaluation."""
    x, real = hollow_maps()
    ours, theirs = MapBatchNorm(3), torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.tensor([0.5, 1.5, 2.0]))
            norm.bias.copy_(torch.tensor([0.1, -0.3, 0.2]))
    where = real[:, 0]
    for training in (True, True, False):
        ours.train(training), theirs.train(training)
        mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        found = ours(mine, real)
        wanted = theirs(other.permute(0, 2, 3, 1)[where])
        torch.testing.assert_close(found.permute(0, 2, 3, 1)[where], wanted)
        assert (found.permute(0, 2, 3, 1)[~where] == 0).all()
        found.sin().sum().backward()
        wanted.sin().sum().backward()
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_map_norm_of_whole_maps_is_torchs():
    x, _ = hollow_maps()
    ours, theirs = MapBatchNorm(3), torch.nn.BatchNorm2d(3)
    assert torch.equal(ours(x), theirs(x))
    torch.testing.assert_close(ours(x, torch.ones(4, 1, 6, 5, dtype=torch.bool)), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
