"""The small PointNet: groups as sets, positions again and again."""

import pytest
import torch
import torch.nn.functional as F

from encdec_train.embedders.pointnet import Pointnet, PointnetConfig
from encdec_train.types import Mismatch, Plan, Sites, Spec, Units

VIEW = Spec(kind="values", width=12, length=6, coords=3)
CONFIG = PointnetConfig(width=10, hidden=[5, 7, 9], position_hidden=4)


def units(rows=3):
    place = torch.arange(6).expand(rows, 6)
    return Units(
        values=torch.randn(rows, 6, 12), sites=Sites(sample=place, place=place, coords=torch.randn(rows, 6, 3))
    )


def by_convolutions(part, points):
    """(M,G,3) -> (M,D), as the authors write it: convolutions of kernel one over the points of a group."""

    def layers(x, found):
        x = F.conv1d(x, found.up.weight[..., None], found.up.bias)
        norm = found.norm
        x = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
        return F.conv1d(x.relu(), found.down.weight[..., None], found.down.bias)

    x = layers(points.transpose(1, 2), part.point)
    whole = x.max(2, keepdim=True).values.expand_as(x)
    return layers(torch.cat([whole, x], 1), part.group).max(2).values


def test_features_are_those_of_convolutions_over_the_kept_groups():
    part, batch = Pointnet(CONFIG, VIEW, mask=False), units()
    wanted = by_convolutions(part, batch.values.view(18, 4, 3)).view(3, 6, 10)
    assert torch.allclose(part.features(batch, batch.sites, None), wanted, atol=1e-5)
    keep = torch.tensor([[4, 0], [1, 2], [5, 3]])
    kept = torch.stack([batch.values[i, k] for i, k in enumerate(keep)])
    wanted = by_convolutions(part, kept.view(6, 4, 3)).view(3, 2, 10)
    assert torch.allclose(part.features(batch, batch.sites, keep), wanted, atol=1e-5)


def test_the_order_of_points_in_a_group_means_nothing():
    part, batch = Pointnet(CONFIG, VIEW, mask=False).eval(), units()
    shuffled = batch.values.view(3, 6, 4, 3)[:, :, torch.randperm(4)].flatten(2)
    other = Units(values=shuffled, sites=batch.sites)
    assert torch.allclose(part.features(batch, batch.sites, None), part.features(other, batch.sites, None), atol=1e-6)


def test_positions_are_added_and_handed_on():
    part, batch = Pointnet(CONFIG, VIEW, mask=True), units()
    features, keep = torch.randn(3, 2, 10), torch.tensor([[4, 0], [1, 2], [5, 3]])
    tokens = part.place(features, Plan(inputs=batch, sites=batch.sites, keep=keep))
    position = part.position(batch.sites.take(keep).coords)
    assert torch.equal(tokens.position, position) and torch.equal(tokens.x, features + position)


@pytest.mark.parametrize(
    ("config", "view"),
    [
        (CONFIG, Spec(kind="values", width=12)),
        (CONFIG, Spec(kind="values", width=11, coords=3)),
        (CONFIG, Spec(kind="ids", width=12, coords=3)),
        (PointnetConfig(hidden=[4, 4]), VIEW),
    ],
)
def test_refuses_what_cannot_be(config, view):
    with pytest.raises(Mismatch, match="pointnet"):
        config.spec(view)
