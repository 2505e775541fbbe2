"""The balancer against equation 5 of Défossez et al. 2022, arXiv:2210.13438."""

import pytest
import torch
from torch import nn

from encdec_train.build import check, make_transform, total_loss
from encdec_train.launch import compose
from encdec_train.objectives.balanced import Balanced, BalancedConfig
from encdec_train.types import Mismatch, Path, Sites, Term, Units

ROWS, SITES = 3, 4


class Game:
    """A step with one prediction and two losses of it."""

    def __init__(self, weight, scales=(1.0, 100.0)):
        self.x = torch.arange(12.0).view(12, 1) * weight
        self.scales = scales

    def part(self, noun, name):
        if name == "main":
            return Main(self)
        return lambda step: {name: Term(self.scales[1] * self.x.square().sum(), torch.tensor(12.0))}

    def units(self, view):
        return Units(values=self.x, sites=Sites(sample=torch.zeros(ROWS, SITES), place=torch.zeros(ROWS, SITES)))


class Main:
    path = Path()

    def __init__(self, game):
        self.game = game

    def predict(self, step):
        return self.game.x, None, None

    def __call__(self, step):
        return {"main": Term(self.game.scales[0] * self.game.x.abs().sum(), torch.tensor(12.0))}


def made(decay=0.9, **shares):
    config = BalancedConfig(shares=shares, objectives=["main", "other"], decay=decay, length=2.0)
    return Balanced(config, "balanced", {})


def gradient(balanced, game):
    return torch.autograd.grad(total_loss(balanced(game)), game.x)[0]


def test_the_gradient_is_the_sum_of_shares_of_a_fixed_length():
    game = Game(nn.Parameter(torch.tensor(1.0)))
    found = gradient(made(main=1.0, other=3.0), game)
    expected = torch.zeros(12, 1)
    for share, own in ((1 / 4, torch.sign(game.x) / 12), (3 / 4, 200 * game.x / 12)):
        length = own.view(ROWS, SITES).norm(dim=1).mean()
        expected += 2.0 * share * own / length
    torch.testing.assert_close(found, expected.detach())


def test_the_scale_of_a_loss_does_not_count():
    weight = nn.Parameter(torch.tensor(1.0))
    one = gradient(made(main=1.0, other=1.0), Game(weight, (1.0, 1.0)))
    torch.testing.assert_close(one, gradient(made(main=1.0, other=1.0), Game(weight, (50.0, 0.01))))


def test_lengths_are_moving_averages_without_a_bias_at_the_start():
    balanced, weight = made(decay=0.9, main=1.0, other=1.0), nn.Parameter(torch.tensor(1.0))
    lengths = []
    for scale in (1.0, 5.0, 2.0):
        balanced(Game(weight, (scale, 1.0)))
        lengths.append(scale * (torch.sign(torch.arange(12.0)) / 12).view(ROWS, SITES).norm(dim=1).mean())
    weights = torch.tensor([0.9**2, 0.9, 1.0])
    there = (torch.stack(lengths) * weights).sum() / weights.sum()
    torch.testing.assert_close(balanced.lengths[0] / balanced.seen, there)


def test_terms_keep_their_own_values_and_a_share_needs_a_term():
    game = Game(nn.Parameter(torch.tensor(1.0)))
    terms = made(main=1.0, other=1.0)(game)
    torch.testing.assert_close(terms["main"].mean, game.x.abs().mean())
    torch.testing.assert_close(terms["other"].mean, 100 * game.x.square().mean())
    with pytest.raises(ValueError, match="'other'"):
        made(main=1.0)(game)


def test_what_does_not_fit_is_named():
    config = compose(["+recipe=mae_vit"])
    config.objective["balanced"] = BalancedConfig(of="nothing", shares={"main": -1.0}, decay=1.0)
    with pytest.raises(Mismatch) as raised:
        check(config, make_transform(config).specs())
    said = str(raised.value)
    assert "there is no objective 'nothing'" in said and "must be above 0" in said and "decay 1.0" in said
